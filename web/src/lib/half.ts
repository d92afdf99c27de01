// Half precision, for which JavaScript has no arrays everywhere: IEEE 754 binary16 and bfloat16 as
// their 16 bits, rounded to nearest, ties to even.

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** The binary16 nearest to a number. */
export function toFloat16(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  // Halfway to 65,536, which would be the next, is infinite.
  if (size >= 65_520) return sign | 0x7c00;
  // The distance of neighbours: 2^-24 below 2^-14, then 2^-10 of the power of two below.
  const exponent = Math.max(Math.floor(Math.log2(size)), -14);
  // log2 may round up to the next power.
  const power = size < 2 ** exponent && exponent > -14 ? exponent - 1 : exponent;
  const steps = even(size / 2 ** (power - 10));
  // 1,024 steps are the implicit bit, which adds one to the exponent's field.
  return sign | (((power + 14) << 10) + steps);
}

/** The number that a binary16 stands for. */
export function fromFloat16(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const [exponent, steps] = [(half >> 10) & 31, half & 0x3ff];
  if (exponent === 31) return steps === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return exponent === 0 ? sign * steps * 2 ** -24 : sign * (1024 + steps) * 2 ** (exponent - 25);
}

/** The bfloat16 nearest to a number; rounded from float32, as ONNX casts. */
export function toBfloat16(value: number): number {
  if (Number.isNaN(value)) return 0x7fc0;
  float[0] = value;
  const word = bits[0] ?? 0;
  return ((word + 0x7fff + ((word >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The number that a bfloat16 stands for. */
export function fromBfloat16(half: number): number {
  bits[0] = half << 16;
  return float[0] ?? 0;
}

/** The nearest integer, ties to even. */
function even(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}
