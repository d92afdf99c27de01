//! What can be wrong with a tensor before any of its data is looked at.

use crate::{ParseDTypeError, ShapeError};

/// No tensor is of this type, or none has these extents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormError {
    /// The element type is none of ours.
    #[error(transparent)]
    DType(#[from] ParseDTypeError),
    /// The extents are impossible.
    #[error(transparent)]
    Shape(#[from] ShapeError),
}
