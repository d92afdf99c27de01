//! The extents of a tensor, outermost first, with every count checked once.

use std::fmt;

use crate::DType;

/// Most dimensions a shape may have; numpy's limit, far above any image model's.
pub const MAX_RANK: usize = 64;

/// Extents, outermost first.
///
/// A shape that exists is small enough: the product of its extents (zeros counted as ones, so
/// that strides fit too) is at most `isize::MAX`, and it has at most [`MAX_RANK`] dimensions.
/// No dimension at all is a scalar.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape {
    extents: Vec<usize>,
}

/// Extents that no tensor can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// Too many dimensions.
    #[error("a shape has at most {MAX_RANK} dimensions, not {0}")]
    Rank(usize),
    /// The number of elements, or of bytes, does not fit this machine's memory.
    #[error("a tensor of shape {0:?} is too large for this machine's memory")]
    TooLarge(Vec<u64>),
    /// A dimension below zero.
    #[error("extent {0} is negative")]
    Negative(i64),
}

impl Shape {
    /// A shape of these extents, outermost first.
    ///
    /// # Errors
    /// [`ShapeError`] when there are more than [`MAX_RANK`] extents or too many elements.
    pub fn new(extents: impl Into<Vec<usize>>) -> Result<Self, ShapeError> {
        let extents = extents.into();
        if extents.len() > MAX_RANK {
            return Err(ShapeError::Rank(extents.len()));
        }
        let shape = Shape { extents };
        let span = shape.extents.iter().try_fold(1usize, |n, &e| n.checked_mul(e.max(1)));
        match span {
            Some(span) if isize::try_from(span).is_ok() => Ok(shape),
            _ => Err(shape.too_large()),
        }
    }

    /// A shape of the signed extents that TVM's formats carry.
    ///
    /// # Errors
    /// As [`Shape::new`], and [`ShapeError::Negative`] for an extent below zero.
    pub fn from_signed(extents: &[i64]) -> Result<Self, ShapeError> {
        if extents.len() > MAX_RANK {
            return Err(ShapeError::Rank(extents.len()));
        }
        let mut unsigned = Vec::with_capacity(extents.len());
        for &extent in extents {
            unsigned.push(u64::try_from(extent).map_err(|_| ShapeError::Negative(extent))?);
        }
        let narrow: Result<Vec<usize>, _> = unsigned.iter().map(|&e| usize::try_from(e)).collect();
        Self::new(narrow.map_err(|_| ShapeError::TooLarge(unsigned))?)
    }

    /// The extents, outermost first.
    pub fn extents(&self) -> &[usize] {
        &self.extents
    }

    /// Number of dimensions; 0 for a scalar.
    pub fn rank(&self) -> usize {
        self.extents.len()
    }

    /// Number of elements; 1 for a scalar.
    pub fn element_count(&self) -> usize {
        // Cannot overflow: `new` has multiplied them with zeros counted as ones.
        self.extents.iter().product()
    }

    /// Bytes of a compact tensor of this shape.
    ///
    /// # Errors
    /// [`ShapeError::TooLarge`] when they exceed `isize::MAX`.
    pub fn byte_count(&self, dtype: DType) -> Result<usize, ShapeError> {
        self.element_count()
            .checked_mul(dtype.size_bytes())
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or_else(|| self.too_large())
    }

    /// The extents as DLPack wants them.
    pub fn signed_extents(&self) -> Vec<i64> {
        // `new` has bounded every extent by isize::MAX.
        self.extents.iter().map(|&extent| extent as i64).collect()
    }

    /// Strides of a compact row-major tensor, in elements, outermost first.
    pub fn compact_strides(&self) -> Vec<i64> {
        let mut strides = vec![1i64; self.extents.len()];
        for i in (1..self.extents.len()).rev() {
            // At most the span that `new` has checked: zeros count as ones here as there.
            strides[i - 1] = strides[i] * self.extents[i].max(1) as i64;
        }
        strides
    }

    fn too_large(&self) -> ShapeError {
        ShapeError::TooLarge(self.extents.iter().map(|&extent| extent as u64).collect())
    }
}

/// `[1, 3, 224, 224]`
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.extents, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_strides_follow_from_the_extents() {
        for (extents, count, strides) in [
            (vec![], 1, vec![]),
            (vec![7], 7, vec![1]),
            (vec![1, 3, 224, 224], 150_528, vec![150_528, 50_176, 224, 1]),
            (vec![2, 0, 3], 0, vec![3, 3, 1]),
        ] {
            let shape = Shape::new(extents.clone()).expect("small");
            assert_eq!(shape.extents(), extents);
            assert_eq!(shape.element_count(), count, "{shape}");
            assert_eq!(shape.byte_count(DType::FLOAT32), Ok(4 * count));
            assert_eq!(shape.compact_strides(), strides);
        }
    }

    #[test]
    fn sizes_that_overflow_are_errors() {
        let half = usize::MAX / 2 + 1;
        for extents in [vec![half], vec![half, 2], vec![usize::MAX, usize::MAX], vec![0, half, 4]] {
            assert!(matches!(Shape::new(extents), Err(ShapeError::TooLarge(_))));
        }
        let most = Shape::new(vec![isize::MAX as usize]).expect("fits as elements");
        assert!(most.byte_count(DType::UINT8).is_ok());
        assert!(matches!(most.byte_count(DType::FLOAT32), Err(ShapeError::TooLarge(_))));
        assert_eq!(Shape::new(vec![1; 65]), Err(ShapeError::Rank(65)));
    }

    #[test]
    fn signed_extents_must_not_be_negative() {
        assert_eq!(Shape::from_signed(&[2, -1]), Err(ShapeError::Negative(-1)));
        assert_eq!(Shape::from_signed(&[2, 3]).map(|s| s.signed_extents()), Ok(vec![2, 3]));
        assert!(matches!(Shape::from_signed(&[i64::MAX, 2]), Err(ShapeError::TooLarge(_))));
    }
}
