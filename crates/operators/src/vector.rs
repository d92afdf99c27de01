//! What the kernels need of a vector of four `f32` values.

/// Four `f32` values, lane 0 first in memory.
pub(crate) trait Vector: Copy {
    /// Four neighbouring values, of any alignment that `f32` allows.
    ///
    /// # Safety
    /// `from` points to four readable values.
    unsafe fn load(from: *const f32) -> Self;

    /// One value in all lanes.
    ///
    /// # Safety
    /// `from` points to a readable value.
    unsafe fn load_splat(from: *const f32) -> Self;

    /// Writes the lanes to four neighbouring places.
    ///
    /// # Safety
    /// `to` points to four writable values.
    unsafe fn store(self, to: *mut f32);

    /// `value` in all lanes.
    fn splat(value: f32) -> Self;

    /// Lane `LANE` in all lanes.
    fn broadcast<const LANE: usize>(self) -> Self;

    /// The sum.
    fn add(self, other: Self) -> Self;

    /// The difference.
    fn sub(self, other: Self) -> Self;

    /// The product.
    fn mul(self, other: Self) -> Self;

    /// The quotient.
    fn div(self, other: Self) -> Self;

    /// `self`, but 0 where `value` is less than `limit`.
    fn zero_where_less(self, value: Self, limit: Self) -> Self;

    /// The lowest eight bits of each lane as the exponent of a power of two: 127 gives 1.
    fn low_bits_as_exponent(self) -> Self;

    /// Lane 0.
    fn first(self) -> f32;

    /// `self * factor + addend`, rounded once or twice.
    fn mul_add(self, factor: Self, addend: Self) -> Self;

    /// `other` where it is greater, else `self`: a NaN in `self` stays, one in `other` is skipped.
    fn larger(self, other: Self) -> Self;

    /// `other` where it is less, else `self`: a NaN in `self` stays, one in `other` is skipped.
    fn smaller(self, other: Self) -> Self;

    /// Lanes 0 and 2 of `self`, then of `next`.
    fn evens(self, next: Self) -> Self;

    /// Lanes 1 and 3 of `self`, then of `next`.
    fn odds(self, next: Self) -> Self;

    /// Lanes 0 and 2 of `self`, then 1 and 3 of `next`.
    fn evens_odds(self, next: Self) -> Self;

    /// The last lane of `self`, then the first three of `next`.
    fn last_then(self, next: Self) -> Self;

    /// The last three lanes of `self`, then the first of `next`.
    fn rest_then(self, next: Self) -> Self;

    /// Rows become columns.
    fn transpose(rows: [Self; 4]) -> [Self; 4];
}
