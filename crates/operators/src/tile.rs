//! Sweeps over pixels and output channels: eight by eight in [`strip`]s as long as a row, and four
//! by eight by a [`Walk`] where a row ends.

use crate::activation::{self, Activation};
use crate::geometry::Clamp;
use crate::read_ahead;
use crate::strip::{self, Strip};
use crate::variant::F32x4;
use crate::vector::Vector;
use crate::walk::{
    self, LEG, Pointwise, PointwiseInLegs, RowsOfThree, SplitRows, Table, Tile, Walk,
};
use crate::wide::{self, Steps};

/// Output pixels of one tile.
pub(crate) const PIXELS: usize = 4;
/// Output channels of one tile.
pub(crate) const CHANNELS: usize = 8;

/// One pass over a chunk of pixels: all output channels of all its rows.
#[derive(Clone, Copy)]
pub(crate) struct Sweep {
    /// Input of the chunk's first output, first tap.
    pub(crate) input: *const f32,
    /// Values between the inputs of two output rows.
    pub(crate) input_row: usize,
    /// Values between two input channels; read by [`pointwise`] alone.
    pub(crate) input_plane: usize,
    /// Byte offsets from `input`, one for each step; [`pointwise`] reads none.
    pub(crate) offsets: *const u32,
    /// Values between the even columns of a row and its odd ones; read by [`split_rows`] alone.
    pub(crate) odd: usize,
    /// Reduction steps; a multiple of the window's columns for [`rows_of_three`] and
    /// [`split_rows`].
    pub(crate) steps: usize,
    /// `[ceil(channels / 8)][steps][8]` weights.
    pub(crate) weights: *const f32,
    /// `[ceil(channels / 8)][8]` values that the sums begin with.
    pub(crate) bias: *const f32,
    /// Output of the chunk's first pixel, first channel.
    pub(crate) output: *mut f32,
    /// Laid out as the output and added before the activation, or null.
    pub(crate) residual: *const f32,
    /// Values between two output rows.
    pub(crate) output_row: usize,
    /// Values between two output channels.
    pub(crate) output_plane: usize,
    /// Output channels.
    pub(crate) channels: usize,
    /// Output rows.
    pub(crate) rows: usize,
    /// Output pixels in each row. With fewer than four the input is read as if there were four.
    pub(crate) columns: usize,
    /// Bounds of the output.
    pub(crate) clamp: Clamp,
    /// Values of a panel, when the input lies in those that [`crate::panels`] makes, else 0.
    pub(crate) panel: usize,
    /// Weights that are read soon after this sweep's own and lie right behind them.
    pub(crate) more_weights: usize,
}

/// Most bytes of output that wait for a curve: what [`wide`] gains with more, their way back from
/// the second-level cache takes.
const CURVE_BYTES: usize = 128 * 1024;

/// Runs one of the functions below, then the curve if the activation is one: a few channels at a
/// time, as many as [`wide`] takes or a block, so that its pass finds the outputs in a cache.
///
/// # Safety
/// As the function says; `sweep.clamp` is the activation's.
pub(crate) unsafe fn activated(
    sweep: &Sweep,
    activation: &Activation,
    function: unsafe fn(&Sweep),
) {
    // SAFETY: the caller's promise, and for each few channels, which are whole blocks, their part of
    // weights, bias, output and residual.
    unsafe {
        if !activation.is_curve() {
            return function(sweep);
        }
        let many = 4 * wide::GROUPS * sweep.rows * sweep.columns <= CURVE_BYTES;
        let few = if many { wide::GROUPS } else { CHANNELS };
        for first in (0..sweep.channels).step_by(few) {
            let channels = (sweep.channels - first).min(few);
            let output = sweep.output.add(first * sweep.output_plane);
            function(&Sweep {
                weights: sweep.weights.add(first * sweep.steps),
                bias: sweep.bias.add(first),
                output,
                residual: match sweep.residual.is_null() {
                    true => sweep.residual,
                    false => sweep.residual.add(first * sweep.output_plane),
                },
                channels,
                more_weights: (sweep.channels - first - channels).next_multiple_of(CHANNELS)
                    * sweep.steps,
                ..*sweep
            });
            for channel in 0..channels {
                for row in 0..sweep.rows {
                    let at = channel * sweep.output_plane + row * sweep.output_row;
                    activation::finish(activation, output.add(at), sweep.columns);
                }
            }
        }
    }
}

/// Sweeps a 1x1 convolution: one step a channel, `input_plane` apart.
///
/// # Safety
/// Each of the `rows` input rows holds `columns` values, at least four, in each of `steps` planes;
/// weights, bias, output and residual have the extents that [`Sweep`] gives.
pub(crate) unsafe fn pointwise(sweep: &Sweep) {
    // SAFETY: the caller's promise.
    unsafe {
        if sweep.steps > 2 * LEG { pointwise_in_legs(sweep) } else { pointwise_in_one(sweep) }
    }
}

// Each a function of its own: one loop's registers are the other's spills.
/// # Safety
/// As [`pointwise`].
#[inline(never)]
unsafe fn pointwise_in_one(sweep: &Sweep) {
    // SAFETY: the caller's promise.
    unsafe { run::<Pointwise>(sweep) }
}

/// # Safety
/// As [`pointwise`].
#[inline(never)]
unsafe fn pointwise_in_legs(sweep: &Sweep) {
    // SAFETY: the caller's promise.
    unsafe { run::<PointwiseInLegs>(sweep) }
}

/// Sweeps windows three columns wide at stride and dilation 1.
///
/// # Safety
/// At each offset every output row's input holds `max(columns, 4)` values, behind that of a window
/// row's first column two more; the rest as [`pointwise`].
#[inline(never)]
pub(crate) unsafe fn rows_of_three(sweep: &Sweep) {
    // SAFETY: the caller's promise.
    unsafe { run::<RowsOfThree>(sweep) }
}

/// Sweeps windows `TAPS` columns wide, at most seven, at stride 2 and dilation 1 over rows split
/// into even and odd columns.
///
/// # Safety
/// At each offset every output row's input holds `max(columns, 4)` values, behind that of a window
/// row's first column, and `odd` values further, `TAPS / 2` more; the rest as [`pointwise`].
#[inline(never)]
pub(crate) unsafe fn split_rows<const TAPS: usize>(sweep: &Sweep) {
    // SAFETY: the caller's promise.
    unsafe { run::<SplitRows<TAPS>>(sweep) }
}

/// Sweeps any window.
///
/// # Safety
/// At each offset every output row's input holds `max(columns, 4)` values; the rest as
/// [`pointwise`].
#[inline(never)]
pub(crate) unsafe fn table(sweep: &Sweep) {
    // SAFETY: the caller's promise.
    unsafe { run::<Table>(sweep) }
}

/// Blocks of channels outside, tiles of pixels inside: a block's weights stay in the
/// first-level cache while the chunk passes.
///
/// # Safety
/// As the functions above say.
#[inline(always)]
unsafe fn run<W: Walk>(sweep: &Sweep) {
    let s = sweep;
    // Rows of less than eight pixels are tiles of four alone. What eight do not divide is one more
    // tile that reaches back: of four if that is enough.
    let strips = s.columns / strip::PIXELS;
    let rest = match s.columns % strip::PIXELS {
        0 if strips > 0 => Rest::None,
        1 if strips > 0 && W::LAST_ALONE => Rest::One,
        1..=PIXELS if strips > 0 => Rest::Four,
        _ if strips > 0 => Rest::Eight,
        _ => Rest::Fours,
    };
    let mut tiles = Strip {
        input: s.input,
        stride: 4 * if s.odd > 0 { s.odd } else { s.input_plane },
        offsets: s.offsets,
        steps: s.steps,
        leg: if W::IN_LEGS { s.steps.div_ceil(s.steps.div_ceil(LEG)) } else { s.steps },
        weights: s.weights,
        bias: s.bias,
        output: s.output,
        output_plane: 4 * s.output_plane,
        residual: s.residual,
        channels: CHANNELS,
        tiles: strips,
        low: s.clamp.low,
        high: s.clamp.high,
        ahead: s.weights,
        ahead_lines: 0,
        ahead_each: 0,
        touched: 0,
        next: 4 * if s.panel > 0 { s.panel } else { strip::PIXELS },
    };
    // A pixel's place in a tile's input. Of panels the one behind the last whole tile is the rest.
    let place = |tile: usize, column: usize, from_end: usize| match s.panel {
        0 => column,
        panel => tile * panel + strip::PIXELS.min(s.columns) - from_end,
    };
    // SAFETY: blocks, rows and columns stay below the extents that the caller gave; a row's
    // last tile ends with the row, or begins with it when there are too few pixels, of which
    // `store_part` then writes no more than there are.
    unsafe {
        // Channels whose tiles are computed: of windows all, else those of whole eight pixels.
        let mut done = 0;
        for block in 0..s.channels.div_ceil(CHANNELS) {
            let channels = (s.channels - block * CHANNELS).min(CHANNELS);
            if done <= block * CHANNELS {
                done = block * CHANNELS + wide::run(s, block, W::STEPS);
            }
            let begin = done.saturating_sub(block * CHANNELS).min(channels);
            if W::STEPS == Steps::Taps && begin == channels {
                continue;
            }
            let weights = s.weights.add(block * s.steps * CHANNELS);
            let bias = s.bias.add(block * CHANNELS);
            read_ahead::plan(s, block, &mut tiles);
            for row in 0..s.rows {
                let input = s.input.add(row * s.input_row);
                let at = block * CHANNELS * s.output_plane + row * s.output_row;
                let mut strip = |begin: usize, tile: usize, column: usize, count: usize| {
                    tiles.input = input.add(place(tile, column, strip::PIXELS));
                    tiles.weights = weights.add(begin);
                    tiles.bias = bias.add(begin);
                    tiles.channels = channels - begin;
                    let at = at + begin * s.output_plane + column;
                    tiles.output = s.output.add(at);
                    if !s.residual.is_null() {
                        tiles.residual = s.residual.add(at);
                    }
                    tiles.tiles = count;
                    W::STRIP(&mut tiles);
                };
                if strips > 0 && begin < channels {
                    strip(begin, 0, 0, strips);
                }
                let fours = match rest {
                    Rest::None => continue,
                    Rest::One => {
                        let last = s.columns - 1;
                        let pixel = input.add(place(strips, last, 1));
                        let sums = walk::one_pixel(s, pixel, weights, bias);
                        store_pixel(s, sums, at + last, channels);
                        continue;
                    }
                    Rest::Eight => {
                        let begin = if W::STEPS == Steps::Taps { begin } else { 0 };
                        strip(begin, strips, s.columns - strip::PIXELS, 1);
                        continue;
                    }
                    Rest::Four => s.columns - PIXELS,
                    Rest::Fours => 0,
                };
                let mut column = fours;
                while column < s.columns {
                    let first = column.min(s.columns.saturating_sub(PIXELS));
                    let pixel = input.add(place(strips, first, s.columns - first));
                    let tile = W::reduce(s, pixel, weights, bias);
                    if channels == CHANNELS && s.columns >= PIXELS {
                        store_whole(s, &tile, at + first);
                    } else {
                        // Taking the tile's address keeps it in memory between loop and
                        // epilogue, which is worth it: the epilogue's registers then leave the
                        // loop's alone (17.4 GMAC/s against 16.2 without).
                        store_part(s, &tile, at + first, channels);
                    }
                    column += PIXELS;
                }
            }
        }
    }
}

/// What strips leave of a row.
#[derive(Clone, Copy)]
enum Rest {
    None,
    /// The last pixel.
    One,
    /// The last four pixels.
    Four,
    /// The last eight.
    Eight,
    /// All of it.
    Fours,
}

/// Turns four channels of a tile, the lower or the upper half, into vectors of pixels.
#[inline(always)]
fn pixels_of(tile: &Tile, half: usize) -> [F32x4; 4] {
    F32x4::transpose([tile[0][half], tile[1][half], tile[2][half], tile[3][half]])
}

/// Writes a tile of four pixels and eight channels at `at`.
///
/// # Safety
/// Output, and residual if there is one, hold the tile.
#[inline(always)]
unsafe fn store_whole(s: &Sweep, tile: &Tile, at: usize) {
    let (low, high) = (F32x4::splat(s.clamp.low), F32x4::splat(s.clamp.high));
    for half in 0..2 {
        for (i, mut value) in pixels_of(tile, half).into_iter().enumerate() {
            let at = at + (4 * half + i) * s.output_plane;
            // SAFETY: the caller's promise, channel by channel.
            unsafe {
                if !s.residual.is_null() {
                    value = value.add(F32x4::load(s.residual.add(at)));
                }
                value.larger(low).smaller(high).store(s.output.add(at));
            }
        }
    }
}

/// Writes the first `channels` channels of one pixel.
///
/// # Safety
/// Output, and residual if there is one, hold them.
#[inline(always)]
unsafe fn store_pixel(s: &Sweep, sums: [F32x4; 2], at: usize, channels: usize) {
    let mut values = [0.0; CHANNELS];
    // SAFETY: `values` has eight values; the rest is the caller's promise.
    unsafe {
        sums[0].store(values.as_mut_ptr());
        sums[1].store(values.as_mut_ptr().add(4));
        for (channel, value) in values.iter().enumerate().take(channels) {
            let at = at + channel * s.output_plane;
            let residual = if s.residual.is_null() { 0.0 } else { *s.residual.add(at) };
            *s.output.add(at) = s.clamp.apply(value + residual);
        }
    }
}

/// Writes the first `channels` channels and as many pixels as a row has, four at most.
///
/// # Safety
/// Output, and residual if there is one, hold them.
#[cold]
#[inline(never)]
unsafe fn store_part(s: &Sweep, tile: &Tile, at: usize, channels: usize) {
    let rows = [pixels_of(tile, 0), pixels_of(tile, 1)];
    for (channel, row) in rows.into_iter().flatten().enumerate().take(channels) {
        let mut pixels = [0.0; PIXELS];
        // SAFETY: `pixels` has four values; the rest is the caller's promise.
        unsafe {
            row.store(pixels.as_mut_ptr());
            for (pixel, value) in pixels.iter().enumerate().take(s.columns) {
                let at = at + channel * s.output_plane + pixel;
                let residual = if s.residual.is_null() { 0.0 } else { *s.residual.add(at) };
                *s.output.add(at) = s.clamp.apply(value + residual);
            }
        }
    }
}
