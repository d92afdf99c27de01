//! What a WASM graph says about itself.

use serde::Deserialize;
use serde_json::Value;
use tensor::{DType, FormError, Shape, ShapeError};

/// The version of the exports and of the description that this crate speaks.
pub const ABI: u64 = 1;

/// What a graph says about itself: `docs/wasm-graph.md`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Description {
    /// The model's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it reads, in order.
    pub inputs: Vec<TensorInfo>,
    /// What it gives, in order.
    pub outputs: Vec<TensorInfo>,
    /// How pictures become the input: `model.toml` as JSON, when the graph was built of one.
    pub spec: Option<Value>,
    /// Names of the classes, when it was.
    pub labels: Vec<String>,
}

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo {
    /// Its name in the ONNX file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first.
    pub shape: Shape,
}

/// A description that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptionError {
    /// It is not the JSON that it should be.
    #[error("malformed description")]
    Json(#[from] serde_json::Error),
    /// Written for other exports.
    #[error("the graph speaks version {0}, not {ABI}")]
    Abi(u64),
    /// A tensor's element type is none of ours, or its extents are impossible.
    #[error("tensor `{name}`")]
    Form {
        /// The tensor.
        name: String,
        /// What is wrong.
        source: FormError,
    },
}

#[derive(Deserialize)]
struct Raw {
    abi: u64,
    #[serde(default)]
    model: RawModel,
    inputs: Vec<RawTensor>,
    outputs: Vec<RawTensor>,
    #[serde(default)]
    spec: Option<Value>,
    #[serde(default)]
    labels: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawModel {
    name: String,
    version: String,
}

#[derive(Deserialize)]
struct RawTensor {
    name: String,
    dtype: String,
    shape: Vec<usize>,
}

impl Description {
    /// Reads a description: what the export `graphlet_describe` writes and the section
    /// `graphlet.graph` holds.
    ///
    /// # Errors
    /// [`DescriptionError`].
    pub fn parse(json: &[u8]) -> Result<Self, DescriptionError> {
        let raw: Raw = serde_json::from_slice(json)?;
        if raw.abi != ABI {
            return Err(DescriptionError::Abi(raw.abi));
        }
        let tensors = |list: Vec<RawTensor>| {
            list.into_iter().map(TensorInfo::read).collect::<Result<Vec<_>, _>>()
        };
        Ok(Description {
            name: raw.model.name,
            version: raw.model.version,
            inputs: tensors(raw.inputs)?,
            outputs: tensors(raw.outputs)?,
            spec: raw.spec,
            labels: raw.labels,
        })
    }
}

impl TensorInfo {
    fn read(raw: RawTensor) -> Result<Self, DescriptionError> {
        let RawTensor { name, dtype, shape } = raw;
        let form = || Ok((dtype.parse()?, Shape::new(shape)?));
        match form() {
            Ok((dtype, shape)) => Ok(TensorInfo { name, dtype, shape }),
            Err(source) => Err(DescriptionError::Form { name, source }),
        }
    }

    /// How many bytes its data takes.
    ///
    /// # Errors
    /// [`ShapeError`] for more than a machine can address.
    pub fn byte_count(&self) -> Result<usize, ShapeError> {
        self.shape.byte_count(self.dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read_with_what_is_optional_left_out() {
        let json = br#"{"abi": 1, "inputs": [{"name": "x", "dtype": "int8", "shape": [2, 0]}],
                        "outputs": [{"name": "y", "dtype": "bool", "shape": []}], "more": 1}"#;
        let description = Description::parse(json).expect("well-formed");
        assert_eq!(description.inputs[0].dtype, DType::INT8);
        assert_eq!(description.inputs[0].byte_count(), Ok(0));
        assert_eq!(description.outputs[0].shape.rank(), 0);
        assert!(description.spec.is_none() && description.labels.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |tensor: &str| {
            let json = format!(r#"{{"abi": 1, "inputs": [{tensor}], "outputs": []}}"#);
            Description::parse(json.as_bytes()).unwrap_err()
        };
        let error = with(r#"{"name": "x", "dtype": "int5", "shape": []}"#);
        assert!(
            matches!(error, DescriptionError::Form { name, source: FormError::DType(_) } if name == "x")
        );
        let huge = r#"{"name": "x", "dtype": "int8", "shape": [9223372036854775807, 4]}"#;
        assert!(matches!(with(huge), DescriptionError::Form { source: FormError::Shape(_), .. }));
        assert!(matches!(with("7"), DescriptionError::Json(_)));
        let other = br#"{"abi": 2, "inputs": [], "outputs": []}"#;
        assert!(matches!(Description::parse(other), Err(DescriptionError::Abi(2))));
    }
}
