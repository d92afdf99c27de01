//! What onnxruntime computes.

use std::{ffi::OsStr, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use builder::Home;

use crate::{
    Input, Model,
    environment::run_python,
    kept::{self, Key},
    npy,
};

/// The output for each input, in their order.
///
/// # Errors
/// When onnxruntime is not there or refuses.
pub fn reference(home: &Home, model: &Model, inputs: &[Input]) -> Result<Vec<Vec<f32>>> {
    kept_reference(home, model, inputs, "reference.npy", Key::default(), |_| Ok(model.onnx.clone()))
}

/// The same with two output channels of the weights of one convolution swapped; convolutions
/// count from 0 in the order of the graph.
///
/// # Errors
/// When there is no such convolution, or as [`reference()`].
pub fn reference_with_swapped_channels(
    home: &Home,
    model: &Model,
    inputs: &[Input],
    convolution: usize,
    channels: [usize; 2],
) -> Result<Vec<Vec<f32>>> {
    let script = home.root().join("compiler/tests/derived_models.py");
    let [first, second] = channels.map(|channel| channel.to_string());
    let name = format!("swapped-{convolution}-{first}-{second}.npy");
    let key = Key::default().content(&script)?;
    let convolution = convolution.to_string();
    kept_reference(home, model, inputs, &name, key, |scratch| {
        let onnx = scratch.join("swapped.onnx");
        let words = ["swap", &convolution, &first, &second].map(OsStr::new);
        let [command, convolution, first, second] = words;
        let (script, source) = (script.as_os_str(), model.onnx.as_os_str());
        run_python(home, &[script, command, source, onnx.as_os_str(), convolution, first, second])?;
        Ok(onnx)
    })
}

fn kept_reference(
    home: &Home,
    model: &Model,
    inputs: &[Input],
    name: &str,
    mut key: Key,
    onnx: impl FnOnce(&Path) -> Result<std::path::PathBuf>,
) -> Result<Vec<Vec<f32>>> {
    key = key
        .bytes(home.python()?.as_os_str().as_encoded_bytes())
        .content(&home.root().join("compiler/requirements.txt"))?
        .content(&home.root().join("compiler/graphlet_compiler/reference.py"))?
        .content(&model.spec_path)?
        .content(&model.onnx)?;
    for input in inputs {
        let bytes: Vec<u8> = input.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        key = key.bytes(&bytes);
    }
    let file = kept::file(&model.folder.join(name), &key, || {
        let scratch = tempfile::tempdir()?;
        let outputs = run(home, model, inputs, &onnx(scratch.path())?, scratch.path())?;
        let shape = [outputs.len(), outputs.first().map_or(0, Vec::len)];
        Ok(npy::write(&outputs.concat(), &shape))
    })?;
    let values = npy::read(&file)?;
    ensure!(values.len().is_multiple_of(inputs.len()), "{name}: not one output per input");
    Ok(values.chunks(values.len() / inputs.len()).map(<[f32]>::to_vec).collect())
}

fn run(
    home: &Home,
    model: &Model,
    inputs: &[Input],
    onnx: &Path,
    scratch: &Path,
) -> Result<Vec<Vec<f32>>> {
    let (tensors, out) = (scratch.join("in"), scratch.join("out"));
    fs::create_dir(&tensors)?;
    let names: Vec<String> = (0..inputs.len()).map(|index| format!("{index:04}.npy")).collect();
    for (name, input) in names.iter().zip(inputs) {
        fs::write(tensors.join(name), npy::write(&input.values, &model.spec.input.shape))?;
    }
    let spec = scratch.join("spec.json");
    fs::write(&spec, serde_json::to_vec(&model.spec)?)?;
    let words = ["-m", "graphlet_compiler", "reference", "--spec", "--onnx", "--tensors", "--out"];
    let [m, package, command, spec_flag, onnx_flag, tensors_flag, out_flag] = words.map(OsStr::new);
    run_python(
        home,
        &[
            m,
            package,
            command,
            spec_flag,
            spec.as_os_str(),
            onnx_flag,
            onnx.as_os_str(),
            tensors_flag,
            tensors.as_os_str(),
            out_flag,
            out.as_os_str(),
        ],
    )?;
    let read = |name: &String| {
        let path = out.join(name);
        npy::read(&fs::read(&path).with_context(|| format!("no {}", path.display()))?)
    };
    names.iter().map(read).collect()
}
