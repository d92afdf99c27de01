//! Depthwise convolution: one filter a channel, so little arithmetic that copying would show.
//!
//! 3x3 windows at stride 1 and 2 read the input where it lies ([`crate::depthwise_in_place`]),
//! other windows three, five and seven columns wide from padded planes ([`crate::taps`]).
//! Everything else goes through a padded plane and a table of taps, four output rows at a time; the
//! exit test between taps is there for the reason that [`crate::walk`] gives.

use crate::KernelError;
use crate::activation;
use crate::conv::{ConvBuffers, at};
use crate::depthwise_in_place::{self, Planes, reads_in_place};
use crate::gather::Padded;
use crate::geometry::{Clamp, Conv2d};
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
            // A curve's pass finds a plane's outputs in a cache.
            let count = if conv.activation.is_curve() { 1 } else { conv.groups };
            for first in (0..conv.batch * conv.groups).step_by(count) {
                // SAFETY: the caller's promise for these planes; `zeros` is one input row.
                unsafe {
                    let planes = Planes::new(conv, buffers, first, count, zeros.as_ptr());
                    match conv.columns.stride {
                        1 => depthwise_in_place::by_1(&planes),
                        _ => depthwise_in_place::by_2(&planes),
                    }
                    let outputs = conv.output_plane();
                    activation::finish(
                        &conv.activation,
                        buffers.y.add(first * outputs),
                        count * outputs,
                    );
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
        padded.write_offsets(offsets);
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
