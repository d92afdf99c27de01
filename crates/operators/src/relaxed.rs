//! Vectors with the relaxed multiply-add: one instruction and one rounding on CPUs that fuse.

use core::arch::wasm32::f32x4_relaxed_madd;

wasm_vector!(|a, b, c| f32x4_relaxed_madd(a, b, c));
