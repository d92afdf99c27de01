//! The waPC side: `__guest_call`, and the one classifier that lives in this module's memory.
//!
//! waPC guests of `wapc-guest` 0.3 need no initialisation: the host instantiates the module and
//! calls `__guest_call`. The model is loaded by the first health request, or by the first request
//! if nobody asked before.

use std::{cell::RefCell, sync::Once};

use classifier::{Classifier, ClassifyError, ErrorKind};
use model_spec::ModelSpec;
use wascc_actor::wapc::{self, prelude::CallResult};

use crate::{
    answer::Problem,
    model::{Mark, Model, Scores},
    profile, routes,
};

wapc::wapc_handler!(handle);

thread_local! {
    // Kept for the module's life, and so is a failure to load: the model is part of the module,
    // and trying again would read the same bytes.
    static CLASSIFIER: RefCell<Option<Result<Classifier, String>>> = const { RefCell::new(None) };
}

fn handle(operation: &str, message: &[u8]) -> CallResult {
    static LOGGER: Once = Once::new();
    LOGGER.call_once(|| {
        wascc_actor::logger::ensure_logger();
        // Each line crosses to the host: a request should not cost one.
        log::set_max_level(log::LevelFilter::Info);
    });
    match operation {
        wire::OP_HANDLE_REQUEST => {
            let request = wire::decode(message).map_err(|error| chain(&error))?;
            let response = with_classifier(|classifier| match classifier {
                Ok(classifier) => routes::answer(classifier, &request, &mut mark),
                Err(_) => Problem::ModelUnavailable.answer(),
            });
            Ok(wire::encode(&response)?)
        }
        wire::OP_HEALTH_REQUEST => {
            let _: wire::HealthRequest = wire::decode(message).map_err(|error| chain(&error))?;
            with_classifier(|classifier| classifier.map(drop).map_err(str::to_owned))?;
            Ok(wire::encode(&())?)
        }
        wire::OP_PROFILE => {
            let request = wire::decode(message).map_err(|error| chain(&error))?;
            let answer = with_classifier(|classifier| {
                let classifier = classifier.map_err(str::to_owned)?;
                profile::run(classifier, &request, &mut mark).map_err(|error| chain(&error))
            })?;
            Ok(wire::encode(&answer)?)
        }
        _ => Err(format!("operation `{operation}` is not one this actor handles").into()),
    }
}

fn with_classifier<T>(work: impl FnOnce(Result<&mut Classifier, &str>) -> T) -> T {
    CLASSIFIER.with_borrow_mut(|classifier| {
        let classifier = classifier.get_or_insert_with(|| {
            Classifier::linked().map_err(|error| {
                let reason = chain(&error);
                log::error!("The model could not be loaded: {reason}");
                reason
            })
        });
        work(classifier.as_mut().map_err(|reason| reason.as_str()))
    })
}

/// Tells the host that a phase begins. A host that knows nothing of phases refuses, and that is
/// all right.
fn mark(phase: &'static str) {
    let _ = wapc::host_call(
        wire::DEFAULT_BINDING,
        wire::PHASE_NAMESPACE,
        wire::OP_MARK,
        phase.as_bytes(),
    );
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl Model for Classifier {
    fn spec(&self) -> &ModelSpec {
        Classifier::spec(self)
    }

    fn labels(&self) -> &[&'static str] {
        Classifier::labels(self)
    }

    fn score_image(&mut self, bytes: &[u8], mark: Mark<'_>) -> Result<Scores, Problem> {
        mark(wire::PHASE_DECODE);
        let decoded = || mark(wire::PHASE_PREPROCESS);
        self.load_image(bytes, decoded).map_err(|error| problem(&error))?;
        infer(self, mark)
    }

    fn score_tensor(&mut self, values: &[f32], mark: Mark<'_>) -> Result<Scores, Problem> {
        self.set_tensor(values).map_err(|error| problem(&error))?;
        infer(self, mark)
    }

    fn best(&self, probabilities: &[f32], k: usize) -> Vec<(usize, f32)> {
        self.top_k(probabilities, k).into_iter().map(|found| (found.index, found.score)).collect()
    }
}

fn infer(classifier: &mut Classifier, mark: Mark<'_>) -> Result<Scores, Problem> {
    mark(wire::PHASE_INFER);
    classifier.infer().map_err(|error| problem(&error))?;
    mark(wire::PHASE_DONE);
    let probabilities = classifier.scores();
    Ok(Scores { raw: classifier.output().to_vec(), probabilities })
}

fn problem(error: &ClassifyError) -> Problem {
    match error.kind() {
        ErrorKind::NotAnImage => Problem::NotAnImage(error.to_string()),
        ErrorKind::BrokenImage => Problem::BrokenImage(error.to_string()),
        ErrorKind::ImageTooLarge => Problem::ImageTooLarge(error.to_string()),
        ErrorKind::UnsupportedImage => Problem::UnsupportedImage(error.to_string()),
        ErrorKind::BadTensor => Problem::BadTensor(error.to_string()),
        ErrorKind::OutOfMemory => Problem::OutOfMemory,
        ErrorKind::Failed => Problem::ModelFailed(chain(error)),
    }
}
