//! What a wide strip is: neighbouring tiles of four pixels by twelve output channels of a 1x1
//! convolution, the block of eight channels of one packed block and half of the next.
//!
//! As with [`crate::strip`], `build/wide.rs` writes the function's instructions for wasm with SIMD;
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
const GROUPS: usize = 24;

/// Neighbouring tiles of twelve output channels.
///
/// `build/wide.rs` knows where each field lies. Distances are in bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Wide {
    /// Input of the first pixel, first channel.
    input: *const f32,
    /// From an input channel to the next.
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
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[path = "wide_wasm.rs"]
mod functions;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
#[path = "wide_plain.rs"]
mod functions;

/// Computes all tiles of eight pixels of a sweep of one row, from a block's first channel on, for as
/// many channels as suit: 24, 12 or none. Says how many.
///
/// Sums that are longer than two legs are taken leg by leg, each through all tiles: its weights and
/// pixels stay in the first-level cache.
///
/// # Safety
/// As for [`crate::tile::pointwise`]; `block` is a block of the sweep.
pub(crate) unsafe fn run(s: &Sweep, block: usize) -> usize {
    let tiles = s.columns / PIXELS * (PIXELS / WIDTH);
    let channels = match s.channels - block * CHANNELS {
        _ if tiles == 0 || s.rows != 1 => 0,
        GROUPS.. => GROUPS,
        GROUP.. => GROUP,
        _ => 0,
    };
    if channels == 0 {
        return 0;
    }
    let legs = if s.steps > 2 * LEG { s.steps.div_ceil(LEG) } else { 1 };
    let leg = s.steps.div_ceil(legs);
    let size = s.steps * CHANNELS;
    let first = block * CHANNELS;
    for group in 0..channels / GROUP {
        // The second group is the half that the first has left of its second block, and the third.
        let (eight, four) = if group == 0 {
            (first, first + CHANNELS)
        } else {
            (first + 2 * CHANNELS, first + GROUP)
        };
        // SAFETY: the caller's promise: blocks, channels, planes and steps stay below their
        // extents, the tiles below the columns.
        unsafe {
            let weights =
                |channel: usize| s.weights.add(channel / CHANNELS * size + channel % CHANNELS);
            let mut wide = Wide {
                input: s.input,
                stride: 4 * s.input_plane,
                steps: leg,
                weights: weights(eight),
                more_weights: weights(four),
                bias: s.bias.add(eight),
                more_bias: s.bias.add(four),
                output: s.output.add(eight * s.output_plane),
                more_output: s.output.add(four * s.output_plane),
                output_plane: 4 * s.output_plane,
                residual: s.residual,
                continues: 0,
                tiles,
                next: 4 * WIDTH,
                other_next: 4 * if s.panel > 0 { s.panel - WIDTH } else { WIDTH },
                low: f32::NEG_INFINITY,
                high: f32::INFINITY,
                ahead: s.weights,
                ahead_lines: 0,
                ahead_each: 0,
                touched: 0,
            };
            read_ahead::plan_wide(s, block + 2 + group, 1 + group, tiles * legs, &mut wide);
            for step in (0..s.steps).step_by(leg) {
                wide.input = s.input.add(step * s.input_plane);
                wide.weights = weights(eight).add(step * CHANNELS);
                wide.more_weights = weights(four).add(step * CHANNELS);
                wide.steps = leg.min(s.steps - step);
                wide.continues = usize::from(step > 0);
                let last = step + leg >= s.steps;
                wide.residual = match last && !s.residual.is_null() {
                    true => s.residual.add(eight * s.output_plane),
                    false => std::ptr::null(),
                };
                if last {
                    (wide.low, wide.high) = (s.clamp.low, s.clamp.high);
                }
                functions::wide(&mut wide);
            }
        }
    }
    channels
}
