//! The one classifier that lives in a module's memory, as the routes see it.
//!
//! Whatever calls the module, be it a waPC host or an HTTP server of components, its requests are
//! answered here.

use std::cell::RefCell;

use classifier::{Classifier, ClassifyError, ErrorKind};
use model_spec::ModelSpec;
use wire::{RequestView, Response};

use crate::{
    answer::Problem,
    model::{Mark, Model, Scores},
    routes,
};

thread_local! {
    // Kept for the module's life, and so is a failure to load: the model is part of the module,
    // and trying again would read the same bytes.
    static CLASSIFIER: RefCell<Option<Result<Classifier, String>>> = const { RefCell::new(None) };
}

/// Loads the model, unless it is loaded.
///
/// # Errors
/// Why it cannot be, with all causes in one line.
pub fn load() -> Result<(), String> {
    with_classifier(|classifier| classifier.map(drop).map_err(str::to_owned))
}

/// Answers one request, whatever it is; loads the model first, unless it is loaded.
pub fn answer(request: &RequestView<'_>, mark: Mark<'_>) -> Response {
    with_classifier(|classifier| match classifier {
        Ok(classifier) => routes::answer(classifier, request, mark),
        Err(_) => Problem::ModelUnavailable.answer(),
    })
}

/// Works on the classifier, or gets the reason why it could not be loaded.
pub(crate) fn with_classifier<T>(work: impl FnOnce(Result<&mut Classifier, &str>) -> T) -> T {
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

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
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
