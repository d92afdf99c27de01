//! Depthwise convolution over padded planes, four vectors of outputs at a time.
//!
//! The vectors of a plane are numbered row by row, and a table that all channels share says where
//! each begins in the padded input and in the output: so four of them are always busy, whatever the
//! width of a map. Weights lie spread over all lanes, so that a tap is one load for the weight,
//! four for the inputs and four multiply-adds; a load of a single value into all lanes would be
//! three instructions. The exit test after each tap is there for the reason that [`crate::walk`]
//! gives.

use crate::KernelError;
use crate::gather::{CHUNK_BYTES, copy, even_chunk};
use crate::geometry::{Axis, Clamp, Conv2d, floats};
use crate::scratch::LINE;
use crate::variant::F32x4;
use crate::vector::Vector;

/// Vectors that are computed together.
const VECTORS: usize = 4;

/// Whether [`Sweep`] can compute this, and how many columns its windows have.
pub(crate) fn fits(conv: &Conv2d) -> bool {
    let columns = conv.columns;
    [3, 5, 7].contains(&columns.kernel)
        && columns.dilation == 1
        && columns.stride <= 2
        && columns.output >= 4
}

/// A plane with its padding in scratch, or the part of it that some output rows read.
pub(crate) struct Frame {
    rows: Axis,
    columns: Axis,
    /// Values between two rows.
    pitch: usize,
    /// Output rows whose input is held at a time.
    pub(crate) chunk: usize,
}

impl Frame {
    /// Plans a frame for chunks of [`CHUNK_BYTES`], at least one output row.
    ///
    /// # Errors
    /// [`KernelError::Geometry`] when one chunk exceeds 2 GiB.
    pub(crate) fn plan(rows: Axis, columns: Axis) -> Result<Self, KernelError> {
        let pitch = columns.reach(columns.output).max(columns.before + columns.input);
        let row_bytes = floats(&[pitch])? * 4;
        let chunk = even_chunk(rows.output, CHUNK_BYTES / row_bytes / rows.stride);
        floats(&[rows.reach(chunk) + 1, pitch])?;
        Ok(Self { rows, columns, pitch, chunk })
    }

    /// Values that it takes, with what vectors read behind the last row.
    pub(crate) fn len(&self) -> usize {
        self.rows.reach(self.chunk) * self.pitch + LINE
    }

    /// Values between two rows that a window takes.
    pub(crate) fn tap_row(&self) -> usize {
        self.rows.dilation * self.pitch
    }

    /// Copies the input of `outputs` rows from `first` on. Padding left and right is not written,
    /// nor are rows of padding when there is only one chunk: they stay zero.
    ///
    /// # Safety
    /// `x` points to a plane of the input, `to` to [`Frame::len`] places; `outputs` is at most
    /// `chunk`.
    #[inline(never)]
    pub(crate) unsafe fn fill(&self, x: *const f32, to: *mut f32, first: usize, outputs: usize) {
        let (height, width) = (self.rows.input, self.columns.input);
        let start = self.rows.start(first);
        let above = start.min(0).unsigned_abs();
        let from = start.max(0) as usize;
        let reach = self.rows.reach(outputs);
        let count = height.saturating_sub(from).min(reach.saturating_sub(above));
        // SAFETY: `count` rows from `from` on are in the input, and behind `above` in the frame.
        unsafe {
            if self.chunk < self.rows.output {
                let zero = |first: usize, rows: usize| {
                    std::slice::from_raw_parts_mut(to.add(first * self.pitch), rows * self.pitch)
                        .fill(0.0);
                };
                zero(0, above.min(reach));
                zero(reach.min(above + count), reach - reach.min(above + count));
            }
            let mut x = x.wrapping_add(from * width);
            let mut to = to.wrapping_add(above * self.pitch + self.columns.before);
            for _ in 0..count {
                copy(x, to, width);
                x = x.wrapping_add(width);
                to = to.wrapping_add(self.pitch);
            }
        }
    }
}

/// Places of the vectors of `rows` output rows, as byte offsets in pairs: input and output.
pub(crate) struct Places {
    /// Vectors in a row; the last may overlap the one before it.
    across: usize,
}

impl Places {
    pub(crate) fn new(conv: &Conv2d) -> Self {
        Self { across: conv.columns.output.div_ceil(4) }
    }

    /// Values that the table of so many rows takes.
    pub(crate) fn len(&self, rows: usize) -> usize {
        (2 * (rows * self.across).next_multiple_of(VECTORS)).next_multiple_of(LINE)
    }

    /// Vectors of so many rows.
    pub(crate) fn count(&self, rows: usize) -> usize {
        rows * self.across
    }

    /// Writes the table, each offset in the bits of a value. What is left of the last group of
    /// vectors repeats the last place.
    pub(crate) fn write(&self, conv: &Conv2d, frame: &Frame, to: &mut [f32]) {
        let width = conv.columns.output;
        let count = self.count(frame.chunk);
        for (i, to) in to[..self.len(frame.chunk)].chunks_exact_mut(2).enumerate() {
            let i = i.min(count - 1);
            let (row, column) = (i / self.across, (4 * (i % self.across)).min(width - 4));
            let input = row * conv.rows.stride * frame.pitch + column * conv.columns.stride;
            // Both lie below 2 GiB (`Frame::plan` and `Conv2d::new`).
            to[0] = f32::from_bits((4 * input) as u32);
            to[1] = f32::from_bits((4 * (row * width + column)) as u32);
        }
    }
}

/// A chunk of a padded plane and where its outputs go.
pub(crate) struct Sweep {
    pub(crate) input: *const f32,
    /// Values between two input rows of a window.
    pub(crate) pitch: usize,
    /// Taps of the window: its rows times its columns.
    pub(crate) steps: usize,
    /// Four equal values for each tap.
    pub(crate) weights: *const f32,
    pub(crate) bias: *const f32,
    pub(crate) residual: *const f32,
    pub(crate) output: *mut f32,
    /// The table that [`Places`] wrote, and how many vectors to compute.
    pub(crate) places: *const u32,
    pub(crate) count: usize,
    pub(crate) clamp: Clamp,
}

impl Sweep {
    /// Computes the chunk's outputs with windows of `columns` columns at `stride`.
    ///
    /// # Safety
    /// The pointers lead to what the fields say; at each place every tap has a vector of input.
    pub(crate) unsafe fn run(&self, columns: usize, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match (columns, stride) {
                (3, 1) => self.three_by_1(),
                (3, _) => self.three_by_2(),
                (5, 1) => self.five_by_1(),
                (5, _) => self.five_by_2(),
                (_, 1) => self.seven_by_1(),
                _ => self.seven_by_2(),
            }
        }
    }
}

/// Functions of their own: one loop's registers are the other's spills.
macro_rules! windows {
    ($($name:ident: $columns:literal $stride:literal;)*) => {
        impl Sweep {
            $(
                /// # Safety
                /// As [`Sweep::run`].
                #[inline(never)]
                unsafe fn $name(&self) {
                    // SAFETY: the caller's promise.
                    unsafe { self.sweep::<$columns, $stride>() }
                }
            )*
        }
    };
}

windows! {
    three_by_1: 3 1;
    three_by_2: 3 2;
    five_by_1: 5 1;
    five_by_2: 5 2;
    seven_by_1: 7 1;
    seven_by_2: 7 2;
}

impl Sweep {
    /// # Safety
    /// As [`Sweep::run`].
    #[inline(always)]
    unsafe fn sweep<const COLUMNS: usize, const STRIDE: usize>(&self) {
        let (low, high) = (F32x4::splat(self.clamp.low), F32x4::splat(self.clamp.high));
        let (residual, output) = (self.residual, self.output);
        // SAFETY: the caller's promise; the table holds whole groups of vectors.
        unsafe {
            let bias = F32x4::load_splat(self.bias);
            let mut places = self.places;
            let mut left = self.count;
            while left > 0 {
                let sums = self.reduce::<COLUMNS, STRIDE>(places, bias);
                for (i, sum) in sums.into_iter().enumerate() {
                    let at = *places.add(2 * i + 1) as usize;
                    let mut value = sum;
                    if !residual.is_null() {
                        value = value.add(F32x4::load(residual.byte_add(at)));
                    }
                    value.larger(low).smaller(high).store(output.byte_add(at));
                }
                places = places.add(2 * VECTORS);
                left = left.saturating_sub(VECTORS);
            }
        }
    }

    /// Sums up four vectors.
    ///
    /// # Safety
    /// As [`Sweep::run`]; `places` leads to four places.
    #[inline(always)]
    unsafe fn reduce<const COLUMNS: usize, const STRIDE: usize>(
        &self,
        places: *const u32,
        bias: F32x4,
    ) -> [F32x4; VECTORS] {
        let pitch = 4 * self.pitch;
        let mut weights = self.weights as usize;
        let mut left = self.steps;
        // SAFETY: the caller's promise; rows are read only while taps are left.
        unsafe {
            let base = self.input as usize;
            let mut from: [usize; VECTORS] = [
                base.unchecked_add(*places as usize),
                base.unchecked_add(*places.add(2) as usize),
                base.unchecked_add(*places.add(4) as usize),
                base.unchecked_add(*places.add(6) as usize),
            ];
            let mut sums = [bias; VECTORS];
            'rows: loop {
                // Unrolled by hand, so that places are constants away.
                macro_rules! taps {
                    ($($tap:literal)*) => {
                        $(if $tap < COLUMNS && (STRIDE == 1 || $tap % 2 == 0) {
                            let both = STRIDE == 2 && $tap + 1 < COLUMNS;
                            let even = F32x4::load((weights.unchecked_add(16 * $tap)) as *const f32);
                            let odd = match both {
                                true => F32x4::load(weights.unchecked_add(16 * $tap + 16) as *const f32),
                                false => even,
                            };
                            for (sum, from) in sums.iter_mut().zip(from) {
                                let low = F32x4::load(from.unchecked_add(4 * $tap) as *const f32);
                                if STRIDE == 1 {
                                    *sum = low.mul_add(even, *sum);
                                    continue;
                                }
                                // The last tap reads no further than its own last column.
                                if !both {
                                    let high = from.unchecked_add(4 * $tap + 12) as *const f32;
                                    *sum = low.evens_odds(F32x4::load(high)).mul_add(even, *sum);
                                    continue;
                                }
                                let high = F32x4::load(from.unchecked_add(4 * $tap + 16) as *const f32);
                                *sum = low.evens(high).mul_add(even, *sum);
                                *sum = low.odds(high).mul_add(odd, *sum);
                            }
                            left -= if both { 2 } else { 1 };
                            if left == 0 {
                                break 'rows;
                            }
                        })*
                    };
                }
                taps!(0 1 2 3 4 5 6);
                weights = weights.unchecked_add(16 * COLUMNS);
                for from in &mut from {
                    *from = from.unchecked_add(pitch);
                }
            }
            sums
        }
    }
}
