//! When two tensors agree.

/// Relative tolerance.
pub const RELATIVE: f32 = 1e-3;
/// Absolute tolerance.
pub const ABSOLUTE: f32 = 1e-5;

/// Two elements that differ by more than the tolerance, or the pair that comes closest to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Where.
    pub index: usize,
    /// What was computed.
    pub ours: f32,
    /// What onnxruntime computed.
    pub theirs: f32,
    /// The difference in parts of what is allowed: the two agree up to 1.
    pub ratio: f32,
    /// How many elements differ by more than is allowed.
    pub outside: usize,
}

/// The largest difference, as `numpy.allclose` measures it: `|ours - theirs|` against
/// `ABSOLUTE + RELATIVE * |theirs|`. Numbers that are not finite never agree.
///
/// # Panics
/// When the lengths differ, or there is nothing to compare.
pub fn compare(ours: &[f32], theirs: &[f32]) -> Difference {
    assert_eq!(ours.len(), theirs.len(), "lengths differ");
    let ratios = ours.iter().zip(theirs).map(|(ours, theirs)| {
        let ratio = (ours - theirs).abs() / (ABSOLUTE + RELATIVE * theirs.abs());
        if ratio.is_finite() { ratio } else { f32::INFINITY }
    });
    let outside = ratios.clone().filter(|ratio| *ratio > 1.0).count();
    let (index, ratio) =
        ratios.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).expect("something to compare");
    Difference { index, ours: ours[index], theirs: theirs[index], ratio, outside }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tolerance_is_numpy_allclose_s() {
        let agree = |ours, theirs| compare(&[ours], &[theirs]).ratio <= 1.0;
        assert!(agree(1.001, 1.0) && !agree(1.0012, 1.0));
        assert!(agree(0.9e-5, 0.0) && !agree(1.1e-5, 0.0));
        assert!(!agree(f32::NAN, 0.0) && !agree(0.0, f32::NAN));
        assert!(!agree(f32::INFINITY, 1.0) && !agree(f32::NAN, f32::NAN));
    }

    #[test]
    fn the_worst_element_is_named_and_all_are_counted() {
        let found = compare(&[1.0, 2.0, 3.1, 4.0], &[1.0, 2.1, 3.0, 4.0]);
        assert_eq!((found.index, found.outside), (1, 2));
    }
}
