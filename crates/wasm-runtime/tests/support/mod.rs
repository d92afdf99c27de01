//! Graphs for the tests: built of ONNX files that Python's ONNX package writes, once for each test
//! binary.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "each test file uses its part; helpers fail as tests do and tell what they skip"
)]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use builder::{BuildError, Home, Silent, TensorOptions};
use serde_json::Value;
use wasm_runtime::{GraphExecutor, GraphOptions};

/// Where graphlet keeps its Python and its guest libraries.
pub fn cache() -> PathBuf {
    env::var_os("GRAPHLET_CACHE_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let home = || PathBuf::from(env::var_os("HOME").unwrap()).join(".cache");
        env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("graphlet")
    })
}

/// A model with what onnxruntime makes of some inputs.
pub struct Case {
    pub folder: PathBuf,
    pub onnx: PathBuf,
}

/// Runs `models.py MODEL`, which writes `model.onnx`, inputs and onnxruntime's outputs; `None`,
/// having said why, where the development environment is not set up.
pub fn case(model: &str, folder: &Path) -> Option<Case> {
    let python = env::var_os("GRAPHLET_DEV_PYTHON")
        .map_or_else(|| cache().join("python-dev/bin/python"), PathBuf::from);
    if !python.is_file() {
        println!("skipped: no development environment at {}", python.display());
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models.py");
    let made = Command::new(python).arg(script).arg(model).arg(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(Case { folder: folder.to_owned(), onnx: folder.join("model.onnx") })
}

/// Builds a graph of an ONNX file; `None`, having said why, where builds are not possible.
pub fn built(onnx: &Path) -> Option<Vec<u8>> {
    let home = Home::find(cache()).unwrap();
    let options = TensorOptions {
        onnx: onnx.to_owned(),
        name: "test".into(),
        shapes: BTreeMap::new(),
        ..TensorOptions::default()
    };
    match builder::build_tensors(&home, &options, &mut Silent) {
        Ok(built) => Some(built.module),
        Err(error @ (BuildError::NoPython { .. } | BuildError::NoGuestToolchain { .. })) => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{} does not build: {error}", onnx.display()),
    }
}

/// An executor without a cache.
pub fn executor() -> GraphExecutor {
    GraphExecutor::new(&GraphOptions::default()).unwrap()
}

impl Case {
    /// The bytes of a tensor that the script wrote, such as `input_0.bin`.
    pub fn tensor(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.join(name)).unwrap()
    }

    /// What the script says about the tensors it wrote.
    pub fn facts(&self) -> Value {
        serde_json::from_slice(&self.tensor("facts.json")).unwrap()
    }
}
