//! The models whose numbers are held against onnxruntime's.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use builder::Home;
use model_spec::ModelSpec;
use serde::Deserialize;

use crate::{
    environment::{run_python, shared},
    kept::{self, Key},
};

/// Which model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// The embedded default; its graph has no softmax.
    Digits,
    /// Trained weights, from the shared folder.
    MobileNetV2,
    /// Trained weights, from the shared folder.
    SqueezeNet,
    /// The graph of the onnx wheel with seeded He-scaled weights and varied batch-norm
    /// statistics.
    ResNet50,
    /// A small network of after 2017 with seeded weights, after MobileNetV3: hard-swish, and
    /// channels weighed by a hard sigmoid.
    MobileNetV3,
    /// After EfficientNet-Lite: ReLU6 and windows of 5x5.
    EfficientNetLite,
    /// After EfficientNet-B0: SiLU, and channels weighed by a sigmoid.
    EfficientNetB0,
    /// A vision transformer, in operators of set 20.
    VisionTransformer,
    /// The same in the parts of which exporters made it before there were such operators.
    VisionTransformerOfParts,
    /// One with GELU by tanh, and queries, keys and values by a product each.
    VisionTransformerOfTanh,
}

impl Name {
    /// Those of up to 2018, which have folders in `models/`.
    pub const ALL: [Name; 4] = [Name::Digits, Name::MobileNetV2, Name::SqueezeNet, Name::ResNet50];

    /// Those that `compiler/tests/modern_models.py` writes.
    pub const MODERN: [Name; 6] = [
        Name::MobileNetV3,
        Name::EfficientNetLite,
        Name::EfficientNetB0,
        Name::VisionTransformer,
        Name::VisionTransformerOfParts,
        Name::VisionTransformerOfTanh,
    ];

    fn folder(self) -> &'static str {
        match self {
            Name::MobileNetV3 => "mobilenet_v3",
            Name::EfficientNetLite => "efficientnet_lite",
            Name::EfficientNetB0 => "efficientnet_b0",
            Name::VisionTransformer => "vit",
            Name::VisionTransformerOfParts => "vit_of_parts",
            Name::VisionTransformerOfTanh => "vit_of_tanh",
            Name::Digits => "digits",
            Name::MobileNetV2 => "mobilenet_v2",
            Name::SqueezeNet => "squeezenet1.0",
            Name::ResNet50 => "resnet50",
        }
    }

    /// The folder's ONNX file.
    fn onnx(self) -> String {
        format!("{}.onnx", self.folder())
    }
}

/// Which tensor a module gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// What the graph gives.
    Final,
    /// What its last softmax reads. Differences that softmax would hide are seen here.
    BeforeSoftmax,
}

/// A model that is ready to be built: its `model.toml` in a folder with what it names.
#[derive(Debug, Clone)]
pub struct Model {
    /// Which one.
    pub name: Name,
    /// Its `model.toml`.
    pub spec_path: PathBuf,
    /// The same, read.
    pub spec: ModelSpec,
    /// The ONNX file.
    pub onnx: PathBuf,
    /// The labels file.
    pub labels: PathBuf,
    /// Where more about this model may be kept.
    pub(crate) folder: PathBuf,
}

/// What `derived_models.py expose` answers.
#[derive(Deserialize)]
struct Exposed {
    tensor: String,
    shape: Vec<usize>,
}

impl Model {
    /// Prepares a model. `None`, with a line that says so, when it needs the shared folder and
    /// that is not there.
    ///
    /// # Errors
    /// When the model cannot be made or read.
    pub fn open(home: &Home, name: Name, output: Output) -> Result<Option<Model>> {
        let folder = match output {
            Output::Final => kept::folder(home, name.folder())?,
            Output::BeforeSoftmax => {
                kept::folder(home, &format!("{}-before-softmax", name.folder()))?
            }
        };
        let Some((source, labels)) = source(home, name)? else { return Ok(None) };
        let toml = if Name::MODERN.contains(&name) { modern_toml(name) } else { toml(home, name)? };
        let onnx = folder.join(name.onnx());
        let (toml, labels) = match (output, name) {
            (Output::Final, Name::ResNet50) => {
                link(&source, &onnx)?;
                // Torchvision's ResNet50, which the example describes, ends in logits.
                (with_output(&toml, "gpu_0/softmax_1", "softmax", "labels.txt"), classes(1000))
            }
            (Output::Final, _) => {
                link(&source, &onnx)?;
                (toml, labels)
            }
            (Output::BeforeSoftmax, _) => {
                let exposed = expose(home, &source, &onnx)?;
                let count = exposed.shape.iter().product();
                let tensor = &exposed.tensor;
                (with_output(&toml, tensor, "logits", "labels.txt"), classes(count))
            }
        };
        let spec = builder_spec(&toml)?;
        let labels_path = folder.join(&spec.output.labels);
        write_changed(&labels_path, labels.as_bytes())?;
        let spec_path = folder.join("model.toml");
        write_changed(&spec_path, toml.as_bytes())?;
        Ok(Some(Model { name, spec_path, spec, onnx, labels: labels_path, folder }))
    }

    /// Elements of the input tensor.
    pub fn input_len(&self) -> usize {
        self.spec.input.shape.iter().product()
    }
}

/// The ONNX file and its labels.
fn source(home: &Home, name: Name) -> Result<Option<(PathBuf, String)>> {
    let read = |path: PathBuf| {
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    Ok(Some(match name {
        Name::Digits => {
            let folder = home.root().join("models/digits");
            (folder.join("digits.onnx"), read(folder.join("labels.txt"))?)
        }
        Name::MobileNetV2 | Name::SqueezeNet => {
            let Some(shared) = shared(home) else { return Ok(None) };
            let models = shared.join("models");
            (models.join(name.onnx()), read(models.join("imagenet_labels.txt"))?)
        }
        Name::ResNet50 => (written(home, "light_models.py", "light_resnet50", &[])?, String::new()),
        modern => {
            let name = modern.folder();
            (written(home, "modern_models.py", name, &[name])?, classes(MODERN_CLASSES))
        }
    }))
}

/// The model that a script of the compiler's tests writes.
fn written(home: &Home, script: &str, name: &str, arguments: &[&str]) -> Result<PathBuf> {
    let script = home.root().join("compiler/tests").join(script);
    let path = kept::folder(home, &format!("{name}.source"))?.join(format!("{name}.onnx"));
    let key =
        Key::default().content(&script)?.content(&home.root().join("compiler/requirements.txt"))?;
    kept::file(&path, &key, || {
        let out = tempfile::NamedTempFile::new()?;
        let mut words = vec![script.as_os_str()];
        words.extend(arguments.iter().map(OsStr::new));
        words.push(out.path().as_os_str());
        run_python(home, &words)?;
        Ok(fs::read(out.path())?)
    })?;
    Ok(path)
}

fn toml(home: &Home, name: Name) -> Result<String> {
    let path = home.root().join("models").join(name.folder()).join("model.toml");
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

// What the script gives every one of its models.
const MODERN_CLASSES: usize = 50;
const MODERN_SIDE: usize = 64;

fn modern_toml(name: Name) -> String {
    format!(
        r#"[model]
name = "{}"
version = "1.0.0"
onnx = "{}"

[input]
name = "x"
shape = [1, 3, {MODERN_SIDE}, {MODERN_SIDE}]

[preprocess]
resize = "exact"
channels = "RGB"
scale = "1/127.5"
mean = 1
std = 1

[output]
name = "y"
kind = "softmax"
labels = "labels.txt"
"#,
        name.folder(),
        name.onnx()
    )
}

/// Writes the model with the tensor before its softmax as a second output.
fn expose(home: &Home, source: &Path, onnx: &Path) -> Result<Exposed> {
    let script = home.root().join("compiler/tests/derived_models.py");
    let key = Key::default().content(&script)?.content(source)?;
    let answer = onnx.with_extension("json");
    let answer = kept::file(&answer, &key, || {
        let command = OsStr::new("expose");
        run_python(home, &[script.as_os_str(), command, source.as_os_str(), onnx.as_os_str()])
    })?;
    serde_json::from_slice(&answer).context("derived_models.py")
}

/// The same `model.toml` with another output.
fn with_output(toml: &str, tensor: &str, kind: &str, labels: &str) -> String {
    let head = toml.split("[output]").next().unwrap_or_default();
    format!("{head}[output]\nname = {tensor:?}\nkind = {kind:?}\nlabels = {labels:?}\n")
}

fn classes(count: usize) -> String {
    (0..count).map(|class| format!("class {class}\n")).collect()
}

fn builder_spec(toml: &str) -> Result<ModelSpec> {
    Ok(model_spec::parse(toml).context("model.toml")?.spec)
}

/// `link` is another name of `file`.
fn link(file: &Path, link: &Path) -> Result<()> {
    let file = file.canonicalize().with_context(|| format!("no {}", file.display()))?;
    if link.canonicalize().is_ok_and(|found| found == file) {
        return Ok(());
    }
    replace(link, |partial| std::os::unix::fs::symlink(&file, partial))
}

fn write_changed(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|found| found == content) {
        return Ok(());
    }
    replace(path, |partial| fs::write(partial, content))
}

/// Makes a file in one step: other tests may be reading it.
fn replace(path: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let parent = path.parent().context("a file in a folder")?;
    let scratch = tempfile::tempdir_in(parent)?;
    let partial = scratch.path().join("partial");
    make(&partial)
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
