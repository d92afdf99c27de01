//! The model as the routes see it: a trait, so that they can be tested without one.

use model_spec::ModelSpec;

use crate::answer::Problem;

/// Told the name of each phase of a request as it begins (`decode`, `preprocess`, `infer`,
/// `done`).
pub type Mark<'a> = &'a mut dyn FnMut(&'static str);

/// What a model computed for one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// The graph's output as it is.
    pub raw: Vec<f32>,
    /// The same as probabilities, one per class, in the order of the labels.
    pub probabilities: Vec<f32>,
}

/// A model that turns pictures into scores.
pub trait Model {
    /// What `model.toml` says about it.
    fn spec(&self) -> &ModelSpec;

    /// One label per class.
    fn labels(&self) -> &[&'static str];

    /// Scores an image file.
    ///
    /// # Errors
    /// A [`Problem`] with the image, or [`Problem::ModelFailed`].
    fn score_image(&mut self, bytes: &[u8], mark: Mark<'_>) -> Result<Scores, Problem>;

    /// Scores an input tensor, row-major in the shape of the spec.
    ///
    /// # Errors
    /// [`Problem::BadTensor`] for a wrong number of values, or [`Problem::ModelFailed`].
    fn score_tensor(&mut self, values: &[f32], mark: Mark<'_>) -> Result<Scores, Problem>;

    /// Indices and scores of the `k` best classes, best first.
    fn best(&self, probabilities: &[f32], k: usize) -> Vec<(usize, f32)>;
}

/// A label and its probability.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Ranked {
    /// The class's label.
    pub label: &'static str,
    /// Its probability.
    pub score: f32,
}

/// The `k` best labels, best first.
///
/// # Errors
/// [`Problem::ModelFailed`] when a score is not finite: no order of such scores means anything.
pub fn rank(model: &dyn Model, scores: &Scores, k: usize) -> Result<Vec<Ranked>, Problem> {
    if !scores.probabilities.iter().all(|score| score.is_finite()) {
        return Err(Problem::ModelFailed("a score is not finite".into()));
    }
    let labels = model.labels();
    let ranked = model
        .best(&scores.probabilities, k)
        .into_iter()
        .filter_map(|(index, score)| labels.get(index).map(|&label| Ranked { label, score }))
        .collect::<Vec<_>>();
    if ranked.is_empty() {
        return Err(Problem::ModelFailed("the model has no classes".into()));
    }
    Ok(ranked)
}

#[cfg(test)]
pub(crate) mod fake {
    //! A model that knows four words.

    use std::collections::BTreeMap;

    use wire::{RequestView, Response};

    use super::*;

    pub(crate) const SPEC: &str = r#"{
        "model": {"name": "fake-1", "version": "1.2", "description": "tells <b> & c",
                  "licence": "Apache-2.0", "onnx": "fake.onnx"},
        "input": {"name": "pixels", "shape": [1, 1, 2, 2]},
        "preprocess": {},
        "output": {"name": "logits", "labels": "labels.txt", "top_k": 2}
    }"#;

    /// The images of this model are words; the word is the problem or the best class.
    pub(crate) struct Fake {
        pub(crate) spec: ModelSpec,
        pub(crate) tensors: Vec<Vec<f32>>,
        pub(crate) marks: Vec<&'static str>,
    }

    impl Fake {
        pub(crate) fn new() -> Self {
            let spec = serde_json::from_str(SPEC).unwrap();
            Fake { spec, tensors: Vec::new(), marks: Vec::new() }
        }

        pub(crate) fn send(&mut self, request: &RequestView<'_>) -> Response {
            let mut marks = Vec::new();
            let response = crate::routes::answer(self, request, &mut |phase| marks.push(phase));
            self.marks = marks;
            response
        }
    }

    /// A request from the words on curl's command line: method, path with query, fields.
    pub(crate) fn request<'a>(
        method: &'a str,
        target: &'a str,
        header: &[(&str, &str)],
        body: &'a [u8],
    ) -> RequestView<'a> {
        let (path, query_string) = target.split_once('?').unwrap_or((target, ""));
        RequestView {
            method: method.into(),
            path: path.into(),
            query_string: query_string.into(),
            header: header
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect::<BTreeMap<_, _>>(),
            body: body.into(),
        }
    }

    pub(crate) fn body(response: &Response) -> serde_json::Value {
        serde_json::from_slice(&response.body).unwrap()
    }

    impl Model for Fake {
        fn spec(&self) -> &ModelSpec {
            &self.spec
        }

        fn labels(&self) -> &[&'static str] {
            &["cat", "dog \"d\"", "crane", "crane"]
        }

        fn score_image(&mut self, bytes: &[u8], mark: Mark<'_>) -> Result<Scores, Problem> {
            mark(wire::PHASE_DECODE);
            let probabilities = match bytes {
                b"cat" => vec![0.75, 0.125, 0.0625, 0.0625],
                b"dog" => vec![0.25, 0.5, 0.125, 0.125],
                b"crane" => vec![0.0625, 0.0625, 0.5, 0.375],
                b"nan" => vec![f32::NAN; 4],
                b"broken" => return Err(Problem::BrokenImage("cut short".into())),
                b"large" => return Err(Problem::ImageTooLarge("65535 x 65535".into())),
                b"cmyk" => return Err(Problem::UnsupportedImage("CMYK".into())),
                b"fail" => return Err(Problem::ModelFailed("kernel 7 said -1".into())),
                _ => return Err(Problem::NotAnImage("not an image".into())),
            };
            mark(wire::PHASE_PREPROCESS);
            mark(wire::PHASE_INFER);
            mark(wire::PHASE_DONE);
            Ok(Scores { raw: probabilities.iter().map(|p| p * 10.0).collect(), probabilities })
        }

        fn score_tensor(&mut self, values: &[f32], mark: Mark<'_>) -> Result<Scores, Problem> {
            self.tensors.push(values.to_vec());
            mark(wire::PHASE_INFER);
            mark(wire::PHASE_DONE);
            let raw = vec![1.0, 2.0, 3.0, values.iter().sum::<f32>()];
            let probabilities = raw.iter().map(|value| value / 100.0).collect();
            Ok(Scores { raw, probabilities })
        }

        fn best(&self, probabilities: &[f32], k: usize) -> Vec<(usize, f32)> {
            let mut ranked: Vec<_> = probabilities.iter().copied().enumerate().collect();
            ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
            ranked.truncate(k);
            ranked
        }
    }
}
