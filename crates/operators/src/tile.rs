//! The micro-kernels of convolution: four neighbouring pixels by eight output channels.
//!
//! Each reduction step loads one vector of pixels of one input channel and two vectors of
//! weights, spreads each pixel over a vector and adds eight products to eight accumulators,
//! which began as the bias. At the end two transposes turn them into rows of output.
//!
//! The loops look odd for one reason. Cranelift keeps loads in order at the top of a basic
//! block and sinks arithmetic to its end: an unrolled reduction would load everything first and
//! spill. So each turn of a loop takes three steps with an exit test after each, which makes
//! every step a block of its own; and the number of steps is a value that the optimiser cannot
//! know, else it would remove the tests. Three steps a turn: 23.5 GMAC/s with the tests, 17
//! without; one: 12.5, two: 22, four: 17.5.

use crate::activation::{self, Activation};
use crate::geometry::Clamp;
use crate::read_ahead::Next;
use crate::strip::{self, Strip};
use crate::variant::F32x4;
use crate::vector::Vector;

/// Output pixels of one tile.
pub(crate) const PIXELS: usize = 4;
/// Output channels of one tile.
pub(crate) const CHANNELS: usize = 8;

/// Longest leg of a sum that is taken in legs.
///
/// The rounding error of a single running sum grows with its length: over MobileNetV2's fifty
/// layers it became 2.2 times onnxruntime's (whose legs are 128 long), nearly all of it in the
/// 1x1 layers of 384 to 960 channels, and single logits near zero missed 1e-5. In legs it is 1.3
/// times. Reductions up to two legs long, and windows, stay in one piece: they add little error,
/// and their loops would lose up to a tenth of their speed.
pub(crate) const LEG: usize = 144;

/// Accumulators: for each pixel two vectors of four channels.
type Tile = [[F32x4; 2]; PIXELS];

/// One pass over a chunk of pixels: all output channels of all its rows.
#[derive(Clone, Copy)]
pub(crate) struct Sweep {
    /// Input of the chunk's first output, first tap.
    pub(crate) input: *const f32,
    /// Values between the inputs of two output rows.
    pub(crate) input_row: usize,
    /// Values between two input channels; read by [`pointwise`] alone.
    pub(crate) input_plane: usize,
    /// Byte offsets from `input`; [`rows_of_three`] reads one for three steps, [`split_rows`]
    /// one for a window row, [`table`] one for each, [`pointwise`] none.
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
    /// Weights that are read soon after this sweep's own and lie right behind them.
    pub(crate) more_weights: usize,
}

/// How the reduction walks over the input.
trait Walk {
    /// Computes tiles of eight pixels in the same way.
    const STRIP: unsafe fn(&Strip);

    /// Sums up one tile.
    ///
    /// # Safety
    /// As the sweep's function says; `pixel` is the input of a tile's first pixel, `weights` and
    /// `bias` belong to its block of channels.
    unsafe fn reduce(
        sweep: &Sweep,
        pixel: *const f32,
        weights: *const f32,
        bias: *const f32,
    ) -> Tile;
}

/// Runs one of the functions below, then the curve if the activation is one: block by block, so
/// that its pass finds the outputs in a cache.
///
/// # Safety
/// As the function says; `sweep.clamp` is the activation's.
pub(crate) unsafe fn activated(
    sweep: &Sweep,
    activation: &Activation,
    function: unsafe fn(&Sweep),
) {
    // SAFETY: the caller's promise, and for each block its part of weights, bias, output and
    // residual.
    unsafe {
        if !activation.is_curve() {
            return function(sweep);
        }
        let blocks = sweep.channels.div_ceil(CHANNELS);
        for block in 0..blocks {
            let first = block * CHANNELS;
            let channels = (sweep.channels - first).min(CHANNELS);
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
                more_weights: (blocks - block - 1) * CHANNELS * sweep.steps,
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

/// Sweeps windows three columns wide at stride and dilation 1: one offset a window row.
///
/// # Safety
/// At each offset every output row's input holds `max(columns, 4) + 2` values; the rest as
/// [`pointwise`].
#[inline(never)]
pub(crate) unsafe fn rows_of_three(sweep: &Sweep) {
    // SAFETY: the caller's promise.
    unsafe { run::<RowsOfThree>(sweep) }
}

/// Sweeps windows `TAPS` columns wide, at most seven, at stride 2 and dilation 1 over rows split
/// into even and odd columns: one offset a window row.
///
/// # Safety
/// At each offset, and `odd` values behind it, every output row's input holds
/// `max(columns, 4) + TAPS / 2` values; the rest as [`pointwise`].
#[inline(never)]
pub(crate) unsafe fn split_rows<const TAPS: usize>(sweep: &Sweep) {
    // SAFETY: the caller's promise.
    unsafe { run::<SplitRows<TAPS>>(sweep) }
}

/// Sweeps any window: one offset a step.
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
/// As the three functions above say.
#[inline(always)]
unsafe fn run<W: Walk>(sweep: &Sweep) {
    let s = sweep;
    // Rows of less than eight pixels are tiles of four alone. What eight do not divide is one more
    // tile that reaches back: of four if that is enough.
    let strips = s.columns / strip::PIXELS;
    let rest = match s.columns % strip::PIXELS {
        0 if strips > 0 => Rest::None,
        1..=PIXELS if strips > 0 => Rest::Four,
        _ if strips > 0 => Rest::Eight,
        _ => Rest::Fours,
    };
    let mut tiles = Strip {
        input: s.input,
        stride: 4 * if s.odd > 0 { s.odd } else { s.input_plane },
        offsets: s.offsets,
        steps: s.steps,
        leg: s.steps.div_ceil(s.steps.div_ceil(LEG)),
        weights: s.weights,
        bias: s.bias,
        output: s.output,
        output_plane: 4 * s.output_plane,
        residual: s.residual,
        channels: CHANNELS,
        tiles: strips,
        low: s.clamp.low,
        high: s.clamp.high,
    };
    // SAFETY: blocks, rows and columns stay below the extents that the caller gave; a row's
    // last tile ends with the row, or begins with it when there are too few pixels, of which
    // `store_part` then writes no more than there are.
    unsafe {
        for block in 0..s.channels.div_ceil(CHANNELS) {
            let channels = (s.channels - block * CHANNELS).min(CHANNELS);
            tiles.weights = s.weights.add(block * s.steps * CHANNELS);
            tiles.bias = s.bias.add(block * CHANNELS);
            tiles.channels = channels;
            let mut next = Next::new(s, block);
            for row in 0..s.rows {
                let input = s.input.add(row * s.input_row);
                let at = block * CHANNELS * s.output_plane + row * s.output_row;
                let mut strip = |column: usize, count: usize| {
                    tiles.input = input.add(column);
                    tiles.output = s.output.add(at + column);
                    if !s.residual.is_null() {
                        tiles.residual = s.residual.add(at + column);
                    }
                    tiles.tiles = count;
                    W::STRIP(&tiles);
                };
                if next.is_idle() {
                    if strips > 0 {
                        strip(0, strips);
                    }
                } else {
                    for tile in 0..strips {
                        next.touch();
                        strip(tile * strip::PIXELS, 1);
                    }
                }
                let fours = match rest {
                    Rest::None => continue,
                    Rest::Eight => {
                        next.touch();
                        strip(s.columns - strip::PIXELS, 1);
                        continue;
                    }
                    Rest::Four => s.columns - PIXELS,
                    Rest::Fours => 0,
                };
                let mut column = fours;
                while column < s.columns {
                    let first = column.min(s.columns.saturating_sub(PIXELS));
                    next.touch();
                    let tile = W::reduce(s, input.add(first), tiles.weights, tiles.bias);
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

/// The accumulators before the first step.
///
/// # Safety
/// `bias` points to eight values.
#[inline(always)]
unsafe fn begin(bias: *const f32) -> Tile {
    // SAFETY: the caller's promise.
    unsafe { [[F32x4::load(bias), F32x4::load(bias.add(4))]; PIXELS] }
}

/// `pointer` and `count` values more.
///
/// As a sum that does not wrap it becomes the offset of a load, which costs nothing; as a pointer's
/// it becomes an instruction of its own, two for every eight multiplications.
///
/// # Safety
/// As for [`pointer::add`](pointer#method.add).
#[inline(always)]
unsafe fn ahead(pointer: *const f32, count: usize) -> *const f32 {
    // SAFETY: the caller's promise: a buffer does not wrap around the address space.
    unsafe { (pointer as usize).unchecked_add(4 * count) as *const f32 }
}

/// One reduction step: the four values at `pixel` times the eight at `weights`.
///
/// # Safety
/// Both are readable.
#[inline(always)]
unsafe fn step(tile: &mut Tile, pixel: *const f32, weights: *const f32) {
    // SAFETY: the caller's promise.
    let (pixels, low, high) =
        unsafe { (F32x4::load(pixel), F32x4::load(weights), F32x4::load(ahead(weights, 4))) };
    let spread = [
        pixels.broadcast::<0>(),
        pixels.broadcast::<1>(),
        pixels.broadcast::<2>(),
        pixels.broadcast::<3>(),
    ];
    for (sums, value) in tile.iter_mut().zip(spread) {
        sums[0] = value.mul_add(low, sums[0]);
        sums[1] = value.mul_add(high, sums[1]);
    }
}

/// See [`pointwise`].
struct Pointwise;

impl Walk for Pointwise {
    const STRIP: unsafe fn(&Strip) = strip::channels;

    #[inline(always)]
    unsafe fn reduce(s: &Sweep, pixel: *const f32, weights: *const f32, bias: *const f32) -> Tile {
        // SAFETY: the caller's promise.
        unsafe { channels(begin(bias), s.steps, pixel, s.input_plane, weights) }
    }
}

/// [`Pointwise`] in legs of about equal length.
struct PointwiseInLegs;

impl Walk for PointwiseInLegs {
    const STRIP: unsafe fn(&Strip) = strip::channels_in_legs;

    #[inline(always)]
    unsafe fn reduce(
        s: &Sweep,
        mut pixel: *const f32,
        mut weights: *const f32,
        bias: *const f32,
    ) -> Tile {
        let each = s.steps.div_ceil(s.steps.div_ceil(LEG));
        let mut left = s.steps;
        // SAFETY: the caller's promise; the legs are parts of the whole.
        unsafe {
            let mut sums = begin(bias);
            loop {
                let steps = each.min(left);
                let zero = [[F32x4::splat(0.0); 2]; PIXELS];
                let leg = channels(zero, steps, pixel, s.input_plane, weights);
                for (sums, leg) in sums.as_flattened_mut().iter_mut().zip(leg.as_flattened()) {
                    *sums = sums.add(*leg);
                }
                left -= steps;
                if left == 0 {
                    return sums;
                }
                pixel = pixel.wrapping_add(steps * s.input_plane);
                weights = weights.add(steps * CHANNELS);
            }
        }
    }
}

/// Adds the products of `left` channels, `plane` values apart, to a tile.
///
/// # Safety
/// Each channel's four pixels and eight weights are readable; there is one at least.
#[inline(always)]
unsafe fn channels(
    mut tile: Tile,
    mut left: usize,
    mut pixel: *const f32,
    plane: usize,
    mut weights: *const f32,
) -> Tile {
    // SAFETY: the caller's promise; a pointer is read only while steps are left.
    unsafe {
        loop {
            step(&mut tile, pixel, weights);
            left -= 1;
            if left == 0 {
                break;
            }
            pixel = pixel.wrapping_add(plane);
            step(&mut tile, pixel, ahead(weights, CHANNELS));
            left -= 1;
            if left == 0 {
                break;
            }
            pixel = pixel.wrapping_add(plane);
            step(&mut tile, pixel, ahead(weights, 2 * CHANNELS));
            left -= 1;
            if left == 0 {
                break;
            }
            pixel = pixel.wrapping_add(plane);
            weights = ahead(weights, 3 * CHANNELS);
        }
        tile
    }
}

/// See [`rows_of_three`].
struct RowsOfThree;

impl Walk for RowsOfThree {
    const STRIP: unsafe fn(&Strip) = strip::rows_of_three;

    #[inline(always)]
    unsafe fn reduce(
        s: &Sweep,
        base: *const f32,
        mut weights: *const f32,
        bias: *const f32,
    ) -> Tile {
        let mut left = s.steps;
        let mut offsets = s.offsets;
        // SAFETY: the caller's promise; an offset is read only while steps are left.
        unsafe {
            let mut tile = begin(bias);
            loop {
                let pixel = base.wrapping_byte_add(*offsets as usize);
                step(&mut tile, pixel, weights);
                left -= 1;
                if left == 0 {
                    break;
                }
                step(&mut tile, ahead(pixel, 1), ahead(weights, CHANNELS));
                left -= 1;
                if left == 0 {
                    break;
                }
                step(&mut tile, ahead(pixel, 2), ahead(weights, 2 * CHANNELS));
                left -= 1;
                if left == 0 {
                    break;
                }
                offsets = offsets.add(1);
                weights = ahead(weights, 3 * CHANNELS);
            }
            tile
        }
    }
}

/// See [`split_rows`].
struct SplitRows<const TAPS: usize>;

impl<const TAPS: usize> Walk for SplitRows<TAPS> {
    const STRIP: unsafe fn(&Strip) = strip::split_rows::<TAPS>;

    #[inline(always)]
    unsafe fn reduce(
        s: &Sweep,
        base: *const f32,
        mut weights: *const f32,
        bias: *const f32,
    ) -> Tile {
        let mut left = s.steps;
        let mut offsets = s.offsets;
        // SAFETY: the caller's promise; an offset is read only while steps are left.
        unsafe {
            let mut tile = begin(bias);
            'steps: loop {
                let even = base.wrapping_byte_add(*offsets as usize);
                let odd = even.wrapping_add(s.odd);
                // Unrolled by hand, so that places and weights are constants away.
                macro_rules! taps {
                    ($($tap:literal)*) => {
                        $(if $tap < TAPS {
                            let row = if $tap % 2 == 0 { even } else { odd };
                            step(&mut tile, ahead(row, $tap / 2), ahead(weights, $tap * CHANNELS));
                            left -= 1;
                            if left == 0 {
                                break 'steps;
                            }
                        })*
                    };
                }
                taps!(0 1 2 3 4 5 6);
                offsets = offsets.add(1);
                weights = ahead(weights, TAPS * CHANNELS);
            }
            tile
        }
    }
}

/// See [`table`].
struct Table;

impl Walk for Table {
    const STRIP: unsafe fn(&Strip) = strip::table;

    #[inline(always)]
    unsafe fn reduce(
        s: &Sweep,
        base: *const f32,
        mut weights: *const f32,
        bias: *const f32,
    ) -> Tile {
        let mut left = s.steps;
        let mut offsets = s.offsets;
        // SAFETY: the caller's promise; an offset is read only while steps are left.
        unsafe {
            let mut tile = begin(bias);
            loop {
                step(&mut tile, base.wrapping_byte_add(*offsets as usize), weights);
                left -= 1;
                if left == 0 {
                    break;
                }
                let pixel = base.wrapping_byte_add(*offsets.add(1) as usize);
                step(&mut tile, pixel, ahead(weights, CHANNELS));
                left -= 1;
                if left == 0 {
                    break;
                }
                let pixel = base.wrapping_byte_add(*offsets.add(2) as usize);
                step(&mut tile, pixel, ahead(weights, 2 * CHANNELS));
                left -= 1;
                if left == 0 {
                    break;
                }
                offsets = offsets.add(3);
                weights = ahead(weights, 3 * CHANNELS);
            }
            tile
        }
    }
}
