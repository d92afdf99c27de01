//! Vectors without SIMD instructions: four `f32` values in an array.
//!
//! Native builds use these, and so do modules for hosts without SIMD.

use std::ptr;

use crate::vector::Vector;

/// Four `f32` values.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct F32x4([f32; 4]);

impl F32x4 {
    /// Combines two vectors lane by lane.
    #[inline(always)]
    fn zip(self, other: Self, join: impl Fn(f32, f32) -> f32) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        Self([join(a, e), join(b, f), join(c, g), join(d, h)])
    }
}

impl Vector for F32x4 {
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller gives four readable values, aligned for `f32`.
        Self(unsafe { ptr::read(from.cast()) })
    }

    #[inline(always)]
    unsafe fn load_splat(from: *const f32) -> Self {
        // SAFETY: the caller gives a readable value.
        Self::splat(unsafe { *from })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller gives four writable values, aligned for `f32`.
        unsafe { ptr::write(to.cast(), self.0) }
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    fn broadcast<const LANE: usize>(self) -> Self {
        Self::splat(self.0[LANE])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    #[inline(always)]
    fn zero_where_less(self, value: Self, limit: Self) -> Self {
        let less = value.zip(limit, |a, b| if a < b { 1.0 } else { 0.0 });
        self.zip(less, |a, less| if less == 1.0 { 0.0 } else { a })
    }

    #[inline(always)]
    fn low_bits_as_exponent(self) -> Self {
        Self(self.0.map(|value| f32::from_bits(value.to_bits() << 23)))
    }

    #[inline(always)]
    fn first(self) -> f32 {
        self.0[0]
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        self.zip(factor, |a, b| a * b).add(addend)
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { b } else { a })
    }

    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        self.zip(other, |a, b| if b < a { b } else { a })
    }

    #[inline(always)]
    fn evens(self, next: Self) -> Self {
        Self([self.0[0], self.0[2], next.0[0], next.0[2]])
    }

    #[inline(always)]
    fn odds(self, next: Self) -> Self {
        Self([self.0[1], self.0[3], next.0[1], next.0[3]])
    }

    #[inline(always)]
    fn evens_odds(self, next: Self) -> Self {
        Self([self.0[0], self.0[2], next.0[1], next.0[3]])
    }

    #[inline(always)]
    fn last_then(self, next: Self) -> Self {
        Self([self.0[3], next.0[0], next.0[1], next.0[2]])
    }

    #[inline(always)]
    fn rest_then(self, next: Self) -> Self {
        Self([self.0[1], self.0[2], self.0[3], next.0[0]])
    }

    #[inline(always)]
    fn transpose([a, b, c, d]: [Self; 4]) -> [Self; 4] {
        let column = |i: usize| Self([a.0[i], b.0[i], c.0[i], d.0[i]]);
        [column(0), column(1), column(2), column(3)]
    }
}
