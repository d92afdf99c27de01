//! The `v128` vector, which the relaxed and the plain variant share but for the multiply-add.

/// Defines `F32x4` over `v128` with the given multiply-add of three `v128`.
macro_rules! wasm_vector {
    (|$a:ident, $b:ident, $c:ident| $mul_add:expr) => {
        use core::arch::wasm32::{
            f32x4_add, f32x4_div, f32x4_extract_lane, f32x4_lt, f32x4_mul, f32x4_pmax, f32x4_pmin,
            f32x4_splat, f32x4_sub, i32x4_shl, i32x4_shuffle, i64x2_shuffle, v128, v128_andnot,
            v128_load, v128_load32_splat, v128_store,
        };

        use crate::vector::Vector;

        /// Four `f32` values in a `v128`.
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        pub(crate) struct F32x4(v128);

        impl Vector for F32x4 {
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: the caller gives four readable values; wasm loads need no alignment.
                Self(unsafe { v128_load(from.cast()) })
            }

            #[inline(always)]
            unsafe fn load_splat(from: *const f32) -> Self {
                // SAFETY: the caller gives a readable value.
                Self(unsafe { v128_load32_splat(from.cast()) })
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: the caller gives four writable values; wasm stores need no alignment.
                unsafe { v128_store(to.cast(), self.0) }
            }

            #[inline(always)]
            fn splat(value: f32) -> Self {
                Self(f32x4_splat(value))
            }

            #[inline(always)]
            fn broadcast<const LANE: usize>(self) -> Self {
                Self(i32x4_shuffle::<LANE, LANE, LANE, LANE>(self.0, self.0))
            }

            #[inline(always)]
            fn add(self, other: Self) -> Self {
                Self(f32x4_add(self.0, other.0))
            }

            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                Self(f32x4_sub(self.0, other.0))
            }

            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                Self(f32x4_mul(self.0, other.0))
            }

            #[inline(always)]
            fn div(self, other: Self) -> Self {
                Self(f32x4_div(self.0, other.0))
            }

            #[inline(always)]
            fn zero_where_less(self, value: Self, limit: Self) -> Self {
                Self(v128_andnot(self.0, f32x4_lt(value.0, limit.0)))
            }

            #[inline(always)]
            fn low_bits_as_exponent(self) -> Self {
                Self(i32x4_shl(self.0, 23))
            }

            #[inline(always)]
            fn first(self) -> f32 {
                f32x4_extract_lane::<0>(self.0)
            }

            #[inline(always)]
            fn mul_add(self, factor: Self, addend: Self) -> Self {
                let ($a, $b, $c) = (self.0, factor.0, addend.0);
                Self($mul_add)
            }

            #[inline(always)]
            fn larger(self, other: Self) -> Self {
                Self(f32x4_pmax(self.0, other.0))
            }

            #[inline(always)]
            fn smaller(self, other: Self) -> Self {
                Self(f32x4_pmin(self.0, other.0))
            }

            #[inline(always)]
            fn evens(self, next: Self) -> Self {
                Self(i32x4_shuffle::<0, 2, 4, 6>(self.0, next.0))
            }

            #[inline(always)]
            fn odds(self, next: Self) -> Self {
                Self(i32x4_shuffle::<1, 3, 5, 7>(self.0, next.0))
            }

            #[inline(always)]
            fn evens_odds(self, next: Self) -> Self {
                Self(i32x4_shuffle::<0, 2, 5, 7>(self.0, next.0))
            }

            #[inline(always)]
            fn last_then(self, next: Self) -> Self {
                Self(i32x4_shuffle::<3, 4, 5, 6>(self.0, next.0))
            }

            #[inline(always)]
            fn rest_then(self, next: Self) -> Self {
                Self(i32x4_shuffle::<1, 2, 3, 4>(self.0, next.0))
            }

            #[inline(always)]
            fn transpose([a, b, c, d]: [Self; 4]) -> [Self; 4] {
                let ab_low = i32x4_shuffle::<0, 4, 1, 5>(a.0, b.0);
                let ab_high = i32x4_shuffle::<2, 6, 3, 7>(a.0, b.0);
                let cd_low = i32x4_shuffle::<0, 4, 1, 5>(c.0, d.0);
                let cd_high = i32x4_shuffle::<2, 6, 3, 7>(c.0, d.0);
                [
                    Self(i64x2_shuffle::<0, 2>(ab_low, cd_low)),
                    Self(i64x2_shuffle::<1, 3>(ab_low, cd_low)),
                    Self(i64x2_shuffle::<0, 2>(ab_high, cd_high)),
                    Self(i64x2_shuffle::<1, 3>(ab_high, cd_high)),
                ]
            }
        }
    };
}
