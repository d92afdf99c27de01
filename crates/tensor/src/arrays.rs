//! Tensors and the arrays of the crate `ndarray`.

use ndarray::{ArrayBase, ArrayD, ArrayViewD, Data, Dimension, IxDyn};

use crate::{DType, Element, Shape, Tensor, TensorError};

impl Tensor<'static> {
    /// A tensor that owns a copy of an array, whatever the array's strides.
    ///
    /// # Errors
    /// [`TensorError::Shape`] or [`TensorError::Storage`] when it is too large.
    pub fn from_array<T, S, D>(array: &ArrayBase<S, D>) -> Result<Self, TensorError>
    where
        T: Element,
        S: Data<Elem = T>,
        D: Dimension,
    {
        let shape = Shape::new(array.shape())?;
        match array.as_slice() {
            Some(values) => Tensor::copy_of(shape, values),
            None => Tensor::copy_of(shape, &array.iter().copied().collect::<Vec<_>>()),
        }
    }

    /// As [`Tensor::from_array`], of truth values.
    ///
    /// # Errors
    /// As [`Tensor::from_array`].
    pub fn from_bool_array<S, D>(array: &ArrayBase<S, D>) -> Result<Self, TensorError>
    where
        S: Data<Elem = bool>,
        D: Dimension,
    {
        let mut tensor = Tensor::zeros(DType::BOOL, Shape::new(array.shape())?)?;
        let bytes = tensor.as_bytes_mut().ok_or(TensorError::ReadOnly)?;
        for (byte, &value) in bytes.iter_mut().zip(array) {
            *byte = value.into();
        }
        Ok(tensor)
    }
}

impl Tensor<'_> {
    /// The elements as an array that looks at this tensor.
    ///
    /// # Errors
    /// As [`Tensor::as_slice`].
    pub fn as_array<T: Element>(&self) -> Result<ArrayViewD<'_, T>, TensorError> {
        let extents = IxDyn(self.shape().extents());
        let view = ArrayViewD::from_shape(extents, self.as_slice()?);
        Ok(view.expect("a tensor has as many elements as its shape says"))
    }

    /// A copy of the elements as an array.
    ///
    /// # Errors
    /// As [`Tensor::as_slice`].
    pub fn to_array<T: Element>(&self) -> Result<ArrayD<T>, TensorError> {
        self.as_array().map(|view| view.to_owned())
    }

    /// A copy of truth values as an array; any byte but 0 is true.
    ///
    /// # Errors
    /// [`TensorError::WrongDType`] when the tensor holds another type.
    pub fn to_bool_array(&self) -> Result<ArrayD<bool>, TensorError> {
        if self.dtype() != DType::BOOL {
            let actual = self.dtype();
            return Err(TensorError::WrongDType { wanted: DType::BOOL, actual });
        }
        let values = self.as_bytes().iter().map(|&byte| byte != 0).collect();
        let array = ArrayD::from_shape_vec(IxDyn(self.shape().extents()), values);
        Ok(array.expect("a tensor has as many elements as its shape says"))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, array};

    use super::*;

    #[test]
    fn arrays_come_back_as_they_went_in_whatever_their_strides() {
        let matrix = array![[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
        for array in [matrix.view(), matrix.view().reversed_axes()] {
            let tensor = Tensor::from_array(&array).expect("small");
            assert_eq!(tensor.shape().extents(), array.shape());
            assert_eq!(tensor.to_array::<f32>().expect("float32"), array.into_dyn());
        }
        let scalar = Tensor::from_array(&ndarray::arr0(7_i64)).expect("small");
        assert_eq!(scalar.as_array::<i64>().expect("int64").sum(), 7);
        let empty = Array::<u8, _>::zeros((0, 3));
        assert_eq!(Tensor::from_array(&empty).expect("small").shape().extents(), [0, 3]);
        assert!(scalar.to_array::<f32>().is_err() && scalar.to_bool_array().is_err());
    }

    #[test]
    fn truth_values_are_bytes() {
        let array = array![[true, false], [false, true]];
        let tensor = Tensor::from_bool_array(&array.t()).expect("small");
        assert_eq!((tensor.dtype(), tensor.as_bytes()), (DType::BOOL, &[1, 0, 0, 1][..]));
        assert_eq!(tensor.to_bool_array().expect("bool"), array.t().into_dyn());
    }

    #[cfg(feature = "half")]
    #[test]
    fn half_precision_is_an_element_type() {
        let array = array![half::f16::from_f32(1.5)];
        let tensor = Tensor::from_array(&array).expect("small");
        assert_eq!((tensor.dtype(), tensor.as_bytes()), (DType::FLOAT16, &[0, 0x3e][..]));
        let tensor = Tensor::from_array(&array![half::bf16::ONE]).expect("small");
        assert_eq!((tensor.dtype(), tensor.as_bytes()), (DType::BFLOAT16, &[0x80, 0x3f][..]));
    }
}
