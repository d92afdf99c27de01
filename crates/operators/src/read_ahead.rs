//! Weights that are needed soon, brought into the cache in time.
//!
//! In a whole model weights come from memory. The first tile of a block of channels would wait for
//! them line by line, which with half a dozen tiles a block (maps of 7x7) costs a fifth of the time;
//! a few lines ahead of every reduction arrive while it is made.

use crate::scratch::LINE;
use crate::strip::{PIXELS, Strip};
use crate::tile::{CHANNELS, Sweep};
use crate::wide::Wide;

/// Tiles in a sweep from which on its weights need no care: each is read so often that the first
/// time does not show.
const MANY_TILES: usize = 64;
/// The same of wide strips, which wait less: on maps of 14x14 reading ahead costs them up to a tenth.
const MANY_WIDE_TILES: usize = 16;
/// Most cache lines to read at once: more would wait for each other.
const MOST_LINES: usize = 16;

/// Has a block's strips read the weights of the next block ahead.
///
/// # Safety
/// `block` is a block of the sweep.
pub(crate) unsafe fn plan(s: &Sweep, block: usize, strip: &mut Strip) {
    let tiles = s.rows * s.columns.div_ceil(PIXELS);
    let size = s.steps * CHANNELS;
    let left = (s.channels.div_ceil(CHANNELS) - block - 1) * size + s.more_weights;
    let lines = if tiles < MANY_TILES { left.min(size) / LINE } else { 0 };
    let legs = strip.steps.div_ceil(strip.leg);
    // SAFETY: the next block begins where this one ends.
    strip.ahead = unsafe { s.weights.add((block + 1) * size) };
    strip.ahead_lines = lines;
    // Four channels at a time, so that each tile is two reductions in so many legs.
    strip.ahead_each = lines.div_ceil(2 * tiles * legs).min(MOST_LINES);
}

/// Has wide strips, which make so many reductions together, read `count` blocks ahead from the block
/// `next` on, which may be the end of the sweep's, as far as there are so many.
pub(crate) fn plan_wide(s: &Sweep, next: usize, count: usize, reductions: usize, wide: &mut Wide) {
    let size = s.steps * CHANNELS;
    let left = s.channels.div_ceil(CHANNELS).saturating_sub(next) * size + s.more_weights;
    let few = s.rows * s.columns.div_ceil(PIXELS) < MANY_WIDE_TILES;
    let lines = if few { left.min(count * size) / LINE } else { 0 };
    wide.ahead = s.weights.wrapping_add(next * size);
    wide.ahead_lines = lines;
    wide.ahead_each = lines.div_ceil(reductions).min(MOST_LINES);
}
