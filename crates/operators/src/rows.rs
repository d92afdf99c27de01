//! Softmax and layer normalisation: each row of the last axis by itself.

use crate::activation::map;
use crate::math;
use crate::variant::F32x4;
use crate::vector::Vector;

/// Computes the softmax of each row, around the row's maximum.
///
/// # Safety
/// `x` and `y` hold `rows * count` values.
pub(crate) unsafe fn softmax(x: *const f32, y: *mut f32, rows: usize, count: usize) {
    for row in 0..rows {
        // A maximum that skips NaN will do: NaN reaches every value through the sum.
        // SAFETY: the caller's promise for this row.
        unsafe {
            let (x, y) = (x.add(row * count), y.add(row * count));
            let most = F32x4::splat(fold(x, count, f32::NEG_INFINITY, F32x4::larger));
            map(x, y, count, |x| math::exp_or_zero(x.sub(most)));
            let sum = fold(y, count, 0.0, F32x4::add);
            let share = F32x4::splat(1.0 / sum);
            map(y, y, count, |y| y.mul(share));
        }
    }
}

/// What [`layer_norm`] takes.
#[derive(Clone, Copy)]
pub(crate) struct LayerNorm {
    pub(crate) x: *const f32,
    pub(crate) scale: *const f32,
    /// Null when nothing is added.
    pub(crate) bias: *const f32,
    pub(crate) y: *mut f32,
    pub(crate) rows: usize,
    pub(crate) count: usize,
    pub(crate) epsilon: f32,
}

/// Brings each row to mean 0 and variance 1, then scales and shifts each of its places.
///
/// The variance is the mean square of the differences from the mean: the difference of two
/// squares would cancel.
///
/// # Safety
/// `x` and `y` hold `rows * count` values, `scale` and `bias` `count`.
pub(crate) unsafe fn layer_norm(norm: &LayerNorm) {
    let count = norm.count;
    for row in 0..norm.rows {
        // SAFETY: the caller's promise for this row.
        unsafe {
            let (x, y) = (norm.x.add(row * count), norm.y.add(row * count));
            let mean = F32x4::splat(fold(x, count, 0.0, F32x4::add) / count as f32);
            map(x, y, count, |x| x.sub(mean));
            let squares = sum_of_squares(y, count);
            let factor = 1.0 / (squares / count as f32 + norm.epsilon).sqrt();
            scale(norm, y, factor);
        }
    }
}

/// Multiplies a row by `factor` and each place's scale, and adds its bias.
///
/// # Safety
/// `y` holds a row.
#[inline(never)]
unsafe fn scale(norm: &LayerNorm, y: *mut f32, factor: f32) {
    let whole = norm.count / 4 * 4;
    let splat = F32x4::splat(factor);
    // SAFETY: vectors end at `whole`, single values at `count`.
    unsafe {
        let mut i = 0;
        while i < whole {
            let value = F32x4::load(y.add(i)).mul(splat);
            let scale = F32x4::load(norm.scale.add(i));
            let value = match norm.bias.is_null() {
                true => value.mul(scale),
                false => value.mul_add(scale, F32x4::load(norm.bias.add(i))),
            };
            value.store(y.add(i));
            i += 4;
        }
        while i < norm.count {
            let bias = if norm.bias.is_null() { 0.0 } else { *norm.bias.add(i) };
            *y.add(i) = *y.add(i) * factor * *norm.scale.add(i) + bias;
            i += 1;
        }
    }
}

/// Joins all values in sixteen interleaved parts, each beginning as `first`.
///
/// # Safety
/// `x` points to `count` values.
#[inline(always)]
pub(crate) unsafe fn fold(
    x: *const f32,
    count: usize,
    first: f32,
    join: impl Fn(F32x4, F32x4) -> F32x4,
) -> f32 {
    let mut parts = [F32x4::splat(first); 4];
    let mut i = 0;
    // SAFETY: vectors and single values end at `count`.
    unsafe {
        while i + 16 <= count {
            for (j, part) in parts.iter_mut().enumerate() {
                *part = join(*part, F32x4::load(x.add(i + 4 * j)));
            }
            i += 16;
        }
        while i + 4 <= count {
            parts[0] = join(parts[0], F32x4::load(x.add(i)));
            i += 4;
        }
        let [a, b, c, d] = parts;
        let mut lanes = [first; 4];
        join(join(a, b), join(c, d)).store(lanes.as_mut_ptr());
        let one = |a: f32, b: f32| join(F32x4::splat(a), F32x4::splat(b)).first();
        let mut total = one(one(lanes[0], lanes[1]), one(lanes[2], lanes[3]));
        while i < count {
            total = one(total, *x.add(i));
            i += 1;
        }
        total
    }
}

/// Sum of the squares of `count` values.
///
/// # Safety
/// `x` points to them.
unsafe fn sum_of_squares(x: *const f32, count: usize) -> f32 {
    let mut parts = [F32x4::splat(0.0); 4];
    let mut lanes = [0.0; 4];
    let mut i = 0;
    // SAFETY: vectors and single values end at `count`; `lanes` holds four values.
    unsafe {
        while i + 16 <= count {
            for (j, part) in parts.iter_mut().enumerate() {
                let value = F32x4::load(x.add(i + 4 * j));
                *part = value.mul_add(value, *part);
            }
            i += 16;
        }
        let [a, b, c, d] = parts;
        a.add(b).add(c.add(d)).store(lanes.as_mut_ptr());
        let mut total = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
        while i < count {
            total += *x.add(i) * *x.add(i);
            i += 1;
        }
        total
    }
}
