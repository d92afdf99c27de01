//! Vectors without relaxed SIMD: multiply, then add, the same bits on every host.

wasm_vector!(|a, b, c| f32x4_add(f32x4_mul(a, b), c));
