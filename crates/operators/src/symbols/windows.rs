//! The C symbols of what slides a window over a map: convolutions and pools.

use super::{answer, present};
use crate::activation::Activation;
use crate::conv::{self, ConvBuffers};
use crate::geometry::{self, Axis, Conv2d, Pool2d, extent};
use crate::{depthwise, pool, winograd};

/// Convolution: `y = activate(conv(x, w) + bias [+ residual])`.
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
    activation: i32,
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
        let conv =
            Conv2d::new(n, ic, oc, groups, rows, columns, Activation::new(activation, lo, hi)?)?;
        let buffers = ConvBuffers { x, weights: w_packed, bias, residual, y };
        // SAFETY: the caller promised these buffers with the extents of `conv`.
        unsafe { conv::conv2d(&conv, buffers) }
    };
    answer(run())
}

/// Convolution with a 3x3 window at stride 1, by Winograd's F(4x4, 3x3):
/// `y = activate(conv(x, w) + bias [+ residual])`.
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
    activation: i32,
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
        let conv = Conv2d::new(n, ic, oc, 1, rows, columns, Activation::new(activation, lo, hi)?)?;
        let buffers = ConvBuffers { x, weights: w_points, bias, residual, y };
        // SAFETY: the caller promised these buffers with the extents of `conv`.
        unsafe { winograd::conv2d(&conv, buffers) }
    };
    answer(run())
}

/// Depthwise convolution with one filter a channel:
/// `y = activate(conv(x, w) + bias [+ residual])`.
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
    activation: i32,
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
        let conv = Conv2d::new(n, c, c, c, rows, columns, Activation::new(activation, lo, hi)?)?;
        let buffers = ConvBuffers { x, weights: w, bias, residual, y };
        // SAFETY: the caller promised these buffers with the extents of `conv`.
        unsafe { depthwise::depthwise(&conv, buffers) }
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

/// Mean over windows.
///
/// `x` is `[n][c][ih][iw]`, `y` `[n][c][oh][ow]`; padding as in [`graphlet_conv2d_f32`]. With
/// `count_include_pad` other than 0 each sum is divided by `kh * kw`, else by the number of input
/// values in the window; a window without any then gives NaN.
///
/// # Safety
/// As [the crate](crate) says, with the extents above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphlet_avg_pool2d_f32(
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
    count_include_pad: i32,
) -> i32 {
    let run = || {
        present(x)?;
        present(y)?;
        let rows = Axis::new(ih, oh, kh, sh, 1, pt)?;
        let columns = Axis::new(iw, ow, kw, sw, 1, pl)?;
        let pool = Pool2d::new(n, c, rows, columns)?;
        // SAFETY: the caller promised these buffers with the extents of `pool`.
        unsafe { pool::avg_pool2d(&pool, count_include_pad != 0, x, y) }
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
