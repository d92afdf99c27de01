//! Exit codes, and errors that are the user's to mend: 0 done, 1 failed, 2 wrong usage or
//! configuration.

use std::{fmt, io, process::ExitCode};

use builder::BuildError;
use host::{LoadError, ModuleError};
use wasm_runtime::GraphError;

use crate::trust::Refused;

/// Exit code for wrong usage or configuration.
pub const USAGE: u8 = 2;

/// A mistake on the command line or in a configuration file.
#[derive(Debug)]
pub struct Usage {
    message: String,
    hint: Option<String>,
}

impl Usage {
    /// A mistake, in one sentence.
    pub fn new(message: impl fmt::Display) -> Self {
        Usage { message: message.to_string(), hint: None }
    }

    /// What would mend it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What would mend it.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Usage {}

/// A failure that comes with what would help.
#[cfg(feature = "kubernetes")]
#[derive(Debug)]
pub struct Hinted {
    error: anyhow::Error,
    hint: Option<String>,
}

#[cfg(feature = "kubernetes")]
impl Hinted {
    /// A failure, with what would help if anything would.
    pub fn new(error: anyhow::Error, hint: Option<String>) -> Self {
        Hinted { error, hint }
    }
}

#[cfg(feature = "kubernetes")]
impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

#[cfg(feature = "kubernetes")]
impl std::error::Error for Hinted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

#[cfg(feature = "kubernetes")]
fn given_hint(error: &anyhow::Error) -> Option<String> {
    error.downcast_ref::<Hinted>()?.hint.clone()
}

#[cfg(not(feature = "kubernetes"))]
fn given_hint(_: &anyhow::Error) -> Option<String> {
    None
}

/// Prints an error with its causes and hint, and gives the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_unread(error) {
        return ExitCode::FAILURE;
    }
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        text.push_str(": ");
        text.push_str(&cause);
    }
    tell!("error: {text}");
    let build = error.downcast_ref::<BuildError>();
    let usage = error.downcast_ref::<Usage>();
    let hint = usage
        .and_then(|usage| usage.hint_text().map(str::to_owned))
        .or_else(|| build.and_then(BuildError::hint))
        .or_else(|| error.downcast_ref::<Refused>().map(Refused::hint))
        .or_else(|| error.downcast_ref::<LoadError>().and_then(load_hint))
        .or_else(|| error.downcast_ref::<GraphError>().and_then(graph_hint))
        .or_else(|| given_hint(error));
    if let Some(hint) = hint {
        tell!("hint: {hint}");
    }
    if usage.is_some() || build.is_some_and(BuildError::is_usage) {
        return ExitCode::from(USAGE);
    }
    ExitCode::FAILURE
}

/// Whether stdout was closed by its reader, such as `head`, who has what it wants: of all errors of
/// files only those of stdout come without a context.
fn is_unread(error: &anyhow::Error) -> bool {
    let source = error.downcast_ref::<io::Error>();
    error.chain().len() == 1 && source.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Other modules that graphlet made are easily taken for an actor: all are `.wasm` files.
fn load_hint(error: &LoadError) -> Option<String> {
    match error {
        LoadError::Module(ModuleError::Imports { names })
            if names.iter().any(|name| name.starts_with("`wasi_")) =>
        {
            Some("a WASI command runs by itself: wasmtime run --dir . MODULE PICTURE".into())
        }
        LoadError::Module(ModuleError::Export { .. }) => Some(
            "graphlet inspect MODULE shows what it is; a WASM graph runs by: graphlet graph run -g \
             MODULE"
                .into(),
        ),
        _ => None,
    }
}

/// And an actor for a graph.
fn graph_hint(error: &GraphError) -> Option<String> {
    match error {
        GraphError::Import { .. } | GraphError::Export(_) => Some(
            "graphlet inspect MODULE shows what it is; an actor runs by: graphlet classify MODULE \
             PICTURE"
                .into(),
        ),
        _ => None,
    }
}
