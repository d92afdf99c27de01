//! Why a module could not be built.

use std::{io, path::PathBuf};

use model_spec::{LabelError, Mistakes};

use crate::TuningError;

/// A module could not be built. Nothing half-written is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `model.toml` is wrong, or does not agree with the ONNX file.
    #[error("{}: {mistakes}", path.display())]
    Spec {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        mistakes: Mistakes,
    },
    /// The labels file is wrong.
    #[error("{}", path.display())]
    Labels {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: LabelError,
    },
    /// The labels file that `model.toml` names is not there.
    #[error("{} is not there, though {} names it", labels.display(), spec.display())]
    NoLabels {
        /// The missing file.
        labels: PathBuf,
        /// The `model.toml`.
        spec: PathBuf,
    },
    /// The ONNX file that `model.toml` names is not there.
    #[error("{} is not there, though {} names it", onnx.display(), spec.display())]
    NoOnnx {
        /// The missing file.
        onnx: PathBuf,
        /// The `model.toml`.
        spec: PathBuf,
    },
    /// The tuning log of a model cannot be used.
    #[error("{}", path.display())]
    Tuning {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: TuningError,
    },
    /// The folder with graphlet's own sources was not found.
    #[error("graphlet's own folder (with `compiler/` and `actor/`) was not found")]
    NoHome,
    /// Python with TVM is not set up.
    #[error("no Python environment with the compiler's packages was found at {}", path.display())]
    NoPython {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A program could not be started.
    #[error("cannot run {program}")]
    Spawn {
        /// Which program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The compiler refused the model.
    #[error("{message}")]
    Compiler {
        /// Stable word, such as `unsupported_operator`.
        code: String,
        /// The ONNX node concerned; empty when it is the whole file.
        node: String,
        /// What is wrong.
        message: String,
        /// What would mend it; may be empty.
        hint: String,
    },
    /// The compiler ended without an answer.
    #[error("the compiler ended with {status} and no answer:\n{stderr}")]
    CompilerCrashed {
        /// Exit status.
        status: String,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// The compiler's answer does not have the agreed form.
    #[error("the compiler's {what} is malformed")]
    CompilerOutput {
        /// Which answer.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no Rust compiler for WebAssembly.
    #[error("no Rust toolchain for {target} was found")]
    NoGuestToolchain {
        /// The target triple.
        target: &'static str,
    },
    /// The guest library did not compile.
    #[error("the guest library did not compile:\n{stderr}")]
    Guest {
        /// The end of cargo's messages.
        stderr: String,
    },
    /// The model does not fit a module.
    #[error("the model is too large for a module: {bytes} bytes")]
    TooLarge {
        /// How large it is.
        bytes: usize,
    },
    /// The linker refused.
    #[error("the linker failed:\n{stderr}")]
    Link {
        /// What it said.
        stderr: String,
    },
    /// The model cannot be loaded, wherever the module would be run.
    #[error("the linked module cannot load its model: {reason}")]
    Load {
        /// What the module says, or how it ended.
        reason: String,
    },
    /// The linked module cannot be written down as it stands with its model loaded: a fault of
    /// ours.
    #[error("the linked module cannot be pre-initialised: {reason}")]
    Snapshot {
        /// What stands in the way.
        reason: String,
    },
    /// The linked module cannot be made a component: a fault of ours.
    #[error("the linked module cannot be made a component")]
    Component(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The linked module is not valid WebAssembly: a fault of ours.
    #[error("the linked module is not valid WebAssembly")]
    Invalid(#[source] wasmparser::BinaryReaderError),
}

impl BuildError {
    /// One line that helps, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            BuildError::NoHome => Some("set GRAPHLET_HOME to a checkout of graphlet".to_owned()),
            BuildError::NoPython { .. } | BuildError::NoGuestToolchain { .. } => {
                Some("run `make setup` in graphlet's folder".to_owned())
            }
            BuildError::NoOnnx { .. } => Some(
                "copy or link the model there, or change `onnx` under [model]; the file is not \
                 shipped with graphlet"
                    .to_owned(),
            ),
            BuildError::NoLabels { .. } => Some(
                "put the class names there, one a line in class order, or change `labels` under \
                 [output]"
                    .to_owned(),
            ),
            BuildError::Read { path, source } => match path.extension()?.to_str()? {
                "onnx" => Some(format!("`graphlet init {}` writes its model.toml", path.display())),
                "toml" if source.kind() == io::ErrorKind::NotFound => {
                    Some("`graphlet init model.onnx` writes one".to_owned())
                }
                _ if source.kind() == io::ErrorKind::InvalidData => {
                    Some("a model.toml is text; the name of an ONNX file ends in .onnx".to_owned())
                }
                _ => None,
            },
            BuildError::Tuning { path, source: TuningError::Absent } => Some(format!(
                "`graphlet tune` writes {}; without `tuning` under [compile], defaults are used",
                path.display()
            )),
            BuildError::Tuning { path, .. } => {
                Some(format!("remove {} and let `graphlet tune` write it anew", path.display()))
            }
            BuildError::Compiler { hint, .. } if !hint.is_empty() => Some(hint.clone()),
            _ => None,
        }
    }

    /// True for mistakes in what the user wrote (exit code 2), false for everything that failed
    /// (exit code 1).
    pub fn is_usage(&self) -> bool {
        match self {
            BuildError::Spec { .. } | BuildError::Labels { .. } | BuildError::Tuning { .. } => true,
            BuildError::Compiler { code, .. } => code == "wrong_operator",
            _ => false,
        }
    }
}
