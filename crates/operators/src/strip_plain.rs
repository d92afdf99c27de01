//! Strips in plain Rust, for targets without SIMD: the same sums in the same order.

use std::array;

use super::{PIXELS, Strip};
use crate::variant::F32x4;
use crate::vector::Vector;

/// Output channels of a whole tile, and how many of them are summed up at a time.
const CHANNELS: usize = 8;
const HALF: usize = 4;

/// Sums of four channels, two vectors of pixels each.
type Sums = [[F32x4; 2]; HALF];

/// A step a channel, `stride` apart.
///
/// # Safety
/// Every pointer leads to what [`Strip`] says of it.
pub(crate) unsafe fn channels(strip: &mut Strip) {
    let row = |input: *const f32, row| [input.wrapping_byte_add(row * strip.stride)];
    // SAFETY: the caller's promise.
    unsafe { run(strip, strip.steps, row) }
}

/// The same in legs.
///
/// # Safety
/// As [`channels`].
pub(crate) unsafe fn channels_in_legs(strip: &mut Strip) {
    let row = |input: *const f32, row| [input.wrapping_byte_add(row * strip.stride)];
    // SAFETY: the caller's promise.
    unsafe { run(strip, strip.leg, row) }
}

/// Window rows of three neighbouring columns, at the offset of the first.
///
/// # Safety
/// As [`channels`].
pub(crate) unsafe fn rows_of_three(strip: &mut Strip) {
    // SAFETY: the caller's promise: there is an offset for each step.
    let row = |input: *const f32, step| unsafe {
        let first = input.wrapping_byte_add(*strip.offsets.add(step) as usize);
        array::from_fn::<_, 3, _>(|column| first.wrapping_add(column))
    };
    // SAFETY: the caller's promise.
    unsafe { run(strip, strip.steps, row) }
}

/// Window rows of so many columns at the offset of the first, the odd ones `stride` behind the even
/// ones.
///
/// # Safety
/// As [`channels`].
pub(crate) unsafe fn split_rows<const COLUMNS: usize>(strip: &mut Strip) {
    // SAFETY: the caller's promise: there is an offset for each step.
    let row = |input: *const f32, step| unsafe {
        let even = input.wrapping_byte_add(*strip.offsets.add(step) as usize);
        array::from_fn::<_, COLUMNS, _>(|column| {
            even.wrapping_byte_add(column % 2 * strip.stride).wrapping_add(column / 2)
        })
    };
    // SAFETY: the caller's promise.
    unsafe { run(strip, strip.steps, row) }
}

/// An offset a step.
///
/// # Safety
/// As [`channels`].
pub(crate) unsafe fn table(strip: &mut Strip) {
    // SAFETY: the caller's promise: there is an offset for each step.
    let row = |input: *const f32, step| unsafe {
        [input.wrapping_byte_add(*strip.offsets.add(step) as usize)]
    };
    // SAFETY: the caller's promise.
    unsafe { run(strip, strip.steps, row) }
}

/// Computes a strip in legs of `leg` steps; `row` gives the pixels of each column of the window
/// row with a step, of the tile that begins at a pixel.
///
/// # Safety
/// As [`channels`]; `steps` and `leg` are multiples of `COLUMNS`.
#[inline(always)]
unsafe fn run<const COLUMNS: usize>(
    strip: &Strip,
    leg: usize,
    row: impl Fn(*const f32, usize) -> [*const f32; COLUMNS],
) {
    for tile in 0..strip.tiles {
        for half in (0..strip.channels).step_by(HALF) {
            // SAFETY: the caller's promise: tiles, steps and channels exist.
            unsafe {
                let input = strip.input.byte_add(tile * strip.next);
                let weights = strip.weights.add(half);
                let bias = strip.bias.add(half);
                let mut sums: Sums = array::from_fn(|i| [F32x4::load_splat(bias.add(i)); 2]);
                for first in (0..strip.steps).step_by(leg) {
                    let end = (first + leg).min(strip.steps);
                    let mut part = [[F32x4::splat(0.0); 2]; HALF];
                    for step in (first..end).step_by(COLUMNS) {
                        for (column, pixel) in row(input, step).into_iter().enumerate() {
                            add(&mut part, pixel, weights.add((step + column) * CHANNELS));
                        }
                    }
                    for (sum, part) in sums.as_flattened_mut().iter_mut().zip(part.as_flattened()) {
                        *sum = sum.add(*part);
                    }
                }
                store(strip, &sums[..(strip.channels - half).min(HALF)], half, tile * PIXELS);
            }
        }
    }
}

/// Adds the products of eight pixels and four weights.
///
/// # Safety
/// They are readable.
#[inline(always)]
unsafe fn add(sums: &mut Sums, pixel: *const f32, weights: *const f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let pixels = [F32x4::load(pixel), F32x4::load(pixel.add(4))];
        for (channel, sums) in sums.iter_mut().enumerate() {
            let weight = F32x4::load_splat(weights.add(channel));
            for (sum, pixels) in sums.iter_mut().zip(pixels) {
                *sum = pixels.mul_add(weight, *sum);
            }
        }
    }
}

/// Adds the residual, bounds and stores channels from `first` on at a pixel of the strip.
///
/// # Safety
/// They exist.
unsafe fn store(strip: &Strip, sums: &[[F32x4; 2]], first: usize, pixel: usize) {
    let (low, high) = (F32x4::splat(strip.low), F32x4::splat(strip.high));
    for (channel, sums) in sums.iter().enumerate() {
        for (vector, sum) in sums.iter().enumerate() {
            let at = 4 * (pixel + 4 * vector) + (first + channel) * strip.output_plane;
            // SAFETY: the caller's promise.
            unsafe {
                let mut value = *sum;
                if !strip.residual.is_null() {
                    value = value.add(F32x4::load(strip.residual.byte_add(at)));
                }
                value.larger(low).smaller(high).store(strip.output.byte_add(at));
            }
        }
    }
}
