//! Depthwise convolution: one filter a channel, so little arithmetic that copying would show.
//!
//! 3x3 windows at stride 1 and 2 read the input where it lies. Two output rows are computed
//! together from the four or five input rows they share, nine weights stay in registers, and the
//! padding left and right is shifted in. Everything else goes through a padded plane and a table
//! of taps, four output rows at a time.
//!
//! The exit tests between input rows are there for the reason that [`crate::tile`] gives; they
//! also leave out the padding below.

use std::array;

use crate::KernelError;
use crate::activation;
use crate::conv::{ConvBuffers, at};
use crate::gather::Padded;
use crate::geometry::{Axis, Clamp, Conv2d};
use crate::scratch::{self, LINE};
use crate::taps;
use crate::variant::F32x4;
use crate::vector::Vector;

/// Computes a depthwise convolution: `conv` has as many groups as channels.
///
/// # Errors
/// [`KernelError::Scratch`], or [`KernelError::Geometry`] when one padded row exceeds 2 GiB.
///
/// # Safety
/// The buffers have the extents that [`crate::graphlet_depthwise_conv2d_f32`] gives for `conv`.
pub(crate) unsafe fn depthwise(conv: &Conv2d, buffers: ConvBuffers) -> Result<(), KernelError> {
    if reads_in_place(conv) {
        return scratch::with(conv.columns.input, |zeros| {
            zeros[..conv.columns.input].fill(0.0);
            for plane in 0..conv.batch * conv.groups {
                // SAFETY: the caller's promise for this plane; `zeros` is one input row.
                unsafe {
                    let plane = Plane::new(conv, buffers, plane, zeros.as_ptr());
                    match conv.columns.stride {
                        1 => plane.stride_1(),
                        _ => plane.stride_2(),
                    }
                    activation::finish(&conv.activation, plane.y, conv.output_plane());
                }
            }
        });
    }
    if taps::fits(conv) {
        // SAFETY: the caller's promise.
        return unsafe { padded_planes(conv, buffers) };
    }
    let padded = Padded::plan(1, conv.rows, conv.columns)?;
    let offsets = conv.steps().next_multiple_of(LINE);
    scratch::with(offsets + padded.len(), |scratch| {
        let (offsets, scratch) = scratch.split_at_mut(offsets);
        // The padding, which nothing else writes.
        scratch[..padded.len()].fill(0.0);
        padded.write_offsets(conv.columns.kernel, offsets);
        for plane in 0..conv.batch * conv.groups {
            // SAFETY: the caller's promise for this plane; scratch has the plan's sizes.
            unsafe { one_padded_plane(conv, buffers, plane, &padded, offsets, scratch) };
        }
    })
}

/// Computes windows three, five or seven columns wide through padded planes.
///
/// # Errors
/// As [`depthwise`].
///
/// # Safety
/// As [`depthwise`].
unsafe fn padded_planes(conv: &Conv2d, buffers: ConvBuffers) -> Result<(), KernelError> {
    let frame = taps::Frame::plan(conv.rows, conv.columns)?;
    let places = taps::Places::new(conv);
    let (table, spread) = (places.len(frame.chunk), (4 * conv.steps()).next_multiple_of(LINE));
    scratch::with(table + spread + frame.len(), |scratch| {
        let (table, rest) = scratch.split_at_mut(table);
        let (spread, input) = rest.split_at_mut(spread);
        // The padding, which nothing else writes.
        input[..frame.len()].fill(0.0);
        places.write(conv, &frame, table);
        let (plane_in, plane_out) = (conv.input_plane(), conv.output_plane());
        for plane in 0..conv.batch * conv.groups {
            let channel = plane % conv.groups;
            // SAFETY: the caller's promise for this plane; scratch has the sizes above.
            unsafe {
                let weights = buffers.weights.add(channel * conv.steps());
                for (tap, to) in spread.chunks_exact_mut(4).take(conv.steps()).enumerate() {
                    to.fill(*weights.add(tap));
                }
                for first in (0..conv.rows.output).step_by(frame.chunk) {
                    let rows = frame.chunk.min(conv.rows.output - first);
                    let output = plane * plane_out + first * conv.columns.output;
                    frame.fill(buffers.x.add(plane * plane_in), input.as_mut_ptr(), first, rows);
                    let sweep = taps::Sweep {
                        input: input.as_ptr(),
                        pitch: frame.tap_row(),
                        steps: conv.steps(),
                        weights: spread.as_ptr(),
                        bias: buffers.bias.add(channel),
                        residual: at(buffers.residual, output),
                        output: buffers.y.add(output),
                        places: table.as_ptr().cast(),
                        count: places.count(rows),
                        clamp: conv.activation.clamp(),
                    };
                    sweep.run(conv.columns.kernel, conv.columns.stride);
                    activation::finish(&conv.activation, sweep.output, rows * conv.columns.output);
                }
            }
        }
    })
}

/// Whether [`Plane`] can compute this: its tiles are four outputs wide and two high, know one
/// padding column at each side, and need a window that begins inside the input.
fn reads_in_place(conv: &Conv2d) -> bool {
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
struct Plane {
    x: *const f32,
    /// One row of zeros, for the padding above.
    zeros: *const f32,
    weights: *const f32,
    bias: *const f32,
    residual: *const f32,
    y: *mut f32,
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
    unsafe fn new(conv: &Conv2d, buffers: ConvBuffers, plane: usize, zeros: *const f32) -> Self {
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
    unsafe fn stride_1(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.run::<1, 4>() }
    }

    /// Computes the plane at stride 2.
    ///
    /// # Safety
    /// As for stride 1.
    #[inline(never)]
    unsafe fn stride_2(&self) {
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
            let window: [*const f32; ROWS] = array::from_fn(|i| {
                let source = start + i as isize;
                if source < 0 || source >= height {
                    return self.zeros;
                }
                // SAFETY: `source` is a row of the plane.
                unsafe { self.x.add(source as usize * input) }
            });
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

/// A chunk of a padded plane and where its outputs go.
struct Taps {
    input: *const f32,
    /// Values between the inputs of two output rows.
    input_row: usize,
    /// Byte offsets from `input`, one a tap.
    offsets: *const u32,
    steps: usize,
    weights: *const f32,
    bias: *const f32,
    residual: *const f32,
    output: *mut f32,
    /// Output rows and columns.
    rows: usize,
    columns: usize,
    clamp: Clamp,
}

/// Computes one plane through padded chunks.
///
/// # Safety
/// The buffers have the extents of `conv` and there is such a plane; `offsets` were written for
/// `padded` and `scratch` has its size.
unsafe fn one_padded_plane(
    conv: &Conv2d,
    buffers: ConvBuffers,
    plane: usize,
    padded: &Padded,
    offsets: &[f32],
    scratch: &mut [f32],
) {
    let (channel, steps) = (plane % conv.groups, conv.steps());
    for first in (0..conv.rows.output).step_by(padded.chunk()) {
        let rows = padded.chunk().min(conv.rows.output - first);
        let output = plane * conv.output_plane() + first * conv.columns.output;
        // SAFETY: `fill` wrote the input of these rows, in which every tap has a vector for every
        // four outputs (`Padded::plan`); the rest is the caller's promise.
        unsafe {
            padded.fill(buffers.x.add(plane * conv.input_plane()), scratch, first, rows);
            let taps = Taps {
                input: scratch.as_ptr(),
                input_row: padded.row(),
                offsets: offsets.as_ptr().cast(),
                steps,
                weights: buffers.weights.add(channel * steps),
                bias: buffers.bias.add(channel),
                residual: at(buffers.residual, output),
                output: buffers.y.add(output),
                rows,
                columns: conv.columns.output,
                clamp: conv.activation.clamp(),
            };
            if rows >= 4 {
                taps.sweep::<4>();
            } else {
                taps.sweep::<1>();
            }
            activation::finish(&conv.activation, taps.output, rows * taps.columns);
        }
    }
}

impl Taps {
    /// Computes the chunk in groups of `ROWS` output rows, of which there are as many or more.
    ///
    /// # Safety
    /// The pointers lead to what the fields say; at each offset every output row's input holds
    /// `max(columns, 4)` values.
    #[inline(never)]
    unsafe fn sweep<const ROWS: usize>(&self) {
        for group in (0..self.rows).step_by(ROWS) {
            let row = group.min(self.rows - ROWS);
            for column in (0..self.columns).step_by(4) {
                let column = column.min(self.columns.saturating_sub(4));
                // SAFETY: the caller's promise; rows and columns stay below their extents.
                unsafe {
                    let sums = self.reduce::<ROWS>(self.input.add(row * self.input_row + column));
                    for (i, sum) in sums.into_iter().enumerate() {
                        self.store(sum, (row + i) * self.columns + column);
                    }
                }
            }
        }
    }

    /// Sums up four columns of `ROWS` rows.
    ///
    /// # Safety
    /// As above, from `base` on.
    #[inline(always)]
    unsafe fn reduce<const ROWS: usize>(&self, base: *const f32) -> [F32x4; ROWS] {
        let (mut left, mut offsets, mut weights) = (self.steps, self.offsets, self.weights);
        // SAFETY: the caller's promise; an offset is read only while steps are left.
        unsafe {
            let mut sums = [F32x4::load_splat(self.bias); ROWS];
            loop {
                self.step(&mut sums, base.wrapping_byte_add(*offsets as usize), weights);
                left -= 1;
                if left == 0 {
                    break;
                }
                let from = base.wrapping_byte_add(*offsets.add(1) as usize);
                self.step(&mut sums, from, weights.add(1));
                left -= 1;
                if left == 0 {
                    break;
                }
                offsets = offsets.add(2);
                weights = weights.add(2);
            }
            sums
        }
    }

    /// One tap for all rows.
    ///
    /// # Safety
    /// `from` points to the tap's input, `weight` to its weight.
    #[inline(always)]
    unsafe fn step<const ROWS: usize>(
        &self,
        sums: &mut [F32x4; ROWS],
        mut from: *const f32,
        weight: *const f32,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let weight = F32x4::load_splat(weight);
            for sum in sums {
                *sum = F32x4::load(from).mul_add(weight, *sum);
                from = from.wrapping_add(self.input_row);
            }
        }
    }

    /// Writes four outputs, or as many as a row has.
    ///
    /// # Safety
    /// They exist.
    #[inline(always)]
    unsafe fn store(&self, sum: F32x4, at: usize) {
        // SAFETY: the caller's promise; `pixels` holds four values.
        unsafe {
            if self.columns >= 4 {
                let mut value = sum;
                if !self.residual.is_null() {
                    value = value.add(F32x4::load(self.residual.add(at)));
                }
                let value = value.larger(F32x4::splat(self.clamp.low));
                value.smaller(F32x4::splat(self.clamp.high)).store(self.output.add(at));
                return;
            }
            let mut pixels = [0.0; 4];
            sum.store(pixels.as_mut_ptr());
            for (i, value) in pixels.iter().enumerate().take(self.columns) {
                let residual =
                    if self.residual.is_null() { 0.0 } else { *self.residual.add(at + i) };
                *self.output.add(at + i) = self.clamp.apply(value + residual);
            }
        }
    }
}
