//! When two tensors of any type agree: ONNX's own rule.

use std::fmt;

use anyhow::{Result, bail};
use half::{bf16, f16};
use wasm_runtime::{DType, TensorView};

/// How much floats may differ: `|ours - theirs| <= absolute + relative * |theirs|`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// In parts of what it has to be.
    pub relative: f64,
    /// In its own units.
    pub absolute: f64,
}

/// That of ONNX's backend tests (`onnx/backend/test/loader`).
pub const ONNX: Tolerance = Tolerance { relative: 1e-3, absolute: 1e-7 };

// Cases whose outputs hold the rounding errors of what wrote them.
const ROUNDED: [(&str, f64); 2] = [
    // An FFT in 32 bits left 2e-7 where zeros belong.
    ("test_dft_inverse", 1e-6),
    ("test_dft_inverse_opset19", 1e-6),
];

/// The tolerance for a case.
pub(super) fn tolerance(case: &str) -> Tolerance {
    match ROUNDED.iter().find(|(name, _)| *name == case) {
        Some((_, absolute)) => Tolerance { absolute: *absolute, ..ONNX },
        None => ONNX,
    }
}

/// The elements that differ by more than is allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct Disagreement {
    /// How many.
    pub count: usize,
    /// Of how many.
    pub of: usize,
    /// The first: where, what was computed, what it has to be.
    pub first: (usize, f64, f64),
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, ours, theirs) = self.first;
        let Disagreement { count, of, .. } = self;
        write!(f, "{count} of {of} elements differ: at {index} {ours} instead of {theirs}")
    }
}

/// Compares elements: integers and truth values have to be equal, floats as `numpy.allclose` with
/// `equal_nan` says. `None` if all agree.
///
/// # Errors
/// When the two differ in type or number.
pub fn agree(
    ours: TensorView<'_>,
    theirs: TensorView<'_>,
    tolerance: Tolerance,
) -> Result<Option<Disagreement>> {
    if ours.dtype() != theirs.dtype() || ours.as_bytes().len() != theirs.as_bytes().len() {
        bail!("{} elements beside {}", ours.dtype(), theirs.dtype());
    }
    let size = ours.dtype().size_bytes();
    let exact =
        ![DType::FLOAT16, DType::BFLOAT16, DType::FLOAT32, DType::FLOAT64].contains(&ours.dtype());
    let (mut count, mut first) = (0, None);
    let pairs = ours.as_bytes().chunks_exact(size).zip(theirs.as_bytes().chunks_exact(size));
    let of = pairs.len();
    for (index, (left, right)) in pairs.enumerate() {
        let (a, b) = (number(ours.dtype(), left)?, number(ours.dtype(), right)?);
        // 64-bit integers do not fit a float: their bytes are compared.
        let same = left == right
            || !exact
                && (a == b
                    || a.is_nan() && b.is_nan()
                    || b.is_finite()
                        && (a - b).abs() <= tolerance.absolute + tolerance.relative * b.abs());
        if !same {
            count += 1;
            first.get_or_insert((index, a, b));
        }
    }
    Ok(first.map(|first| Disagreement { count, of, first }))
}

/// The value of one element, little-endian.
fn number(dtype: DType, bytes: &[u8]) -> Result<f64> {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let [a, b, c, d, ..] = wide;
    Ok(match dtype {
        DType::FLOAT64 => f64::from_le_bytes(wide),
        DType::FLOAT32 => f32::from_le_bytes([a, b, c, d]).into(),
        DType::FLOAT16 => f16::from_le_bytes([a, b]).into(),
        DType::BFLOAT16 => bf16::from_le_bytes([a, b]).into(),
        DType::INT8 => i8::from_le_bytes([a]).into(),
        DType::INT16 => i16::from_le_bytes([a, b]).into(),
        DType::INT32 => i32::from_le_bytes([a, b, c, d]).into(),
        // To be shown, not to be compared.
        DType::INT64 => i64::from_le_bytes(wide) as f64,
        DType::UINT8 | DType::UINT16 | DType::UINT32 | DType::UINT64 | DType::BOOL => {
            u64::from_le_bytes(wide) as f64
        }
        other => bail!("no rule for {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasm_runtime::{Element, Shape, Tensor};

    fn compared<T: Element>(ours: &[T], theirs: &[T]) -> Option<Disagreement> {
        let [ours, theirs] =
            [ours, theirs].map(|v| Tensor::copy_of(Shape::new([v.len()]).unwrap(), v).unwrap());
        agree(ours.view(), theirs.view(), ONNX).unwrap()
    }

    #[test]
    fn floats_agree_within_the_tolerance_and_nothing_agrees_with_nan_but_nan() {
        assert_eq!(
            compared(&[1.0005_f32, f32::NAN, f32::INFINITY], &[1.0, f32::NAN, f32::INFINITY]),
            None
        );
        for (ours, theirs) in [(1.002_f64, 1.0), (f64::NAN, 1.0), (1.0, f64::NAN), (1e-6, 0.0)] {
            assert_eq!(compared(&[ours], &[theirs]).map(|d| d.count), Some(1), "{ours} {theirs}");
        }
        assert!(compared(&[f32::INFINITY], &[f32::NEG_INFINITY]).is_some());
        assert!(compared(&[1.0_f32], &[f32::INFINITY]).is_some());
        assert_eq!(compared(&[f16::from_f32(2.0)], &[f16::from_f32(2.001)]), None);
    }

    #[test]
    fn integers_agree_when_they_are_equal() {
        assert_eq!(compared(&[5000_i32], &[5000]), None);
        let found = compared(&[5001_i32, 1], &[5000, 1]).unwrap();
        assert_eq!((found.count, found.of, found.first), (1, 2, (0, 5001.0, 5000.0)));
        // Beyond what a float tells apart.
        assert!(compared(&[i64::MAX], &[i64::MAX - 1]).is_some());
    }

    #[test]
    fn other_types_are_no_match() {
        let shape = Shape::new([1]).unwrap();
        let (a, b) = (
            Tensor::copy_of(shape.clone(), &[1_i32]).unwrap(),
            Tensor::copy_of(shape, &[1_u32]).unwrap(),
        );
        assert!(agree(a.view(), b.view(), ONNX).is_err());
    }
}
