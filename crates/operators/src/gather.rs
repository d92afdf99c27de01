//! Copies input into scratch where a micro-kernel cannot read it in place: padding, strides,
//! planes that would evict each other from the cache.
//!
//! A [`Padded`] plane holds rows with their padding, each row split by the stride into phases:
//! phase `p` holds the columns `p`, `p + stride`, `p + 2 * stride` and so on, so that
//! neighbouring outputs read neighbouring values whatever the stride.

use crate::KernelError;
use crate::geometry::{Axis, floats};
use crate::scratch::LINE;
use crate::variant::F32x4;
use crate::vector::Vector;

/// Input bytes that one chunk may hold: chunk, weights of a block and output rows share a
/// second-level cache of 1 MiB and more, and scratch stays small.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// Rounds the distance between two planes up so that it is an odd number of cache lines:
/// channels that lie a multiple of 128 bytes apart use only half of the first-level cache's
/// sets or fewer.
pub(crate) fn stagger(plane: usize) -> usize {
    let plane = plane.next_multiple_of(4);
    if (plane / LINE).is_multiple_of(2) { (plane / LINE + 1) * LINE } else { plane }
}

/// Whether planes this many values apart fall into few sets of the first-level cache.
pub(crate) fn collides(plane: usize) -> bool {
    plane.is_multiple_of(2 * LINE)
}

/// Splits `rows` into chunks of nearly equal size, none larger than `at_most` (at least 1).
pub(crate) fn even_chunk(rows: usize, at_most: usize) -> usize {
    rows.div_ceil(rows.div_ceil(at_most.max(1)))
}

/// How padded planes of some channels lie in scratch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Padded {
    channels: usize,
    rows: Axis,
    columns: Axis,
    /// Values in one phase of one row.
    width: usize,
    /// Values between two rows.
    pitch: usize,
    /// Values between two channels.
    plane: usize,
    /// Output rows whose input is held at a time.
    chunk: usize,
}

impl Padded {
    /// Plans planes for chunks of [`CHUNK_BYTES`], at least one output row.
    ///
    /// # Errors
    /// [`KernelError::Geometry`] when one chunk exceeds 2 GiB.
    pub(crate) fn plan(channels: usize, rows: Axis, columns: Axis) -> Result<Self, KernelError> {
        let phases = columns.stride.min(columns.window());
        // A micro-kernel reads four outputs' columns even when the output has fewer.
        let width = (columns.window() - 1) / columns.stride + columns.output.max(4);
        let pitch = floats(&[phases, width])?;
        let row_bytes = floats(&[channels, pitch])? * 4;
        let chunk = even_chunk(rows.output, CHUNK_BYTES / row_bytes / rows.stride);
        let plane = stagger(floats(&[rows.reach(chunk), pitch])?);
        let padded = Self { channels, rows, columns, width, pitch, plane, chunk };
        floats(&[channels, plane])?;
        Ok(padded)
    }

    /// Values that the planes take.
    pub(crate) fn len(&self) -> usize {
        self.channels * self.plane
    }

    /// Output rows whose input is held at a time.
    pub(crate) fn chunk(&self) -> usize {
        self.chunk
    }

    /// Values between the inputs of two output rows.
    pub(crate) fn row(&self) -> usize {
        self.rows.stride * self.pitch
    }

    /// Values between the even columns of a row and its odd ones, at stride 2.
    pub(crate) fn odd(&self) -> usize {
        self.width
    }

    /// Place of one tap's input for the first output of a chunk.
    fn tap(&self, channel: usize, row: usize, column: usize) -> usize {
        let column = column * self.columns.dilation;
        let phase = (column % self.columns.stride) * self.width;
        channel * self.plane
            + row * self.rows.dilation * self.pitch
            + phase
            + column / self.columns.stride
    }

    /// Writes the byte offset of every tap of every channel. Each stands in the bits of a value.
    pub(crate) fn write_offsets(&self, to: &mut [f32]) {
        let mut to = to.iter_mut();
        for channel in 0..self.channels {
            for row in 0..self.rows.kernel {
                for (column, to) in (0..self.columns.kernel).zip(&mut to) {
                    // Planes end below 2 GiB (`plan`), so a byte offset fits 32 bits.
                    *to = f32::from_bits((self.tap(channel, row, column) * 4) as u32);
                }
            }
        }
    }

    /// Fills the planes with the input of `outputs` rows from `first` on. Padding left and right
    /// is not written: it stays zero from before the first call.
    ///
    /// # Safety
    /// `x` points to `channels` planes of the input; `outputs` is at most [`Padded::chunk`].
    pub(crate) unsafe fn fill(&self, x: *const f32, to: &mut [f32], first: usize, outputs: usize) {
        let (height, input, stride) = (self.rows.input, self.columns.input, self.columns.stride);
        let left = self.columns.before as isize;
        // With one chunk the same rows are padding every time, and zero already.
        let several = self.chunk < self.rows.output;
        for (channel, plane) in to[..self.len()].chunks_exact_mut(self.plane).enumerate() {
            for phase in 0..stride.min(self.columns.window()) {
                let span = Span::new(input, phase as isize - left, stride, self.width);
                for row in 0..self.rows.reach(outputs) {
                    // Rows between two windows that do not touch.
                    if self.rows.stride > self.rows.window()
                        && row % self.rows.stride >= self.rows.window()
                    {
                        continue;
                    }
                    let to = &mut plane[row * self.pitch + phase * self.width..][..self.width];
                    let source = self.rows.start(first) + row as isize;
                    if source >= 0 && source < height as isize {
                        let source = (channel * height + source as usize) * input;
                        // SAFETY: the caller's planes hold `channels * height * input` values and
                        // the row was compared with `height`.
                        unsafe { span.copy(x.add(source), to) }
                    } else if several {
                        to.fill(0.0);
                    }
                }
            }
        }
    }
}

/// Which of `count` places get a value when every `step`-th of `input` values is taken, beginning
/// at a place that may lie in the padding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    input: usize,
    step: usize,
    /// First place with a value, and the position of that value.
    lead: usize,
    position: usize,
    /// Places with a value.
    count: usize,
}

impl Span {
    /// Place `i` takes the value at `first + i * step`, if there is one.
    pub(crate) fn new(input: usize, first: isize, step: usize, count: usize) -> Self {
        let lead = if first < 0 { first.unsigned_abs().div_ceil(step) } else { 0 };
        let position = (first + (lead * step) as isize) as usize;
        if lead >= count || position >= input {
            return Self { input, step, lead: 0, position: 0, count: 0 };
        }
        let count = ((input - 1 - position) / step + 1).min(count - lead);
        Self { input, step, lead, position, count }
    }

    /// Whether every one of `count` places gets a value.
    pub(crate) fn covers(&self, count: usize) -> bool {
        self.count == count
    }

    /// Writes the places that get a value.
    ///
    /// # Safety
    /// `from` points to `input` readable values that `to` does not overlap.
    pub(crate) unsafe fn copy(&self, from: *const f32, to: &mut [f32]) {
        let to = &mut to[self.lead..][..self.count];
        if self.count == 0 {
            return;
        }
        // SAFETY: the last value taken lies at `position + (count - 1) * step`, below `input`.
        unsafe {
            let from = from.add(self.position);
            let to = to.as_mut_ptr();
            match self.step {
                1 => copy(from, to, self.count),
                2 => copy_evens(from, self.input - self.position, to, self.count),
                step => (0..self.count).for_each(|i| *to.add(i) = *from.add(i * step)),
            }
        }
    }
}

/// Copies `count` values. Rows are short: a call into the host's `memory.copy` costs more.
///
/// # Safety
/// `from` points to `count` readable values, `to` to as many writable ones elsewhere.
pub(crate) unsafe fn copy(from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: whole vectors end at `count` at most; the last one lies as far back as needed.
    unsafe {
        if count < 4 {
            // No loop: the compiler would make it such a call.
            if count > 0 {
                *to = *from;
            }
            if count > 1 {
                *to.add(1) = *from.add(1);
            }
            if count > 2 {
                *to.add(2) = *from.add(2);
            }
            return;
        }
        let mut i = 0;
        while i + 4 < count {
            F32x4::load(from.add(i)).store(to.add(i));
            i += 4;
        }
        F32x4::load(from.add(count - 4)).store(to.add(count - 4));
    }
}

/// Copies `count` values from the even places of `input` ones.
///
/// # Safety
/// `from` points to `input` readable values, at least `2 * count - 1`, `to` to `count` writable
/// ones elsewhere.
unsafe fn copy_evens(from: *const f32, input: usize, to: *mut f32, count: usize) {
    // SAFETY: output `i` needs `2 * i < input`; a vector of outputs at `i` reads eight values
    // from `2 * i` on, which the loop's condition compares with `input`.
    unsafe {
        let mut i = 0;
        while i + 4 <= count && 2 * i + 8 <= input {
            let low = F32x4::load(from.add(2 * i));
            low.evens(F32x4::load(from.add(2 * i + 4))).store(to.add(i));
            i += 4;
        }
        while i < count {
            *to.add(i) = *from.add(2 * i);
            i += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_gathered_with_any_step_and_padding() {
        let row: Vec<f32> = (1..=23).map(|value| value as f32).collect();
        for step in 1..=4 {
            for first in [-9isize, -3, -1, 0, 1, 5, 40] {
                for count in [1, 3, 4, 7, 12, 30] {
                    for input in [1, 2, 8, 9, 23] {
                        let mut to = vec![0.0; count];
                        let span = Span::new(input, first, step, count);
                        // SAFETY: the row holds at least `input` values.
                        unsafe { span.copy(row.as_ptr(), &mut to) };
                        for (i, got) in to.iter().enumerate() {
                            let at = first + (i * step) as isize;
                            let inside = at >= 0 && at < input as isize;
                            let want = if inside { row[at as usize] } else { 0.0 };
                            assert_eq!(*got, want, "{step} {first} {count} {input} at {i}");
                        }
                        assert_eq!(span.covers(count), !to.contains(&0.0));
                    }
                }
            }
        }
    }

    #[test]
    fn staggered_planes_are_an_odd_number_of_lines() {
        for plane in 1..5000 {
            let staggered = stagger(plane);
            assert!(staggered >= plane && staggered <= plane + 2 * LINE);
            assert_eq!((staggered / LINE) % 2, 1, "plane {plane}");
            assert!(!collides(staggered));
        }
    }

    #[test]
    fn chunks_are_even() {
        for (rows, at_most, chunk) in [(56, 17, 14), (7, 14, 7), (10, 0, 1), (5, 4, 3), (1, 1, 1)] {
            assert_eq!(even_chunk(rows, at_most), chunk, "{rows} rows by {at_most}");
        }
    }
}
