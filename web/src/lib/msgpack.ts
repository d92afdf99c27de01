// MessagePack as far as waSCC's messages need it (crates/wire): maps with text keys, texts, byte
// strings, lists, numbers, booleans. Reading believes no length that the bytes do not back.

/** A value of waSCC's messages. */
export type Packed = null | boolean | number | string | Uint8Array | Packed[] | { [key: string]: Packed };

/** Bytes that are no such message. */
export class PackError extends Error {
  override readonly name = 'PackError';
}

// The deepest message of the contract has three levels; the rest is room for newer peers.
const MAX_DEPTH = 16;
const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Writes one message. */
export function pack(message: Packed): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  write(message, parts);
  const packed = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    packed.set(part, at);
    at += part.length;
  }
  return packed;
}

function write(value: Packed, parts: Uint8Array[]): void {
  const head = (tag: number, number?: number) => {
    const bytes = new Uint8Array(number === undefined ? 1 : 5);
    bytes[0] = tag;
    if (number !== undefined) new DataView(bytes.buffer).setUint32(1, number);
    parts.push(bytes);
  };
  if (value === null) head(0xc0);
  else if (typeof value === 'boolean') head(value ? 0xc3 : 0xc2);
  else if (typeof value === 'number') {
    if (!Number.isInteger(value) || value < 0 || value > 0xffffffff) throw new PackError(`${value} is no u32`);
    head(0xce, value);
  } else if (typeof value === 'string') {
    const bytes = encoder.encode(value);
    head(0xdb, bytes.length);
    parts.push(bytes);
  } else if (value instanceof Uint8Array) {
    head(0xc6, value.length);
    parts.push(value);
  } else if (Array.isArray(value)) {
    head(0xdd, value.length);
    for (const entry of value) write(entry, parts);
  } else {
    const entries = Object.entries(value);
    head(0xdf, entries.length);
    for (const [key, entry] of entries) {
      write(key, parts);
      write(entry, parts);
    }
  }
}

/** Reads one message; `bytes` holds it and nothing else. Byte strings are views of `bytes`. */
export function unpack(bytes: Uint8Array): Packed {
  const reader = new Reader(bytes);
  const value = reader.value(0);
  if (!reader.done) throw new PackError('bytes follow the end of the message');
  return value;
}

class Reader {
  private readonly view: DataView;
  private at = 0;

  constructor(private readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get done(): boolean {
    return this.at === this.bytes.length;
  }

  value(depth: number): Packed {
    if (depth === MAX_DEPTH) throw new PackError('the message is nested too deeply');
    const tag = this.unsigned(1);
    if (tag < 0x80) return tag;
    if (tag < 0x90) return this.map(tag & 15, depth);
    if (tag < 0xa0) return this.list(tag & 15, depth);
    if (tag < 0xc0) return this.text(tag & 31);
    if (tag >= 0xe0) return tag - 0x100;
    switch (tag) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.take(this.unsigned(2 ** (tag - 0xc4)));
      case 0xca:
        return this.view.getFloat32(this.skip(4));
      case 0xcb:
        return this.view.getFloat64(this.skip(8));
      case 0xcc:
      case 0xcd:
      case 0xce:
        return this.unsigned(2 ** (tag - 0xcc));
      case 0xcf:
        return Number(this.view.getBigUint64(this.skip(8)));
      case 0xd0:
        return this.view.getInt8(this.skip(1));
      case 0xd1:
        return this.view.getInt16(this.skip(2));
      case 0xd2:
        return this.view.getInt32(this.skip(4));
      case 0xd3:
        return Number(this.view.getBigInt64(this.skip(8)));
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.text(this.unsigned(2 ** (tag - 0xd9)));
      case 0xdc:
      case 0xdd:
        return this.list(this.unsigned(2 ** (tag - 0xdb)), depth);
      case 0xde:
      case 0xdf:
        return this.map(this.unsigned(2 ** (tag - 0xdd)), depth);
      default:
        throw new PackError(`the message has a value of kind ${tag.toString(16)}, which nobody sends`);
    }
  }

  private list(count: number, depth: number): Packed[] {
    const values: Packed[] = [];
    for (let index = 0; index < count; index += 1) values.push(this.value(depth + 1));
    return values;
  }

  private map(count: number, depth: number): { [key: string]: Packed } {
    // Without a prototype: no key means anything.
    const values: { [key: string]: Packed } = Object.create(null) as { [key: string]: Packed };
    for (let index = 0; index < count; index += 1) {
      const key = this.value(depth + 1);
      if (typeof key !== 'string') throw new PackError('a key of the message is no text');
      values[key] = this.value(depth + 1);
    }
    return values;
  }

  private text(length: number): string {
    try {
      return decoder.decode(this.take(length));
    } catch {
      throw new PackError('a text of the message is not UTF-8, or cut short');
    }
  }

  private take(length: number): Uint8Array {
    const begin = this.skip(length);
    return this.bytes.subarray(begin, this.at);
  }

  private unsigned(width: number): number {
    const at = this.skip(width);
    if (width === 1) return this.view.getUint8(at);
    return width === 2 ? this.view.getUint16(at) : this.view.getUint32(at);
  }

  private skip(width: number): number {
    const begin = this.at;
    if (width > this.bytes.length - begin) throw new PackError('the message is cut short');
    this.at += width;
    return begin;
  }
}
