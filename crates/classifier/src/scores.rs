//! From a graph's output to probabilities and names.

use std::cmp::Ordering;

use model_spec::OutputKind;

/// A class with its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Classification {
    /// Index of the class in the graph's output.
    pub index: usize,
    /// Name of the class.
    pub label: &'static str,
    /// Its probability.
    pub score: f32,
}

/// What a graph's output means as probabilities.
///
/// Logits of exclusive classes go through softmax, those of independent labels through the
/// sigmoid; probabilities stay as they are. A NaN among exclusive logits makes every probability
/// NaN, as it does in the formula.
pub fn probabilities(kind: OutputKind, output: &[f32]) -> Vec<f32> {
    match kind {
        OutputKind::Softmax | OutputKind::Sigmoid => output.to_vec(),
        OutputKind::SigmoidLogits => output.iter().map(|&logit| sigmoid(logit)).collect(),
        OutputKind::Logits => softmax(output),
    }
}

/// `exp(x) / sum(exp)`, with the largest logit taken off first, so that nothing overflows.
fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut exponents: Vec<f32> = logits.iter().map(|logit| (logit - largest).exp()).collect();
    let sum: f64 = exponents.iter().copied().map(f64::from).sum();
    for exponent in &mut exponents {
        *exponent = (f64::from(*exponent) / sum) as f32;
    }
    exponents
}

fn sigmoid(logit: f32) -> f32 {
    // Neither branch overflows: the exponent is never positive.
    if logit >= 0.0 {
        1.0 / (1.0 + (-logit).exp())
    } else {
        let exponent = logit.exp();
        exponent / (1.0 + exponent)
    }
}

/// Indices of the `k` best scores: best first, equal ones by index, NaN last.
pub(crate) fn best(scores: &[f32], k: usize) -> Vec<usize> {
    let order = |&a: &usize, &b: &usize| {
        let (x, y) = (scores[a], scores[b]);
        let by_score = match (x.is_nan(), y.is_nan()) {
            (false, false) => y.partial_cmp(&x).unwrap_or(Ordering::Equal),
            (x_is_nan, y_is_nan) => x_is_nan.cmp(&y_is_nan),
        };
        by_score.then(a.cmp(&b))
    };
    let mut indices: Vec<usize> = (0..scores.len()).collect();
    if k < indices.len() {
        // Sorts nothing but the best.
        indices.select_nth_unstable_by(k, order);
        indices.truncate(k);
    }
    indices.sort_unstable_by(order);
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_holds_for_logits_of_any_size() {
        for logits in [[1.0, 2.0, 3.0], [1001.0, 1002.0, 1003.0], [-1002.0, -1001.0, -1000.0]] {
            let scores = probabilities(OutputKind::Logits, &logits);
            for (score, expected) in scores.iter().zip([0.090_030_57, 0.244_728_47, 0.665_240_94]) {
                assert!((score - expected).abs() < 1e-6, "{logits:?}: {scores:?}");
            }
        }
        assert!(probabilities(OutputKind::Logits, &[]).is_empty());
        assert_eq!(probabilities(OutputKind::Logits, &[f32::NEG_INFINITY, 0.0]), [0.0, 1.0]);
        let scores = probabilities(OutputKind::Logits, &[0.0, f32::NAN]);
        assert!(scores.iter().all(|score| score.is_nan()), "{scores:?}");
    }

    #[test]
    fn sigmoid_holds_for_logits_of_any_size() {
        let scores = probabilities(OutputKind::SigmoidLogits, &[0.0, 2.0, -2.0, 1e4, -1e4]);
        for (score, expected) in scores.iter().zip([0.5, 0.880_797, 0.119_203, 1.0, 0.0]) {
            assert!((score - expected).abs() < 1e-6, "{scores:?}");
        }
    }

    #[test]
    fn probabilities_stay_as_they_are() {
        for kind in [OutputKind::Softmax, OutputKind::Sigmoid] {
            assert_eq!(probabilities(kind, &[0.25, 0.75]), [0.25, 0.75]);
        }
    }

    #[test]
    fn the_best_come_first_ties_by_index_and_nan_last() {
        let scores = [0.2, f32::NAN, 0.5, 0.2, 0.5, f32::NEG_INFINITY];
        assert_eq!(best(&scores, 9), [2, 4, 0, 3, 5, 1]);
        for k in 0..=6 {
            assert_eq!(best(&scores, k), [2, 4, 0, 3, 5, 1][..k], "k = {k}");
        }
        assert!(best(&[], 3).is_empty());
    }
}
