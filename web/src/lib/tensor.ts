// Tensors as hosts hold them: element type, extents, row-major data; and the descriptor by which
// they cross the border of a module (docs/wasm-graph.md, crates/tensor/src/descriptor.rs).

import { GraphletError } from './errors.ts';

/** Element types with DLPack's type code, their bits, and the array that holds them here. */
const DTYPES = {
  float16: [2, 16, Uint16Array],
  bfloat16: [4, 16, Uint16Array],
  float32: [2, 32, Float32Array],
  float64: [2, 64, Float64Array],
  int8: [0, 8, Int8Array],
  int16: [0, 16, Int16Array],
  int32: [0, 32, Int32Array],
  int64: [0, 64, BigInt64Array],
  uint8: [1, 8, Uint8Array],
  uint16: [1, 16, Uint16Array],
  uint32: [1, 32, Uint32Array],
  uint64: [1, 64, BigUint64Array],
  bool: [6, 8, Uint8Array],
} as const;

/** An element type, as descriptions of graphs spell it. */
export type DType = keyof typeof DTYPES;
/** The array that holds elements of a type; half precision is held as its 16 bits. */
export type DataOf<D extends DType> = {
  float16: Uint16Array;
  bfloat16: Uint16Array;
  float32: Float32Array;
  float64: Float64Array;
  int8: Int8Array;
  int16: Int16Array;
  int32: Int32Array;
  int64: BigInt64Array;
  uint8: Uint8Array;
  uint16: Uint16Array;
  uint32: Uint32Array;
  uint64: BigUint64Array;
  bool: Uint8Array;
}[D];
/** Any of them. */
export type Data = DataOf<DType>;

/** A tensor on the host's side. */
export interface Tensor<D extends DType = DType> {
  readonly dtype: D;
  /** Extents, outermost first. */
  readonly shape: readonly number[];
  /** Row-major, compact. */
  readonly data: DataOf<D>;
}

/** A tensor in a module's memory. */
export interface TensorPlace {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** A multiple of {@link ALIGNMENT}. */
  readonly address: number;
}

/** Data starts at multiples of this. */
export const ALIGNMENT = 64;
/** More dimensions than any tensor has. */
export const MAX_RANK = 64;
const MAGIC = [0x47, 0x4c, 0x54, 0x44]; // GLTD
const VERSION = 1;
const HEADER_BYTES = 8;
const ENTRY_BYTES = 16;

/** All element types. */
export const DTYPE_NAMES = Object.keys(DTYPES) as DType[];

/** Whether a text names an element type. */
export function isDType(name: unknown): name is DType {
  return typeof name === 'string' && Object.hasOwn(DTYPES, name);
}

/** Bytes of one element. */
export function elementBytes(dtype: DType): number {
  return DTYPES[dtype][1] / 8;
}

/** How many elements extents make. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((count, extent) => count * extent, 1);
}

/** Whether something is a list of extents of which a module's memory could hold a tensor. */
export function isShape(shape: unknown): shape is number[] {
  return (
    Array.isArray(shape) &&
    shape.length <= MAX_RANK &&
    shape.every((extent) => Number.isSafeInteger(extent) && extent >= 0) &&
    elementCount(shape) <= 2 ** 32
  );
}

/** How many bytes a tensor's data takes. */
export function byteCount(dtype: DType, shape: readonly number[]): number {
  return elementCount(shape) * elementBytes(dtype);
}

/** A tensor of `data`; throws `bad_tensor` unless the extents fit it. */
export function tensor<D extends DType>(dtype: D, shape: readonly number[], data: DataOf<D>): Tensor<D> {
  if (!isDType(dtype)) throw new GraphletError('bad_tensor', `there is no element type \`${String(dtype)}\``);
  const [, , array] = DTYPES[dtype];
  if (!(data instanceof array)) throw new GraphletError('bad_tensor', `${dtype} is held by a ${array.name}`);
  if (!isShape(shape)) throw new GraphletError('bad_tensor', `${showShape(shape)} is no shape`);
  if (elementCount(shape) !== data.length) {
    throw new GraphletError('bad_tensor', `${data.length} elements do not make the shape ${showShape(shape)}`);
  }
  return { dtype, shape: [...shape], data };
}

/** A shape as people write it: `[1, 3, 224, 224]`. */
export function showShape(shape: readonly unknown[]): string {
  return `[${shape.join(', ')}]`;
}

/** The data's bytes where they lie. */
export function bytesOf(data: Data): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** A tensor of bytes that a module has written. */
export function tensorOf(dtype: DType, shape: readonly number[], bytes: Uint8Array): Tensor {
  const own = bytes.slice();
  const [, , array] = DTYPES[dtype];
  return { dtype, shape: [...shape], data: new array(own.buffer) };
}

/** How many bytes the descriptor of tensors with these ranks takes. */
export function descriptorBytes(ranks: readonly number[]): number {
  return ranks.reduce((sum, rank) => sum + ENTRY_BYTES + 8 * rank, HEADER_BYTES);
}

/** Writes a descriptor. */
export function writeDescriptor(places: readonly TensorPlace[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(descriptorBytes(places.map((place) => place.shape.length)));
  const view = new DataView(bytes.buffer);
  bytes.set(MAGIC);
  view.setUint16(4, VERSION, true);
  view.setUint16(6, places.length, true);
  let at = HEADER_BYTES;
  for (const { dtype, shape, address } of places) {
    const [code, bits] = DTYPES[dtype];
    view.setUint8(at, code);
    view.setUint8(at + 1, bits);
    view.setUint16(at + 2, 1, true);
    view.setUint32(at + 4, shape.length, true);
    view.setUint32(at + 8, address, true);
    view.setUint32(at + 12, byteCount(dtype, shape), true);
    at += ENTRY_BYTES;
    for (const extent of shape) {
      view.setBigUint64(at, BigInt(extent), true);
      at += 8;
    }
  }
  return bytes;
}

/** Reads a descriptor; throws `bad_answer` for anything that the format does not allow. */
export function readDescriptor(bytes: Uint8Array): TensorPlace[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const wrong = (why: string) => new GraphletError('bad_answer', why);
  if (bytes.length < HEADER_BYTES || MAGIC.some((byte, at) => bytes[at] !== byte)) throw wrong('not a tensor descriptor');
  const version = view.getUint16(4, true);
  if (version !== VERSION) throw wrong(`tensor descriptor version ${version} is not ${VERSION}`);
  const count = view.getUint16(6, true);
  const places: TensorPlace[] = [];
  let at = HEADER_BYTES;
  for (let index = 0; index < count; index += 1) {
    const truncated = () => wrong(`the descriptor ends in tensor ${index} of ${count}`);
    if (bytes.length - at < ENTRY_BYTES) throw truncated();
    const [code, bits, lanes] = [view.getUint8(at), view.getUint8(at + 1), view.getUint16(at + 2, true)];
    const dtype = DTYPE_NAMES.find((name) => DTYPES[name][0] === code && DTYPES[name][1] === bits);
    if (dtype === undefined || lanes !== 1) throw wrong(`tensor ${index} has an unknown type: code ${code}, ${bits} bits, ${lanes} lanes`);
    const rank = view.getUint32(at + 4, true);
    if (rank > MAX_RANK) throw wrong(`tensor ${index} has ${rank} dimensions, more than ${MAX_RANK}`);
    const [address, length] = [view.getUint32(at + 8, true), view.getUint32(at + 12, true)];
    at += ENTRY_BYTES;
    if (bytes.length - at < 8 * rank) throw truncated();
    const shape: number[] = [];
    for (let axis = 0; axis < rank; axis += 1, at += 8) shape.push(Number(view.getBigInt64(at, true)));
    if (!isShape(shape)) throw wrong(`tensor ${index}: ${showShape(shape)} is no shape`);
    const expected = byteCount(dtype, shape);
    if (expected !== length) throw wrong(`tensor ${index} takes ${expected} bytes, not ${length}`);
    if (address % ALIGNMENT !== 0) throw wrong(`tensor ${index} lies at address ${address}, which is no multiple of ${ALIGNMENT}`);
    places.push({ dtype, shape, address });
  }
  if (at !== bytes.length) throw wrong(`${bytes.length - at} bytes follow the last tensor of the descriptor`);
  return places;
}
