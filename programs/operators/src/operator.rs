//! The operators: which there are, what they take and what they give.

use operators::{
    KernelError,
    elements::{Number, Pairing, argmax, binary, equal_count},
};
use tensor::{DType, Element, Shape, ShapeError, Tensor, TensorError, TensorView};

/// An operator, numbered as a host names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// 0: the sum of two tensors.
    Add,
    /// 1: the product of two tensors, element by element.
    Mul,
    /// 2: the place of the greatest element.
    Argmax,
    /// 3: how many elements of two tensors are equal.
    EqualCount,
}

/// A call that gave no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// There is no operator of this number.
    #[error("there is no operator {0}; 0 is Add, 1 Mul, 2 Argmax, 3 EqualCount")]
    Unknown(u32),
    /// More or fewer tensors than the operator takes.
    #[error("{operator:?} takes {expected} tensors, not {actual}")]
    Count {
        /// The operator.
        operator: Operator,
        /// What it takes.
        expected: &'static str,
        /// What was given.
        actual: usize,
    },
    /// An element type that the library does not compute with.
    #[error("{0} is none of float32, int32 and int8")]
    DType(DType),
    /// Two tensors of different types.
    #[error("{0} and {1} are two types")]
    Types(DType, DType),
    /// The axis is no number, or none of the tensor's.
    #[error("the axis must be one int64, from {} to {}", -(*rank as i64), *rank as i64 - 1)]
    Axis {
        /// How many axes the tensor has.
        rank: usize,
    },
    /// The tensors do not fit each other.
    #[error("shapes {0} and {1}: {2}")]
    Shapes(Shape, Shape, KernelError),
    /// The operator cannot be computed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The result is too large for memory.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl From<ShapeError> for OperatorError {
    fn from(error: ShapeError) -> Self {
        OperatorError::Tensor(error.into())
    }
}

impl Operator {
    /// The operator of a number.
    ///
    /// # Errors
    /// [`OperatorError::Unknown`].
    pub fn new(number: u32) -> Result<Self, OperatorError> {
        [Self::Add, Self::Mul, Self::Argmax, Self::EqualCount]
            .into_iter()
            .nth(number as usize)
            .ok_or(OperatorError::Unknown(number))
    }

    /// Computes the operator into `result`, whose memory is used again where it fits.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub fn compute<'r>(
        self,
        inputs: &[TensorView<'_>],
        result: &'r mut Option<Tensor<'static>>,
    ) -> Result<&'r Tensor<'static>, OperatorError> {
        let count = |expected| {
            let actual = inputs.len();
            OperatorError::Count { operator: self, expected, actual }
        };
        let first = inputs.first().ok_or(count("at least one"))?;
        let apply = match first.dtype() {
            DType::FLOAT32 => Self::typed::<f32>,
            DType::INT32 => Self::typed::<i32>,
            DType::INT8 => Self::typed::<i8>,
            other => return Err(OperatorError::DType(other)),
        };
        match (self, inputs) {
            (Self::Argmax, [x]) => apply(self, *x, None, result)?,
            (Self::Argmax, [x, axis]) => apply(self, *x, Some(*axis), result)?,
            (Self::Argmax, _) => return Err(count("one or two")),
            (_, [a, b]) if a.dtype() == b.dtype() => apply(self, *a, Some(*b), result)?,
            (_, [a, b]) => return Err(OperatorError::Types(a.dtype(), b.dtype())),
            _ => return Err(count("two")),
        }
        Ok(result.as_ref().expect("made by the operator"))
    }

    fn typed<T: Number + Element>(
        self,
        a: TensorView<'_>,
        second: Option<TensorView<'_>>,
        result: &mut Option<Tensor<'static>>,
    ) -> Result<(), OperatorError> {
        let x = a.as_slice::<T>()?;
        if self == Self::Argmax {
            let (extents, shape) = along(a.shape(), second)?;
            let y = reuse(result, DType::INT64, shape)?.as_mut_slice()?;
            return Ok(argmax(extents, x, y)?);
        }
        let Some(b) = second else {
            return Err(OperatorError::Count { operator: self, expected: "two", actual: 1 });
        };
        let pairing = Pairing::new(a.shape().extents(), b.shape().extents())
            .map_err(|error| OperatorError::Shapes(a.shape().clone(), b.shape().clone(), error))?;
        let y = b.as_slice::<T>()?;
        let shape = Shape::new(pairing.shape())?;
        match self {
            Self::Add => {
                let sum = reuse(result, T::DTYPE, shape)?.as_mut_slice()?;
                binary(&pairing, x, y, sum, Number::plus)?;
            }
            Self::Mul => {
                let product = reuse(result, T::DTYPE, shape)?.as_mut_slice()?;
                binary(&pairing, x, y, product, Number::times)?;
            }
            _ => {
                let count = equal_count(&pairing, x, y)?;
                let scalar = reuse(result, DType::INT64, Shape::new([])?)?;
                scalar.as_mut_slice::<i64>()?.fill(count as i64);
            }
        }
        Ok(())
    }
}

/// Outer, own and inner extents of the axis that is looked along, and the result's shape: without
/// an axis, the whole tensor as one row.
fn along(
    shape: &Shape,
    axis: Option<TensorView<'_>>,
) -> Result<([usize; 3], Shape), OperatorError> {
    let Some(axis) = axis else {
        return Ok(([1, shape.element_count(), 1], Shape::new([])?));
    };
    let rank = shape.rank();
    let number = match axis.as_slice::<i64>() {
        Ok(&[number]) => usize::try_from(if number < 0 { number + rank as i64 } else { number }),
        _ => return Err(OperatorError::Axis { rank }),
    };
    let number = number.ok().filter(|&axis| axis < rank);
    let number = number.ok_or(OperatorError::Axis { rank })?;
    let (before, rest) = shape.extents().split_at(number);
    let after = &rest[1..];
    let extents = [before.iter().product(), rest[0], after.iter().product()];
    Ok((extents, Shape::new([before, after].concat())?))
}

/// A tensor for the result; the one of the last call where it has the same form.
fn reuse<'r>(
    result: &'r mut Option<Tensor<'static>>,
    dtype: DType,
    shape: Shape,
) -> Result<&'r mut Tensor<'static>, TensorError> {
    let fits = |last: &Tensor<'_>| last.dtype() == dtype && *last.shape() == shape;
    if !result.as_ref().is_some_and(fits) {
        // The old one goes first: both together could be more than there is.
        *result = None;
        *result = Some(Tensor::zeros(dtype, shape)?);
    }
    Ok(result.as_mut().expect("made above"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor<T: Element>(extents: &[usize], values: &[T]) -> Tensor<'static> {
        Tensor::copy_of(Shape::new(extents).unwrap(), values).unwrap()
    }

    fn call(operator: Operator, inputs: &[&Tensor<'_>]) -> Result<Tensor<'static>, OperatorError> {
        let views: Vec<_> = inputs.iter().map(|tensor| tensor.view()).collect();
        let mut result = None;
        operator.compute(&views, &mut result)?;
        Ok(result.unwrap())
    }

    #[test]
    fn sums_and_products_have_the_operands_type_and_the_broadcast_shape() {
        let a = tensor(&[2, 2], &[1.0_f32, 2.0, 3.0, 4.0]);
        let b = tensor(&[2], &[10.0_f32, 20.0]);
        let sum = call(Operator::Add, &[&a, &b]).unwrap();
        assert_eq!(sum.shape().extents(), [2, 2]);
        assert_eq!(sum.as_slice::<f32>().unwrap(), [11.0, 22.0, 13.0, 24.0]);
        let bytes = tensor(&[2], &[100_i8, -100]);
        let product = call(Operator::Mul, &[&bytes, &bytes]).unwrap();
        assert_eq!(product.as_slice::<i8>().unwrap(), [16, 16]);
    }

    #[test]
    fn places_and_counts_are_int64() {
        let x = tensor(&[2, 3], &[1_i32, 9, 3, 4, 5, 9]);
        let whole = call(Operator::Argmax, &[&x]).unwrap();
        assert_eq!((whole.shape().rank(), whole.as_slice::<i64>().unwrap()), (0, &[1][..]));
        for (axis, shape, expected) in
            [(0_i64, &[3][..], &[1_i64, 0, 1][..]), (-1, &[2], &[1, 2]), (1, &[2], &[1, 2])]
        {
            let places = call(Operator::Argmax, &[&x, &tensor(&[], &[axis])]).unwrap();
            assert_eq!(places.shape().extents(), shape);
            assert_eq!(places.as_slice::<i64>().unwrap(), expected);
        }
        let count = call(Operator::EqualCount, &[&x, &tensor(&[], &[9_i32])]).unwrap();
        assert_eq!((count.shape().rank(), count.as_slice::<i64>().unwrap()), (0, &[2][..]));
    }

    #[test]
    fn wrong_calls_are_errors() {
        let x = tensor(&[2], &[1_i32, 2]);
        let three = tensor(&[3], &[1_i32, 2, 3]);
        let floats = tensor(&[2], &[1.0_f32, 2.0]);
        let long = tensor(&[2], &[1_i64, 2]);
        let error = |operator, inputs: &[&Tensor<'_>]| {
            call(operator, inputs).map(drop).unwrap_err().to_string()
        };
        assert!(error(Operator::Add, &[&x]).contains("takes two tensors, not 1"));
        assert!(error(Operator::Add, &[]).contains("not 0"));
        assert!(error(Operator::Argmax, &[&x, &long, &x]).contains("not 3"));
        assert!(error(Operator::Mul, &[&x, &floats]).contains("two types"));
        assert!(error(Operator::Mul, &[&x, &three]).contains("do not broadcast"));
        assert!(error(Operator::EqualCount, &[&long, &long]).contains("int64 is none of"));
        assert!(error(Operator::Argmax, &[&x, &long]).contains("from -1 to 0"));
        let axis = |axis: i64| tensor(&[], &[axis]);
        assert!(error(Operator::Argmax, &[&x, &axis(1)]).contains("from -1 to 0"));
        assert!(error(Operator::Argmax, &[&x, &axis(i64::MIN)]).contains("from -1 to 0"));
        let empty = tensor::<i8>(&[0], &[]);
        assert!(error(Operator::Argmax, &[&empty]).contains("no elements"));
        assert!(matches!(Operator::new(4), Err(OperatorError::Unknown(4))));
    }

    #[test]
    fn a_result_of_the_same_form_lies_where_the_last_one_lay() {
        let x = tensor(&[2], &[1_i32, 2]);
        let mut result = None;
        let place = |tensor: &Tensor<'_>| tensor.as_bytes().as_ptr().addr();
        let first = place(Operator::Add.compute(&[x.view(), x.view()], &mut result).unwrap());
        let second = place(Operator::Mul.compute(&[x.view(), x.view()], &mut result).unwrap());
        assert_eq!(first, second);
    }
}
