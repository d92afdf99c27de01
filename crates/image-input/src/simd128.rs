//! The row convolution of RGB pixels in WebAssembly's 128-bit vectors.
//!
//! LLVM makes 32-bit products of the loops in `resample`, which take twice as long as the 16-bit
//! products here. The result is the same bit for bit: a weight is split into `high * 2^15 + low`,
//! and all sums are taken modulo 2^32, in which the whole sum fits.

/// Four weights' high parts, and their low parts; 16 bits each, the first one lowest.
pub(crate) type Group = [u64; 2];

/// Splits weights, whose number is a multiple of four.
pub(crate) fn split(weights: &[i32]) -> Vec<Group> {
    let pack = |parts: [i32; 4]| {
        parts.iter().rev().fold(0, |packed, &part| packed << 16 | u64::from(part as u16))
    };
    let four = weights.as_chunks::<4>().0.iter();
    four.map(|four| [pack(four.map(|w| w >> 15)), pack(four.map(|w| w & 0x7fff))]).collect()
}

/// Sums `groups.len() * 4` pixels from the start of `pixels`, weighed and rounded; reads 4 bytes
/// behind the last one.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[inline]
pub(crate) fn weigh(pixels: &[u8], groups: &[Group], half: i32, precision_bits: u32) -> [u8; 3] {
    use std::arch::wasm32::*;

    let zero = i32x4_splat(0);
    let (mut high, mut low, mut high_blue, mut low_blue) = (zero, zero, zero, zero);
    let mut rest = pixels;
    for &[weights_high, weights_low] in groups {
        let Some(bytes) = rest.first_chunk::<16>() else {
            break;
        };
        rest = &rest[12..];
        let bytes = u128::from_le_bytes(*bytes);
        let bytes = u64x2(bytes as u64, (bytes >> 64) as u64);
        // Four reds, four greens; four blues and what does not count.
        let planes =
            u8x16_shuffle::<0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, 15, 15, 15, 15>(bytes, bytes);
        let red_green = u16x8_extend_low_u8x16(planes);
        let blue = u16x8_extend_high_u8x16(planes);
        let (weights_high, weights_low) = (u64x2_splat(weights_high), u64x2_splat(weights_low));
        high = i32x4_add(high, i32x4_dot_i16x8(red_green, weights_high));
        low = i32x4_add(low, i32x4_dot_i16x8(red_green, weights_low));
        high_blue = i32x4_add(high_blue, i32x4_dot_i16x8(blue, weights_high));
        low_blue = i32x4_add(low_blue, i32x4_dot_i16x8(blue, weights_low));
    }
    // Red in lanes 0 and 1, green in 2 and 3; blue in 0 and 1 of the other.
    let red_green = i32x4_add(i32x4_shl(high, 15), low);
    let blue = i32x4_add(i32x4_shl(high_blue, 15), low_blue);
    let even = i32x4_shuffle::<0, 2, 4, 4>(red_green, blue);
    let odd = i32x4_shuffle::<1, 3, 5, 5>(red_green, blue);
    let sums = i32x4_add(i32x4_add(even, odd), i32x4_splat(half));
    let sums = i32x4_shr(sums, precision_bits);
    let narrow = i16x8_narrow_i32x4(sums, sums);
    let narrow = u8x16_narrow_i16x8(narrow, narrow);
    [
        u8x16_extract_lane::<0>(narrow),
        u8x16_extract_lane::<1>(narrow),
        u8x16_extract_lane::<2>(narrow),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_weight_is_the_sum_of_its_parts() {
        let weights = [0, 1, -1, 32_767, 32_768, -32_768, 1 << 22, -(1 << 20) + 3];
        let groups = split(&weights);
        for (index, &weight) in weights.iter().enumerate() {
            let [high, low] = groups[index / 4].map(|packed| (packed >> (index % 4 * 16)) as i16);
            assert_eq!((i32::from(high) << 15) + i32::from(low), weight);
            assert!(low >= 0);
        }
    }
}
