//! What a wide strip is: neighbouring tiles of four pixels by twelve output channels of a
//! convolution, the block of eight channels of one packed block and half of the next.
//!
//! As with [`crate::strip`], `build/wide.rs` writes the functions' instructions for wasm with SIMD;
//! everywhere else it is plain Rust.

use crate::read_ahead;
use crate::strip::PIXELS;
use crate::tile::{CHANNELS, Sweep};
use crate::walk::LEG;

/// Output pixels of one tile.
const WIDTH: usize = 4;
/// Output channels that are summed up together, and those of two such groups, which are whole
/// blocks.
const GROUP: usize = 12;
pub(crate) const GROUPS: usize = 24;

/// Fewest taps with which it pays: nine take up to a tenth longer than by [`crate::strip`], eighteen
/// as long, 27 three hundredths less, hundreds a tenth less.
const FEWEST_TAPS: usize = 20;

/// How the steps of a sweep find their pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steps {
    /// As channels, `input_plane` apart.
    Channels,
    /// As taps, at an offset each.
    Taps,
}

/// Neighbouring tiles of twelve output channels.
///
/// `build/wide.rs` knows where each field lies. Distances are in bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Wide {
    /// Input of the first pixel, first channel.
    input: *const f32,
    /// From an input channel to the next; read by [`functions::channels`] alone.
    stride: usize,
    /// Reduction steps, at least one.
    steps: usize,
    /// `[steps][8]` weights of eight output channels, and as many of which the first four of each
    /// step belong to the other four.
    weights: *const f32,
    more_weights: *const f32,
    /// Eight values and four that are added to the sums.
    bias: *const f32,
    more_bias: *const f32,
    /// Output of the first pixel in the first of the eight channels, and of the four.
    output: *mut f32,
    more_output: *mut f32,
    /// From an output channel to the next.
    output_plane: usize,
    /// What is laid out as `output` and added before the bounds, or null.
    residual: *const f32,
    /// Whether the output holds a part of the sums, to which this is added instead of the bias.
    continues: usize,
    /// Tiles, at least one.
    tiles: usize,
    /// From the input of a tile to that of the next, and from that on; then the first again.
    next: usize,
    other_next: usize,
    /// Bounds of the output.
    low: f32,
    high: f32,
    /// As in [`crate::strip::Strip`].
    pub(crate) ahead: *const f32,
    pub(crate) ahead_lines: usize,
    pub(crate) ahead_each: usize,
    touched: u32,
    /// Distances from `input` to each step's; read by [`functions::taps`] alone.
    offsets: *const u32,
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[path = "wide_wasm.rs"]
mod functions;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
#[path = "wide_plain.rs"]
mod functions;

/// Computes all tiles of a sweep's rows, from a block's first channel on, for as many channels as
/// suit: 24, 12 or none. Says how many.
///
/// Where steps are channels these are the tiles of eight pixels. Of windows they are all: the last
/// one reaches back where four do not divide a row.
///
/// Sums that are longer than two legs are taken leg by leg, each through all tiles: its weights and
/// pixels stay in the first-level cache.
///
/// # Safety
/// As for [`crate::tile::pointwise`], or where steps are taps [`crate::tile::table`]; `block` is a
/// block of the sweep.
pub(crate) unsafe fn run(s: &Sweep, block: usize, steps: Steps) -> usize {
    let tiles = match steps {
        Steps::Channels => s.columns / PIXELS * (PIXELS / WIDTH),
        Steps::Taps if s.steps < FEWEST_TAPS => 0,
        Steps::Taps => s.columns / WIDTH,
    };
    let channels = match s.channels - block * CHANNELS {
        _ if tiles == 0 => 0,
        GROUPS.. => GROUPS,
        GROUP.. => GROUP,
        _ => 0,
    };
    for group in 0..channels / GROUP {
        // The second group is the half that the first has left of its second block, and the third.
        let first = block * CHANNELS;
        let (eight, four) = match group {
            0 => (first, first + CHANNELS),
            _ => (first + 2 * CHANNELS, first + GROUP),
        };
        let legs = if s.steps > 2 * LEG { s.steps.div_ceil(LEG) } else { 1 };
        let size = s.steps * CHANNELS;
        // SAFETY: the caller's promise: blocks and channels stay below their extents, and whole
        // tiles below the columns.
        unsafe {
            let weights =
                |channel: usize| s.weights.add(channel / CHANNELS * size + channel % CHANNELS);
            let mut wide = Wide {
                input: s.input,
                stride: 4 * s.input_plane,
                steps: 0,
                weights: weights(eight),
                more_weights: weights(four),
                bias: s.bias.add(eight),
                more_bias: s.bias.add(four),
                output: s.output.add(eight * s.output_plane),
                more_output: s.output.add(four * s.output_plane),
                output_plane: 4 * s.output_plane,
                residual: match s.residual.is_null() {
                    true => s.residual,
                    false => s.residual.add(eight * s.output_plane),
                },
                continues: 0,
                tiles,
                next: 4 * WIDTH,
                other_next: 4 * if s.panel > 0 { s.panel - WIDTH } else { WIDTH },
                low: s.clamp.low,
                high: s.clamp.high,
                ahead: s.weights,
                ahead_lines: 0,
                ahead_each: 0,
                touched: 0,
                offsets: s.offsets,
            };
            let reductions = s.rows * tiles * legs;
            read_ahead::plan_wide(s, block + 2 + group, 1 + group, reductions, &mut wide);
            in_legs(s, legs, steps, &mut wide, 0);
            if steps == Steps::Taps && !s.columns.is_multiple_of(WIDTH) {
                // Legs of its own: what it shares with the tile before it is made anew.
                wide.tiles = 1;
                in_legs(s, legs, steps, &mut wide, s.columns - WIDTH);
            }
        }
    }
    channels
}

/// Computes a wide strip, described for the sweep's first row and column and all steps, from a
/// column on in all rows.
///
/// # Safety
/// As for [`run`]; the strip's tiles lie inside the sweep from that column on.
unsafe fn in_legs(s: &Sweep, legs: usize, steps: Steps, wide: &mut Wide, column: usize) {
    let whole = *wide;
    let leg = s.steps.div_ceil(legs);
    for step in (0..s.steps).step_by(leg) {
        // SAFETY: the caller's promise: steps and rows stay below their extents.
        unsafe {
            wide.weights = whole.weights.add(step * CHANNELS);
            wide.more_weights = whole.more_weights.add(step * CHANNELS);
            wide.steps = leg.min(s.steps - step);
            wide.continues = usize::from(step > 0);
            let last = step + leg >= s.steps;
            (wide.low, wide.high) = match last {
                true => (whole.low, whole.high),
                false => (f32::NEG_INFINITY, f32::INFINITY),
            };
            for row in 0..s.rows {
                let input = whole.input.add(row * s.input_row + column);
                let at = row * s.output_row + column;
                wide.output = whole.output.add(at);
                wide.more_output = whole.more_output.add(at);
                wide.residual = match last && !whole.residual.is_null() {
                    true => whole.residual.add(at),
                    false => std::ptr::null(),
                };
                match steps {
                    Steps::Channels => {
                        wide.input = input.add(step * s.input_plane);
                        functions::channels(wide);
                    }
                    Steps::Taps => {
                        wide.input = input;
                        wide.offsets = whole.offsets.add(step);
                        functions::taps(wide);
                    }
                }
            }
        }
    }
    // For another column: what was read ahead stays so.
    *wide =
        Wide { ahead: wide.ahead, ahead_lines: wide.ahead_lines, touched: wide.touched, ..whole };
}
