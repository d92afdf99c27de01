//! Depthwise 3x3 windows that read the input where it lies.
//!
//! Two output rows are computed together from the four or five input rows they share, nine weights
//! stay in registers, and the padding left and right is shifted in. The exit tests between input
//! rows are there for the reason that [`crate::walk`] gives; they also leave out the padding below.

use std::{array, hint};

use crate::conv::{ConvBuffers, at};
use crate::geometry::{Axis, Clamp, Conv2d};
use crate::variant::F32x4;
use crate::vector::Vector;

/// Whether [`Plane`] can compute this: its tiles are four outputs wide and two high, know one
/// padding column at each side, and need a window that begins inside the input.
pub(crate) fn reads_in_place(conv: &Conv2d) -> bool {
    let (rows, columns) = (conv.rows, conv.columns);
    let three = |axis: Axis| axis.kernel == 3 && axis.dilation == 1;
    three(rows)
        && three(columns)
        && rows.stride == columns.stride
        && rows.stride <= 2
        && columns.before <= 1
        && columns.after() <= 1
        && columns.output >= 4
        && rows.output >= 2
        && rows.start(rows.output - 1) < rows.input as isize
}

/// One channel of one image, with a 3x3 window.
pub(crate) struct Plane {
    x: *const f32,
    /// One row of zeros, for the padding above.
    zeros: *const f32,
    weights: *const f32,
    bias: *const f32,
    residual: *const f32,
    pub(crate) y: *mut f32,
    rows: Axis,
    columns: Axis,
    clamp: Clamp,
}

/// Nine weights, row by row, each in all lanes.
type Filter = [F32x4; 9];

impl Plane {
    /// The `plane`-th plane of the batch.
    ///
    /// # Safety
    /// The buffers have the extents of `conv` and there is such a plane; `zeros` is as long as
    /// an input row.
    pub(crate) unsafe fn new(
        conv: &Conv2d,
        buffers: ConvBuffers,
        plane: usize,
        zeros: *const f32,
    ) -> Self {
        let (channel, output) = (plane % conv.groups, plane * conv.output_plane());
        // SAFETY: the caller's promise.
        unsafe {
            Self {
                x: buffers.x.add(plane * conv.input_plane()),
                zeros,
                weights: buffers.weights.add(channel * 9),
                bias: buffers.bias.add(channel),
                residual: at(buffers.residual, output),
                y: buffers.y.add(output),
                rows: conv.rows,
                columns: conv.columns,
                clamp: conv.activation.clamp(),
            }
        }
    }

    /// Computes the plane at stride 1.
    ///
    /// # Safety
    /// The pointers lead to the plane's data and [`reads_in_place`] holds.
    #[inline(never)]
    pub(crate) unsafe fn stride_1(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.run::<1, 4>() }
    }

    /// Computes the plane at stride 2.
    ///
    /// # Safety
    /// As for stride 1.
    #[inline(never)]
    pub(crate) unsafe fn stride_2(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.run::<2, 5>() }
    }

    /// Goes over the plane in pairs of output rows, each of which reads `ROWS` input rows.
    ///
    /// # Safety
    /// As above; `ROWS` is `STRIDE + 3`.
    #[inline(always)]
    unsafe fn run<const STRIDE: usize, const ROWS: usize>(&self) {
        let (height, input) = (self.rows.input as isize, self.columns.input);
        let width = self.columns.output;
        // The input column of the first output's first tap that is not padding.
        let left = self.columns.before == 1;
        let right = self.columns.after() == 1;
        // SAFETY: nine weights belong to the channel.
        let filter: Filter = array::from_fn(|i| unsafe { F32x4::load_splat(self.weights.add(i)) });
        for pair in (0..self.rows.output).step_by(2) {
            // An odd last row is computed together with the one above it, once more.
            let row = pair.min(self.rows.output - 2);
            let start = self.rows.start(row);
            let depth = (height - start).min(ROWS as isize);
            // Hidden from the optimiser, which would work them out anew for every tile.
            let window: [*const f32; ROWS] = hint::black_box(array::from_fn(|i| {
                let source = start + i as isize;
                if source < 0 || source >= height {
                    return self.zeros;
                }
                // SAFETY: `source` is a row of the plane.
                unsafe { self.x.add(source as usize * input) }
            }));
            let output = row * width;
            // SAFETY: the first tile covers the outputs 0 to 3, those inside end before the last
            // output, the last tile covers the last four. So only the first sees the padding
            // left, only the last that right, and every column in between is in the input.
            unsafe {
                let tile = TwoRows { plane: self, filter, depth };
                match (left, right && width == 4) {
                    (false, false) => tile.at::<STRIDE, ROWS, false, false>(window, 0, output),
                    (false, true) => tile.at::<STRIDE, ROWS, false, true>(window, 0, output),
                    (true, false) => tile.at::<STRIDE, ROWS, true, false>(window, 0, output),
                    (true, true) => tile.at::<STRIDE, ROWS, true, true>(window, 0, output),
                }
                if width == 4 {
                    continue;
                }
                let before = self.columns.before;
                let mut column = 4;
                while column + 4 < width {
                    let from = column * STRIDE - before;
                    tile.at::<STRIDE, ROWS, false, false>(window, from, output + column);
                    column += 4;
                }
                let (from, output) = ((width - 4) * STRIDE - before, output + width - 4);
                if right {
                    tile.at::<STRIDE, ROWS, false, true>(window, from, output);
                } else {
                    tile.at::<STRIDE, ROWS, false, false>(window, from, output);
                }
            }
        }
    }
}

/// Computes tiles of two rows and four columns.
struct TwoRows<'a> {
    plane: &'a Plane,
    filter: Filter,
    /// Input rows from the window's first on until the input ends, at least 1.
    depth: isize,
}

impl TwoRows<'_> {
    /// One tile, its first output at `output`. `from` is the first tap's column, or the second's
    /// when the first is padding: `LEFT`. With `RIGHT` the last output's last tap is padding.
    ///
    /// # Safety
    /// Every column that is not padding, and the output's two rows, exist.
    #[inline(always)]
    unsafe fn at<const STRIDE: usize, const ROWS: usize, const LEFT: bool, const RIGHT: bool>(
        &self,
        window: [*const f32; ROWS],
        from: usize,
        output: usize,
    ) {
        let p = self.plane;
        // SAFETY: the caller's promise; rows behind `depth` are not visited.
        unsafe {
            let bias = F32x4::load_splat(p.bias);
            let (mut upper, mut lower) = (bias, bias);
            // Unrolled by hand: the weights stay in registers only if their indices are literal.
            macro_rules! rows {
                ($($i:literal)*) => {
                    'rows: {
                        $(if $i < ROWS {
                            let row = window[$i].add(from);
                            let taps = match STRIDE {
                                1 => neighbours::<LEFT, RIGHT>(row),
                                _ => every_other::<LEFT, RIGHT>(row),
                            };
                            if $i < 3 {
                                upper = self.weigh($i, taps, upper);
                            }
                            if $i >= STRIDE {
                                lower = self.weigh($i - STRIDE, taps, lower);
                            }
                            if self.depth == $i + 1 {
                                break 'rows;
                            }
                        })*
                    }
                };
            }
            rows!(0 1 2 3 4);
            self.store(upper, output);
            self.store(lower, output + p.columns.output);
        }
    }

    /// Adds a window row's three products.
    #[inline(always)]
    fn weigh(&self, row: usize, taps: [F32x4; 3], sum: F32x4) -> F32x4 {
        let sum = taps[0].mul_add(self.filter[3 * row], sum);
        let sum = taps[1].mul_add(self.filter[3 * row + 1], sum);
        taps[2].mul_add(self.filter[3 * row + 2], sum)
    }

    /// Writes four outputs.
    ///
    /// # Safety
    /// They exist.
    #[inline(always)]
    unsafe fn store(&self, mut value: F32x4, at: usize) {
        let p = self.plane;
        // SAFETY: the caller's promise.
        unsafe {
            if !p.residual.is_null() {
                value = value.add(F32x4::load(p.residual.add(at)));
            }
            let value = value.larger(F32x4::splat(p.clamp.low));
            value.smaller(F32x4::splat(p.clamp.high)).store(p.y.add(at));
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
