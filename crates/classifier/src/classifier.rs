//! A loaded model.

use image_input::{Limits, Picture, Transform};
use model_spec::ModelSpec;
use tvm_graph_rt::{Block, DataType, Graph, GraphExecutor, Module};

use crate::{
    Classification, ClassifyError, LoadError,
    scores::{best, probabilities},
    transform,
};

/// A model, ready to classify one picture after the other.
#[derive(Debug)]
pub struct Classifier {
    spec: ModelSpec,
    labels: Vec<&'static str>,
    limits: Limits,
    transform: Transform,
    input: String,
    executor: GraphExecutor,
}

impl Classifier {
    /// Loads the model that the builder linked into this module.
    ///
    /// # Errors
    /// As [`Classifier::from_block`].
    #[cfg(target_arch = "wasm32")]
    pub fn linked() -> Result<Self, LoadError> {
        Self::from_block(tvm_graph_rt::linked_block(), &tvm_graph_rt::SystemLibModule::new())
    }

    /// Loads a model block, with the kernels that its graph calls. Weights and labels are used
    /// where they lie.
    ///
    /// # Errors
    /// [`LoadError`] when a part is malformed, or the parts do not fit each other.
    pub fn from_block(block: &'static [u8], module: &dyn Module) -> Result<Self, LoadError> {
        let block = Block::parse(block)?;
        let spec: ModelSpec = serde_json::from_str(block.spec()).map_err(LoadError::Spec)?;
        let transform = transform(&spec)?;
        let graph: Graph = block.graph().parse()?;
        let mut executor = GraphExecutor::new(graph, module)?;
        executor.load_params_from_block(&block)?;
        let input = check_input(&spec, &executor)?;
        let labels: Vec<_> = block.labels().map(without_wordnet_id).collect();
        let classes = check_output(&executor)?;
        if labels.len() != classes {
            return Err(LoadError::LabelCount { labels: labels.len(), classes });
        }
        Ok(Self { spec, labels, limits: Limits::default(), transform, input, executor })
    }

    /// What the model's author wrote about it.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// One label for each class, in the order of the output.
    pub fn labels(&self) -> &[&'static str] {
        &self.labels
    }

    /// How pictures become the input tensor.
    pub fn transform(&self) -> &Transform {
        &self.transform
    }

    /// Decodes an image file, for this model alone: one that is much larger than the model's
    /// input may come at a reduced size.
    ///
    /// # Errors
    /// [`ClassifyError::Image`].
    pub fn decode(&self, bytes: &[u8]) -> Result<Picture<'static>, ClassifyError> {
        Ok(image_input::decode_for(bytes, &self.limits, &mut [], &self.transform)?)
    }

    /// Resizes and normalises a picture straight into the graph's input tensor.
    ///
    /// # Errors
    /// [`ClassifyError::Executor`] when the tensor's memory cannot be had.
    pub fn preprocess(&mut self, picture: &Picture<'_>) -> Result<(), ClassifyError> {
        let tensor = self.executor.input_mut(&self.input)?;
        Ok(self.transform.apply(picture, tensor)?)
    }

    /// Decodes an image file and puts it into the graph's input tensor: [`decode`](Self::decode)
    /// and [`preprocess`](Self::preprocess) without memory for the picture where that of the
    /// activations has room for it. `decoded` is called between the two.
    ///
    /// [`output`](Self::output) is of no use any more until the graph has run.
    ///
    /// # Errors
    /// As those two.
    pub fn load_image(
        &mut self,
        bytes: &[u8],
        decoded: impl FnOnce(),
    ) -> Result<(), ClassifyError> {
        let (tensor, scratch) = self.executor.input_and_scratch(&self.input)?;
        let picture = image_input::decode_for(bytes, &self.limits, scratch, &self.transform)?;
        decoded();
        Ok(self.transform.apply(&picture, tensor)?)
    }

    /// Fills the graph's input tensor with values that are normalised already, row-major in the
    /// shape of the spec.
    ///
    /// # Errors
    /// [`ClassifyError::TensorLength`] when they are too few or too many;
    /// [`ClassifyError::Executor`] when the tensor's memory cannot be had.
    pub fn set_tensor(&mut self, values: &[f32]) -> Result<(), ClassifyError> {
        let tensor = self.executor.input_mut(&self.input)?;
        let (expected, actual) = (tensor.len(), values.len());
        if actual != expected {
            return Err(ClassifyError::TensorLength { expected, actual });
        }
        tensor.copy_from_slice(values);
        Ok(())
    }

    /// Runs the graph on what the input tensor holds.
    ///
    /// # Errors
    /// [`ClassifyError::Executor`] when a kernel fails, or nothing was put into the input yet.
    pub fn infer(&mut self) -> Result<(), ClassifyError> {
        Ok(self.executor.run()?)
    }

    /// The graph's output as the last [`infer`](Self::infer) left it, one number for each class.
    pub fn output(&self) -> &[f32] {
        let output = self.executor.get_output(OUTPUT).ok();
        // Only an output that is the input itself, before that is set, has no elements.
        output.and_then(|output| output.as_slice().ok()).unwrap_or_default()
    }

    /// The output as probabilities, in the order of the labels.
    pub fn scores(&self) -> Vec<f32> {
        probabilities(self.spec.output.kind, self.output())
    }

    /// The `k` best of `scores`, best first; equal ones in the order of the labels, NaN last.
    pub fn top_k(&self, scores: &[f32], k: usize) -> Vec<Classification> {
        let known = &scores[..scores.len().min(self.labels.len())];
        let classification =
            |index| Classification { index, label: self.labels[index], score: known[index] };
        best(known, k).into_iter().map(classification).collect()
    }

    /// The executor, for a profiler that runs the graph node by node.
    pub fn executor_mut(&mut self) -> &mut GraphExecutor {
        &mut self.executor
    }
}

/// The compiler exports the output that the spec chooses as the graph's only one.
const OUTPUT: usize = 0;

/// The name of the graph's input, which must be the one that the spec describes.
fn check_input(spec: &ModelSpec, executor: &GraphExecutor) -> Result<String, LoadError> {
    let mut inputs = executor.inputs();
    let (Some((name, dtype, shape)), None) = (inputs.next(), inputs.next()) else {
        let names = executor.inputs().map(|(name, ..)| name.to_owned()).collect();
        return Err(LoadError::Inputs(names));
    };
    let same_name = spec.input.name.is_empty() || spec.input.name == name;
    if !same_name || dtype != DataType::FLOAT32 || shape.extents() != spec.input.shape {
        let words =
            |name: &str, dtype: DataType, extents: &[usize]| format!("{name} {dtype} {extents:?}");
        return Err(LoadError::WrongInput {
            expected: words(&spec.input.name, DataType::FLOAT32, &spec.input.shape),
            actual: words(name, dtype, shape.extents()),
        });
    }
    Ok(name.to_owned())
}

/// The number of classes: the elements of the graph's output.
fn check_output(executor: &GraphExecutor) -> Result<usize, LoadError> {
    let graph = executor.graph();
    let head = *graph.heads().get(OUTPUT).ok_or(LoadError::Output)?;
    if graph.dtype(head) != DataType::FLOAT32 {
        return Err(LoadError::Output);
    }
    Ok(graph.shape(head).element_count())
}

/// Drops the WordNet id of a line such as `n01440764 tench`.
pub fn without_wordnet_id(label: &str) -> &str {
    let Some((id, name)) = label.split_once(' ') else {
        return label;
    };
    let is_id = id.strip_prefix('n').is_some_and(|digits| {
        digits.len() == 8 && digits.bytes().all(|digit| digit.is_ascii_digit())
    });
    if is_id { name } else { label }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_wordnet_id_is_dropped_from_a_label() {
        for (label, expected) in [
            ("n01440764 tench, Tinca tinca", "tench, Tinca tinca"),
            ("tabby, tabby cat", "tabby, tabby cat"),
            ("n01440764", "n01440764"),
            ("n0144076 tench", "n0144076 tench"),
            ("n0144076x tench", "n0144076x tench"),
            ("nine", "nine"),
            ("", ""),
        ] {
            assert_eq!(without_wordnet_id(label), expected);
        }
    }
}
