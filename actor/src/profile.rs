//! One run of the graph, node by node, for `graphlet profile`.
//!
//! A guest has no clock: it marks where each node begins, and the host stamps the marks. Only this
//! operation runs the graph so; requests run it in one go, without a mark in it.

use classifier::{Classifier, ClassifyError};
use wire::{ProfileAnswer, ProfileRequest, ProfiledNode};

use crate::model::Mark;

/// Puts the picture into the graph and runs it, marking as [`ProfileRequest`] says.
///
/// # Errors
/// As [`Classifier::load_image`] and [`Classifier::infer`].
pub fn run(
    classifier: &mut Classifier,
    request: &ProfileRequest<'_>,
    mark: Mark<'_>,
) -> Result<ProfileAnswer, ClassifyError> {
    mark(wire::PHASE_DECODE);
    classifier.load_image(&request.image, || mark(wire::PHASE_PREPROCESS))?;
    for _ in 0..wire::PROFILE_EMPTY_MARKS {
        mark(wire::PHASE_EMPTY);
    }
    let executor = classifier.executor_mut();
    for index in 0..executor.node_count() {
        mark(wire::PHASE_NODE);
        executor.run_node(index)?;
        if request.again {
            mark(wire::PHASE_AGAIN);
            executor.run_node(index)?;
        }
    }
    mark(wire::PHASE_DONE);
    let nodes = executor
        .nodes()
        .map(|(name, function)| ProfiledNode { name: name.into(), function: function.into() })
        .collect();
    Ok(ProfileAnswer { nodes })
}
