//! What the compiler left, with the guest: one linked module.

use std::{error::Error, fs, path::Path};

use guest_toolchain::GuestToolchain;
use tensor::block::BlockBuilder;
use tvm_graph_rt::load_param_dict;
use wasm_encoder::{CustomSection, Encode as _, Section as _};

use crate::{BuildError, GuestKind, link, object};

/// What is joined with the compiler's artifacts.
pub(crate) struct Guest<'a> {
    pub toolchain: &'a GuestToolchain,
    pub kind: GuestKind,
    pub library: &'a Path,
    /// What the block says about the model: the spec, or a graph's description.
    pub text: &'a str,
    pub labels: &'a [String],
}

/// A linked module and the sizes of what is in it.
pub(crate) struct Joined {
    pub module: Vec<u8>,
    /// Bytes of weights.
    pub params: usize,
    /// Bytes of the model block.
    pub block: usize,
}

/// Links the artifacts in `folder` with the guest.
pub(crate) fn join(guest: &Guest<'_>, folder: &Path) -> Result<Joined, BuildError> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).map_err(|source| BuildError::Read { path, source })
    };
    let graph = String::from_utf8(read("graph.json")?)
        .map_err(|error| malformed("graph.json", error.into()))?;
    let params = read("graph.params")?;
    let tensors =
        load_param_dict(&params).map_err(|error| malformed("graph.params", error.into()))?;

    let mut block = BlockBuilder::new(&graph, guest.text)
        .labels(guest.labels)
        .map_err(|error| malformed("labels", error.into()))?;
    let mut param_bytes = 0;
    for (name, tensor) in &tensors {
        param_bytes += tensor.as_bytes().len();
        block = block.tensor(name, tensor.view());
    }
    let block = block.build().map_err(|error| malformed("model block", error.into()))?;

    let model = folder.join("model.o");
    fs::write(&model, object::model_object(&block)?)
        .map_err(|source| BuildError::Write { path: model.clone(), source })?;
    let linked = folder.join("linked.wasm");
    let kernels = folder.join("libgraph_wasm32.a");
    let artifacts = link::Model { kernels: &kernels, block: &model };
    let inputs = link::Inputs { kind: guest.kind, guest: guest.library, model: Some(artifacts) };
    link::link(guest.toolchain, &inputs, &linked)?;
    Ok(Joined { module: read("linked.wasm")?, params: param_bytes, block: block.len() })
}

/// Adds a custom section at the end.
pub(crate) fn add_section(module: &mut Vec<u8>, name: &str, content: Vec<u8>) {
    let section = CustomSection { name: name.into(), data: content.into() };
    module.push(section.id());
    section.encode(module);
}

/// Checks that a module of ours is one.
pub(crate) fn validate(module: &[u8]) -> Result<(), BuildError> {
    wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::default())
        .validate_all(module)
        .map(drop)
        .map_err(BuildError::Invalid)
}

/// What the compiler should have made otherwise.
pub(crate) fn malformed(what: &'static str, source: Box<dyn Error + Send + Sync>) -> BuildError {
    BuildError::CompilerOutput { what, source }
}
