//! Hand-written SIMD kernels that compiled graphs call.
