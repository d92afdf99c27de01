//! Depthwise 3x3 windows in plain Rust, for targets without SIMD: the same sums in the same order.

use super::Planes;
use crate::variant::F32x4;
use crate::vector::Vector;

/// Computes planes at stride 1.
///
/// # Safety
/// Every pointer leads to what [`Planes`] says of it.
pub(crate) unsafe fn by_1(planes: &Planes) {
    // SAFETY: the caller's promise.
    unsafe { run::<1>(planes) }
}

/// Computes planes at stride 2.
///
/// # Safety
/// As [`by_1`].
pub(crate) unsafe fn by_2(planes: &Planes) {
    // SAFETY: the caller's promise.
    unsafe { run::<2>(planes) }
}

/// # Safety
/// As [`by_1`].
unsafe fn run<const STRIDE: usize>(planes: &Planes) {
    let p = planes;
    let (left, right) = (p.left == 1, p.right == 1);
    for plane in 0..p.count {
        for row in 0..p.output_height {
            // SAFETY: the plane and its row exist. The first tile covers the outputs 0 to 3, those
            // inside end before the last output, the last tile covers the last four. So only the
            // first sees the padding left, only the last that right, and every column in between is
            // in the input.
            unsafe {
                let row = Row {
                    planes: p,
                    x: p.x.byte_add(plane * p.height * p.row),
                    start: p.start + (STRIDE * row) as isize,
                    weights: p.weights.add(9 * plane),
                    bias: *p.bias.add(plane),
                    output: (plane * p.output_height + row) * p.output_row,
                };
                let mut column = 0;
                if left {
                    row.tile::<STRIDE, true, false>(0, 0);
                    column = 4;
                }
                for _ in 0..p.inner {
                    row.tile::<STRIDE, false, false>(column * STRIDE - p.left, column);
                    column += 4;
                }
                column -= p.back / 4;
                let from = column * STRIDE - p.left;
                match right {
                    true => row.tile::<STRIDE, false, true>(from, column),
                    false => row.tile::<STRIDE, false, false>(from, column),
                }
            }
        }
    }
}

/// One output row.
struct Row<'a> {
    planes: &'a Planes,
    /// The plane's input.
    x: *const f32,
    /// The window's first row.
    start: isize,
    weights: *const f32,
    bias: f32,
    /// Bytes before the row in output and residual.
    output: usize,
}

impl Row<'_> {
    /// One tile, its first output at `column`. `from` is the first tap's column, or the second's
    /// when the first is padding: `LEFT`. With `RIGHT` the last output's last tap is padding.
    ///
    /// # Safety
    /// Every column that is not padding, and the outputs, exist.
    unsafe fn tile<const STRIDE: usize, const LEFT: bool, const RIGHT: bool>(
        &self,
        from: usize,
        column: usize,
    ) {
        let p = self.planes;
        // SAFETY: the caller's promise; rows outside the input are not read.
        unsafe {
            let mut sum = F32x4::splat(self.bias);
            for i in 0..3 {
                let source = self.start + i as isize;
                if source >= p.height as isize {
                    break;
                }
                let row = match source < 0 {
                    true => p.zeros,
                    false => self.x.byte_add(source as usize * p.row),
                };
                let taps = match STRIDE {
                    1 => neighbours::<LEFT, RIGHT>(row.add(from)),
                    _ => every_other::<LEFT, RIGHT>(row.add(from)),
                };
                for (j, tap) in taps.into_iter().enumerate() {
                    sum = tap.mul_add(F32x4::load_splat(self.weights.add(3 * i + j)), sum);
                }
            }
            let at = self.output + 4 * column;
            if !p.residual.is_null() {
                sum = sum.add(F32x4::load(p.residual.byte_add(at)));
            }
            let sum = sum.larger(F32x4::splat(p.low)).smaller(F32x4::splat(p.high));
            sum.store(p.y.byte_add(at));
        }
    }
}

/// The three taps of four neighbouring outputs at stride 1.
///
/// # Safety
/// `row` points to the columns that are not padding: six, one less for each side.
#[inline(always)]
unsafe fn neighbours<const LEFT: bool, const RIGHT: bool>(row: *const f32) -> [F32x4; 3] {
    let zero = F32x4::splat(0.0);
    // SAFETY: the caller's promise.
    unsafe {
        let first = F32x4::load(row);
        let (first, second) = match LEFT {
            true => (zero.last_then(first), first),
            false => (first, F32x4::load(row.add(1))),
        };
        let third = match (LEFT, RIGHT) {
            (_, true) => second.rest_then(zero),
            (true, false) => F32x4::load(row.add(1)),
            (false, false) => F32x4::load(row.add(2)),
        };
        [first, second, third]
    }
}

/// The three taps of four neighbouring outputs at stride 2.
///
/// # Safety
/// `row` points to the columns that are not padding: nine, one less for each side.
#[inline(always)]
unsafe fn every_other<const LEFT: bool, const RIGHT: bool>(row: *const f32) -> [F32x4; 3] {
    let zero = F32x4::splat(0.0);
    // SAFETY: the caller's promise.
    unsafe {
        let low = F32x4::load(row);
        if LEFT {
            let high = match RIGHT {
                true => F32x4::load(row.add(3)).rest_then(zero),
                false => F32x4::load(row.add(4)),
            };
            let third = low.odds(high);
            return [zero.last_then(third), low.evens(high), third];
        }
        let high = F32x4::load(row.add(4));
        let third = F32x4::load(row.add(2));
        let third = match RIGHT {
            true => third.evens_odds(high.rest_then(zero)),
            false => third.evens_odds(F32x4::load(row.add(5))),
        };
        [low.evens(high), low.odds(high), third]
    }
}
