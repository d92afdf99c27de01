//! The whole build, step by step.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use guest_toolchain::GuestToolchain;
use model_spec::{Draft, Mistake, ModelSpec, SimdLevel, parse_labels};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    BuildError, Event, GRAPH_SECTION, GuestKind, Home, LAYERS_SECTION, Progress, Unused, compiler,
    component, guest,
    join::{self, Guest},
    layers,
    preinit::{self, Door},
    tensors,
    tuning::{self, Selection},
};

/// Name of the custom section that tells people what a module holds.
const CARD_SECTION: &str = "graphlet.model";

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// The `model.toml`.
    pub spec: PathBuf,
    /// Actor, WASI command, component or WASM graph.
    pub kind: GuestKind,
    /// Overrides the spec's SIMD level.
    pub simd: Option<SimdLevel>,
    /// A folder that keeps `graph.json`, `graph.params`, `graph.o`, `libgraph_wasm32.a` and
    /// `report.json`.
    pub artifacts: Option<PathBuf>,
}

/// A module, not signed yet.
#[derive(Debug, Clone)]
pub struct Built {
    /// The module's bytes: valid WebAssembly with the card, without claims.
    pub module: Vec<u8>,
    /// The spec it was built from.
    pub spec: ModelSpec,
    /// The card it carries.
    pub card: Card,
    /// The compiler's report: per node kernel, MACs, fallbacks, memory.
    pub report: Value,
}

/// What a module says about itself, in the custom section `graphlet.model`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// The author's spec.
    pub spec: ModelSpec,
    /// Number of labels.
    pub labels: usize,
    /// Bytes by part.
    pub sizes: Sizes,
    /// What made it.
    pub versions: Versions,
}

/// Bytes of a module's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Weights, as the kernels read them.
    pub params: usize,
    /// The model block: graph, weights, spec and labels.
    pub block: usize,
    /// The arena: activations as they are planned.
    pub activations: u64,
    /// Largest sum of activations alive at once: no plan can do with less. 0 in older cards.
    #[serde(default)]
    pub activations_peak: u64,
}

/// Versions of what made a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// This crate.
    pub graphlet: String,
    /// Apache TVM.
    pub tvm: String,
}

/// Reads a `model.toml` with its labels and holds both against the ONNX file: spec, path of the
/// ONNX file, labels.
///
/// # Errors
/// [`BuildError::Spec`] with every mistake in the file and every contradiction to labels and ONNX
/// file together; what alone is wrong keeps its own variant, such as [`BuildError::NoOnnx`].
pub fn read_model(home: &Home, at: &Path) -> Result<(ModelSpec, PathBuf, Vec<String>), BuildError> {
    let text = fs::read_to_string(at)
        .map_err(|source| BuildError::Read { path: at.to_path_buf(), source })?;
    let mut draft = Draft::read(&text);
    let mut failed = Vec::new();
    let labels = draft.labels().map(|name| read_labels(name, at));
    let labels = settle("output.labels", labels, &mut failed);
    let onnx = settle("model.onnx", draft.onnx().map(|name| onnx_path(name, at)), &mut failed);
    let facts = onnx.as_ref().map(|onnx| compiler::facts(home, onnx));
    if let Some(facts) = settle("model.onnx", facts, &mut failed) {
        draft.compare(&facts, labels.as_ref().map(Vec::len));
    }
    settle("compile.tuning", Some(tuning::log_of(draft.tuning(), at)), &mut failed);
    let alone = draft.is_faultless() && failed.len() == 1;
    for (key, error) in failed {
        if alone {
            return Err(error);
        }
        draft.report(as_mistake(key, &error));
    }
    let spec = draft
        .finish()
        .map_err(|mistakes| BuildError::Spec { path: at.to_path_buf(), mistakes })?
        .spec;
    // A faultless spec names both files, and both were read.
    Ok((spec, onnx.unwrap_or_default(), labels.unwrap_or_default()))
}

/// What became of the file that `key` names, if it names one; a failure is put aside.
fn settle<T>(
    key: &'static str,
    result: Option<Result<T, BuildError>>,
    failed: &mut Vec<(&'static str, BuildError)>,
) -> Option<T> {
    match result? {
        Ok(value) => Some(value),
        Err(error) => {
            failed.push((key, error));
            None
        }
    }
}

/// What is wrong with the file that `key` names, as one mistake among others.
fn as_mistake(key: &str, error: &BuildError) -> Mistake {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    let mistake = Mistake::new(key, message);
    match error.hint() {
        Some(hint) => mistake.hint(hint),
        None => mistake,
    }
}

/// The ONNX file of a spec, which must be there.
fn onnx_path(name: &str, at: &Path) -> Result<PathBuf, BuildError> {
    let onnx = beside(at, name);
    if onnx.is_file() {
        return Ok(onnx);
    }
    Err(BuildError::NoOnnx { onnx, spec: at.to_path_buf() })
}

fn beside(spec: &Path, name: &str) -> PathBuf {
    spec.parent().unwrap_or(Path::new("")).join(name)
}

/// Reads the labels that a spec names.
fn read_labels(name: &str, at: &Path) -> Result<Vec<String>, BuildError> {
    let path = beside(at, name);
    if !path.is_file() {
        return Err(BuildError::NoLabels { labels: path, spec: at.to_path_buf() });
    }
    let bytes =
        fs::read(&path).map_err(|source| BuildError::Read { path: path.clone(), source })?;
    parse_labels(&bytes).map_err(|source| BuildError::Labels { path, source })
}

/// Builds a module: spec and ONNX checked, compiled as the tuning log says, linked and validated.
/// Nothing is written but caches and `artifacts`.
///
/// # Errors
/// [`BuildError`]; see its variants.
pub fn build(
    home: &Home,
    options: &BuildOptions,
    progress: &mut dyn Progress,
) -> Result<Built, BuildError> {
    build_as(home, options, None, progress)
}

/// As [`build`], with these choices by layer instead of a tuning log's. The report lists what
/// there is to choose from.
///
/// # Errors
/// As [`build`].
pub fn build_with_choices(
    home: &Home,
    options: &BuildOptions,
    choices: &BTreeMap<String, String>,
    progress: &mut dyn Progress,
) -> Result<Built, BuildError> {
    build_as(home, options, Some(choices), progress)
}

fn build_as(
    home: &Home,
    options: &BuildOptions,
    choices: Option<&BTreeMap<String, String>>,
    progress: &mut dyn Progress,
) -> Result<Built, BuildError> {
    let (mut spec, onnx, labels) =
        step(progress, "checking spec and ONNX file", |_| read_model(home, &options.spec))?;
    spec.compile.simd = options.simd.unwrap_or(spec.compile.simd);
    let selection = match choices {
        Some(choices) => Selection { choices: choices.clone(), unused: Vec::new() },
        None => tuning::log_of(spec.compile.tuning.as_deref(), &options.spec)?
            .map(|log| log.select(spec.compile.simd))
            .unwrap_or_default(),
    };

    let toolchain = options.kind.toolchain()?;
    let simd = spec.compile.simd;
    let library = step(progress, "guest library (built once)", |progress| {
        guest::library(home, &toolchain, options.kind, simd, progress)
    })?;

    let scratch = tempfile::tempdir()
        .map_err(|source| BuildError::Write { path: std::env::temp_dir(), source })?;
    let input = compiler::Input {
        spec: &spec,
        onnx: &onnx,
        choices: &selection.choices,
        listing: choices.is_some(),
    };
    let report = compiler::compile(home, &input, scratch.path(), progress)?;
    let unused: Vec<_> = selection.unused.into_iter().chain(unknown(&report)).collect();
    if !unused.is_empty() {
        progress.event(Event::Untuned { unused, tune: tune_command(options) });
    }
    let (module, card) = step(progress, "linking", |_| {
        assemble(&toolchain, options.kind, &library, &spec, &labels, &report, scratch.path())
    })?;
    if let Some(folder) = &options.artifacts {
        keep(scratch.path(), folder)?;
    }
    Ok(Built { module, spec, card, report })
}

/// What measures the layers as `options` builds them.
fn tune_command(options: &BuildOptions) -> String {
    let simd = options.simd.map(|simd| format!(" --simd {}", simd.as_str()));
    format!("graphlet tune {}{}", options.spec.display(), simd.unwrap_or_default())
}

/// Choices that the compiler could not use.
fn unknown(report: &Value) -> Vec<Unused> {
    let unknown = report["tuning"]["unknown"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let unused = |unknown: &Value| Unused {
        layer: text(&unknown["layer"]),
        choice: text(&unknown["choice"]),
        reason: text(&unknown["reason"]),
    };
    unknown.iter().map(unused).collect()
}

pub(crate) fn step<T>(
    progress: &mut dyn Progress,
    name: &str,
    work: impl FnOnce(&mut dyn Progress) -> Result<T, BuildError>,
) -> Result<T, BuildError> {
    progress.event(Event::Phase { name: name.to_owned() });
    let begun = Instant::now();
    let done = work(progress)?;
    progress.event(Event::Done { name: name.to_owned(), took: begun.elapsed() });
    Ok(done)
}

/// Joins what the compiler left in `folder` with the guest, and adds the card.
fn assemble(
    toolchain: &GuestToolchain,
    kind: GuestKind,
    library: &Path,
    spec: &ModelSpec,
    labels: &[String],
    report: &Value,
    folder: &Path,
) -> Result<(Vec<u8>, Card), BuildError> {
    let (name, version) = (&spec.model.name, &spec.model.version);
    let description = (kind == GuestKind::Graph)
        .then(|| tensors::description(name, version, report, Some((spec, labels))).to_string());
    let json =
        serde_json::to_string(spec).map_err(|error| join::malformed("spec", error.into()))?;
    let text = description.as_deref().unwrap_or(&json);
    let joined = join::join(&Guest { toolchain, kind, library, text, labels }, folder)?;
    let mut module = joined.module;
    match kind {
        GuestKind::Actor => module = preinit::preinitialise(&module, Door::Wapc)?,
        GuestKind::Component => {
            module = component::encode(&preinit::preinitialise(&module, Door::Load)?)?;
        }
        GuestKind::Wasi | GuestKind::Graph | GuestKind::Operators => {}
    }

    let version = |name: &str| report["versions"][name].as_str().unwrap_or_default().to_owned();
    let card = Card {
        spec: spec.clone(),
        labels: labels.len(),
        sizes: Sizes {
            params: joined.params,
            block: joined.block,
            activations: report["activation_bytes"].as_u64().unwrap_or_default(),
            activations_peak: report["peak_bytes"].as_u64().unwrap_or_default(),
        },
        versions: Versions {
            graphlet: env!("CARGO_PKG_VERSION").to_owned(),
            tvm: version("apache-tvm"),
        },
    };
    let content =
        serde_json::to_vec(&card).map_err(|error| join::malformed("card", error.into()))?;
    join::add_section(&mut module, CARD_SECTION, content);
    join::add_section(&mut module, LAYERS_SECTION, layers::section(folder, report)?);
    if let Some(description) = description {
        join::add_section(&mut module, GRAPH_SECTION, description.into_bytes());
    }
    join::validate(&module)?;
    Ok((module, card))
}

/// Copies the compiler's artifacts to a folder of the user's, each file whole or not at all.
pub(crate) fn keep(from: &Path, folder: &Path) -> Result<(), BuildError> {
    fs::create_dir_all(folder)
        .map_err(|source| BuildError::Write { path: folder.to_path_buf(), source })?;
    for name in ["graph.json", "graph.params", "graph.o", "libgraph_wasm32.a", "report.json"] {
        let path = folder.join(name);
        let copy = || -> std::io::Result<()> {
            let partial = tempfile::NamedTempFile::new_in(folder)?;
            fs::copy(from.join(name), partial.path())?;
            partial.persist(&path)?;
            Ok(())
        };
        copy().map_err(|source| BuildError::Write { path: path.clone(), source })?;
    }
    Ok(())
}
