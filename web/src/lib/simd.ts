// Which vector instructions this engine has, asked by compiling the smallest module that uses one.

import { GraphletError, sentence } from './errors.ts';
import type { VerifiedModule } from './verify.ts';

/** As `graphlet build --simd` spells them, the fastest first. */
export const SIMD_LEVELS = ['relaxed', 'simd128', 'none'] as const;
export type SimdLevel = (typeof SIMD_LEVELS)[number];

const MODULE = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
// A type `() -> v128`, a function of it, and its body.
const RETURNS_V128 = [...MODULE, 1, 5, 1, 0x60, 0, 1, 0x7b, 3, 2, 1, 0];

/** A module with one `i8x16.splat`. */
export const SIMD128_PROBE = Uint8Array.from([...RETURNS_V128, 10, 8, 1, 6, 0, 0x41, 1, 0xfd, 0x0f, 0x0b]);
/** A module with one `i8x16.relaxed_swizzle`. */
export const RELAXED_PROBE = Uint8Array.from([
  ...RETURNS_V128, 10, 15, 1, 13, 0, 0x41, 1, 0xfd, 0x0f, 0x41, 2, 0xfd, 0x0f, 0xfd, 0x80, 2, 0x0b,
]);

/** The best that this engine has. */
export function simdLevel(validate: (bytes: BufferSource) => boolean = WebAssembly.validate): SimdLevel {
  if (validate(RELAXED_PROBE)) return 'relaxed';
  return validate(SIMD128_PROBE) ? 'simd128' : 'none';
}

/** Of the variants of one module the fastest that an engine of this level runs. */
export function pickVariant<T extends { readonly simd: SimdLevel }>(
  variants: readonly T[],
  level: SimdLevel = simdLevel(),
): T | undefined {
  const runs = variants.filter((variant) => SIMD_LEVELS.indexOf(variant.simd) >= SIMD_LEVELS.indexOf(level));
  return runs.sort((a, b) => SIMD_LEVELS.indexOf(a.simd) - SIMD_LEVELS.indexOf(b.simd))[0];
}

/** Compiles a module; says what is missing when this engine cannot. */
export async function compile(module: VerifiedModule): Promise<WebAssembly.Module> {
  try {
    return await WebAssembly.compile(module.bytes);
  } catch (error) {
    const hints: Record<SimdLevel, string> = {
      relaxed: '',
      simd128: ' (this browser has no relaxed SIMD; build the module with `--simd simd128`)',
      none: ' (this browser has no 128-bit SIMD; build the module with `--simd none`)',
    };
    throw new GraphletError('cannot_compile', `the module cannot be compiled here${hints[simdLevel()]}: ${sentence(error)}`, {
      cause: error,
    });
  }
}
