//! Input as panels: for each tile of eight pixels its values step by step, one behind another.
//!
//! A micro-kernel then reads both its streams, input and weights, at constant strides: no planes
//! that evict each other from the cache, no half-used cache lines, no rest at the end of each row of
//! a small map. The copy pays where many output channels read it.

use crate::KernelError;
use crate::gather::{Span, copy, even_chunk};
use crate::geometry::{Conv2d, floats};
use crate::scratch::LINE;
use crate::strip::PIXELS;

/// Bytes that the panels of a chunk may take together: every chunk reads all weights once more, and
/// all of a 7x7 map with 512 channels and nine taps fits.
const BYTES: usize = 1020 * 1024;

/// Panels of some pixels of a convolution's output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panels {
    /// Pixels whose panels are held at a time: whole tiles.
    pub(crate) chunk: usize,
    /// Values of one panel.
    pub(crate) panel: usize,
    /// Panels that are held.
    count: usize,
}

impl Panels {
    /// Plans the panels of a convolution.
    ///
    /// # Errors
    /// [`KernelError::Geometry`] when one panel exceeds 2 GiB.
    pub(crate) fn plan(conv: &Conv2d) -> Result<Self, KernelError> {
        let panel = floats(&[conv.steps(), PIXELS])?;
        let tiles = conv.output_plane().div_ceil(PIXELS);
        let count = even_chunk(tiles, BYTES / 4 / panel);
        floats(&[panel, count])?;
        Ok(Self { chunk: count * PIXELS, panel, count })
    }

    /// Values of scratch: the panels, and a line of pixels.
    pub(crate) fn len(&self, conv: &Conv2d) -> usize {
        self.count * self.panel + self.line(conv)
    }

    /// Values of a line: the rows that a chunk touches.
    fn line(&self, conv: &Conv2d) -> usize {
        let width = conv.columns.output;
        let rows = (self.chunk / width + 2).min(conv.rows.output);
        (rows * width).max(PIXELS).next_multiple_of(LINE)
    }

    /// Copies the input of the pixels from `first` to `end`. The last panel may overlap the one
    /// before it, so that it is full; when there are less than eight pixels its end means nothing.
    ///
    /// # Safety
    /// `x` points to the input of one group, `scratch` holds [`Panels::len`] values; there are no
    /// more than `chunk` pixels.
    pub(crate) unsafe fn fill(
        &self,
        conv: &Conv2d,
        x: *const f32,
        scratch: &mut [f32],
        first: usize,
        end: usize,
    ) {
        let (panels, line) = scratch.split_at_mut(self.count * self.panel);
        let (rows, columns) = (conv.rows, conv.columns);
        let width = columns.output;
        let in_place = rows.kernel * columns.kernel == 1
            && rows.is_identity()
            && columns.is_identity()
            && end - first >= PIXELS;
        let left = -(columns.before as isize);
        let mut panels = panels.as_mut_ptr();
        for channel in 0..conv.group_inputs {
            // SAFETY: the channel is one of the group.
            let x = unsafe { x.add(channel * conv.input_plane()) };
            for tap in 0..rows.kernel * columns.kernel {
                // SAFETY: pixels of a plane where outputs are inputs, else of the lines that were
                // just written, eight at least; a panel for each eight of them.
                unsafe {
                    let from = if in_place {
                        x.add(first)
                    } else {
                        let column = tap % columns.kernel * columns.dilation;
                        let span =
                            Span::new(columns.input, column as isize + left, columns.stride, width);
                        let above = tap / columns.kernel * rows.dilation;
                        let top = first / width;
                        let lines = line.chunks_exact_mut(width).take(end.div_ceil(width) - top);
                        for (row, to) in lines.enumerate() {
                            let source = rows.start(top + row) + above as isize;
                            let inside = source >= 0 && source < rows.input as isize;
                            if !inside || !span.covers(width) {
                                to.fill(0.0);
                            }
                            if inside {
                                span.copy(x.add(source as usize * columns.input), to);
                            }
                        }
                        line.as_ptr().add(first % width)
                    };
                    self.cut(from, end - first, panels);
                    panels = panels.add(PIXELS);
                }
            }
        }
    }

    /// Copies a line of `count` pixels to one step of the panels.
    ///
    /// # Safety
    /// `from` points to so many pixels, eight at least.
    #[inline(always)]
    unsafe fn cut(&self, from: *const f32, count: usize, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut to = to;
            let mut pixel = 0;
            while pixel + PIXELS <= count {
                copy(from.add(pixel), to, PIXELS);
                to = to.add(self.panel);
                pixel += PIXELS;
            }
            if pixel < count {
                copy(from.add(count.max(PIXELS) - PIXELS), to, PIXELS);
            }
        }
    }
}
