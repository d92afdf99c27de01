//! From coefficients to samples: the inverse transform of a block, whole or at a half, a quarter
//! or an eighth of its size.

use super::{
    huffman::Block,
    lanes::{Eight, Four, narrow, transpose},
};

/// Bits behind the point of the factors, and those that the first pass keeps for the second, as
/// in libjpeg's `jidctint.c`.
const FACTOR_BITS: u32 = 13;
const PASS_BITS: u32 = 2;

/// A factor in fixed point.
const fn fix(factor: f64) -> i32 {
    (factor * (1 << FACTOR_BITS) as f64 + 0.5) as i32
}

/// One pass of the transform of Loeffler, Ligtenberg and Moschytz (1989) over eight columns, as
/// libjpeg's `jidctint.c` has it, with the sums of products that its vector code (`jidctint-sse2`)
/// makes of it: factors are added up for each of two inputs, so that 16 bits are enough for all
/// factors. The results are shifted right by `shift` after `bias` is added.
#[inline]
fn pass(rows: [Eight; 8], bias: i32, shift: u32) -> [Eight; 8] {
    const A: i16 = fix(0.541_196_100) as i16;
    const ONE: i16 = 1 << FACTOR_BITS;
    const Z: [i16; 2] = [
        (fix(1.175_875_602) - fix(1.961_570_560)) as i16,
        (fix(1.175_875_602) - fix(0.390_180_644)) as i16,
    ];
    const Z_BOTH: i16 = fix(1.175_875_602) as i16;
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
    let (fours, twos) = (r0.pairs(r4), r2.pairs(r6));
    let (outer, inner) = (r7.pairs(r1), r5.pairs(r3));
    let sums = r7.add(r3).pairs(r5.add(r1));
    let half = |i: usize| {
        // Even part.
        let t0 = fours[i].weighed([ONE, ONE]);
        let t1 = fours[i].weighed([ONE, -ONE]);
        let t2 = twos[i].weighed([A, (fix(0.541_196_100) - fix(1.847_759_065)) as i16]);
        let t3 = twos[i].weighed([(fix(0.541_196_100) + fix(0.765_366_865)) as i16, A]);
        let (e0, e3) = (t0.add(t3), t0.sub(t3));
        let (e1, e2) = (t1.add(t2), t1.sub(t2));
        // Odd part.
        let z3 = sums[i].weighed([Z[0], Z_BOTH]);
        let z4 = sums[i].weighed([Z_BOTH, Z[1]]);
        const OUTER: i32 = fix(0.899_976_223);
        const INNER: i32 = fix(2.562_915_447);
        let o0 = outer[i].weighed([(fix(0.298_631_336) - OUTER) as i16, -OUTER as i16]).add(z3);
        let o1 = inner[i].weighed([(fix(2.053_119_869) - INNER) as i16, -INNER as i16]).add(z4);
        let o2 = inner[i].weighed([-INNER as i16, (fix(3.072_711_026) - INNER) as i16]).add(z3);
        let o3 = outer[i].weighed([-OUTER as i16, (fix(1.501_321_110) - OUTER) as i16]).add(z4);
        [
            e0.add(o3).scaled(bias, shift),
            e1.add(o2).scaled(bias, shift),
            e2.add(o1).scaled(bias, shift),
            e3.add(o0).scaled(bias, shift),
            e3.sub(o0).scaled(bias, shift),
            e2.sub(o1).scaled(bias, shift),
            e1.sub(o2).scaled(bias, shift),
            e0.sub(o3).scaled(bias, shift),
        ]
    };
    let (low, high) = (half(0), half(1));
    std::array::from_fn(|y| Eight::join(low[y], high[y]))
}

const FIRST_SHIFT: u32 = FACTOR_BITS - PASS_BITS;
const FIRST_BIAS: i32 = 1 << (FIRST_SHIFT - 1);
const LAST_SHIFT: u32 = FACTOR_BITS + PASS_BITS + 3;
/// Rounds, and moves samples from around 0 to around 128.
const LAST_BIAS: i32 = (1 << (LAST_SHIFT - 1)) + (128 << LAST_SHIFT);

/// Writes a block's samples to `plane` from `at` on, rows `stride` apart: 8 x 8, or as many a side
/// as `SIDE` says. Coefficients are multiplied by `steps` first. `last` is the last coefficient that is not zero, in the file's order, or one
/// behind it.
#[inline]
pub(super) fn write<const SIDE: usize>(
    block: &Block,
    steps: &Block,
    last: usize,
    plane: &mut [u8],
    at: usize,
    stride: usize,
) {
    let mut put = |y: usize, row: &[u8]| {
        let start = at + y * stride;
        if let (Some(target), Some(row)) = (plane.get_mut(start..start + SIDE), row.get(..SIDE)) {
            target.copy_from_slice(row);
        }
    };
    if last == 0 {
        let mean = (((coefficient(block, steps, 0) + 4) >> 3) + 128).clamp(0, 255) as u8;
        (0..SIDE).for_each(|y| put(y, &[mean; 8]));
        return;
    }
    match SIDE {
        8 => whole(block, steps).iter().enumerate().for_each(|(y, row)| put(y, row)),
        4 => half(block, steps)
            .as_chunks::<4>()
            .0
            .iter()
            .enumerate()
            .for_each(|(y, row)| put(y, row)),
        _ => quarter(block, steps).iter().enumerate().for_each(|(y, row)| put(y, row)),
    }
}

/// A coefficient times its step.
fn coefficient(block: &Block, steps: &Block, at: usize) -> i32 {
    i32::from(block[at]) * i32::from(steps[at])
}

/// Column by column as the block is stored, the first pass works on its rows.
fn whole(block: &Block, steps: &Block) -> [[u8; 8]; 8] {
    let (columns, steps) = (block.as_chunks::<8>().0, steps.as_chunks::<8>().0);
    let columns = std::array::from_fn(|x| Eight::new(&columns[x]).times(Eight::new(&steps[x])));
    let once = Eight::transpose(pass(columns, FIRST_BIAS, FIRST_SHIFT));
    pass(once, LAST_BIAS, LAST_SHIFT).map(Eight::narrow)
}

/// The four-point transform of the 4 x 4 lowest frequencies: each point is the mean of the two
/// that the whole transform would have there, but for what lies above those frequencies.
///
/// `x[n] = sum of c[k] X[k] cos((2 n + 1) k pi / 8)`, `c[0]` being `1 / sqrt 8` and the others
/// `1 / 2`: the orthonormal transforms of 4 and of 8 points differ by `sqrt 2` in each direction.
fn half(block: &Block, steps: &Block) -> [u8; 16] {
    const C0: i32 = fix(0.353_553_391);
    const C1: i32 = fix(0.461_939_766);
    const C3: i32 = fix(0.191_341_716);
    let pass = |[x0, x1, x2, x3]: [Four; 4], bias: i32, shift: u32| {
        // cos(2 pi / 8) / 2 is 1 / sqrt 8, too.
        let (x0, x2) = (x0.times(C0), x2.times(C0));
        let (even0, even1) = (x0.add(x2), x0.sub(x2));
        let odd0 = x1.times(C1).add(x3.times(C3));
        let odd1 = x1.times(C3).sub(x3.times(C1));
        [
            even0.add(odd0).scaled(bias, shift),
            even1.add(odd1).scaled(bias, shift),
            even1.sub(odd1).scaled(bias, shift),
            even0.sub(odd0).scaled(bias, shift),
        ]
    };
    // The first pass keeps three bits more.
    const KEPT: u32 = 3;
    let (columns, steps) = (block.as_chunks::<8>().0, steps.as_chunks::<8>().0);
    let columns =
        std::array::from_fn(|x| Eight::new(&columns[x]).times_long(Eight::new(&steps[x])));
    let once = pass(columns, 1 << (FACTOR_BITS - KEPT - 1), FACTOR_BITS - KEPT);
    let shift = FACTOR_BITS + KEPT;
    let [a, b, c, d] = pass(transpose(once), (1 << (shift - 1)) + (128 << shift), shift);
    let mut samples = [0; 16];
    samples[..8].copy_from_slice(&narrow(a, b));
    samples[8..].copy_from_slice(&narrow(c, d));
    samples
}

/// The two-point transform of the 2 x 2 lowest frequencies.
fn quarter(block: &Block, steps: &Block) -> [[u8; 2]; 2] {
    let [f00, f10, f01, f11] = [0, 1, 8, 9].map(|at| coefficient(block, steps, at));
    let (left, right) = (f00.wrapping_add(f01), f00.wrapping_sub(f01));
    let (left_odd, right_odd) = (f10.wrapping_add(f11), f10.wrapping_sub(f11));
    let round = |sum: i32| (sum.wrapping_add(4) >> 3).wrapping_add(128).clamp(0, 255) as u8;
    [
        [round(left.wrapping_add(left_odd)), round(right.wrapping_add(right_odd))],
        [round(left.wrapping_sub(left_odd)), round(right.wrapping_sub(right_odd))],
    ]
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;

    /// T.81, A.3.3, for a transform of `points` points on the lowest frequencies.
    fn expected(block: &Block, points: usize) -> Vec<u8> {
        let side = points as f64;
        let scale = |k: usize| if k == 0 { (1.0 / side).sqrt() } else { (2.0 / side).sqrt() };
        let wave = |n: usize, k: usize| {
            scale(k) * ((2 * n + 1) as f64 * k as f64 * PI / (2.0 * side)).cos()
        };
        let mut samples = Vec::new();
        for y in 0..points {
            for x in 0..points {
                let mut sum = 0.0;
                for v in 0..points {
                    for u in 0..points {
                        sum += f64::from(block[u * 8 + v]) * wave(x, u) * wave(y, v);
                    }
                }
                samples.push((sum * side / 8.0 + 128.0).round().clamp(0.0, 255.0) as u8);
            }
        }
        samples
    }

    fn written<const SIDE: usize>(block: &Block, last: usize) -> Vec<u8> {
        written_with::<SIDE>(block, &[1; 64], last)
    }

    fn written_with<const SIDE: usize>(block: &Block, steps: &Block, last: usize) -> Vec<u8> {
        let mut plane = vec![7; 11 * SIDE];
        write::<SIDE>(block, steps, last, &mut plane, 2, 11);
        plane.chunks(11).flat_map(|row| row[2..2 + SIDE].to_vec()).collect()
    }

    #[test]
    fn every_size_is_the_transform_of_the_lowest_frequencies() {
        let mut seed = 7_u32;
        for round in 0..500 {
            let mut block = [0; 64];
            for (at, value) in block.iter_mut().enumerate() {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let room = 600 / (1 + (at / 8 + at % 8) as i32);
                *value = ((seed >> 8).cast_signed() % room.max(1)) as i16;
                if round % 3 == 0 && at > 8 {
                    *value = 0;
                }
            }
            for (actual, expected) in [
                (written::<8>(&block, 63), expected(&block, 8)),
                (written::<4>(&block, 63), expected(&block, 4)),
                (written::<2>(&block, 63), expected(&block, 2)),
            ] {
                let worst = actual.iter().zip(&expected).map(|(a, e)| a.abs_diff(*e)).max();
                assert!(worst <= Some(1), "{actual:?} instead of {expected:?}");
            }
            let mean = written::<1>(&block, 0)[0];
            assert!(mean.abs_diff(expected(&block, 1)[0]) <= 1);
        }
    }

    #[test]
    fn a_block_of_one_colour_is_that_colour_at_every_size() {
        for level in -1100..1100 {
            let mut block = [0; 64];
            block[0] = level;
            let mean = expected(&block, 1)[0];
            for samples in [
                written::<8>(&block, 0),
                written::<8>(&block, 63),
                written::<4>(&block, 63),
                written::<2>(&block, 63),
                written::<1>(&block, 0),
            ] {
                assert!(samples.iter().all(|sample| sample.abs_diff(mean) <= 1), "{level}");
                assert!(samples.iter().all(|sample| *sample == samples[0]));
            }
        }
    }

    #[test]
    fn coefficients_beyond_all_measure_are_eight_numbers_still() {
        for (value, step) in [(i16::MIN, 1), (i16::MAX, i16::MAX), (i16::MIN, -1), (255, 255)] {
            let (block, steps) = ([value; 64], [step; 64]);
            for last in [0, 63] {
                written_with::<8>(&block, &steps, last);
                written_with::<4>(&block, &steps, last);
                written_with::<2>(&block, &steps, last);
                written_with::<1>(&block, &steps, last);
            }
        }
    }

    #[test]
    fn each_coefficient_is_multiplied_by_its_own_step() {
        let steps: Block = std::array::from_fn(|at| at as i16 % 7 + 1);
        let block: Block = std::array::from_fn(|at| (at as i16 * 5) % 11 - 5);
        let product: Block = std::array::from_fn(|at| steps[at] * block[at]);
        assert_eq!(written_with::<8>(&block, &steps, 63), written::<8>(&product, 63));
        assert_eq!(written_with::<4>(&block, &steps, 63), written::<4>(&product, 63));
        assert_eq!(written_with::<2>(&block, &steps, 63), written::<2>(&product, 63));
        assert_eq!(written_with::<8>(&block, &steps, 0), written::<8>(&product, 0));
    }
}
