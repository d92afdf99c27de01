// Tensors as JSON, as `wasm-frontend` reads and writes them (crates/wasm-frontend/src/json.rs):
// `[{"input-data": [1, 2, 3, 4], "dim-size": 2, "shape": [2, 2]}, …]`. Numbers are taken as they are
// or refused. The strings "NaN", "Infinity" and "-Infinity" stand for what JSON has no number for.

import { GraphletError, sentence } from './errors.ts';
import { fromBfloat16, fromFloat16, toBfloat16, toFloat16 } from './half.ts';
import { type Json, JsonNumber, parseJson } from './json.ts';
import { type DType, elementBytes, elementCount, isShape, showShape, type Tensor, tensorOf } from './tensor.ts';

/** The types of the operator library, as its users know them. */
export const DATA_TYPES = { FP32: 'float32', INT32: 'int32', INT8: 'int8' } as const;
export type DataType = keyof typeof DATA_TYPES;

/** Tensors as they were given. */
export interface Input {
  readonly tensors: readonly Tensor[];
  /** The axis that one of them names, for Argmax. */
  readonly axis: bigint | undefined;
}

const SPECIAL = new Map([['NaN', Number.NaN], ['Infinity', Number.POSITIVE_INFINITY], ['-Infinity', Number.NEGATIVE_INFINITY]]);
const KEYS = ['input-data', 'dim-size', 'shape', 'axis'];

/**
 * Reads a list of tensors. `dtypes` are their types, one for all or one each; `called` is how a
 * type is named in an error.
 */
export function readTensors(text: string, dtypes: DType | readonly DType[], called?: string): Input {
  const list = attempt(() => {
    const value = parseJson(text);
    if (!Array.isArray(value)) throw new Error('it is not in brackets `[…]`');
    return value.map(readFields);
  });
  let axis: bigint | undefined;
  const tensors = list.map((given, at) => {
    const { data, dimSize, shape } = given;
    const index = at + 1;
    if (dimSize !== shape.length) {
      throw bad(`tensor ${index}: dim-size is ${dimSize}, but shape has ${shape.length} extents`);
    }
    if (!isShape(shape)) throw bad(`tensor ${index}: ${showShape(shape)} is no shape`);
    if (elementCount(shape) !== data.length) {
      throw bad(`tensor ${index}: ${data.length} numbers do not make the shape ${showShape(shape)}`);
    }
    axis ??= given.axis;
    const dtype = typeof dtypes === 'string' ? dtypes : (dtypes[at] ?? 'float32');
    return fill(dtype, shape, data, (value) => bad(`tensor ${index}: \`${show(value)}\` is no ${called ?? dtype}`));
  });
  return { tensors, axis };
}

/** The operands of an operator: the tensors, and behind them the axis if there is one. */
export function operands({ tensors, axis }: Input): Tensor[] {
  return axis === undefined ? [...tensors] : [...tensors, { dtype: 'int64', shape: [], data: BigInt64Array.of(axis) }];
}

/** Writes a tensor in the form of the input, so that a result can be an input. */
export function writeTensor(tensor: Tensor): string {
  const { dtype, shape, data } = tensor;
  const values = Array.from(data as ArrayLike<number | bigint>, (value) => number(dtype, value));
  return `{"input-data": [${values.join(', ')}], "dim-size": ${shape.length}, "shape": ${showShape(shape)}}`;
}

interface Given {
  data: Json[];
  dimSize: number;
  shape: number[];
  axis: bigint | undefined;
}

function readFields(value: Json, at: number): Given {
  const wrong = (why: string) => new Error(`tensor ${at + 1} ${why}`);
  if (!(value instanceof Map)) throw wrong('is not in braces `{…}`');
  const other = [...value.keys()].find((key) => !KEYS.includes(key));
  if (other !== undefined) throw wrong(`has a key \`${other}\`, which means nothing; known are \`${KEYS.join('`, `')}\``);
  const [data, dimSize, shape, axis] = KEYS.map((key) => value.get(key));
  const missing = KEYS.slice(0, 3).find((key) => !value.has(key));
  if (missing !== undefined) throw wrong(`lacks \`${missing}\``);
  if (!Array.isArray(data)) throw wrong('has an `input-data` that is no list');
  if (!Array.isArray(shape)) throw wrong('has a `shape` that is no list');
  const size = (entry: Json | undefined, what: string) => {
    const found = entry instanceof JsonNumber ? entry.integer : undefined;
    if (found === undefined || found < 0n || found > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw wrong(`has ${what} that is no size: ${show(entry ?? null)}`);
    }
    return Number(found);
  };
  const along = axis instanceof JsonNumber ? axis.integer : undefined;
  if (axis !== undefined && axis !== null && (along === undefined || BigInt.asIntN(64, along) !== along)) {
    throw wrong('has an `axis` that is no integer');
  }
  return { data, dimSize: size(dimSize, 'a `dim-size`'), shape: shape.map((extent) => size(extent, 'an extent')), axis: along };
}

function fill(dtype: DType, shape: number[], values: readonly Json[], refused: (value: Json) => GraphletError): Tensor {
  const made = tensorOf(dtype, shape, new Uint8Array(values.length * elementBytes(dtype)));
  const data = made.data as { [index: number]: number | bigint };
  const read = READERS[dtype];
  for (const [index, value] of values.entries()) {
    const found = read(value);
    if (found === undefined) throw refused(value);
    data[index] = found;
  }
  return made;
}

type Reader = (value: Json) => number | bigint | undefined;

function integer(least: bigint, most: bigint): (value: Json) => bigint | undefined {
  return (value) => {
    const found = value instanceof JsonNumber ? value.integer : undefined;
    return found !== undefined && found >= least && found <= most ? found : undefined;
  };
}

function small(least: number, most: number): Reader {
  const read = integer(BigInt(least), BigInt(most));
  return (value) => {
    const found = read(value);
    return found === undefined ? undefined : Number(found);
  };
}

/** A float: what the type cannot hold would become infinite. */
function float(round: (value: number) => number, finite: (rounded: number) => boolean = Number.isFinite): Reader {
  return (value) => {
    if (typeof value === 'string') {
      const special = SPECIAL.get(value);
      return special === undefined ? undefined : round(special);
    }
    if (!(value instanceof JsonNumber)) return undefined;
    const rounded = round(value.value);
    return finite(rounded) ? rounded : undefined;
  };
}

const READERS: Readonly<Record<DType, Reader>> = {
  float16: float(toFloat16, (bits) => Number.isFinite(fromFloat16(bits))),
  bfloat16: float(toBfloat16, (bits) => Number.isFinite(fromBfloat16(bits))),
  float32: float(Math.fround),
  float64: float((value) => value),
  int8: small(-128, 127),
  int16: small(-(2 ** 15), 2 ** 15 - 1),
  int32: small(-(2 ** 31), 2 ** 31 - 1),
  int64: integer(-(2n ** 63n), 2n ** 63n - 1n),
  uint8: small(0, 255),
  uint16: small(0, 2 ** 16 - 1),
  uint32: small(0, 2 ** 32 - 1),
  uint64: integer(0n, 2n ** 64n - 1n),
  bool: (value) => (typeof value === 'boolean' ? Number(value) : undefined),
};

function number(dtype: DType, value: number | bigint): string {
  if (typeof value === 'bigint') return value.toString();
  switch (dtype) {
    case 'bool':
      return value === 0 ? 'false' : 'true';
    case 'float16':
      return decimal(fromFloat16(value), (text) => toFloat16(Number(text)) === value);
    case 'bfloat16':
      return decimal(fromBfloat16(value), (text) => toBfloat16(Number(text)) === value);
    case 'float32':
      return decimal(value, (text) => Object.is(Math.fround(Number(text)), value));
    case 'float64':
      return decimal(value, () => false);
    default:
      return value.toString();
  }
}

/** The shortest text that `same` takes for the value. */
function decimal(value: number, same: (text: string) => boolean): string {
  if (!Number.isFinite(value)) return JSON.stringify(String(value));
  if (Object.is(value, -0)) return '-0.0';
  for (let digits = 1; digits <= 9; digits += 1) {
    const text = Number(value.toPrecision(digits)).toString();
    if (same(text)) return text;
  }
  return value.toString();
}

function show(value: Json): string {
  if (value instanceof JsonNumber) return value.text.slice(0, 40);
  if (value instanceof Map) return '{…}';
  return Array.isArray(value) ? '[…]' : JSON.stringify(value).slice(0, 40);
}

function bad(message: string): GraphletError {
  return new GraphletError('bad_tensor', message);
}

function attempt<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new GraphletError('bad_json', `the input is not a list of tensors: ${sentence(error)}`, { cause: error });
  }
}

