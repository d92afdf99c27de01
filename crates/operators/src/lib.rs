//! Hand-written SIMD kernels that compiled graphs call.
//!
//! A model's compiled functions hand their convolutions, dense layers and pools to the C
//! symbols of this crate; the two meet only at link, so a module keeps just the kernels it
//! uses. All tensors are contiguous, `f32`, and where there are channels NCHW, batch 1 or more;
//! the kernels of [`elements`] take integers too. The arguments are validated
//! into the structs of [`geometry`], the drivers arrange the input (padding, chunks, offset
//! tables) in the one buffer of [`scratch`], and the micro-kernels do the arithmetic on
//! vectors of four. Which vectors those are is chosen once, by module:
//!
//! | built for | vectors | multiply-add |
//! |---|---|---|
//! | wasm32 with `relaxed-simd` | `v128` | `f32x4.relaxed_madd`, one rounding where the CPU fuses |
//! | wasm32 with `simd128` | `v128` | `f32x4.mul`, `f32x4.add` |
//! | anything else | `[f32; 4]` | `*`, `+` |
//!
//! # Answers
//! Every kernel returns 0 when its output is written, -1 when the geometry cannot be (see
//! [`KernelError::Geometry`]), -2 when scratch could not be allocated. After a failure the
//! output holds nothing of meaning.
//!
//! # What every caller promises
//! Each pointer is null or leads to a buffer of at least the documented extent, aligned for
//! its type and initialised; the output overlaps no other buffer. Kernels touch nothing outside
//! these buffers and scratch. A null pointer where a buffer is needed is answered with -1.
//!
//! # Activations
//! Kernels that multiply end with one, `activation: i32, lo: f32, hi: f32`, after bias and
//! residual:
//!
//! | code | `activate(x)` |
//! |---|---|
//! | 0 | `x` between `lo` and `hi`; bounds of ±3.4028235e38 mean none, so infinities pass as well |
//! | 1 | sigmoid |
//! | 2 | SiLU, `x * sigmoid(x)` |
//! | 3 | hard sigmoid, `lo * x + hi` between 0 and 1 |
//! | 4 | hard swish, `x` times `x / 6 + 1 / 2` between 0 and 1 |
//! | 5 | GELU by the error function |
//! | 6 | GELU by the hyperbolic tangent |
//! | 7 | hyperbolic tangent |
//!
//! `lo` and `hi` mean nothing to the others. Any other code is bad geometry.
//!
//! # Numbers
//! Sums run over (input channel, kernel row, kernel column) and start at the bias. NaN passes
//! through an activation; a maximum pool skips it.
#![expect(unsafe_code, reason = "kernels read and write raw buffers that compiled graphs own")]

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[macro_use]
mod wasm_vector;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
#[path = "relaxed.rs"]
mod variant;
#[cfg(all(
    target_arch = "wasm32",
    target_feature = "simd128",
    not(target_feature = "relaxed-simd")
))]
#[path = "simd128.rs"]
mod variant;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
#[path = "scalar.rs"]
mod variant;

pub mod activation;
mod conv;
mod dense;
mod depthwise;
mod depthwise_in_place;
pub mod elements;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod fields;
mod gather;
pub mod geometry;
mod math;
pub mod matmul;
mod panels;
mod pool;
mod read_ahead;
pub mod reference;
mod rows;
pub mod scratch;
mod strip;
mod symbols;
mod taps;
mod tile;
mod transpose;
mod vector;
mod walk;
mod wide;
mod winograd;

pub use symbols::elements::{
    graphlet_add_f32, graphlet_add_i8, graphlet_add_i32, graphlet_argmax_f32, graphlet_argmax_i8,
    graphlet_argmax_i32, graphlet_equal_count_f32, graphlet_equal_count_i8,
    graphlet_equal_count_i32, graphlet_equal_f32, graphlet_equal_i8, graphlet_equal_i32,
    graphlet_mul_f32, graphlet_mul_i8, graphlet_mul_i32,
};
pub use symbols::values::{
    graphlet_activation_f32, graphlet_dense_f32, graphlet_layer_norm_f32, graphlet_matmul_f32,
    graphlet_softmax_f32, graphlet_transpose_f32,
};
pub use symbols::windows::{
    graphlet_avg_pool2d_f32, graphlet_conv2d_f32, graphlet_conv2d_winograd_f32,
    graphlet_depthwise_conv2d_f32, graphlet_global_avg_pool_f32, graphlet_max_pool2d_f32,
};

/// Why a kernel wrote no output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// An extent is out of range, a size overflows, the output does not fit the input, or a
    /// buffer is missing.
    #[error("bad geometry: {0}")]
    Geometry(&'static str),
    /// The allocator refused the working buffer.
    #[error("{bytes} bytes of scratch could not be allocated")]
    Scratch {
        /// How much the kernel asked for.
        bytes: usize,
    },
}

impl KernelError {
    /// The number that stands for this error across the C boundary.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Geometry(_) => -1,
            Self::Scratch { .. } => -2,
        }
    }
}
