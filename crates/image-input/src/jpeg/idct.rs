//! From coefficients to samples: the inverse transform of a block, whole or at a half, a quarter
//! or an eighth of its size.

use super::huffman::Block;

/// Bits behind the point of the factors, and those that the first pass keeps for the second, as
/// in libjpeg's `jidctint.c`.
const FACTOR_BITS: u32 = 13;
const PASS_BITS: u32 = 2;

/// Eight numbers side by side, one of each column; wrapping, for what a hostile file makes of
/// them is nobody's concern as long as it is eight numbers.
type Lanes = [i32; 8];

#[inline]
fn add(a: Lanes, b: Lanes) -> Lanes {
    std::array::from_fn(|i| a[i].wrapping_add(b[i]))
}

#[inline]
fn sub(a: Lanes, b: Lanes) -> Lanes {
    std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
}

#[inline]
fn times(a: Lanes, factor: i32) -> Lanes {
    a.map(|a| a.wrapping_mul(factor))
}

/// A factor in fixed point.
const fn fix(factor: f64) -> i32 {
    (factor * (1 << FACTOR_BITS) as f64 + 0.5) as i32
}

/// One pass of the transform of Loeffler, Ligtenberg and Moschytz (1989) over eight columns, as
/// libjpeg's `jidctint.c` has it; the results are shifted right by `SHIFT` after `BIAS` is added.
#[inline]
fn pass<const SHIFT: u32, const BIAS: i32>(rows: &[Lanes; 8]) -> [Lanes; 8] {
    // Even part.
    let z1 = times(add(rows[2], rows[6]), fix(0.541_196_100));
    let t2 = sub(z1, times(rows[6], fix(1.847_759_065)));
    let t3 = add(z1, times(rows[2], fix(0.765_366_865)));
    let t0 = times(add(rows[0], rows[4]), 1 << FACTOR_BITS);
    let t1 = times(sub(rows[0], rows[4]), 1 << FACTOR_BITS);
    let (e0, e3) = (add(t0, t3), sub(t0, t3));
    let (e1, e2) = (add(t1, t2), sub(t1, t2));
    // Odd part.
    let [o0, o1, o2, o3] = [rows[7], rows[5], rows[3], rows[1]];
    let (z3, z4) = (add(o0, o2), add(o1, o3));
    let z5 = times(add(z3, z4), fix(1.175_875_602));
    let z1 = times(add(o0, o3), -fix(0.899_976_223));
    let z2 = times(add(o1, o2), -fix(2.562_915_447));
    let z3 = sub(z5, times(z3, fix(1.961_570_560)));
    let z4 = sub(z5, times(z4, fix(0.390_180_644)));
    let o0 = add(add(times(o0, fix(0.298_631_336)), z1), z3);
    let o1 = add(add(times(o1, fix(2.053_119_869)), z2), z4);
    let o2 = add(add(times(o2, fix(3.072_711_026)), z2), z3);
    let o3 = add(add(times(o3, fix(1.501_321_110)), z1), z4);
    let shift = |lanes: Lanes| lanes.map(|value| value.wrapping_add(BIAS) >> SHIFT);
    [
        shift(add(e0, o3)),
        shift(add(e1, o2)),
        shift(add(e2, o1)),
        shift(add(e3, o0)),
        shift(sub(e3, o0)),
        shift(sub(e2, o1)),
        shift(sub(e1, o2)),
        shift(sub(e0, o3)),
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
    let rows: [[u8; SIDE]; SIDE] = match SIDE {
        _ if last == 0 => [[clamp((block[0].wrapping_add(4) >> 3).wrapping_add(128)); SIDE]; SIDE],
        8 => {
            let whole = whole(block);
            std::array::from_fn(|y| std::array::from_fn(|x| clamp(whole[y][x])))
        }
        4 => {
            let half = half(block);
            std::array::from_fn(|y| std::array::from_fn(|x| clamp(half[y][x])))
        }
        _ => {
            let quarter = quarter(block);
            std::array::from_fn(|y| std::array::from_fn(|x| clamp(quarter[y & 1][x & 1])))
        }
    };
    for (y, row) in rows.iter().enumerate() {
        let start = at + y * stride;
        if let Some(target) = plane.get_mut(start..start + SIDE) {
            target.copy_from_slice(row);
        }
    }
}

#[inline]
fn clamp(sample: i32) -> u8 {
    sample.clamp(0, 255) as u8
}

fn whole(block: &Block) -> [Lanes; 8] {
    // Column by column as the block is stored, the first pass works on its rows.
    let columns: &[Lanes; 8] = block.as_chunks::<8>().0.first_chunk().expect("8 times 8 is 64");
    let once = pass::<FIRST_SHIFT, FIRST_BIAS>(columns);
    let turned = std::array::from_fn(|y| std::array::from_fn(|x| once[x][y]));
    pass::<LAST_SHIFT, LAST_BIAS>(&turned)
}

/// The four-point transform of the 4 x 4 lowest frequencies: each point is the mean of the two
/// that the whole transform would have there, but for what lies above those frequencies.
///
/// `x[n] = sum of c[k] X[k] cos((2 n + 1) k pi / 8)`, `c[0]` being `1 / sqrt 8` and the others
/// `1 / 2`: the orthonormal transforms of 4 and of 8 points differ by `sqrt 2` in each direction.
fn half(block: &Block) -> [[i32; 4]; 4] {
    const C0: i32 = fix(0.353_553_391);
    const C1: i32 = fix(0.461_939_766);
    const C3: i32 = fix(0.191_341_716);
    fn pass(rows: [[i32; 4]; 4], bias: i32, shift: u32) -> [[i32; 4]; 4] {
        let mut result = [[0; 4]; 4];
        for x in 0..4 {
            let [x0, x1, x2, x3] = [rows[0][x], rows[1][x], rows[2][x], rows[3][x]];
            // cos(2 pi / 8) / 2 is 1 / sqrt 8, too.
            let (x0, x2) = (x0.wrapping_mul(C0), x2.wrapping_mul(C0));
            let (even0, even1) = (x0.wrapping_add(x2), x0.wrapping_sub(x2));
            let odd0 = x1.wrapping_mul(C1).wrapping_add(x3.wrapping_mul(C3));
            let odd1 = x1.wrapping_mul(C3).wrapping_sub(x3.wrapping_mul(C1));
            let round = |sum: i32| sum.wrapping_add(bias) >> shift;
            result[0][x] = round(even0.wrapping_add(odd0));
            result[1][x] = round(even1.wrapping_add(odd1));
            result[2][x] = round(even1.wrapping_sub(odd1));
            result[3][x] = round(even0.wrapping_sub(odd0));
        }
        result
    }
    // The first pass keeps three bits more.
    const KEPT: u32 = 3;
    let columns = std::array::from_fn(|x| std::array::from_fn(|y| block[x * 8 + y]));
    let once = pass(columns, 1 << (FACTOR_BITS - KEPT - 1), FACTOR_BITS - KEPT);
    let turned = std::array::from_fn(|y| std::array::from_fn(|x| once[x][y]));
    let shift = FACTOR_BITS + KEPT;
    pass(turned, (1 << (shift - 1)) + (128 << shift), shift)
}

/// The two-point transform of the 2 x 2 lowest frequencies.
fn quarter(block: &Block) -> [[i32; 2]; 2] {
    let [f00, f10, f01, f11] = [block[0], block[1], block[8], block[9]];
    let (left, right) = (f00.wrapping_add(f01), f00.wrapping_sub(f01));
    let (left_odd, right_odd) = (f10.wrapping_add(f11), f10.wrapping_sub(f11));
    let round = |sum: i32| (sum.wrapping_add(4) >> 3).wrapping_add(128);
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
