//! WASM graphs: modules that take tensors and give tensors, with what they say about themselves.
//!
//! [`build_tensors`] makes one of an ONNX file alone; [`crate::build`] makes one of a `model.toml`,
//! which then carries spec and labels too. [`build_operators`] makes the operator library, whose
//! exports are nearly the same.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use model_spec::{ModelSpec, SimdLevel};
use serde::Serialize;
use serde_json::{Value, json};
use tensor::descriptor_len;

use crate::{
    BuildError, GuestKind, Home, Progress,
    build::{keep, step},
    compiler, guest,
    join::{self, Guest},
    link,
};

/// Name of the custom section that holds a WASM graph's description.
pub const GRAPH_SECTION: &str = "graphlet.graph";

/// The version of the exports and of the description, `docs/wasm-graph.md`.
pub const GRAPH_ABI: u32 = 1;

/// An ONNX file to build a WASM graph of.
#[derive(Debug, Clone, Default)]
pub struct TensorOptions {
    /// The file.
    pub onnx: PathBuf,
    /// What the module calls itself.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Extents of inputs that the file leaves open, by the input's name.
    pub shapes: BTreeMap<String, Vec<u32>>,
    /// Vector instructions; relaxed SIMD when `None`.
    pub simd: Option<SimdLevel>,
    /// As in [`crate::BuildOptions`].
    pub artifacts: Option<PathBuf>,
}

/// A WASM graph, not signed yet.
#[derive(Debug, Clone)]
pub struct BuiltTensors {
    /// The module's bytes.
    pub module: Vec<u8>,
    /// What it says about itself (`docs/wasm-graph.md`).
    pub description: Value,
    /// Bytes of weights.
    pub params: usize,
    /// The compiler's report.
    pub report: Value,
}

/// What the compiler is told; `compiler/graphlet_compiler/tensors.py` reads it.
#[derive(Serialize)]
struct TensorSpec<'a> {
    name: &'a str,
    version: &'a str,
    shapes: &'a BTreeMap<String, Vec<u32>>,
}

/// Builds a WASM graph of an ONNX file: every input and output as the file declares it.
///
/// # Errors
/// [`BuildError`]; among them [`BuildError::Compiler`] with code `dynamic_dimension` for an input
/// whose shape is open.
pub fn build_tensors(
    home: &Home,
    options: &TensorOptions,
    progress: &mut dyn Progress,
) -> Result<BuiltTensors, BuildError> {
    // What is missing is told before a minute was spent on compiling.
    GuestKind::Graph.toolchain()?;
    let simd = options.simd.unwrap_or(SimdLevel::Relaxed);
    let scratch = tempfile::tempdir()
        .map_err(|source| BuildError::Write { path: std::env::temp_dir(), source })?;
    let spec =
        TensorSpec { name: &options.name, version: &options.version, shapes: &options.shapes };
    let spec = serde_json::to_vec(&spec).map_err(|error| join::malformed("spec", error.into()))?;
    let report =
        compiler::compile_tensors(home, &spec, &options.onnx, simd, scratch.path(), progress)?;
    let named = (options.name.as_str(), options.version.as_str());
    let built = link_tensors(home, named, simd, scratch.path(), report, progress)?;
    if let Some(folder) = &options.artifacts {
        keep(scratch.path(), folder)?;
    }
    Ok(built)
}

/// Links a WASM graph of what the compiler left in a folder; `named` are the model's name and
/// version, `report` is the compiler's.
///
/// # Errors
/// [`BuildError`].
pub fn link_tensors(
    home: &Home,
    named: (&str, &str),
    simd: SimdLevel,
    folder: &Path,
    report: Value,
    progress: &mut dyn Progress,
) -> Result<BuiltTensors, BuildError> {
    let kind = GuestKind::Graph;
    let toolchain = kind.toolchain()?;
    let library = step(progress, "guest library (built once)", |progress| {
        guest::library(home, &toolchain, kind, simd, progress)
    })?;
    let description = description(named.0, named.1, &report, None);
    let joined = step(progress, "linking", |_| {
        let text = description.to_string();
        let guest =
            Guest { toolchain: &toolchain, kind, library: &library, text: &text, labels: &[] };
        let mut joined = join::join(&guest, folder)?;
        join::add_section(&mut joined.module, GRAPH_SECTION, text.into_bytes());
        join::validate(&joined.module)?;
        Ok(joined)
    })?;
    Ok(BuiltTensors { module: joined.module, description, params: joined.params, report })
}

/// Builds the WASM operator library, which has no model: nothing is compiled with TVM.
///
/// # Errors
/// [`BuildError`].
pub fn build_operators(
    home: &Home,
    simd: SimdLevel,
    progress: &mut dyn Progress,
) -> Result<Vec<u8>, BuildError> {
    let kind = GuestKind::Operators;
    let toolchain = kind.toolchain()?;
    let library = step(progress, "guest library (built once)", |progress| {
        guest::library(home, &toolchain, kind, simd, progress)
    })?;
    let scratch = tempfile::tempdir()
        .map_err(|source| BuildError::Write { path: std::env::temp_dir(), source })?;
    let out = scratch.path().join("operators.wasm");
    step(progress, "linking", |_| {
        link::link(&toolchain, &link::Inputs { kind, guest: &library, model: None }, &out)
    })?;
    let module =
        std::fs::read(&out).map_err(|source| BuildError::Read { path: out.clone(), source })?;
    join::validate(&module)?;
    Ok(module)
}

/// What a graph says about itself: names, types and extents as the ONNX file has them, and for an
/// image model how pictures become its input and what its classes are called.
pub(crate) fn description(
    name: &str,
    version: &str,
    report: &Value,
    image: Option<(&ModelSpec, &[String])>,
) -> Value {
    let ranks = report["outputs"].as_array().into_iter().flatten();
    let ranks = ranks.map(|tensor| tensor["shape"].as_array().map_or(0, Vec::len));
    let mut value = json!({
        "abi": GRAPH_ABI,
        "model": {"name": name, "version": version},
        "inputs": report["inputs"],
        "outputs": report["outputs"],
        "result_bytes": descriptor_len(ranks),
    });
    if let Some((spec, labels)) = image {
        value["spec"] = json!(spec);
        value["labels"] = json!(labels);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_lists_tensors_and_the_size_of_their_descriptor() {
        let report = json!({
            "inputs": [{"name": "x", "dtype": "int8", "shape": [2, 3]}],
            "outputs": [{"name": "y", "dtype": "float32", "shape": []},
                        {"name": "z", "dtype": "bool", "shape": [4, 1]}],
            "macs": 7,
        });
        let value = description("model", "1.0", &report, None);
        assert_eq!(value["inputs"], report["inputs"]);
        assert_eq!(value["model"], json!({"name": "model", "version": "1.0"}));
        assert_eq!(value["result_bytes"], 8 + 16 + 16 + 2 * 8);
        assert!(value.get("spec").is_none() && value.get("macs").is_none());
    }
}
