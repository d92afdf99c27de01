//! From coefficients to samples: the inverse transform of a block, whole or at a half, a quarter
//! or an eighth of its size.

use super::{
    huffman::Block,
    lanes::{Four, narrow, transpose},
};

/// Bits behind the point of the factors, and those that the first pass keeps for the second, as
/// in libjpeg's `jidctint.c`.
const FACTOR_BITS: u32 = 13;
const PASS_BITS: u32 = 2;

/// A factor in fixed point.
const fn fix(factor: f64) -> i32 {
    (factor * (1 << FACTOR_BITS) as f64 + 0.5) as i32
}

/// One pass of the transform of Loeffler, Ligtenberg and Moschytz (1989) over four columns, as
/// libjpeg's `jidctint.c` has it; the results are shifted right by `shift` after `bias` is added.
#[inline]
fn pass(rows: [Four; 8], bias: i32, shift: u32) -> [Four; 8] {
    // Even part.
    let z1 = rows[2].add(rows[6]).times(fix(0.541_196_100));
    let t2 = z1.sub(rows[6].times(fix(1.847_759_065)));
    let t3 = z1.add(rows[2].times(fix(0.765_366_865)));
    let t0 = rows[0].add(rows[4]).times(1 << FACTOR_BITS);
    let t1 = rows[0].sub(rows[4]).times(1 << FACTOR_BITS);
    let (e0, e3) = (t0.add(t3), t0.sub(t3));
    let (e1, e2) = (t1.add(t2), t1.sub(t2));
    // Odd part.
    let [o0, o1, o2, o3] = [rows[7], rows[5], rows[3], rows[1]];
    let (z3, z4) = (o0.add(o2), o1.add(o3));
    let z5 = z3.add(z4).times(fix(1.175_875_602));
    let z1 = o0.add(o3).times(-fix(0.899_976_223));
    let z2 = o1.add(o2).times(-fix(2.562_915_447));
    let z3 = z5.sub(z3.times(fix(1.961_570_560)));
    let z4 = z5.sub(z4.times(fix(0.390_180_644)));
    let o0 = o0.times(fix(0.298_631_336)).add(z1).add(z3);
    let o1 = o1.times(fix(2.053_119_869)).add(z2).add(z4);
    let o2 = o2.times(fix(3.072_711_026)).add(z2).add(z3);
    let o3 = o3.times(fix(1.501_321_110)).add(z1).add(z4);
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
}

const FIRST_SHIFT: u32 = FACTOR_BITS - PASS_BITS;
const FIRST_BIAS: i32 = 1 << (FIRST_SHIFT - 1);
const LAST_SHIFT: u32 = FACTOR_BITS + PASS_BITS + 3;
/// Rounds, and moves samples from around 0 to around 128.
const LAST_BIAS: i32 = (1 << (LAST_SHIFT - 1)) + (128 << LAST_SHIFT);

/// Writes a block's samples to `plane` from `at` on, rows `stride` apart: 8 x 8, or as many a side
/// as `SIDE` says. `last` is the last coefficient that is not zero, in the file's order.
#[inline]
pub(super) fn write<const SIDE: usize>(
    block: &Block,
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
        let mean = (block[0].wrapping_add(4) >> 3).wrapping_add(128).clamp(0, 255) as u8;
        (0..SIDE).for_each(|y| put(y, &[mean; 8]));
        return;
    }
    match SIDE {
        8 => whole(block).iter().enumerate().for_each(|(y, row)| put(y, row)),
        4 => half(block).as_chunks::<4>().0.iter().enumerate().for_each(|(y, row)| put(y, row)),
        _ => quarter(block).iter().enumerate().for_each(|(y, row)| put(y, row)),
    }
}

/// Column by column as the block is stored, the first pass works on its rows.
fn whole(block: &Block) -> [[u8; 8]; 8] {
    let fours = block.as_chunks::<4>().0;
    let upper = std::array::from_fn(|column| Four::new(&fours[2 * column]));
    let lower = std::array::from_fn(|column| Four::new(&fours[2 * column + 1]));
    let [u0, u1, u2, u3, u4, u5, u6, u7] = pass(upper, FIRST_BIAS, FIRST_SHIFT);
    let [l0, l1, l2, l3, l4, l5, l6, l7] = pass(lower, FIRST_BIAS, FIRST_SHIFT);
    let join = |a: [Four; 4], b: [Four; 4]| [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]];
    let left = join(transpose([u0, u1, u2, u3]), transpose([l0, l1, l2, l3]));
    let right = join(transpose([u4, u5, u6, u7]), transpose([l4, l5, l6, l7]));
    let left = pass(left, LAST_BIAS, LAST_SHIFT);
    let right = pass(right, LAST_BIAS, LAST_SHIFT);
    std::array::from_fn(|y| narrow(left[y], right[y]))
}

/// The four-point transform of the 4 x 4 lowest frequencies: each point is the mean of the two
/// that the whole transform would have there, but for what lies above those frequencies.
///
/// `x[n] = sum of c[k] X[k] cos((2 n + 1) k pi / 8)`, `c[0]` being `1 / sqrt 8` and the others
/// `1 / 2`: the orthonormal transforms of 4 and of 8 points differ by `sqrt 2` in each direction.
fn half(block: &Block) -> [u8; 16] {
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
    let fours = block.as_chunks::<4>().0;
    let columns = std::array::from_fn(|column| Four::new(&fours[2 * column]));
    let once = pass(columns, 1 << (FACTOR_BITS - KEPT - 1), FACTOR_BITS - KEPT);
    let shift = FACTOR_BITS + KEPT;
    let [a, b, c, d] = pass(transpose(once), (1 << (shift - 1)) + (128 << shift), shift);
    let mut samples = [0; 16];
    samples[..8].copy_from_slice(&narrow(a, b));
    samples[8..].copy_from_slice(&narrow(c, d));
    samples
}

/// The two-point transform of the 2 x 2 lowest frequencies.
fn quarter(block: &Block) -> [[u8; 2]; 2] {
    let [f00, f10, f01, f11] = [block[0], block[1], block[8], block[9]];
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
        let mut plane = vec![7; 11 * SIDE];
        write::<SIDE>(block, last, &mut plane, 2, 11);
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
                *value = (seed >> 8).cast_signed() % room.max(1);
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
        for value in [i32::MIN, i32::MAX, 1 << 30] {
            let block = [value; 64];
            for last in [0, 63] {
                written::<8>(&block, last);
                written::<4>(&block, last);
                written::<2>(&block, last);
                written::<1>(&block, last);
            }
        }
    }
}
