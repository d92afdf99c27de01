//! The wheel's light models, well-known networks of 2012 to 2017: each with seeded weights, as a
//! WASM graph in the sandbox, beside onnxruntime.

use std::{ffi::OsStr, time::Instant};

use anyhow::{Context as _, Result};
use builder::{Home, Silent, TensorOptions, build_tensors};
use wasm_runtime::{GraphExecutor, GraphOptions, Limits, TensorView};

use crate::{
    environment::run_python,
    nodes::{Compiled, Tolerance, run_module},
};

/// The models, by what `compiler/tests/light_models.py` calls them, and the bytes of memory that
/// each may take.
pub const LIGHT_MODELS: [(&str, usize); 9] = [
    ("light_bvlc_alexnet", 1 << 30),
    ("light_densenet121", 512 << 20),
    ("light_inception_v1", 512 << 20),
    ("light_inception_v2", 512 << 20),
    ("light_resnet50", 512 << 20),
    ("light_shufflenet", 512 << 20),
    ("light_squeezenet", 512 << 20),
    ("light_vgg19", 2 << 30),
    ("light_zfnet512", 1 << 30),
];

/// What running a light model showed.
#[derive(Debug, Clone)]
pub struct LightModel {
    /// Bytes of the module.
    pub module_bytes: usize,
    /// Bytes of the instance's memory behind one run.
    pub memory_bytes: usize,
    /// What differs from onnxruntime's numbers, if anything does.
    pub difference: Option<String>,
}

/// Builds a model, runs it and compares what comes out, and what its last softmax reads, which
/// hides differences.
///
/// # Errors
/// When it cannot be built or run, or onnxruntime is not there.
pub fn light_model(home: &Home, name: &str, memory_bytes: usize) -> Result<LightModel> {
    let folder = tempfile::tempdir()?;
    let script = home.root().join("compiler/tests/light_models.py");
    let onnx = folder.path().join("model.onnx");
    let arguments = [OsStr::new("--model"), OsStr::new(name), OsStr::new("--data")];
    let mut words = vec![script.as_os_str(), onnx.as_os_str()];
    words.extend(arguments);
    words.push(folder.path().as_os_str());
    let answer = run_python(home, &words)?;
    let data: Compiled = serde_json::from_slice(&answer).context("light_models.py")?;

    let begun = Instant::now();
    let options = TensorOptions { onnx, name: name.to_owned(), ..TensorOptions::default() };
    let built = build_tensors(home, &options, &mut Silent)?;
    let built_s = begun.elapsed().as_secs_f64();
    let limits = Limits { memory_bytes, ..Limits::default() };
    let mut executor = GraphExecutor::new(&GraphOptions { limits, ..GraphOptions::default() })?;
    let difference = run_module(&mut executor, &built.module, folder.path(), &data, tolerance)?;
    let light = LightModel {
        module_bytes: built.module.len(),
        memory_bytes: executor.memory_bytes(),
        difference,
    };
    eprintln!(
        "measured: {name}: built in {built_s:.0} s, module {:.1} MB, memory {:.1} MB",
        light.module_bytes as f64 / 1e6,
        light.memory_bytes as f64 / 1e6
    );
    Ok(light)
}

/// Of numbers that belong together the greatest says how exact all of them can be: Winograd's
/// transforms lose about 3e-5 of it.
fn tolerance(theirs: &TensorView<'_>) -> Tolerance {
    let values = theirs.as_slice::<f32>().unwrap_or_default();
    let greatest = values.iter().fold(0.0_f32, |greatest, value| greatest.max(value.abs()));
    Tolerance { relative: 1e-3, absolute: 1e-4 * f64::from(greatest) }
}
