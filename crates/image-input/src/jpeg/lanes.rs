//! Vectors as WebAssembly has them, with the same numbers in plain Rust where there are none.
//!
//! LLVM makes vectors of few of the loops that stand here otherwise: it took twice as long.

/// Pixels that are handled at one time.
pub(super) const PIXELS: usize = 16;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(super) use simd128::{Eight, Four, narrow, rgb, transpose, weave};

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub(super) use plain::{Eight, Four, narrow, rgb, transpose, weave};

/// 1.402 - 1, -0.344136, -0.714136 and 1.772 - 2 of JFIF's YCbCr, as fractions of 2^15.
const RED: i16 = 13_173;
const GREEN_BLUE: i16 = -11_277;
const GREEN_RED: i16 = -23_401;
const BLUE: i16 = -7_471;

#[cfg(any(test, not(all(target_arch = "wasm32", target_feature = "simd128"))))]
mod plain {
    use super::{BLUE, GREEN_BLUE, GREEN_RED, PIXELS, RED};

    /// Four numbers, modulo 2^32.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(in super::super) struct Four([i32; 4]);

    impl Four {
        #[inline]
        pub(in super::super) fn add(self, other: Self) -> Self {
            Self(std::array::from_fn(|i| self.0[i].wrapping_add(other.0[i])))
        }

        #[inline]
        pub(in super::super) fn sub(self, other: Self) -> Self {
            Self(std::array::from_fn(|i| self.0[i].wrapping_sub(other.0[i])))
        }

        #[inline]
        pub(in super::super) fn times(self, factor: i32) -> Self {
            Self(self.0.map(|value| value.wrapping_mul(factor)))
        }

        /// Adds `bias`, and divides by `2^shift`, rounding down.
        #[inline]
        pub(in super::super) fn scaled(self, bias: i32, shift: u32) -> Self {
            Self(self.0.map(|value| value.wrapping_add(bias) >> shift))
        }
    }

    /// Eight numbers, modulo 2^16.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(in super::super) struct Eight([i16; 8]);

    impl Eight {
        #[inline]
        pub(in super::super) fn new(values: &[i16; 8]) -> Self {
            Self(*values)
        }

        /// Both, each held between -32768 and 32767.
        #[inline]
        pub(in super::super) fn join(low: Four, high: Four) -> Self {
            let all = [low.0, high.0];
            let held = |i: usize| all[i / 4][i % 4].clamp(i16::MIN.into(), i16::MAX.into());
            Self(std::array::from_fn(|i| held(i) as i16))
        }

        #[inline]
        pub(in super::super) fn add(self, other: Self) -> Self {
            Self(std::array::from_fn(|i| self.0[i].wrapping_add(other.0[i])))
        }

        #[inline]
        pub(in super::super) fn times(self, other: Self) -> Self {
            Self(std::array::from_fn(|i| self.0[i].wrapping_mul(other.0[i])))
        }

        /// The products of the first four.
        #[inline]
        pub(in super::super) fn times_long(self, other: Self) -> Four {
            Four(std::array::from_fn(|i| i32::from(self.0[i]) * i32::from(other.0[i])))
        }

        /// Numbers of one and the other beside each other: those of the first four, and of the
        /// last four.
        #[inline]
        pub(in super::super) fn pairs(self, other: Self) -> [Self; 2] {
            [0, 4].map(|first| {
                let of = |i: usize| if i.is_multiple_of(2) { self.0 } else { other.0 };
                Self(std::array::from_fn(|i| of(i)[first + i / 2]))
            })
        }

        /// Of each pair the sum of its products with two factors.
        #[inline]
        pub(in super::super) fn weighed(self, [first, second]: [i16; 2]) -> Four {
            let product = |i: usize, factor: i16| i32::from(self.0[i]) * i32::from(factor);
            Four(std::array::from_fn(|i| {
                product(2 * i, first).wrapping_add(product(2 * i + 1, second))
            }))
        }

        /// Rows become columns.
        #[inline]
        pub(in super::super) fn transpose(rows: [Self; 8]) -> [Self; 8] {
            std::array::from_fn(|y| Self(std::array::from_fn(|x| rows[x].0[y])))
        }

        /// Each held between 0 and 255.
        #[inline]
        pub(in super::super) fn narrow(self) -> [u8; 8] {
            self.0.map(|value| value.clamp(0, 255) as u8)
        }
    }

    /// Rows become columns.
    #[inline]
    pub(in super::super) fn transpose(rows: [Four; 4]) -> [Four; 4] {
        std::array::from_fn(|y| Four(std::array::from_fn(|x| rows[x].0[y])))
    }

    /// Eight numbers held between 0 and 255.
    #[inline]
    pub(in super::super) fn narrow(left: Four, right: Four) -> [u8; 8] {
        let all = [left.0, right.0];
        std::array::from_fn(|i| all[i / 4][i % 4].clamp(0, 255) as u8)
    }

    /// The product of two fractions of 2^15, rounded.
    fn product(a: i16, b: i16) -> i16 {
        ((i32::from(a) * i32::from(b) + (1 << 14)) >> 15) as i16
    }

    /// YCbCr to RGB, interleaved.
    #[inline]
    pub(in super::super) fn rgb(
        luma: &[u8; PIXELS],
        blue: &[u8; PIXELS],
        red: &[u8; PIXELS],
    ) -> [u8; 3 * PIXELS] {
        let mut pixels = [0; 3 * PIXELS];
        for (i, pixel) in pixels.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let y = i16::from(luma[i]);
            let (b, r) = (i16::from(blue[i]) - 128, i16::from(red[i]) - 128);
            // Six bits more, so that the sum of two rounds but once.
            let green = product(b << 6, GREEN_BLUE) + product(r << 6, GREEN_RED);
            let clamp = |value: i16| value.clamp(0, 255) as u8;
            *pixel = [
                clamp(y + r + product(r, RED)),
                clamp(y + ((green + 32) >> 6)),
                clamp(y + 2 * b + product(b, BLUE)),
            ];
        }
        pixels
    }

    /// One of the first, one of the second, and so on.
    #[inline]
    pub(in super::super) fn weave(even: &[u8; PIXELS], odd: &[u8; PIXELS]) -> [u8; 2 * PIXELS] {
        std::array::from_fn(|i| if i % 2 == 0 { even[i / 2] } else { odd[i / 2] })
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128 {
    use std::arch::wasm32::*;

    use super::{BLUE, GREEN_BLUE, GREEN_RED, PIXELS, RED};

    /// Four numbers, modulo 2^32.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Four(v128);

    impl Four {
        #[inline]
        pub(in super::super) fn add(self, other: Self) -> Self {
            Self(i32x4_add(self.0, other.0))
        }

        #[inline]
        pub(in super::super) fn sub(self, other: Self) -> Self {
            Self(i32x4_sub(self.0, other.0))
        }

        #[inline]
        pub(in super::super) fn times(self, factor: i32) -> Self {
            Self(i32x4_mul(self.0, i32x4_splat(factor)))
        }

        /// Adds `bias`, and divides by `2^shift`, rounding down.
        #[inline]
        pub(in super::super) fn scaled(self, bias: i32, shift: u32) -> Self {
            Self(i32x4_shr(i32x4_add(self.0, i32x4_splat(bias)), shift))
        }
    }

    /// Eight numbers, modulo 2^16.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Eight(v128);

    impl Eight {
        #[inline]
        pub(in super::super) fn new(values: &[i16; 8]) -> Self {
            let [a, b, c, d, e, f, g, h] = *values;
            Self(i16x8(a, b, c, d, e, f, g, h))
        }

        /// Both, each held between -32768 and 32767.
        #[inline]
        pub(in super::super) fn join(low: Four, high: Four) -> Self {
            Self(i16x8_narrow_i32x4(low.0, high.0))
        }

        #[inline]
        pub(in super::super) fn add(self, other: Self) -> Self {
            Self(i16x8_add(self.0, other.0))
        }

        #[inline]
        pub(in super::super) fn times(self, other: Self) -> Self {
            Self(i16x8_mul(self.0, other.0))
        }

        /// The products of the first four.
        #[inline]
        pub(in super::super) fn times_long(self, other: Self) -> Four {
            Four(i32x4_extmul_low_i16x8(self.0, other.0))
        }

        /// Numbers of one and the other beside each other: those of the first four, and of the
        /// last four.
        #[inline]
        pub(in super::super) fn pairs(self, other: Self) -> [Self; 2] {
            [
                Self(i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(self.0, other.0)),
                Self(i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(self.0, other.0)),
            ]
        }

        /// Of each pair the sum of its products with two factors.
        #[inline]
        pub(in super::super) fn weighed(self, [a, b]: [i16; 2]) -> Four {
            Four(i32x4_dot_i16x8(self.0, i16x8(a, b, a, b, a, b, a, b)))
        }

        /// Rows become columns.
        #[inline]
        pub(in super::super) fn transpose(rows: [Self; 8]) -> [Self; 8] {
            // Twos of one row and the next but three, then fours, then eights.
            let [a, b, c, d, e, f, g, h] = rows;
            let ([ae, ae_high], [bf, bf_high]) = (a.pairs(e), b.pairs(f));
            let ([cg, cg_high], [dh, dh_high]) = (c.pairs(g), d.pairs(h));
            let ([aceg, aceg_1], [bdfh, bdfh_1]) = (ae.pairs(cg), bf.pairs(dh));
            let ([aceg_2, aceg_3], [bdfh_2, bdfh_3]) =
                (ae_high.pairs(cg_high), bf_high.pairs(dh_high));
            let ([r0, r1], [r2, r3]) = (aceg.pairs(bdfh), aceg_1.pairs(bdfh_1));
            let ([r4, r5], [r6, r7]) = (aceg_2.pairs(bdfh_2), aceg_3.pairs(bdfh_3));
            [r0, r1, r2, r3, r4, r5, r6, r7]
        }

        /// Each held between 0 and 255.
        #[inline]
        pub(in super::super) fn narrow(self) -> [u8; 8] {
            u64x2_extract_lane::<0>(u8x16_narrow_i16x8(self.0, self.0)).to_le_bytes()
        }
    }

    /// Rows become columns.
    #[inline]
    pub(in super::super) fn transpose(rows: [Four; 4]) -> [Four; 4] {
        let [a, b, c, d] = rows.map(|row| row.0);
        let ab_low = i32x4_shuffle::<0, 4, 1, 5>(a, b);
        let ab_high = i32x4_shuffle::<2, 6, 3, 7>(a, b);
        let cd_low = i32x4_shuffle::<0, 4, 1, 5>(c, d);
        let cd_high = i32x4_shuffle::<2, 6, 3, 7>(c, d);
        [
            Four(i64x2_shuffle::<0, 2>(ab_low, cd_low)),
            Four(i64x2_shuffle::<1, 3>(ab_low, cd_low)),
            Four(i64x2_shuffle::<0, 2>(ab_high, cd_high)),
            Four(i64x2_shuffle::<1, 3>(ab_high, cd_high)),
        ]
    }

    /// Eight numbers held between 0 and 255.
    #[inline]
    pub(in super::super) fn narrow(left: Four, right: Four) -> [u8; 8] {
        let words = i16x8_narrow_i32x4(left.0, right.0);
        u64x2_extract_lane::<0>(u8x16_narrow_i16x8(words, words)).to_le_bytes()
    }

    #[inline]
    fn vector(bytes: &[u8; PIXELS]) -> v128 {
        let bytes = u128::from_le_bytes(*bytes);
        u64x2(bytes as u64, (bytes >> 64) as u64)
    }

    #[inline]
    fn put(target: &mut [u8], vector: v128) {
        if let Some((first, rest)) = target.split_first_chunk_mut::<8>() {
            *first = u64x2_extract_lane::<0>(vector).to_le_bytes();
            if let Some(second) = rest.first_chunk_mut::<8>() {
                *second = u64x2_extract_lane::<1>(vector).to_le_bytes();
            }
        }
    }

    /// Red, green and blue of eight pixels, as 16-bit numbers.
    #[inline]
    fn colours(y: v128, b: v128, r: v128) -> [v128; 3] {
        let factor = |factor: i16| i16x8_splat(factor);
        let red = i16x8_add(i16x8_add(y, r), i16x8_q15mulr_sat(r, factor(RED)));
        // Six bits more, so that the sum of two rounds but once.
        let green = i16x8_add(
            i16x8_q15mulr_sat(i16x8_shl(b, 6), factor(GREEN_BLUE)),
            i16x8_q15mulr_sat(i16x8_shl(r, 6), factor(GREEN_RED)),
        );
        let green = i16x8_add(y, i16x8_shr(i16x8_add(green, factor(32)), 6));
        let blue = i16x8_add(i16x8_add(y, i16x8_shl(b, 1)), i16x8_q15mulr_sat(b, factor(BLUE)));
        [red, green, blue]
    }

    /// YCbCr to RGB, interleaved.
    #[inline]
    pub(in super::super) fn rgb(
        luma: &[u8; PIXELS],
        blue: &[u8; PIXELS],
        red: &[u8; PIXELS],
    ) -> [u8; 3 * PIXELS] {
        let (y, b, r) = (vector(luma), vector(blue), vector(red));
        let centred = |half: v128| i16x8_sub(half, i16x8_splat(128));
        let low = colours(
            u16x8_extend_low_u8x16(y),
            centred(u16x8_extend_low_u8x16(b)),
            centred(u16x8_extend_low_u8x16(r)),
        );
        let high = colours(
            u16x8_extend_high_u8x16(y),
            centred(u16x8_extend_high_u8x16(b)),
            centred(u16x8_extend_high_u8x16(r)),
        );
        let [r, g, b]: [v128; 3] = std::array::from_fn(|i| u8x16_narrow_i16x8(low[i], high[i]));
        // Red and green side by side, then blue between them.
        let rg = u8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(r, g);
        let rg_high =
            u8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(r, g);
        let first = u8x16_shuffle::<0, 1, 16, 2, 3, 17, 4, 5, 18, 6, 7, 19, 8, 9, 20, 10>(rg, b);
        // Pixels 5 (from its green on) to 10 (its red): greens and reds of 5 to 7 end `rg`.
        let middle =
            u8x16_shuffle::<11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 0, 0, 0, 0, 0>(rg, rg_high);
        let second =
            u8x16_shuffle::<0, 21, 1, 2, 22, 3, 4, 23, 5, 6, 24, 7, 8, 25, 9, 10>(middle, b);
        let third =
            u8x16_shuffle::<26, 6, 7, 27, 8, 9, 28, 10, 11, 29, 12, 13, 30, 14, 15, 31>(rg_high, b);
        let mut pixels = [0; 3 * PIXELS];
        put(&mut pixels[..16], first);
        put(&mut pixels[16..32], second);
        put(&mut pixels[32..], third);
        pixels
    }

    /// One of the first, one of the second, and so on.
    #[inline]
    pub(in super::super) fn weave(even: &[u8; PIXELS], odd: &[u8; PIXELS]) -> [u8; 2 * PIXELS] {
        let (even, odd) = (vector(even), vector(odd));
        let mut woven = [0; 2 * PIXELS];
        let low =
            u8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(even, odd);
        let high = u8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(
            even, odd,
        );
        put(&mut woven[..PIXELS], low);
        put(&mut woven[PIXELS..], high);
        woven
    }
}
