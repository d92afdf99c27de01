//! The C symbols of operators on elements: the kernels of [`elements`], which
//! the operator library computes with as well.

use std::slice;

use super::{answer, present};
use crate::KernelError;
use crate::elements::{self, Number, Pairing};
use crate::geometry::{elements as count, extent};

// Neighbouring axes along which operands move alike count as one, so that what needs more alternates
// between repeating one and the other six times.
const AXES: usize = 6;

/// Two operands and the result that they are joined to.
struct Operands<T, U> {
    a: *const T,
    b: *const T,
    y: *mut U,
    extents: [[i32; AXES]; 2],
}

impl<T: Number, U: Copy> Operands<T, U> {
    /// How the operands are repeated, and their elements.
    ///
    /// # Safety
    /// The operands have the elements of their extents.
    unsafe fn open<'a>(&self) -> Result<(Pairing, [&'a [T]; 2]), KernelError> {
        present(self.a)?;
        present(self.b)?;
        present(self.y)?;
        let mut shapes = [[0; AXES]; 2];
        for (to, from) in shapes.as_flattened_mut().iter_mut().zip(self.extents.as_flattened()) {
            *to = extent(*from)?;
        }
        let [a, b] = shapes;
        let pairing = Pairing::new(&a, &b)?;
        count::<T>(pairing.shape())?;
        let (a_count, b_count) = (count::<T>(&a)?, count::<T>(&b)?);
        // SAFETY: the caller's promise; no slice exceeds 2 GiB.
        let slices = unsafe {
            [slice::from_raw_parts(self.a, a_count), slice::from_raw_parts(self.b, b_count)]
        };
        Ok((pairing, slices))
    }

    /// # Safety
    /// The tensors have the elements of the operands' extents and of what they broadcast to.
    unsafe fn join(&self, join: impl Fn(T, T) -> U + Copy) -> Result<(), KernelError> {
        // SAFETY: the caller's promise.
        let (pairing, [a, b]) = unsafe { self.open()? };
        // SAFETY: likewise; `open` found that neither type's elements exceed 2 GiB, and nothing
        // else refers to the output.
        let y = unsafe { slice::from_raw_parts_mut(self.y, pairing.len()) };
        elements::binary(&pairing, a, b, y, join)
    }
}

impl<T: Number> Operands<T, i64> {
    /// # Safety
    /// The operands have the elements of their extents, and the output has one.
    unsafe fn count_equal(&self) -> Result<(), KernelError> {
        // SAFETY: the caller's promise.
        let (pairing, [a, b]) = unsafe { self.open()? };
        let equal = elements::equal_count(&pairing, a, b)?;
        // SAFETY: likewise.
        unsafe { *self.y = equal as i64 };
        Ok(())
    }
}

macro_rules! operands {
    ($($(#[$text:meta])* $symbol:ident($number:ty) -> $result:ty = |$operands:ident| $run:expr;)*) => {$(
        $(#[$text])*
        ///
        /// `a` is `[a0][a1][a2][a3][a4][a5]` and `b` `[b0][b1][b2][b3][b4][b5]`; an extent is the
        /// other's or 1, and then repeated.
        ///
        /// # Safety
        /// As [the crate](crate) says, with these extents. `a` may be `b`.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $symbol(
            a: *const $number,
            b: *const $number,
            y: *mut $result,
            a0: i32,
            a1: i32,
            a2: i32,
            a3: i32,
            a4: i32,
            a5: i32,
            b0: i32,
            b1: i32,
            b2: i32,
            b3: i32,
            b4: i32,
            b5: i32,
        ) -> i32 {
            let extents = [[a0, a1, a2, a3, a4, a5], [b0, b1, b2, b3, b4, b5]];
            let $operands = Operands::<$number, $result> { a, b, y, extents };
            // SAFETY: the caller promised these tensors with these extents.
            answer(unsafe { $run })
        }
    )*};
}

operands! {
    /// Sum `y = a + b`; `y` has the extents that both broadcast to.
    graphlet_add_f32(f32) -> f32 = |operands| operands.join(Number::plus);
    /// Sum `y = a + b`, which wraps round; `y` has the extents that both broadcast to.
    graphlet_add_i32(i32) -> i32 = |operands| operands.join(Number::plus);
    /// Sum `y = a + b`, which wraps round; `y` has the extents that both broadcast to.
    graphlet_add_i8(i8) -> i8 = |operands| operands.join(Number::plus);
    /// Product `y = a * b`; `y` has the extents that both broadcast to.
    graphlet_mul_f32(f32) -> f32 = |operands| operands.join(Number::times);
    /// Product `y = a * b`, which wraps round; `y` has the extents that both broadcast to.
    graphlet_mul_i32(i32) -> i32 = |operands| operands.join(Number::times);
    /// Product `y = a * b`, which wraps round; `y` has the extents that both broadcast to.
    graphlet_mul_i8(i8) -> i8 = |operands| operands.join(Number::times);
    /// Equality: `y` is 1 where `a` and `b` are equal, else 0, and has the extents that both
    /// broadcast to. NaN equals nothing.
    graphlet_equal_f32(f32) -> u8 = |operands| operands.join(elements::equal);
    /// Equality: `y` is 1 where `a` and `b` are equal, else 0, and has the extents that both
    /// broadcast to.
    graphlet_equal_i32(i32) -> u8 = |operands| operands.join(elements::equal);
    /// Equality: `y` is 1 where `a` and `b` are equal, else 0, and has the extents that both
    /// broadcast to.
    graphlet_equal_i8(i8) -> u8 = |operands| operands.join(elements::equal);
    /// The number of equal pairs: `y` is one number. NaN equals nothing.
    graphlet_equal_count_f32(f32) -> i64 = |operands| operands.count_equal();
    /// The number of equal pairs: `y` is one number.
    graphlet_equal_count_i32(i32) -> i64 = |operands| operands.count_equal();
    /// The number of equal pairs: `y` is one number.
    graphlet_equal_count_i8(i8) -> i64 = |operands| operands.count_equal();
}

/// The places of the greatest along an axis.
///
/// # Safety
/// `x` and `y` have the elements that the symbols document.
unsafe fn argmax<T: Number>(
    x: *const T,
    y: *mut i64,
    extents: [i32; 3],
) -> Result<(), KernelError> {
    present(x)?;
    present(y)?;
    let [outer, n, inner] = extents;
    let extents = [extent(outer)?, extent(n)?, extent(inner)?];
    let (total, places) = (count::<T>(&extents)?, count::<i64>(&[extents[0], extents[2]])?);
    // SAFETY: the caller's promise; neither slice exceeds 2 GiB, and nothing else refers to the
    // output.
    let (x, y) = unsafe { (slice::from_raw_parts(x, total), slice::from_raw_parts_mut(y, places)) };
    elements::argmax(extents, x, y)
}

macro_rules! places {
    ($($(#[$text:meta])* $symbol:ident($number:ty);)*) => {$(
        $(#[$text])*
        ///
        /// `x` is `[outer][n][inner]`, `y` `[outer][inner]`; the first of equal greatest ones counts.
        ///
        /// # Safety
        /// As [the crate](crate) says, with these extents.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $symbol(
            x: *const $number,
            y: *mut i64,
            outer: i32,
            n: i32,
            inner: i32,
        ) -> i32 {
            // SAFETY: the caller promised these tensors with these extents.
            answer(unsafe { argmax(x, y, [outer, n, inner]) })
        }
    )*};
}

places! {
    /// The place of the greatest along an axis. NaN counts as the greatest.
    graphlet_argmax_f32(f32);
    /// The place of the greatest along an axis.
    graphlet_argmax_i32(i32);
    /// The place of the greatest along an axis.
    graphlet_argmax_i8(i8);
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    type Join<T, U> = unsafe extern "C" fn(
        *const T,
        *const T,
        *mut U,
        i32,
        i32,
        i32,
        i32,
        i32,
        i32,
        i32,
        i32,
        i32,
        i32,
        i32,
        i32,
    ) -> i32;

    /// Calls a symbol; elements that it must not touch lie around the result.
    fn call<T: Copy, U: Copy + PartialEq + std::fmt::Debug>(
        symbol: Join<T, U>,
        (a, from): (&[T], [i32; AXES]),
        (b, with): (&[T], [i32; AXES]),
        len: usize,
        untouched: U,
    ) -> Result<Vec<U>, i32> {
        let elements = |shape: [i32; AXES]| shape.iter().product::<i32>();
        assert_eq!((elements(from), elements(with)), (a.len() as i32, b.len() as i32));
        let mut y = vec![untouched; len + 2];
        let ([a0, a1, a2, a3, a4, a5], [b0, b1, b2, b3, b4, b5]) = (from, with);
        // SAFETY: the operands have the elements of their extents, the result has `len`.
        let answer = unsafe {
            let (a, b, y) = (a.as_ptr(), b.as_ptr(), y[1..].as_mut_ptr());
            symbol(a, b, y, a0, a1, a2, a3, a4, a5, b0, b1, b2, b3, b4, b5)
        };
        assert_eq!((y[0], y[len + 1]), (untouched, untouched), "a write outside");
        if answer == 0 { Ok(y[1..=len].to_vec()) } else { Err(answer) }
    }

    #[test]
    fn every_operator_and_type_has_a_symbol_that_broadcasts() {
        // A column of two and a row of three.
        let (column, row) = ([1, 1, 1, 1, 2, 1], [1, 1, 1, 1, 1, 3]);
        let (a, b) = ([1.5_f32, 2.0], [2.0_f32, f32::NAN, 0.5]);
        let (a, b) = ((&a[..], column), (&b[..], row));
        let sum = call(graphlet_add_f32, a, b, 6, -1.0).unwrap();
        assert_eq!([sum[0], sum[2], sum[3], sum[5]], [3.5, 2.0, 4.0, 2.5]);
        assert!(sum[1].is_nan() && sum[4].is_nan());
        assert_eq!(call(graphlet_mul_f32, a, b, 6, -1.0).unwrap()[3], 4.0);
        assert_eq!(call(graphlet_equal_f32, a, b, 6, 9), Ok(vec![0, 0, 0, 1, 0, 0]));
        assert_eq!(call(graphlet_equal_count_f32, a, b, 1, 9), Ok(vec![1]));

        let (a, b) = ((&[i32::MAX, 3][..], column), (&[1, 3, -3][..], row));
        let sum = vec![i32::MIN, i32::MIN + 2, i32::MAX - 3, 4, 6, 0];
        assert_eq!(call(graphlet_add_i32, a, b, 6, 7), Ok(sum));
        let product = vec![i32::MAX, i32::MAX - 2, i32::MIN + 3, 3, 9, -9];
        assert_eq!(call(graphlet_mul_i32, a, b, 6, 7), Ok(product));
        assert_eq!(call(graphlet_equal_i32, a, b, 6, 9), Ok(vec![0, 0, 0, 0, 1, 0]));
        assert_eq!(call(graphlet_equal_count_i32, a, b, 1, 9), Ok(vec![1]));

        let (a, b) = ((&[127_i8, 3][..], column), (&[1_i8, 3, -3][..], row));
        assert_eq!(call(graphlet_add_i8, a, b, 6, 7), Ok(vec![-128, -126, 124, 4, 6, 0]));
        assert_eq!(call(graphlet_mul_i8, a, b, 6, 7), Ok(vec![127, 125, -125, 3, 9, -9]));
        assert_eq!(call(graphlet_equal_i8, a, b, 6, 9), Ok(vec![0, 0, 0, 0, 1, 0]));
        assert_eq!(call(graphlet_equal_count_i8, a, b, 1, 9), Ok(vec![1]));
    }

    #[test]
    fn places_of_the_greatest_are_written_along_the_middle_axis() {
        let mut y = [-1; 4];
        // SAFETY: two planes of three rows of two; the result has four elements.
        unsafe {
            let x = [1, 5, 2, 4, 3, 6, 9, 7, 8, 0, 2, 1];
            assert_eq!(graphlet_argmax_i32(x.as_ptr(), y.as_mut_ptr(), 2, 3, 2), 0);
            assert_eq!(y, [2, 2, 0, 0]);
            let x = x.map(|x| x as i8);
            assert_eq!(graphlet_argmax_i8(x.as_ptr(), y.as_mut_ptr(), 4, 3, 1), 0);
            assert_eq!(y, [1, 2, 0, 1]);
            let x = [0.5, f32::NAN, f32::INFINITY];
            assert_eq!(graphlet_argmax_f32(x.as_ptr(), y.as_mut_ptr(), 1, 3, 1), 0);
            assert_eq!(y, [1, 2, 0, 1]);
        }
    }

    #[test]
    fn what_cannot_be_computed_is_answered_before_anything_is_read() {
        let one = [1; AXES];
        let run = |a: *const f32, y: *mut f32, [a0, a1, a2, a3, a4, a5]: [i32; AXES]| {
            // SAFETY: nothing is read, for a buffer is missing or an extent wrong.
            unsafe { graphlet_add_f32(a, a, y, a0, a1, a2, a3, a4, a5, 1, 1, 1, 1, 1, 2) }
        };
        let (x, mut y) = ([1.0_f32; 2], [0.0_f32; 2]);
        assert_eq!(run(ptr::null(), y.as_mut_ptr(), one), -1);
        assert_eq!(run(x.as_ptr(), ptr::null_mut(), one), -1);
        for extents in [
            [1, 1, 1, 1, 1, 0],
            [1, 1, 1, 1, 1, -1],
            [1, 1, 1, 1, 1, 3],
            [1, 1, 1, 1 << 15, 1 << 15, 1],
            [i32::MAX; AXES],
        ] {
            assert_eq!(run(x.as_ptr(), y.as_mut_ptr(), extents), -1, "{extents:?}");
        }
        for [outer, n, inner] in [[1, 0, 1], [0, 1, 1], [1, 1, -1], [1 << 15, 1 << 15, 4]] {
            let mut y = [0; 2];
            // SAFETY: nothing is read, for an extent is wrong.
            let answer =
                unsafe { graphlet_argmax_f32(x.as_ptr(), y.as_mut_ptr(), outer, n, inner) };
            assert_eq!(answer, -1);
        }
    }
}
