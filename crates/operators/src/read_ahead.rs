//! Weights that are needed soon, brought into the cache in time.

use std::hint;

use crate::scratch::LINE;
use crate::strip::PIXELS;
use crate::tile::{CHANNELS, Sweep};

/// Tiles in a sweep from which on its weights need no care: each is read so often that the first
/// time does not show.
const MANY_TILES: usize = 64;
/// Most cache lines to touch ahead of a tile: more than the processor can have under way would wait
/// for each other. Long blocks are read well as they come.
const MOST_LINES: usize = 96;

/// The weights of the next block, brought into the cache while this one is computed.
///
/// In a whole model weights come from memory. The first tile of a block would wait for them line by
/// line, which with a dozen tiles a block (maps of 7x7) cost half of the time; a few lines ahead of
/// every tile arrive while it is computed.
pub(crate) struct Next {
    from: *const f32,
    /// Cache lines left, and how many to touch with each tile.
    lines: usize,
    each: usize,
}

impl Next {
    /// # Safety
    /// `block` is a block of the sweep.
    #[inline(always)]
    pub(crate) unsafe fn new(s: &Sweep, block: usize) -> Self {
        let tiles = s.rows * s.columns.div_ceil(PIXELS);
        let size = s.steps * CHANNELS;
        let left = (s.channels.div_ceil(CHANNELS) - block - 1) * size + s.more_weights;
        let lines = left.min(size) / LINE;
        let few = tiles < MANY_TILES && lines.div_ceil(tiles) <= MOST_LINES;
        let lines = if few { lines } else { 0 };
        // SAFETY: the next block begins where this one ends.
        let from = unsafe { s.weights.add((block + 1) * size) };
        Self { from, lines, each: lines.div_ceil(tiles) }
    }

    /// Whether there is nothing to touch.
    pub(crate) fn is_idle(&self) -> bool {
        self.lines == 0
    }

    /// Touches the lines of one tile.
    ///
    /// # Safety
    /// The weights that the sweep promised are there.
    #[inline(always)]
    pub(crate) unsafe fn touch(&mut self) {
        if self.lines > 0 {
            let count = self.each.min(self.lines);
            // SAFETY: `count` lines are left.
            unsafe {
                touch(self.from, count);
                self.from = self.from.add(count * LINE);
            }
            self.lines -= count;
        }
    }
}

/// Reads a value of each of `lines` cache lines.
///
/// # Safety
/// They are readable.
#[cold]
#[inline(never)]
unsafe fn touch(from: *const f32, lines: usize) {
    let mut bits = 0;
    for line in 0..lines {
        // SAFETY: the caller's promise.
        bits |= unsafe { (*from.add(line * LINE)).to_bits() };
    }
    // What is not used is not read.
    hint::black_box(bits);
}
