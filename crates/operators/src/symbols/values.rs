//! The C symbols of what works on rows and on single values: dense layers, products, attention.

use super::{answer, present};
use crate::activation::{self, Activation};
use crate::geometry::{self, Dense, extent};
use crate::matmul::{self, MatMul};
use crate::rows::{self, LayerNorm};
use crate::{dense, transpose};

/// Dense layer: `y = activate(x * w + bias)`.
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
    activation: i32,
    lo: f32,
    hi: f32,
) -> i32 {
    let run = || {
        present(x)?;
        present(w_packed)?;
        present(bias)?;
        present(y)?;
        let dense = Dense::new(m, k, n, Activation::new(activation, lo, hi)?)?;
        // SAFETY: the caller promised these buffers with the extents of `dense`.
        unsafe { dense::dense(&dense, x, w_packed, bias, y) };
        Ok(())
    };
    answer(run())
}

/// Activation of each value: `y[i] = activate(x[i])`.
///
/// `x` and `y` are `[len]`; `y` may be `x`.
///
/// # Safety
/// As [the crate](crate) says, with the extents above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphlet_activation_f32(
    x: *const f32,
    y: *mut f32,
    len: i32,
    activation: i32,
    lo: f32,
    hi: f32,
) -> i32 {
    let run = || {
        present(x)?;
        present(y)?;
        let len = geometry::floats(&[extent(len)?])?;
        let activation = Activation::new(activation, lo, hi)?;
        // SAFETY: the caller promised `len` values at both.
        unsafe { activation::apply(&activation, x, y, len) };
        Ok(())
    };
    answer(run())
}

/// Softmax over the last axis: `exp(x - max) / sum(exp(x - max))` of each row.
///
/// `x` and `y` are `[rows][n]`. A row with NaN or positive infinity, or of nothing but negative
/// infinity, becomes NaN.
///
/// # Safety
/// As [the crate](crate) says, with the extents above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphlet_softmax_f32(
    x: *const f32,
    y: *mut f32,
    rows: i32,
    n: i32,
) -> i32 {
    let run = || {
        present(x)?;
        present(y)?;
        let (rows, count) = (extent(rows)?, extent(n)?);
        geometry::floats(&[rows, count])?;
        // SAFETY: the caller promised so many values at both.
        unsafe { rows::softmax(x, y, rows, count) };
        Ok(())
    };
    answer(run())
}

/// Layer normalisation over the last axis:
/// `y = (x - mean) / sqrt(variance + epsilon) * scale [+ bias]`, with each row's own mean and
/// variance (of the whole row, not of a sample).
///
/// `x` and `y` are `[rows][n]`, `scale` and `bias` (null when there is none) `[n]`.
///
/// # Safety
/// As [the crate](crate) says, with the extents above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphlet_layer_norm_f32(
    x: *const f32,
    scale: *const f32,
    bias: *const f32,
    y: *mut f32,
    rows: i32,
    n: i32,
    epsilon: f32,
) -> i32 {
    let run = || {
        present(x)?;
        present(scale)?;
        present(y)?;
        let (rows, count) = (extent(rows)?, extent(n)?);
        geometry::floats(&[rows, count])?;
        // SAFETY: the caller promised these buffers with these extents.
        unsafe { rows::layer_norm(&LayerNorm { x, scale, bias, y, rows, count, epsilon }) };
        Ok(())
    };
    answer(run())
}

/// Matrix products of two operands known only at run time: `y = alpha * a * b`, `batch` times.
///
/// `a` is `[batch][m][k]`, `y` `[batch][m][n]`. Right operands are `[k][n]`, or `[n][k]` when
/// `transpose_b` is not 0, and lie `b_stride_batch` values apart: at least `k * n`, or 0 when
/// one serves the whole batch.
///
/// # Safety
/// As [the crate](crate) says, with the extents above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphlet_matmul_f32(
    a: *const f32,
    b: *const f32,
    y: *mut f32,
    batch: i32,
    m: i32,
    k: i32,
    n: i32,
    b_stride_batch: i32,
    transpose_b: i32,
    alpha: f32,
) -> i32 {
    let run = || {
        present(a)?;
        present(b)?;
        present(y)?;
        let product = MatMul::new([batch, m, k, n], b_stride_batch, transpose_b, alpha)?;
        // SAFETY: the caller promised these buffers with the extents of `product`.
        unsafe { matmul::matmul(&product, a, b, y) }
    };
    answer(run())
}

/// Exchange of two axes: `x` is `[d0][d1][d2][d3]`, `y` `[d0][d2][d1][d3]`.
///
/// With `d3` 1 these are `d0` transposed matrices; otherwise runs of `d3` values move, as when
/// attention takes its heads apart, `[b][s][h][d]` to `[b][h][s][d]`.
///
/// # Safety
/// As [the crate](crate) says, with the extents above.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graphlet_transpose_f32(
    x: *const f32,
    y: *mut f32,
    d0: i32,
    d1: i32,
    d2: i32,
    d3: i32,
) -> i32 {
    let run = || {
        present(x)?;
        present(y)?;
        let extents = [extent(d0)?, extent(d1)?, extent(d2)?, extent(d3)?];
        geometry::floats(&extents)?;
        // SAFETY: the caller promised so many values at both.
        unsafe { transpose::transpose(x, y, extents) };
        Ok(())
    };
    answer(run())
}
