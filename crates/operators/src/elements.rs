//! Operators on elements of any type and any rank, by NumPy's rules: addition, multiplication, the
//! place of the greatest, the number of equal ones.
//!
//! Operands are repeated along axes in which they have one element (broadcasting). Integers wrap
//! round. For floats NaN is a result like any other; it equals nothing, and it is the greatest: the
//! first NaN is the answer of [`argmax`], as it is in NumPy. Of equal greatest ones the first counts.
//!
//! The loops are plain slices of one type; for wasm32 with `simd128` the compiler makes 128-bit
//! vectors of them (`programs/operators` tests that it does).

use crate::KernelError;

// Small enough to be searched again from the first cache.
const BLOCK: usize = 4096;
// The longest vector that the counters of equal elements are kept in.
const LANES: usize = 16;

/// What the operators compute with.
pub trait Number: Copy + PartialOrd {
    /// What [`Number::key`] gives.
    type Key: Copy + Ord;
    /// The sum; integers wrap round.
    #[must_use]
    fn plus(self, other: Self) -> Self;
    /// The product; integers wrap round.
    #[must_use]
    fn times(self, other: Self) -> Self;
    /// An integer that is greater for a greater number, and the same for equal ones; NaN has the
    /// greatest.
    fn key(self) -> Self::Key;
    /// The greatest of `values` and `at_least`; `None` when a NaN is among the values.
    fn greatest(values: &[Self], at_least: Self) -> Option<Self>;
    /// How many pairs are equal.
    fn count_equal(a: &[Self], b: &[Self]) -> usize;
}

/// Whether two elements are equal, as the byte of a `bool`.
#[must_use]
pub fn equal<T: Number>(a: T, b: T) -> u8 {
    u8::from(a == b)
}

macro_rules! integers {
    ($($integer:ty, $count:ty);*) => {$(
        impl Number for $integer {
            type Key = Self;

            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            fn times(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }

            fn key(self) -> Self {
                self
            }

            fn greatest(values: &[Self], at_least: Self) -> Option<Self> {
                Some(values.iter().fold(at_least, |best, &x| best.max(x)))
            }

            fn count_equal(a: &[Self], b: &[Self]) -> usize {
                // As many whole vectors as a counter of the element's own width can count.
                const RUN: usize = <$count>::MAX as usize / LANES * LANES;
                a.chunks(RUN).zip(b.chunks(RUN)).map(|(a, b)| {
                    let equal = a.iter().zip(b).map(|(a, b)| <$count>::from(a == b));
                    equal.fold(0, <$count>::wrapping_add) as usize
                })
                .sum()
            }
        }
    )*};
}

integers!(i8, u8; i32, u32);

/// Integers in the order of the floats whose bits they are, -0 before 0; and back again.
fn ordered(bits: i32) -> i32 {
    // Those of negative numbers grow the wrong way round.
    bits ^ ((bits >> 31) & i32::MAX)
}

const INFINITY_BITS: i32 = f32::INFINITY.to_bits() as i32;

impl Number for f32 {
    type Key = i32;

    fn plus(self, other: Self) -> Self {
        self + other
    }

    fn times(self, other: Self) -> Self {
        self * other
    }

    fn key(self) -> i32 {
        // The sum makes 0 of -0.
        let key = ordered((self + 0.0).to_bits() as i32);
        if self.is_nan() { i32::MAX } else { key }
    }

    fn greatest(values: &[Self], at_least: Self) -> Option<Self> {
        // Both are maxima of integers, which become vectors; one of floats would not.
        let first = (ordered(at_least.to_bits() as i32), 0);
        let (best, largest) = values.iter().fold(first, |(best, largest), x| {
            let bits = x.to_bits() as i32;
            (best.max(ordered(bits)), largest.max(bits & i32::MAX))
        });
        let has_nan = largest > INFINITY_BITS;
        (!has_nan).then(|| f32::from_bits(ordered(best) as u32))
    }

    fn count_equal(a: &[Self], b: &[Self]) -> usize {
        let equal = a.iter().zip(b).map(|(a, b)| u32::from(a == b));
        equal.fold(0, u32::wrapping_add) as usize
    }
}

/// Two operands and how each is repeated to the shape of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairing {
    shape: Vec<usize>,
    axes: Vec<Axis>,
}

/// Neighbouring axes that can be walked as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Axis {
    extent: usize,
    /// Elements between two neighbours, 0 where the operand is repeated.
    a: usize,
    b: usize,
}

impl Pairing {
    /// Pairs operands of two shapes, outermost extent first.
    ///
    /// # Errors
    /// [`KernelError::Geometry`] when an extent of one is neither that of the other nor 1, or
    /// when the result has more elements than can be counted.
    pub fn new(a: &[usize], b: &[usize]) -> Result<Self, KernelError> {
        let rank = a.len().max(b.len());
        let extent = |shape: &[usize], axis: usize| {
            (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis])
        };
        let mut shape = Vec::with_capacity(rank);
        for axis in 0..rank {
            shape.push(match (extent(a, axis), extent(b, axis)) {
                (one, other) if one == other => one,
                (1, other) => other,
                (one, 1) => one,
                _ => return Err(KernelError::Geometry("the shapes do not broadcast")),
            });
        }
        let total = shape.iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent));
        total.ok_or(KernelError::Geometry("the result is too large"))?;

        let (mut strides, mut axes) = ((1, 1), Vec::<Axis>::new());
        for axis in (0..rank).rev() {
            let (of_a, of_b) = (extent(a, axis), extent(b, axis));
            let step = |extent: usize, stride: usize| if extent == 1 { 0 } else { stride };
            let next =
                Axis { extent: shape[axis], a: step(of_a, strides.0), b: step(of_b, strides.1) };
            strides = (strides.0 * of_a.max(1), strides.1 * of_b.max(1));
            if next.extent == 1 {
                continue;
            }
            match axes.last_mut() {
                Some(inner) if inner.continues(&next) => inner.extent *= next.extent,
                _ => axes.push(next),
            }
        }
        Ok(Pairing { shape, axes })
    }

    /// The result's extents.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of the result's elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the result has no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The innermost axis, the one around it, and all others; of one element where there is none.
    fn nest(&self) -> (Axis, Axis, &[Axis]) {
        let axis = |number| self.axes.get(number).copied().unwrap_or(Axis::ONE);
        (axis(0), axis(1), self.axes.get(2..).unwrap_or_default())
    }
}

/// Calls `row` with where each row of the innermost axis starts in both operands and in the
/// result, which has no axis without elements.
#[inline(always)]
fn rows((inner, middle, outer): (Axis, Axis, &[Axis]), mut row: impl FnMut([usize; 3])) {
    let mut index = vec![0; outer.len()];
    let (mut i, mut j, mut start) = (0, 0, 0);
    loop {
        for step in 0..middle.extent {
            row([i + step * middle.a, j + step * middle.b, start]);
            start += inner.extent;
        }
        let mut ended = true;
        for (at, axis) in index.iter_mut().zip(outer) {
            (*at, i, j) = (*at + 1, i + axis.a, j + axis.b);
            if *at < axis.extent {
                ended = false;
                break;
            }
            (*at, i, j) = (0, i - axis.extent * axis.a, j - axis.extent * axis.b);
        }
        if ended {
            return;
        }
    }
}

impl Axis {
    const ONE: Axis = Axis { extent: 1, a: 0, b: 0 };

    /// Whether the next outer axis goes on where this one ends, in both operands.
    fn continues(&self, outer: &Axis) -> bool {
        let on = |inner: usize, outer: usize| match inner {
            0 => outer == 0,
            stride => outer == stride * self.extent,
        };
        on(self.a, outer.a) && on(self.b, outer.b)
    }
}

/// Writes `join` of every pair into `y`.
///
/// # Errors
/// [`KernelError::Geometry`] when a slice does not have the elements of its shape.
pub fn binary<T: Number, U: Copy>(
    pairing: &Pairing,
    a: &[T],
    b: &[T],
    y: &mut [U],
    join: impl Fn(T, T) -> U + Copy,
) -> Result<(), KernelError> {
    check(pairing, a, b)?;
    if y.len() != pairing.len() {
        return Err(KernelError::Geometry("the output has another size"));
    }
    if pairing.is_empty() {
        return Ok(());
    }
    let nest = pairing.nest();
    let len = nest.0.extent;
    // What repeats is told apart once, not for every row: rows may be short.
    match (nest.0.a, nest.0.b) {
        (0, 0) => rows(nest, |[i, j, start]| y[start..][..len].fill(join(a[i], b[j]))),
        (0, _) => rows(nest, |[i, j, start]| {
            let (a, b) = (a[i], &b[j..][..len]);
            row(b, b, &mut y[start..][..len], |b, _| join(a, b));
        }),
        (_, 0) => rows(nest, |[i, j, start]| {
            let (a, b) = (&a[i..][..len], b[j]);
            row(a, a, &mut y[start..][..len], |a, _| join(a, b));
        }),
        _ => rows(nest, |[i, j, start]| {
            row(&a[i..][..len], &b[j..][..len], &mut y[start..][..len], join);
        }),
    }
    Ok(())
}

/// Joins two rows, four vectors in each turn of the loop.
#[inline(always)]
fn row<T: Copy, U>(a: &[T], b: &[T], y: &mut [U], join: impl Fn(T, T) -> U) {
    let turn = const { 64 / size_of::<T>() };
    let (mut a, mut b, mut y) =
        (a.chunks_exact(turn), b.chunks_exact(turn), y.chunks_exact_mut(turn));
    for ((a, b), y) in (&mut a).zip(&mut b).zip(&mut y) {
        for ((&a, &b), y) in a.iter().zip(b).zip(y) {
            *y = join(a, b);
        }
    }
    for ((&a, &b), y) in a.remainder().iter().zip(b.remainder()).zip(y.into_remainder()) {
        *y = join(a, b);
    }
}

/// How many pairs are equal.
///
/// # Errors
/// As [`binary`].
pub fn equal_count<T: Number>(pairing: &Pairing, a: &[T], b: &[T]) -> Result<usize, KernelError> {
    check(pairing, a, b)?;
    if pairing.is_empty() {
        return Ok(0);
    }
    let mut count = 0;
    let nest = pairing.nest();
    let len = nest.0.extent;
    let equal = |repeated: T, row: &[T]| row.iter().filter(|&&value| value == repeated).count();
    match (nest.0.a, nest.0.b) {
        (0, 0) => rows(nest, |[i, j, _]| count += if a[i] == b[j] { len } else { 0 }),
        (0, _) => rows(nest, |[i, j, _]| count += equal(a[i], &b[j..][..len])),
        (_, 0) => rows(nest, |[i, j, _]| count += equal(b[j], &a[i..][..len])),
        _ => rows(nest, |[i, j, _]| count += T::count_equal(&a[i..][..len], &b[j..][..len])),
    }
    Ok(count)
}

fn check<T>(pairing: &Pairing, a: &[T], b: &[T]) -> Result<(), KernelError> {
    // The last element that the strides lead to.
    let reach = |stride: fn(&Axis) -> usize| {
        pairing.axes.iter().map(|axis| (axis.extent - 1) * stride(axis)).sum::<usize>() + 1
    };
    if !pairing.is_empty() && (a.len() < reach(|axis| axis.a) || b.len() < reach(|axis| axis.b)) {
        return Err(KernelError::Geometry("an operand is too short for its shape"));
    }
    Ok(())
}

/// Writes the places of the greatest along an axis of `n` elements into `y`: `x` has `outer` times
/// `n` times `inner` elements, `y` has `outer` times `inner`.
///
/// # Errors
/// [`KernelError::Geometry`] when the slices do not have these sizes, or when there is no element
/// of which the place could be told.
pub fn argmax<T: Number>(
    [outer, n, inner]: [usize; 3],
    x: &[T],
    y: &mut [i64],
) -> Result<(), KernelError> {
    let results = outer.checked_mul(inner).filter(|&results| results == y.len());
    let elements = results.and_then(|results| results.checked_mul(n));
    if elements != Some(x.len()) {
        return Err(KernelError::Geometry("the shapes and the sizes of the tensors differ"));
    }
    if n == 0 && !y.is_empty() {
        return Err(KernelError::Geometry("the greatest of no elements"));
    }
    if y.is_empty() {
        return Ok(());
    }
    if inner == 1 {
        for (y, row) in y.iter_mut().zip(x.chunks_exact(n)) {
            *y = first_greatest(row) as i64;
        }
        return Ok(());
    }
    let mut best = Vec::new();
    best.try_reserve_exact(inner)
        .map_err(|_| KernelError::Scratch { bytes: inner * size_of::<T::Key>() })?;
    for (y, plane) in y.chunks_exact_mut(inner).zip(x.chunks_exact(n * inner)) {
        best.clear();
        best.extend(plane[..inner].iter().map(|x| x.key()));
        y.fill(0);
        for (index, row) in plane.chunks_exact(inner).enumerate().skip(1) {
            for ((best, y), &x) in best.iter_mut().zip(&mut *y).zip(row) {
                let found = x.key() > *best;
                *best = x.key().max(*best);
                *y = if found { index as i64 } else { *y };
            }
        }
    }
    Ok(())
}

/// The place of the greatest of a row, which has an element.
fn first_greatest<T: Number>(row: &[T]) -> usize {
    let is_nan = |x: &T| x.partial_cmp(x).is_none();
    let (mut best, mut place) = (row[0], 0);
    // Until the first NaN the greatest is a number.
    for (number, block) in row.chunks(BLOCK).enumerate() {
        let begin = number * BLOCK;
        match T::greatest(block, best) {
            Some(found) if found > best => {
                // Of -0 and 0, which are equal, the first.
                let at = block.iter().position(|&x| x == found).unwrap_or_default();
                (best, place) = (found, begin + at);
            }
            Some(_) => {}
            None => return begin + block.iter().position(is_nan).unwrap_or_default(),
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(a: (&[usize], &[i32]), b: (&[usize], &[i32])) -> (Vec<usize>, Vec<i32>) {
        let pairing = Pairing::new(a.0, b.0).unwrap();
        let mut y = vec![0; pairing.len()];
        binary(&pairing, a.1, b.1, &mut y, Number::plus).unwrap();
        (pairing.shape().to_vec(), y)
    }

    /// By the definition: every index of the result, one after the other.
    fn slowly_added(a: (&[usize], &[i32]), b: (&[usize], &[i32]), shape: &[usize]) -> Vec<i32> {
        let element = |operand: (&[usize], &[i32]), index: &[usize]| {
            let skip = shape.len() - operand.0.len();
            let at = operand
                .0
                .iter()
                .zip(&index[skip..])
                .fold(0, |at, (&extent, &i)| at * extent + if extent == 1 { 0 } else { i });
            operand.1[at]
        };
        let total: usize = shape.iter().product();
        let index = |mut number: usize| {
            let mut index = vec![0; shape.len()];
            for (i, extent) in index.iter_mut().zip(shape).rev() {
                *i = number % extent;
                number /= extent;
            }
            index
        };
        (0..total).map(|n| element(a, &index(n)) + element(b, &index(n))).collect()
    }

    #[test]
    fn operands_are_repeated_as_numpy_repeats_them() {
        let values: Vec<i32> = (0..120).map(|value| value * 7 % 31).collect();
        let shapes: [&[usize]; 12] = [
            &[],
            &[1],
            &[5],
            &[4, 5],
            &[4, 1],
            &[1, 5],
            &[3, 4, 5],
            &[3, 1, 5],
            &[1, 4, 1],
            &[3, 1, 1],
            &[2, 3, 4, 5],
            &[2, 1, 4, 1],
        ];
        for a in shapes {
            for b in shapes {
                let operand = |shape: &[usize]| &values[..shape.iter().product()];
                let (a, b) = ((a, operand(a)), (b, operand(b)));
                let (shape, y) = added(a, b);
                assert_eq!(y, slowly_added(a, b, &shape), "{:?} and {:?}", a.0, b.0);
            }
        }
        assert_eq!(added((&[2, 0], &[]), (&[1], &[1])), (vec![2, 0], vec![]));
        assert!(Pairing::new(&[2], &[3]).is_err());
        assert!(Pairing::new(&[0], &[3]).is_err());
        assert!(Pairing::new(&[usize::MAX, 1], &[1, 2]).is_err());
    }

    #[test]
    fn neighbouring_axes_are_walked_as_one() {
        assert_eq!(Pairing::new(&[2, 3, 4], &[2, 3, 4]).unwrap().axes.len(), 1);
        assert_eq!(Pairing::new(&[2, 3, 4], &[]).unwrap().axes.len(), 1);
        assert_eq!(Pairing::new(&[2, 3, 4], &[4]).unwrap().axes.len(), 2);
        assert_eq!(Pairing::new(&[2, 3, 4], &[3, 1]).unwrap().axes.len(), 3);
    }

    #[test]
    fn integers_wrap_round_and_floats_do_not() {
        let pairing = Pairing::new(&[3], &[3]).unwrap();
        let mut y = [0_i8; 3];
        binary(&pairing, &[127, -128, 100], &[1, -1, 100], &mut y, Number::plus).unwrap();
        assert_eq!(y, [-128, 127, -56]);
        binary(&pairing, &[127, -128, 100], &[2, -1, 100], &mut y, Number::times).unwrap();
        assert_eq!(y, [-2, -128, 16]);
        let mut y = [0_i32; 1];
        let one = Pairing::new(&[], &[]).unwrap();
        binary(&one, &[i32::MAX], &[2], &mut y, Number::times).unwrap();
        assert_eq!(y, [-2]);
        let mut y = [0_f32; 3];
        let nan = f32::NAN;
        binary(&pairing, &[f32::MAX, nan, 0.0], &[f32::MAX, 1.0, -0.0], &mut y, Number::plus)
            .unwrap();
        assert!(y[0] == f32::INFINITY && y[1].is_nan() && y[2].to_bits() == 0);
    }

    #[test]
    fn equal_elements_are_counted_and_nan_equals_nothing() {
        let nan = f32::NAN;
        let pairing = Pairing::new(&[4], &[4]).unwrap();
        let count = equal_count(&pairing, &[1.0, nan, 0.0, 2.0], &[1.0, nan, -0.0, 3.0]);
        assert_eq!(count, Ok(2));
        // More than a byte can count.
        let many = Pairing::new(&[1000], &[1000]).unwrap();
        assert_eq!(equal_count(&many, &[7_i8; 1000], &[7; 1000]), Ok(1000));
        let rows = Pairing::new(&[3, 2], &[2]).unwrap();
        assert_eq!(equal_count(&rows, &[1, 2, 3, 2, 1, 1], &[1, 2]), Ok(4));
        let column = Pairing::new(&[3, 1], &[1, 2]).unwrap();
        assert_eq!(equal_count(&column, &[1, 2, 3], &[1, 2]), Ok(2));
        let scalars = Pairing::new(&[], &[]).unwrap();
        assert_eq!(equal_count(&scalars, &[5], &[5]), Ok(1));
        assert!(equal_count(&pairing, &[1.0; 3], &[1.0; 4]).is_err());
    }

    #[test]
    fn the_first_greatest_is_found_and_nan_is_the_greatest() {
        let place = |row: &[f32]| {
            let mut y = [9];
            argmax([1, row.len(), 1], row, &mut y).unwrap();
            y[0]
        };
        assert_eq!(place(&[1.0, 3.0, 2.0, 3.0]), 1);
        assert_eq!(place(&[f32::NEG_INFINITY; 3]), 0);
        assert_eq!(place(&[1.0, f32::NAN, f32::INFINITY, f32::NAN]), 1);
        assert_eq!(place(&[-0.0, 0.0]), 0);
        assert_eq!(place(&[-3.0, -1.0, -2.0, -f32::NAN]), 3);
        assert_eq!(place(&[f32::MIN, -1e-40, -1.0]), 1);
        assert_eq!(place(&[f32::MAX, f32::INFINITY]), 1);
        // A NaN wherever a vector ends, behind greater and lesser ones.
        for at in [0, 3, 15, 16, 17, 31, 4095, 4096, 8191, 8999] {
            let mut row: Vec<f32> = (0..9000).map(|i| (i * 37 % 1000) as f32).collect();
            assert_eq!(place(&row), 27);
            row[at] = f32::NAN;
            assert_eq!(place(&row), at as i64);
        }
        for len in [1, 15, 16, 17, 4095, 4096, 4097, 9000] {
            for at in [0, len / 2, len - 1] {
                let mut row = vec![-1_i8; len];
                row[at] = 5;
                let mut y = [0];
                argmax([1, len, 1], &row, &mut y).unwrap();
                assert_eq!(y, [at as i64], "of {len}");
            }
        }
    }

    #[test]
    fn the_greatest_along_any_axis_is_found() {
        let x = [1, 5, 2, 4, 3, 6, 9, 7, 8, 0, 2, 1];
        let mut y = [0; 4];
        argmax([2, 3, 2], &x, &mut y).unwrap();
        assert_eq!(y, [2, 2, 0, 0]);
        let mut rows = [0; 4];
        argmax([4, 3, 1], &x, &mut rows).unwrap();
        assert_eq!(rows, [1, 2, 0, 1]);
        assert!(argmax([1, 0, 1], &[0_i32; 0], &mut [0]).is_err());
        assert!(argmax([0, 0, 1], &[0_i32; 0], &mut []).is_ok());
        assert!(argmax([1, 3, 1], &[0_i32; 2], &mut [0]).is_err());
    }
}
