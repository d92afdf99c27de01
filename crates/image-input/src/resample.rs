//! Pillow's resize of 8-bit pixels, bit for bit, for the part of the result that is needed.
//!
//! Pillow (`src/libImaging/Resample.c`) computes each axis' weights in double precision, fixes
//! them to 22 bits behind the point, convolves rows, rounds to 8 bits, convolves columns and
//! rounds again. (Pillow 13 takes columns first where the height shrinks more than the width. Both
//! ways are less than 1 from the exact value with the bilinear filter, so at most 1 level apart.)
//! Libraries with SIMD kernels fix the weights to 15 bits and take the columns
//! first: `fast_image_resize` 6.1 was seen to be off by 2 levels with the bilinear filter, and
//! by any number with the bicubic one on hard edges. The loops below are written so that LLVM
//! vectorises them, and rows are convolved just before the columns need them.

use crate::{Filter, geometry::Axis};

/// Bits behind the point in Pillow: `32 - 8 - 2`.
const PRECISION_BITS: u32 = 22;
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// Taps that the row convolution takes at one time; weights are padded with zeros to a multiple.
const TAPS: usize = 4;

/// What one axis of the result is made of.
pub(crate) enum Kernel {
    /// Each result pixel is one source pixel.
    Pick(Vec<u32>),
    /// Each result pixel is a weighted sum of neighbouring source pixels.
    Weigh(Weights),
}

/// Weights of an axis: `taps` for each result pixel, zeros last.
pub(crate) struct Weights {
    taps: usize,
    first: Vec<u32>,
    weights: Vec<i32>,
}

impl Kernel {
    /// The kernel for the visible pixels of `axis`.
    pub(crate) fn new(filter: Filter, axis: &Axis) -> Self {
        let visible = axis.skipped..axis.skipped + axis.visible as u64;
        // Nothing of what follows rounds otherwise than for a whole picture: both are exact then.
        let Axis { from, length, .. } = *axis;
        if axis.resized as f64 == length && from == 0.0 {
            return Self::Pick(visible.map(|position| position as u32).collect());
        }
        let (support, weigh): (f64, fn(f64) -> f64) = match filter {
            // The source pixel in which the centre of the result pixel lies. A centre on an edge
            // goes where the sum of steps rounds to, as in Pillow's `ImagingScaleAffine`.
            Filter::Nearest => {
                let step = length / axis.resized as f64;
                let mut centre = from + step * 0.5;
                let mut picks = Vec::with_capacity(axis.visible);
                for position in 0..visible.end {
                    if position >= visible.start {
                        picks.push((centre as u32).min(axis.source - 1));
                    }
                    centre += step;
                }
                return Self::Pick(picks);
            }
            Filter::Bilinear => (1.0, triangle),
            Filter::Bicubic => (2.0, cubic),
        };

        // `precompute_coeffs` and `normalize_coeffs_8bpc`, expression by expression.
        let scale = length / axis.resized as f64;
        let filter_scale = scale.max(1.0);
        let support = support * filter_scale;
        let step = 1.0 / filter_scale;
        let mut first = Vec::with_capacity(axis.visible);
        let mut rows = Vec::with_capacity(axis.visible);
        for position in visible {
            let centre = from + (position as f64 + 0.5) * scale;
            let begin = ((centre - support + 0.5) as i64).max(0);
            let end = ((centre + support + 0.5) as i64).min(i64::from(axis.source));
            let mut weights: Vec<f64> =
                (begin..end).map(|at| weigh((at as f64 - centre + 0.5) * step)).collect();
            let sum: f64 = weights.iter().sum();
            if sum != 0.0 {
                weights.iter_mut().for_each(|weight| *weight /= sum);
            }
            first.push(begin as u32);
            rows.push(weights);
        }
        let taps = rows.iter().map(Vec::len).max().unwrap_or(0).next_multiple_of(TAPS);
        let mut weights = vec![0; taps * rows.len()];
        for (fixed, row) in weights.chunks_exact_mut(taps.max(1)).zip(&rows) {
            for (fixed, weight) in fixed.iter_mut().zip(row) {
                let scaled = weight * f64::from(1 << PRECISION_BITS);
                // `as` cuts towards zero, as C does.
                *fixed = (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32;
            }
        }
        Self::Weigh(Weights { taps, first, weights })
    }

    /// Source pixels that one result pixel needs at most.
    pub(crate) fn reach(&self) -> usize {
        match self {
            Self::Pick(_) => 1,
            Self::Weigh(weights) => weights.taps,
        }
    }

    /// First source pixel of a result pixel, and the weights of it and its successors.
    fn at(&self, position: usize) -> (usize, &[i32]) {
        match self {
            Self::Pick(picks) => (picks[position] as usize, &[]),
            Self::Weigh(Weights { taps, first, weights }) => {
                (first[position] as usize, &weights[position * taps..][..*taps])
            }
        }
    }
}

/// Pillow's `bilinear_filter`.
fn triangle(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 { 1.0 - x } else { 0.0 }
}

/// Pillow's `bicubic_filter`: Keys' cubic with a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Rounds a sum of weighted pixels, as Pillow's `clip8`.
fn to_u8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// The row convolution of an axis, with its weights laid out for pixels of `C` bytes.
pub(crate) struct Columns<'a> {
    kernel: &'a Kernel,
    weights: Spread,
    width: usize,
}

/// The weights of all result pixels, as the loops want them.
enum Spread {
    /// Each weight `C` times, so that a group of taps is one product of vectors.
    Repeated(Vec<i32>),
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Split(Vec<crate::simd128::Group>),
}

impl<'a> Columns<'a> {
    pub(crate) fn new<const C: usize>(kernel: &'a Kernel, axis: &Axis) -> Self {
        let weights = match kernel {
            Kernel::Pick(_) => Spread::Repeated(Vec::new()),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kernel::Weigh(weights) if C == 3 => {
                Spread::Split(crate::simd128::split(&weights.weights))
            }
            Kernel::Weigh(weights) => {
                let repeated = weights.weights.iter().flat_map(|&weight| [weight; C]);
                Spread::Repeated(repeated.collect())
            }
        };
        Self { kernel, weights, width: axis.source as usize }
    }

    /// Bytes that a source row must have behind its pixels: groups of taps read so far, with
    /// weights of zero, and vectors four bytes more.
    pub(crate) fn padding<const C: usize>(&self) -> usize {
        self.kernel.reach() * C + 4
    }

    /// Convolves one row. `source` is interleaved, and [`Self::padding`] longer than its pixels;
    /// `target` receives `C` planes of the visible columns, one after the other.
    pub(crate) fn convolve<const C: usize, const GROUP: usize>(
        &self,
        source: &[u8],
        target: &mut [u8],
    ) {
        const { assert!(GROUP == TAPS * C) };
        debug_assert!(source.len() >= self.width * C + self.padding::<C>());
        let visible = target.len() / C;
        let mut planes = target.chunks_exact_mut(visible.max(1));
        let mut planes: [&mut [u8]; C] = std::array::from_fn(|_| planes.next().unwrap_or_default());
        let mut put = |x: usize, pixel: &[u8]| {
            for (plane, &sample) in planes.iter_mut().zip(pixel) {
                plane[x] = sample;
            }
        };
        match (self.kernel, &self.weights) {
            (Kernel::Pick(picks), _) => {
                let pixels = source.as_chunks::<C>().0;
                for (x, &pick) in picks.iter().enumerate() {
                    put(x, &pixels[pick as usize]);
                }
            }
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            (Kernel::Weigh(Weights { taps, first, .. }), Spread::Split(groups)) => {
                let groups = groups.chunks_exact(taps / TAPS);
                for (x, (groups, &first)) in groups.zip(first).enumerate() {
                    let pixels = &source[first as usize * C..];
                    put(x, &crate::simd128::weigh(pixels, groups, HALF, PRECISION_BITS));
                }
            }
            (Kernel::Weigh(Weights { taps, first, .. }), Spread::Repeated(weights)) => {
                let weights = weights.chunks_exact(taps * C);
                for (x, (weights, &first)) in weights.zip(first).enumerate() {
                    let pixels = &source[first as usize * C..][..taps * C];
                    put(x, &weigh::<C, GROUP>(pixels, weights));
                }
            }
        }
    }
}

/// Sums pixels of `C` bytes, weighed and rounded; `GROUP` products at one time.
#[inline]
fn weigh<const C: usize, const GROUP: usize>(pixels: &[u8], weights: &[i32]) -> [u8; C] {
    // Sums stay below 2^31: the weights of a pixel add up to 2^22, the negative ones to less than
    // a quarter of that. Wrapping spares the overflow checks.
    let mut sums = [0_i32; GROUP];
    let groups = pixels.as_chunks::<GROUP>().0.iter().zip(weights.as_chunks::<GROUP>().0);
    for (pixels, weights) in groups {
        for lane in 0..GROUP {
            let product = i32::from(pixels[lane]).wrapping_mul(weights[lane]);
            sums[lane] = sums[lane].wrapping_add(product);
        }
    }
    std::array::from_fn(|channel| {
        let lanes = sums.iter().skip(channel).step_by(C);
        to_u8(lanes.fold(HALF, |sum, &lane| sum.wrapping_add(lane)))
    })
}

/// The column convolution over a ring of convolved rows.
pub(crate) struct Rows<'a> {
    kernel: &'a Kernel,
    ring: Vec<u8>,
    slots: usize,
    row_len: usize,
    /// First source row that is not in the ring yet.
    next: usize,
    source_rows: usize,
}

impl<'a> Rows<'a> {
    /// `row_len` bytes a convolved row.
    pub(crate) fn new(kernel: &'a Kernel, axis: &Axis, row_len: usize) -> Self {
        let source_rows = axis.source as usize;
        let slots = kernel.reach().min(source_rows);
        let ring = vec![0; slots * row_len];
        Self { kernel, ring, slots, row_len, next: 0, source_rows }
    }

    /// Convolves the columns into result row `position`; positions must rise. `fill` is called
    /// with a source row's number and must write that row, convolved.
    pub(crate) fn convolve(
        &mut self,
        position: usize,
        target: &mut [u8],
        mut fill: impl FnMut(usize, &mut [u8]),
    ) {
        let (first, weights) = self.kernel.at(position);
        // Zero weights at the end may lie below the last row.
        let used = weights.iter().rposition(|&weight| weight != 0).map_or(1, |last| last + 1);
        let end = (first + used).min(self.source_rows);
        for row in self.next.max(first)..end {
            let slot = row % self.slots * self.row_len;
            fill(row, &mut self.ring[slot..][..self.row_len]);
        }
        self.next = self.next.max(end);
        if weights.is_empty() {
            target.copy_from_slice(&self.ring[first % self.slots * self.row_len..][..self.row_len]);
            return;
        }
        let (ring, slots, row_len) = (&self.ring, self.slots, self.row_len);
        let rows = (first..end).zip(weights);
        let rows = rows.map(|(row, &weight)| (&ring[row % slots * row_len..][..row_len], weight));
        let (chunks, rest) = target.as_chunks_mut::<LANES>();
        for (index, chunk) in chunks.iter_mut().enumerate() {
            let mut sums = [HALF; LANES];
            for (row, weight) in rows.clone() {
                let pixels = &row.as_chunks::<LANES>().0[index];
                for lane in 0..LANES {
                    let product = i32::from(pixels[lane]).wrapping_mul(weight);
                    sums[lane] = sums[lane].wrapping_add(product);
                }
            }
            *chunk = sums.map(to_u8);
        }
        for (target, at) in rest.iter_mut().zip(chunks.len() * LANES..) {
            let products =
                rows.clone().map(|(row, weight)| i32::from(row[at]).wrapping_mul(weight));
            *target = to_u8(products.fold(HALF, i32::wrapping_add));
        }
    }
}

/// Columns that the column convolution sums at one time: four vectors of four. With more, LLVM
/// keeps the sums in memory.
const LANES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(source: u32, resized: u64) -> Axis {
        let (from, length) = (0.0, f64::from(source));
        Axis { source, from, length, resized, skipped: 0, start: 0, visible: resized as usize }
    }

    #[test]
    fn weights_sum_to_one_and_stay_inside_the_picture() {
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            for (source, resized) in [(1, 7), (7, 1), (500, 224), (3, 500), (16_384, 5)] {
                let kernel = Kernel::new(filter, &axis(source, resized));
                for position in 0..resized as usize {
                    let (first, weights) = kernel.at(position);
                    let sum: i32 = weights.iter().sum();
                    // Each weight is rounded by itself.
                    assert!((sum - (1 << 22)).unsigned_abs() as usize <= weights.len());
                    let last = weights.iter().rposition(|&weight| weight != 0).unwrap();
                    assert!(first + last < source as usize, "{filter:?} {source} to {resized}");
                }
            }
        }
    }

    #[test]
    fn nearest_takes_the_pixel_under_the_centre() {
        let picks = |source, resized| match Kernel::new(Filter::Nearest, &axis(source, resized)) {
            Kernel::Pick(picks) => picks,
            Kernel::Weigh(_) => panic!("nearest weighs nothing"),
        };
        assert_eq!(picks(4, 2), [1, 3]);
        assert_eq!(picks(2, 4), [0, 0, 1, 1]);
        assert_eq!(picks(5, 3), [0, 2, 4]);
        assert_eq!(picks(1, 3), [0, 0, 0]);
    }

    #[test]
    fn a_part_of_a_result_is_the_same_as_in_the_whole() {
        for filter in [Filter::Nearest, Filter::Bilinear, Filter::Bicubic] {
            let whole = Kernel::new(filter, &axis(500, 341));
            let part = Axis { skipped: 58, visible: 224, ..axis(500, 341) };
            let part = Kernel::new(filter, &part);
            let trimmed = |weights: &[i32]| {
                weights.iter().rev().skip_while(|&&w| w == 0).copied().collect::<Vec<_>>()
            };
            for position in 0..224 {
                let (first, weights) = part.at(position);
                let (whole_first, whole_weights) = whole.at(position + 58);
                assert_eq!(first, whole_first);
                assert_eq!(trimmed(weights), trimmed(whole_weights));
            }
        }
    }
}
