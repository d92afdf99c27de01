// JSON read strictly: no object with a key twice, and numbers as they were written, so that a
// fraction is told from an integer and nothing is rounded unseen. JSON.parse does neither.

/** A value; objects are maps, so that no key (`__proto__`) means anything. */
export type Json = null | boolean | string | JsonNumber | Json[] | Map<string, Json>;

/** A number as it was written. */
export class JsonNumber {
  constructor(readonly text: string) {}

  /** The nearest 64-bit float. */
  get value(): number {
    return Number(this.text);
  }

  /** The number, when it was written as an integer: `1`, but not `1.0`, `1e3` or `-0`. */
  get integer(): bigint | undefined {
    return /^(?:0|-?[1-9]\d*)$/.test(this.text) ? BigInt(this.text) : undefined;
  }
}

/** Text that is not JSON; says where. */
export class JsonError extends Error {
  override readonly name = 'JsonError';
}

// As deep as serde_json goes.
const MAX_DEPTH = 128;
const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
// biome-ignore lint/suspicious/noControlCharactersInRegex: JSON forbids exactly these in strings.
const PLAIN = /[^"\\\u0000-\u001f]*/y;
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"', '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t',
};

/** Reads one JSON value and nothing behind it. Throws {@link JsonError}. */
export function parseJson(text: string): Json {
  const reader = new Reader(text);
  const value = reader.value(0);
  reader.end();
  return value;
}

class Reader {
  private at = 0;

  constructor(private readonly text: string) {}

  value(depth: number): Json {
    if (depth === MAX_DEPTH) throw this.error(`nested more than ${MAX_DEPTH} deep`);
    this.skip(SPACE);
    const next = this.text[this.at];
    switch (next) {
      case '{':
        return this.object(depth);
      case '[':
        return this.array(depth);
      case '"':
        return this.string();
      case 't':
        return this.word('true', true);
      case 'f':
        return this.word('false', false);
      case 'n':
        return this.word('null', null);
      case undefined:
        throw this.error('the text ends where a value should stand');
      default: {
        const begin = this.at;
        const digits = this.skip(NUMBER);
        if (digits === '') throw this.error('expected a value');
        const number = new JsonNumber(digits);
        if (!Number.isFinite(number.value)) {
          this.at = begin;
          throw this.error('number out of range');
        }
        return number;
      }
    }
  }

  end(): void {
    this.skip(SPACE);
    if (this.at < this.text.length) throw this.error('characters follow the value');
  }

  private object(depth: number): Json {
    const entries = new Map<string, Json>();
    this.at += 1;
    if (this.is('}')) return entries;
    do {
      this.skip(SPACE);
      const begin = this.at;
      if (this.text[begin] !== '"') throw this.error('expected a key in quotes');
      const key = this.string();
      if (entries.has(key)) {
        this.at = begin;
        throw this.error(`the key ${JSON.stringify(key)} occurs twice`);
      }
      if (!this.is(':')) throw this.error('expected `:`');
      entries.set(key, this.value(depth + 1));
    } while (this.is(','));
    if (!this.is('}')) throw this.error('expected `,` or `}`');
    return entries;
  }

  private array(depth: number): Json {
    const values: Json[] = [];
    this.at += 1;
    if (this.is(']')) return values;
    do values.push(this.value(depth + 1));
    while (this.is(','));
    if (!this.is(']')) throw this.error('expected `,` or `]`');
    return values;
  }

  private string(): string {
    this.at += 1;
    let found = '';
    for (;;) {
      found += this.skip(PLAIN);
      const next = this.text[this.at];
      if (next === '"') {
        this.at += 1;
        return found;
      }
      if (next !== '\\') {
        throw this.error(next === undefined ? 'a string does not end' : 'a control character in a string');
      }
      found += this.escape();
    }
  }

  private escape(): string {
    const letter = this.text[this.at + 1] ?? '';
    if (letter !== 'u') {
      const plain = ESCAPES[letter];
      if (plain === undefined) throw this.error('an unknown escape in a string');
      this.at += 2;
      return plain;
    }
    const unit = this.unit();
    if (unit < 0xd800 || unit > 0xdfff) return String.fromCharCode(unit);
    // A pair of surrogates, or half of one, which is no character.
    const second = unit < 0xdc00 && this.text.startsWith('\\u', this.at) ? this.unit() : 0;
    if (second < 0xdc00 || second > 0xdfff) throw this.error('half a surrogate pair in a string');
    return String.fromCharCode(unit, second);
  }

  private unit(): number {
    const digits = this.text.slice(this.at + 2, this.at + 6);
    if (!/^[\da-fA-F]{4}$/.test(digits)) throw this.error('an unknown escape in a string');
    this.at += 6;
    return Number.parseInt(digits, 16);
  }

  private word<T>(word: string, value: T): T {
    if (!this.text.startsWith(word, this.at)) throw this.error('expected a value');
    this.at += word.length;
    return value;
  }

  private is(character: string): boolean {
    this.skip(SPACE);
    const found = this.text[this.at] === character;
    if (found) this.at += 1;
    return found;
  }

  private skip(pattern: RegExp): string {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text)?.[0] ?? '';
    this.at += found.length;
    return found;
  }

  private error(what: string): JsonError {
    const before = this.text.slice(0, this.at).split('\n');
    const column = (before.at(-1)?.length ?? 0) + 1;
    return new JsonError(`${what} (line ${before.length}, column ${column})`);
  }
}
