//! Element types, shapes, tensors, DLPack's `DLTensor`, the model block format and the wire
//! descriptor.
//!
//! The bottom of the house: values and formats only. Nothing here does I/O, and nothing here is
//! unsafe; what comes from outside (a dtype string, a shape, a block) is checked and answered
//! with a typed error.

#[cfg(target_endian = "big")]
compile_error!("tensors and model blocks are little-endian and used in place");

#[cfg(feature = "ndarray")]
mod arrays;
pub mod block;
mod buffers;
mod descriptor;
mod dlpack;
mod dtype;
mod form;
mod shape;
mod storage;
mod tensors;

pub use block::{Block, BlockBuilder, BlockError};
pub use buffers::{Buffers, address_of};
pub use descriptor::{
    DESCRIPTOR_MAGIC, DESCRIPTOR_VERSION, DescriptorError, TensorPlace, descriptor_len,
    read_descriptor, write_descriptor,
};
pub use dlpack::{DLDevice, DLTensor};
pub use dtype::{DType, ParseDTypeError, TypeCode};
pub use form::FormError;
pub use shape::{MAX_RANK, Shape, ShapeError};
pub use storage::{ALIGNMENT, Storage, StorageError};
pub use tensors::{Element, Tensor, TensorError, TensorView, elements_mut};
