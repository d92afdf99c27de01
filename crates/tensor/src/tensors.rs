//! Tensors that own or borrow their bytes, and views of them.

use bytemuck::Pod;

use crate::{DType, Shape, ShapeError, Storage, StorageError};

/// An n-dimensional array, compact and row-major.
///
/// The number of bytes always fits shape and element type.
#[derive(Debug)]
pub struct Tensor<'a> {
    dtype: DType,
    shape: Shape,
    storage: Storage<'a>,
}

/// A look at a tensor that somebody else holds.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    dtype: DType,
    shape: &'a Shape,
    bytes: &'a [u8],
}

/// Rust types that are element types.
pub trait Element: Pod + private::Sealed {
    /// The element type.
    const DTYPE: DType;
}

mod private {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),* $(,)?) => {$(
        impl private::Sealed for $rust {}
        impl Element for $rust {
            const DTYPE: DType = DType::$dtype;
        }
    )*};
}

elements! {
    f32 => FLOAT32, f64 => FLOAT64,
    i8 => INT8, i16 => INT16, i32 => INT32, i64 => INT64,
    u8 => UINT8, u16 => UINT16, u32 => UINT32, u64 => UINT64,
}

#[cfg(feature = "half")]
elements! {
    half::f16 => FLOAT16, half::bf16 => BFLOAT16,
}

/// A tensor that cannot be made or not be seen that way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The bytes do not fit the shape.
    #[error("a {dtype} tensor of shape {shape} has {expected} bytes, not {actual}")]
    Length {
        /// Element type.
        dtype: DType,
        /// Extents.
        shape: Shape,
        /// Bytes that these take.
        expected: usize,
        /// Bytes that there are.
        actual: usize,
    },
    /// The tensor holds another element type.
    #[error("the tensor holds {actual}, not {wanted}")]
    WrongDType {
        /// What was asked for.
        wanted: DType,
        /// What the tensor holds.
        actual: DType,
    },
    /// Borrowed bytes lie at an address that the element type does not allow.
    #[error("the tensor's bytes are not aligned for {0}")]
    Misaligned(DType),
    /// The bytes are borrowed, so they cannot be written.
    #[error("the tensor's bytes are borrowed and cannot be written")]
    ReadOnly,
    /// The extents are impossible.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The memory could not be had.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl<'a> Tensor<'a> {
    /// A tensor of zeros that owns its bytes.
    ///
    /// # Errors
    /// [`TensorError::Shape`] or [`TensorError::Storage`] when it is too large.
    pub fn zeros(dtype: DType, shape: Shape) -> Result<Self, TensorError> {
        let storage = Storage::zeroed(shape.byte_count(dtype)?)?;
        Ok(Tensor { dtype, shape, storage })
    }

    /// A tensor over `storage`: compact, row-major, little-endian.
    ///
    /// # Errors
    /// [`TensorError::Length`] unless the storage has exactly the bytes of the shape.
    pub fn new(dtype: DType, shape: Shape, storage: Storage<'a>) -> Result<Self, TensorError> {
        let expected = shape.byte_count(dtype)?;
        let actual = storage.as_bytes().len();
        if actual != expected {
            return Err(TensorError::Length { dtype, shape, expected, actual });
        }
        Ok(Tensor { dtype, shape, storage })
    }

    /// A tensor that owns a copy of `values`, in row-major order.
    ///
    /// # Errors
    /// [`TensorError::Length`] unless there are as many values as elements.
    pub fn copy_of<T: Element>(shape: Shape, values: &[T]) -> Result<Self, TensorError> {
        Self::new(T::DTYPE, shape, Storage::copy_of(bytemuck::cast_slice(values))?)
    }

    /// The same tensor over bytes of its own, aligned to [`crate::ALIGNMENT`]; borrowed bytes are
    /// copied.
    ///
    /// # Errors
    /// [`TensorError::Storage`] when there is no such memory.
    pub fn into_owned(self) -> Result<Tensor<'static>, TensorError> {
        let storage = match self.storage {
            Storage::Owned(bytes) => Storage::Owned(bytes),
            Storage::Borrowed(bytes) => Storage::copy_of(bytes)?,
        };
        Ok(Tensor { dtype: self.dtype, shape: self.shape, storage })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The extents.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The bytes' owner.
    pub fn storage(&self) -> &Storage<'a> {
        &self.storage
    }

    /// All bytes, row-major.
    pub fn as_bytes(&self) -> &[u8] {
        self.storage.as_bytes()
    }

    /// All bytes to write to; `None` when they are borrowed.
    pub fn as_bytes_mut(&mut self) -> Option<&mut [u8]> {
        self.storage.as_bytes_mut()
    }

    /// A view of the whole tensor.
    pub fn view(&self) -> TensorView<'_> {
        TensorView { dtype: self.dtype, shape: &self.shape, bytes: self.as_bytes() }
    }

    /// The elements, row-major.
    ///
    /// # Errors
    /// As [`TensorView::as_slice`].
    pub fn as_slice<T: Element>(&self) -> Result<&[T], TensorError> {
        elements_of(self.dtype, self.as_bytes())
    }

    /// The elements to write to, row-major.
    ///
    /// # Errors
    /// [`TensorError::ReadOnly`] when the bytes are borrowed, [`TensorError::WrongDType`] when
    /// the tensor holds another type.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T], TensorError> {
        check_dtype::<T>(self.dtype)?;
        elements_mut(self.storage.as_bytes_mut().ok_or(TensorError::ReadOnly)?)
    }
}

impl<'a> From<&'a Tensor<'_>> for TensorView<'a> {
    fn from(tensor: &'a Tensor<'_>) -> Self {
        tensor.view()
    }
}

impl<'a> TensorView<'a> {
    /// A view of `bytes`: compact, row-major, little-endian.
    ///
    /// # Errors
    /// [`TensorError::Length`] unless there are exactly the bytes of the shape.
    pub fn new(dtype: DType, shape: &'a Shape, bytes: &'a [u8]) -> Result<Self, TensorError> {
        let expected = shape.byte_count(dtype)?;
        if bytes.len() != expected {
            let (shape, actual) = (shape.clone(), bytes.len());
            return Err(TensorError::Length { dtype, shape, expected, actual });
        }
        Ok(TensorView { dtype, shape, bytes })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The extents.
    pub fn shape(&self) -> &'a Shape {
        self.shape
    }

    /// All bytes, row-major.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The elements, row-major.
    ///
    /// # Errors
    /// [`TensorError::WrongDType`] when the tensor holds another type,
    /// [`TensorError::Misaligned`] when borrowed bytes lie at an odd address.
    pub fn as_slice<T: Element>(&self) -> Result<&'a [T], TensorError> {
        elements_of(self.dtype, self.bytes)
    }
}

/// Bytes as elements to write to, row-major, little-endian.
///
/// # Errors
/// [`TensorError::Misaligned`] when they lie at an odd address or end inside an element.
pub fn elements_mut<T: Element>(bytes: &mut [u8]) -> Result<&mut [T], TensorError> {
    bytemuck::try_cast_slice_mut(bytes).map_err(|_| TensorError::Misaligned(T::DTYPE))
}

fn check_dtype<T: Element>(actual: DType) -> Result<(), TensorError> {
    if actual == T::DTYPE {
        Ok(())
    } else {
        Err(TensorError::WrongDType { wanted: T::DTYPE, actual })
    }
}

fn elements_of<T: Element>(dtype: DType, bytes: &[u8]) -> Result<&[T], TensorError> {
    check_dtype::<T>(dtype)?;
    bytemuck::try_cast_slice(bytes).map_err(|_| TensorError::Misaligned(T::DTYPE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(extents: &[usize]) -> Shape {
        Shape::new(extents).expect("small")
    }

    #[test]
    fn values_come_back_as_they_went_in() {
        let mut tensor = Tensor::copy_of(shape(&[2, 2]), &[1.0f32, 2.0, 3.0, 4.0]).expect("fits");
        tensor.as_mut_slice::<f32>().expect("owned f32")[3] = 5.0;
        assert_eq!(tensor.as_slice::<f32>(), Ok(&[1.0, 2.0, 3.0, 5.0][..]));
        assert_eq!(tensor.view().as_slice::<f32>(), Ok(&[1.0, 2.0, 3.0, 5.0][..]));
        assert!(tensor.storage().is_aligned());
    }

    #[test]
    fn bytes_must_fit_the_shape() {
        let bytes = [0; 12];
        for extents in [vec![2], vec![4], vec![3, 2], vec![0]] {
            let error = Tensor::new(DType::FLOAT32, shape(&extents), Storage::Borrowed(&bytes));
            assert!(matches!(error, Err(TensorError::Length { actual: 12, .. })), "{extents:?}");
        }
        assert!(TensorView::new(DType::FLOAT32, &shape(&[3]), &bytes).is_ok());
    }

    #[test]
    fn another_element_type_is_an_error() {
        let tensor = Tensor::zeros(DType::INT32, shape(&[1])).expect("small");
        let error = TensorError::WrongDType { wanted: DType::FLOAT32, actual: DType::INT32 };
        assert_eq!(tensor.as_slice::<f32>(), Err(error));
    }

    #[test]
    fn borrowed_bytes_are_neither_written_nor_read_at_odd_addresses() {
        let aligned = Storage::copy_of(&[0; 9]).expect("small");
        let odd = &aligned.as_bytes()[1..];
        let mut tensor =
            Tensor::new(DType::FLOAT32, shape(&[2]), Storage::Borrowed(odd)).expect("8 bytes");
        assert_eq!(tensor.as_slice::<f32>(), Err(TensorError::Misaligned(DType::FLOAT32)));
        assert_eq!(tensor.as_mut_slice::<f32>(), Err(TensorError::ReadOnly));
        let owned = tensor.into_owned().expect("small");
        assert_eq!(owned.as_slice::<f32>(), Ok(&[0.0; 2][..]));
    }

    #[test]
    fn a_tensor_too_large_for_memory_is_an_error() {
        let extents = shape(&[isize::MAX as usize / 4]);
        assert!(matches!(Tensor::zeros(DType::FLOAT32, extents), Err(TensorError::Storage(_))));
    }
}
