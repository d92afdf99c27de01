//! One ONNX operator as a WASM graph: `graphlet build --as operator`.

use std::{collections::BTreeMap, fs, path::PathBuf};

use model_spec::SimdLevel;
use serde::Serialize;

use crate::{
    BuildError, BuiltTensors, Home, Progress, TensorOptions, build::step, build_tensors, compiler,
    join,
};

/// An operator to build a WASM graph of.
#[derive(Debug, Clone, Default)]
pub struct OperatorOptions {
    /// What it is and what it is given.
    pub operator: Operator,
    /// Vector instructions; relaxed SIMD when `None`.
    pub simd: Option<SimdLevel>,
    /// As in [`crate::BuildOptions`].
    pub artifacts: Option<PathBuf>,
}

/// An operator as `compiler/graphlet_compiler/operator_model.py` reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Operator {
    /// ONNX's name of it, such as `Softmax`.
    #[serde(rename = "operator")]
    pub name: String,
    /// ONNX's domain; empty for the standard one.
    pub domain: String,
    /// The version of the operator set; the newest released one when `None`.
    pub opset: Option<u32>,
    /// Its inputs in the schema's order; `None` is an optional one that is left out.
    pub inputs: Vec<Option<OperatorInput>>,
    /// Its attributes as text, by name.
    pub attributes: BTreeMap<String, String>,
    /// How many of its outputs are wanted; those that are not optional when `None`.
    pub outputs: Option<u32>,
}

/// An input of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OperatorInput {
    /// Its element type, such as `float32`.
    pub dtype: String,
    /// Its extents, outermost first.
    pub shape: Vec<u32>,
    /// What makes it a constant of the module: its elements in row-major order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<String>>,
}

/// Builds a WASM graph of one operator.
///
/// # Errors
/// [`BuildError`]; among them [`BuildError::Compiler`] with code `wrong_operator` for one that does
/// not exist or does not take what it is given.
pub fn build_operator(
    home: &Home,
    options: &OperatorOptions,
    progress: &mut dyn Progress,
) -> Result<BuiltTensors, BuildError> {
    let scratch = tempfile::tempdir()
        .map_err(|source| BuildError::Write { path: std::env::temp_dir(), source })?;
    let (told, onnx) = (scratch.path().join("operator.json"), scratch.path().join("operator.onnx"));
    let json = serde_json::to_vec(&options.operator)
        .map_err(|error| join::malformed("operator", error.into()))?;
    fs::write(&told, json).map_err(|source| BuildError::Write { path: told.clone(), source })?;
    step(progress, "checking the operator", |_| compiler::operator_model(home, &told, &onnx))?;
    let options = TensorOptions {
        onnx,
        name: options.operator.name.clone(),
        simd: options.simd,
        artifacts: options.artifacts.clone(),
        ..TensorOptions::default()
    };
    build_tensors(home, &options, progress)
}
