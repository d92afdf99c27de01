// Where the tokens stand in a module: the strict scan of crates/claims (module.rs). Accepted are
// only core modules whose last sections are `wasmcloud_jwt`, or `jwt`, or both in that order, each
// once, at the top level, with headers of minimal length: a tool that looked for a section by its
// name, wherever it is, could be shown one token while another is checked.

import { GraphletError } from './errors.ts';

/** Bytes that no other thread can change under us. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** The largest module that is looked at. */
export const MAX_MODULE_BYTES = 256 << 20;

/** One section of a core module. */
export interface Section {
  /** The section's id; 0 is a custom section. */
  readonly id: number;
  /** Name of a custom section. */
  readonly name: string | undefined;
  /** Where the section begins, with its header. */
  readonly start: number;
  /** The contents; of a custom section what follows the name. */
  readonly data: Bytes;
  /** Whether size and name length are written in as few bytes as they need. */
  readonly minimal: boolean;
}

/** A token with the number of bytes of the module that its hash is about. */
export interface TokenSection {
  readonly name: TokenName;
  readonly data: Bytes;
  readonly hashed: number;
}

export type TokenName = 'jwt' | 'wasmcloud_jwt';

const HEADER = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
const LAST_SECTION_ID = 13;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The sections of a core module, in order. */
export function* sections(bytes: Bytes): Generator<Section> {
  if (bytes.length > MAX_MODULE_BYTES) {
    throw new GraphletError('module_too_large', `the module has ${bytes.length} bytes, more than ${MAX_MODULE_BYTES}`);
  }
  if (HEADER.some((byte, at) => bytes[at] !== byte)) {
    const component = HEADER.slice(0, 4).every((byte, at) => bytes[at] === byte) && bytes[6] === 1 && bytes[7] === 0;
    throw component
      ? new GraphletError('component', 'a WebAssembly component, not a core module')
      : new GraphletError('not_wasm', 'not a WebAssembly module: it does not begin with `\\0asm` version 1');
  }
  let at = HEADER.length;
  while (at < bytes.length) {
    const start = at;
    const wrong = (reason: string) => new GraphletError('malformed_section', `malformed section at byte ${start}: ${reason}`);
    const id = bytes[at] ?? 0;
    if (id > LAST_SECTION_ID) throw wrong('unknown section id');
    const size = leb(bytes, at + 1, bytes.length);
    if (!size) throw wrong('the size cannot be read');
    let begin = size.end;
    const end = begin + size.value;
    if (end > bytes.length) throw wrong('longer than the rest of the file');
    let name: string | undefined;
    let minimal = size.minimal;
    if (id === 0) {
      const length = leb(bytes, begin, end);
      if (!length) throw wrong('the length of the name cannot be read');
      begin = length.end + length.value;
      if (begin > end) throw wrong('the name is longer than its section');
      try {
        name = utf8.decode(bytes.subarray(length.end, begin));
      } catch {
        throw wrong('the name is not UTF-8');
      }
      minimal &&= length.minimal;
    }
    at = end;
    yield { id, name, start, data: bytes.subarray(begin, end), minimal };
  }
}

/** The contents of the first custom section with this name. */
export function customSection(bytes: Bytes, name: string): Bytes | undefined {
  for (const section of sections(bytes)) if (section.name === name) return section.data;
  return undefined;
}

/** No token, one, or two (`wasmcloud_jwt`, then `jwt`), at the end of the module. */
export function tokenSections(bytes: Bytes): TokenSection[] {
  const found: TokenSection[] = [];
  for (const section of sections(bytes)) {
    const misplaced = (name: string, offset: number) =>
      new GraphletError('token_misplaced', `section \`${name}\` at byte ${offset} is not in its place at the end of the module`);
    const name = section.name;
    if (name !== 'jwt' && name !== 'wasmcloud_jwt') {
      const [first] = found;
      if (first) throw misplaced(first.name, first.hashed);
      continue;
    }
    if (found.some((earlier) => earlier.name === name)) {
      throw new GraphletError('token_duplicated', `section \`${name}\` occurs a second time at byte ${section.start}`);
    }
    if (name === 'wasmcloud_jwt' && found.length > 0) throw misplaced(name, section.start);
    // A padded header would make a second file with the same tokens.
    if (!section.minimal) {
      throw new GraphletError(
        'malformed_section',
        `malformed section at byte ${section.start}: the header of a token section is padded`,
      );
    }
    found.push({ name, data: section.data, hashed: section.start });
  }
  return found;
}

/** An unsigned 32-bit LEB128 number that ends before `limit`. */
function leb(bytes: Bytes, at: number, limit: number): { value: number; end: number; minimal: boolean } | undefined {
  let value = 0;
  for (let index = 0; index < 5 && at + index < limit; index += 1) {
    const byte = bytes[at + index] ?? 0;
    // Only four bits of the fifth byte belong to 32.
    if (index === 4 && byte > 0x0f) return undefined;
    value += (byte & 0x7f) * 2 ** (7 * index);
    if (byte < 0x80) return { value, end: at + index + 1, minimal: index === 0 || byte !== 0 };
  }
  return undefined;
}
