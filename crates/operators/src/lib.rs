//! Hand-written SIMD kernels that compiled graphs call.
//!
//! A model's compiled functions hand their convolutions, dense layers and pools to the C
//! symbols of this crate; the two meet only at link, so a module keeps just the kernels it
//! uses. All tensors are `f32`, NCHW, contiguous, batch 1 or more. The arguments are validated
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
//! `f32`; the output overlaps no other buffer. Kernels touch nothing outside these buffers and
//! scratch. A null pointer where a buffer is needed is answered with -1.
//!
//! # Numbers
//! Sums run over (input channel, kernel row, kernel column) and start at the bias. NaN passes
//! through a clamp; a maximum skips it. Bounds of ±3.4028235e38 mean that there is no clamp,
//! so infinities pass as well.
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

mod conv;
mod dense;
mod depthwise;
mod gather;
pub mod geometry;
mod pool;
pub mod reference;
pub mod scratch;
mod tile;
mod vector;
mod winograd;

use conv::ConvBuffers;
use geometry::{Axis, Clamp, Conv2d, Dense, Pool2d, extent};

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

/// Turns a kernel's result into its C answer.
fn answer(result: Result<(), KernelError>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => error.code(),
    }
}

/// Refuses a missing buffer.
fn present<T>(pointer: *const T) -> Result<(), KernelError> {
    if pointer.is_null() { Err(KernelError::Geometry("a buffer is missing")) } else { Ok(()) }
}

/// Convolution: `y = clamp(conv(x, w) + bias [+ residual], lo, hi)`.
///
/// With `icg = ic / groups` and `ocg = oc / groups`:
/// - `x` is `[n][ic][ih][iw]`, `y` and `residual` (null when there is none) `[n][oc][oh][ow]`;
/// - `w_packed` is `[groups][ceil(ocg / 8)][icg * kh * kw][8]`, the tail lanes zero;
/// - `bias` is `[groups][ceil(ocg / 8) * 8]`.
///
/// Any kernel size, stride, dilation and group count. `pt` and `pl` are the padding above and
/// left; that below and right follows from `oh` and `ow`.
///
/// # Safety
/// As [the crate](crate) says, with the extents above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphlet_conv2d_f32(
    x: *const f32,
    w_packed: *const f32,
    bias: *const f32,
    residual: *const f32,
    y: *mut f32,
    n: i32,
    ic: i32,
    ih: i32,
    iw: i32,
    oc: i32,
    oh: i32,
    ow: i32,
    kh: i32,
    kw: i32,
    sh: i32,
    sw: i32,
    dh: i32,
    dw: i32,
    pt: i32,
    pl: i32,
    groups: i32,
    lo: f32,
    hi: f32,
) -> i32 {
    let run = || {
        present(x)?;
        present(w_packed)?;
        present(bias)?;
        present(y)?;
        let rows = Axis::new(ih, oh, kh, sh, dh, pt)?;
        let columns = Axis::new(iw, ow, kw, sw, dw, pl)?;
        let conv = Conv2d::new(n, ic, oc, groups, rows, columns, Clamp::new(lo, hi)?)?;
        let buffers = ConvBuffers { x, weights: w_packed, bias, residual, y };
        // SAFETY: the caller promised these buffers with the extents of `conv`.
        unsafe { conv::conv2d(&conv, buffers) }
    };
    answer(run())
}

/// Convolution with a 3x3 window at stride 1, by Winograd's F(4x4, 3x3):
/// `y = clamp(conv(x, w) + bias [+ residual], lo, hi)`.
///
/// Everything is as in [`graphlet_conv2d_f32`] without groups, but `w_points` is
/// `[36][ceil(oc / 8)][ic][8]`: each filter `g` as `G g G^T`, which `reference::winograd` spells
/// out. A quarter of the multiplications, about twice the rounding error.
///
/// # Safety
/// As [the crate](crate) says, with the extents above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphlet_conv2d_winograd_f32(
    x: *const f32,
    w_points: *const f32,
    bias: *const f32,
    residual: *const f32,
    y: *mut f32,
    n: i32,
    ic: i32,
    ih: i32,
    iw: i32,
    oc: i32,
    oh: i32,
    ow: i32,
    pt: i32,
    pl: i32,
    lo: f32,
    hi: f32,
) -> i32 {
    let run = || {
        present(x)?;
        present(w_points)?;
        present(bias)?;
        present(y)?;
        let rows = Axis::new(ih, oh, 3, 1, 1, pt)?;
        let columns = Axis::new(iw, ow, 3, 1, 1, pl)?;
        let conv = Conv2d::new(n, ic, oc, 1, rows, columns, Clamp::new(lo, hi)?)?;
        let buffers = ConvBuffers { x, weights: w_points, bias, residual, y };
        // SAFETY: the caller promised these buffers with the extents of `conv`.
        unsafe { winograd::conv2d(&conv, buffers) }
    };
    answer(run())
}

/// Depthwise convolution with one filter a channel:
/// `y = clamp(conv(x, w) + bias [+ residual], lo, hi)`.
///
/// `x` is `[n][c][ih][iw]`, `w` `[c][kh * kw]`, `bias` `[c]`, `y` and `residual` (null when
/// there is none) `[n][c][oh][ow]`. Any kernel size, stride and dilation; padding as in
/// [`graphlet_conv2d_f32`].
///
/// # Safety
/// As [the crate](crate) says, with the extents above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphlet_depthwise_conv2d_f32(
    x: *const f32,
    w: *const f32,
    bias: *const f32,
    residual: *const f32,
    y: *mut f32,
    n: i32,
    c: i32,
    ih: i32,
    iw: i32,
    oh: i32,
    ow: i32,
    kh: i32,
    kw: i32,
    sh: i32,
    sw: i32,
    dh: i32,
    dw: i32,
    pt: i32,
    pl: i32,
    lo: f32,
    hi: f32,
) -> i32 {
    let run = || {
        present(x)?;
        present(w)?;
        present(bias)?;
        present(y)?;
        let rows = Axis::new(ih, oh, kh, sh, dh, pt)?;
        let columns = Axis::new(iw, ow, kw, sw, dw, pl)?;
        let conv = Conv2d::new(n, c, c, c, rows, columns, Clamp::new(lo, hi)?)?;
        let buffers = ConvBuffers { x, weights: w, bias, residual, y };
        // SAFETY: the caller promised these buffers with the extents of `conv`.
        unsafe { depthwise::depthwise(&conv, buffers) }
    };
    answer(run())
}

/// Dense layer: `y = clamp(x * w + bias, lo, hi)`.
///
/// `x` is `[m][k]`, `w_packed` `[ceil(n / 32)][k][32]` and `bias` `[ceil(n / 32) * 32]`, the
/// tail lanes zero, `y` `[m][n]`.
///
/// # Safety
/// As [the crate](crate) says, with the extents above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphlet_dense_f32(
    x: *const f32,
    w_packed: *const f32,
    bias: *const f32,
    y: *mut f32,
    m: i32,
    k: i32,
    n: i32,
    lo: f32,
    hi: f32,
) -> i32 {
    let run = || {
        present(x)?;
        present(w_packed)?;
        present(bias)?;
        present(y)?;
        let dense = Dense::new(m, k, n, Clamp::new(lo, hi)?)?;
        // SAFETY: the caller promised these buffers with the extents of `dense`.
        unsafe { dense::dense(&dense, x, w_packed, bias, y) };
        Ok(())
    };
    answer(run())
}

/// Maximum over windows; what lies in the padding counts as negative infinity.
///
/// `x` is `[n][c][ih][iw]`, `y` `[n][c][oh][ow]`; padding as in [`graphlet_conv2d_f32`]. NaN
/// is skipped; a window with nothing else gives negative infinity.
///
/// # Safety
/// As [the crate](crate) says, with the extents above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphlet_max_pool2d_f32(
    x: *const f32,
    y: *mut f32,
    n: i32,
    c: i32,
    ih: i32,
    iw: i32,
    oh: i32,
    ow: i32,
    kh: i32,
    kw: i32,
    sh: i32,
    sw: i32,
    pt: i32,
    pl: i32,
) -> i32 {
    let run = || {
        present(x)?;
        present(y)?;
        let rows = Axis::new(ih, oh, kh, sh, 1, pt)?;
        let columns = Axis::new(iw, ow, kw, sw, 1, pl)?;
        let pool = Pool2d::new(n, c, rows, columns)?;
        // SAFETY: the caller promised these buffers with the extents of `pool`.
        unsafe { pool::max_pool2d(&pool, x, y) }
    };
    answer(run())
}

/// Mean of each plane: `x` is `[n][c][plane]`, `y` `[n][c]`.
///
/// # Safety
/// As [the crate](crate) says, with the extents above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphlet_global_avg_pool_f32(
    x: *const f32,
    y: *mut f32,
    n: i32,
    c: i32,
    plane: i32,
) -> i32 {
    let run = || {
        present(x)?;
        present(y)?;
        let planes = geometry::floats(&[extent(n)?, extent(c)?])?;
        let plane = extent(plane)?;
        geometry::floats(&[planes, plane])?;
        // SAFETY: the caller promised `planes * plane` values at `x` and `planes` at `y`.
        unsafe { pool::global_avg_pool(planes, plane, x, y) };
        Ok(())
    };
    answer(run())
}
