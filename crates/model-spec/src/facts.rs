//! What the compiler reads off an ONNX file, and whether a spec agrees with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{InputDType, Mistake, Mistakes, ModelSpec, OutputKind};

/// An ONNX file in numbers: the answer of `graphlet_compiler facts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OnnxFacts {
    /// Inputs that are no initializers.
    pub inputs: Vec<ValueFacts>,
    /// Graph outputs.
    pub outputs: Vec<ValueFacts>,
    /// Operator-set versions by domain (`""` is ONNX's own).
    pub opset: BTreeMap<String, i64>,
    /// Number of nodes.
    #[serde(default)]
    pub nodes: usize,
    /// How often each operator stands in the graph.
    #[serde(default)]
    pub operators: BTreeMap<String, usize>,
    /// The program that wrote the file.
    #[serde(default)]
    pub producer: String,
}

/// One input or output of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueFacts {
    /// Name in the graph.
    pub name: String,
    /// NumPy name of the element type, such as `float32`.
    pub dtype: String,
    /// Extents, outermost first.
    pub shape: Vec<Dimension>,
    /// For an output: the operator that computes its values, such as `Softmax`, behind those that
    /// only move them.
    #[serde(default)]
    pub produced_by: String,
}

/// An extent that is known, or a name that stands for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dimension {
    /// Known.
    Fixed(i64),
    /// Symbolic; empty when the file leaves it unnamed.
    Symbolic(String),
}

impl ValueFacts {
    /// The shape as a person writes it: `[batch, 3, 224, 224]`.
    pub fn shape_text(&self) -> String {
        let extents: Vec<String> = self
            .shape
            .iter()
            .map(|dimension| match dimension {
                Dimension::Fixed(extent) => extent.to_string(),
                Dimension::Symbolic(name) if name.is_empty() => "?".to_owned(),
                Dimension::Symbolic(name) => name.clone(),
            })
            .collect();
        format!("[{}]", extents.join(", "))
    }
}

fn names(values: &[ValueFacts]) -> String {
    values.iter().map(|value| format!("`{}`", value.name)).collect::<Vec<_>>().join(", ")
}

impl ModelSpec {
    /// Compares the spec with the ONNX file it names.
    ///
    /// # Errors
    /// Every disagreement: several inputs, an unknown input or output name, another shape or
    /// dtype, logits that are probabilities already, labels that do not match the number of
    /// classes.
    pub fn check_against(&self, facts: &OnnxFacts, labels: Option<usize>) -> Result<(), Mistakes> {
        let mut found = Vec::new();
        self.check_input(facts, &mut found);
        self.check_output(facts, labels, &mut found);
        Mistakes(found).into_result()
    }

    fn check_input(&self, facts: &OnnxFacts, found: &mut Vec<Mistake>) {
        if facts.inputs.len() > 1 {
            found.push(
                Mistake::new(
                    "input.name",
                    format!(
                        "the graph has {} inputs ({}), an image classifier has one",
                        facts.inputs.len(),
                        names(&facts.inputs)
                    ),
                )
                .hint("export the model with a single image input"),
            );
            return;
        }
        let Some(input) = facts.inputs.first() else {
            found.push(Mistake::new("input.name", "the graph has no input"));
            return;
        };
        if !self.input.name.is_empty() && self.input.name != input.name {
            found.push(
                Mistake::new(
                    "input.name",
                    format!("the graph's input is `{}`, not `{}`", input.name, self.input.name),
                )
                .hint(format!("write name = {:?}, or leave the key out", input.name)),
            );
        }
        let InputDType::Float32 = self.input.dtype;
        if input.dtype != "float32" {
            found.push(Mistake::new(
                "input.dtype",
                format!("the graph's input is {}, pictures are fed as float32", input.dtype),
            ));
        }
        let fits = input.shape.len() == self.input.shape.len()
            && input.shape.iter().zip(&self.input.shape).all(|(theirs, ours)| match theirs {
                Dimension::Fixed(extent) => usize::try_from(*extent) == Ok(*ours),
                Dimension::Symbolic(_) => true,
            });
        if !fits {
            found.push(
                Mistake::new(
                    "input.shape",
                    format!(
                        "the graph's input is {}, the spec says {:?}",
                        input.shape_text(),
                        self.input.shape
                    ),
                )
                .hint("symbolic dimensions may be given any extent, fixed ones only their own"),
            );
        }
    }

    fn check_output(&self, facts: &OnnxFacts, labels: Option<usize>, found: &mut Vec<Mistake>) {
        let output = if self.output.name.is_empty() {
            if facts.outputs.len() > 1 {
                found.push(
                    Mistake::new(
                        "output.name",
                        format!("the graph has several outputs: {}", names(&facts.outputs)),
                    )
                    .hint("name the one that holds the class scores"),
                );
                return;
            }
            facts.outputs.first()
        } else {
            facts.outputs.iter().find(|output| output.name == self.output.name)
        };
        let Some(output) = output else {
            found.push(
                Mistake::new(
                    "output.name",
                    format!("the graph has no output `{}`", self.output.name),
                )
                .hint(format!("its outputs are {}", names(&facts.outputs))),
            );
            return;
        };
        if output.dtype != "float32" {
            found.push(Mistake::new(
                "output.name",
                format!("output `{}` is {}, class scores are float32", output.name, output.dtype),
            ));
        }
        let already = match (output.produced_by.as_str(), self.output.kind) {
            ("Softmax", OutputKind::Logits | OutputKind::SigmoidLogits) => Some("softmax"),
            ("Sigmoid", OutputKind::Logits | OutputKind::SigmoidLogits) => Some("sigmoid"),
            _ => None,
        };
        if let Some(kind) = already {
            found.push(
                Mistake::new(
                    "output.kind",
                    format!(
                        "output `{}` comes out of {}: its numbers are probabilities already",
                        output.name, output.produced_by
                    ),
                )
                .hint(format!("write kind = {kind:?}")),
            );
        }
        // The class count is the product of the extents behind the batch (SqueezeNet ends in
        // [1, 1000, 1, 1]).
        let classes =
            output.shape.iter().skip(1).try_fold(1_i64, |product, dimension| match dimension {
                Dimension::Fixed(extent) => product.checked_mul(*extent),
                Dimension::Symbolic(_) => None,
            });
        if let (Some(classes), Some(labels)) = (classes, labels)
            && output.shape.len() > 1
            && usize::try_from(classes) != Ok(labels)
        {
            found.push(
                Mistake::new(
                    "output.labels",
                    format!(
                        "the file has {labels} labels, output `{}` has {classes} classes",
                        output.name
                    ),
                )
                .hint("a list for ImageNet with a `background` line has 1001"),
            );
        }
    }
}
