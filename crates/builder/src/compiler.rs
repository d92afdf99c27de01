//! Calls the compiler package (Python, TVM) and reads its answers.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use model_spec::{ModelSpec, OnnxFacts, SimdLevel};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{BuildError, Event, Home, Progress, guest::last_lines};

/// One line of the compiler's progress.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Phase {
        name: String,
    },
    Fallback {
        node: String,
        operator: String,
        macs: u64,
        share: f64,
        reason: String,
    },
    Error {
        code: String,
        #[serde(default)]
        node: String,
        message: String,
        #[serde(default)]
        hint: String,
    },
    #[serde(other)]
    Other,
}

/// Reads the facts of an ONNX file: inputs, outputs, operators.
///
/// # Errors
/// [`BuildError::Compiler`] for a file that is no ONNX model; otherwise as [`compile`].
pub fn facts(home: &Home, onnx: &Path) -> Result<OnnxFacts, BuildError> {
    let mut command = python(home, "facts")?;
    command.arg("--onnx").arg(absolute(onnx));
    let answer = answer(command)?;
    serde_json::from_value(answer)
        .map_err(|source| BuildError::CompilerOutput { what: "facts", source: Box::new(source) })
}

/// Writes an operator, told in a file, as an ONNX model of one node.
///
/// # Errors
/// [`BuildError::Compiler`] with code `wrong_operator`; otherwise as [`compile`].
pub(crate) fn operator_model(home: &Home, told: &Path, onnx: &Path) -> Result<(), BuildError> {
    let mut command = module(home, "graphlet_compiler.operator_model")?;
    command.arg("--operator").arg(absolute(told)).arg("--out").arg(absolute(onnx));
    answer(command).map(drop)
}

/// What a model costs and what would run slowly, before any build: the compiler's report as it
/// gives it.
///
/// # Errors
/// As [`compile`].
pub fn check(home: &Home, spec: &ModelSpec, onnx: &Path) -> Result<Value, BuildError> {
    let folder = tempfile::tempdir().map_err(temporary)?;
    let mut command = python(home, "check")?;
    command
        .arg("--spec")
        .arg(write_json("spec", spec, folder.path())?)
        .arg("--onnx")
        .arg(absolute(onnx));
    answer(command)
}

/// Runs onnxruntime on `.npy` inputs (one picture each) and answers with its outputs.
///
/// # Errors
/// As [`compile`]; `onnxruntime` is an optional part of the compiler's environment.
pub fn reference(
    home: &Home,
    spec: &ModelSpec,
    onnx: &Path,
    tensors: &Path,
) -> Result<Value, BuildError> {
    let folder = tempfile::tempdir().map_err(temporary)?;
    let mut command = python(home, "reference")?;
    command
        .arg("--spec")
        .arg(write_json("spec", spec, folder.path())?)
        .arg("--onnx")
        .arg(absolute(onnx));
    command.arg("--tensors").arg(absolute(tensors));
    answer(command)
}

/// What [`compile`] compiles.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The spec, with the SIMD level to build for.
    pub spec: &'a ModelSpec,
    /// The ONNX file.
    pub onnx: &'a Path,
    /// How layers are to be computed, by their names; the others take their defaults.
    pub choices: &'a BTreeMap<String, String>,
    /// Whether the report is to list every layer that can be computed in several ways.
    pub listing: bool,
}

/// Compiles a model: writes `graph.json`, `graph.params`, `graph.o`, `libgraph_wasm32.a` and
/// `report.json` into `out`.
///
/// # Errors
/// [`BuildError::Compiler`] with the compiler's own code, node and hint;
/// [`BuildError::CompilerCrashed`] when it ended without an answer.
pub fn compile(
    home: &Home,
    input: &Input<'_>,
    out: &Path,
    progress: &mut dyn Progress,
) -> Result<Value, BuildError> {
    let mut command = python(home, "compile")?;
    command.arg("--spec").arg(write_json("spec", input.spec, out)?);
    command.arg("--choices").arg(write_json("choices", input.choices, out)?);
    if input.listing {
        command.arg("--list-choices");
    }
    run_compile(command, input.onnx, input.spec.compile.simd, out, progress)
}

/// Compiles a model whose inputs and outputs are tensors of any number and type, as
/// [`compile`]; `spec` is the JSON that `graphlet_compiler/tensors.py` reads.
///
/// # Errors
/// As [`compile`].
pub fn compile_tensors(
    home: &Home,
    spec: &[u8],
    onnx: &Path,
    simd: SimdLevel,
    out: &Path,
    progress: &mut dyn Progress,
) -> Result<Value, BuildError> {
    let path = out.join("tensors.json");
    std::fs::write(&path, spec)
        .map_err(|source| BuildError::Write { path: path.clone(), source })?;
    let mut command = python(home, "compile")?;
    command.arg("--tensors").arg(absolute(&path));
    run_compile(command, onnx, simd, out, progress)
}

fn run_compile(
    mut command: Command,
    onnx: &Path,
    simd: SimdLevel,
    out: &Path,
    progress: &mut dyn Progress,
) -> Result<Value, BuildError> {
    command.arg("--onnx").arg(absolute(onnx));
    command.args(["--simd", simd.as_str()]).arg("--out").arg(absolute(out));
    stream(command, progress)?;
    let path = out.join("report.json");
    let report = std::fs::read(&path).map_err(|source| BuildError::Read { path, source })?;
    serde_json::from_slice(&report)
        .map_err(|source| BuildError::CompilerOutput { what: "report", source: Box::new(source) })
}

fn temporary(source: std::io::Error) -> BuildError {
    BuildError::Write { path: std::env::temp_dir(), source }
}

fn write_json(
    what: &'static str,
    value: &impl Serialize,
    folder: &Path,
) -> Result<std::path::PathBuf, BuildError> {
    let path = folder.join(format!("{what}.json"));
    let json = serde_json::to_vec(value)
        .map_err(|source| BuildError::CompilerOutput { what, source: Box::new(source) })?;
    std::fs::write(&path, json)
        .map_err(|source| BuildError::Write { path: path.clone(), source })?;
    Ok(absolute(&path))
}

/// The same path for a program that works in another folder.
fn absolute(path: &Path) -> std::path::PathBuf {
    // Fails for an empty path alone, which names no file anyway.
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

fn python(home: &Home, subcommand: &str) -> Result<Command, BuildError> {
    let mut command = module(home, "graphlet_compiler")?;
    command.arg(subcommand);
    Ok(command)
}

fn module(home: &Home, name: &str) -> Result<Command, BuildError> {
    let compiler = absolute(&home.root().join("compiler"));
    let mut command = Command::new(absolute(home.python()?));
    command
        .args(["-m", name])
        // `-m` looks for modules in the working directory first, and the user's may hold anything.
        .current_dir(&compiler)
        .env("PYTHONPATH", &compiler)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // Whatever iterates over a set does so in the same order each time.
        .env("PYTHONHASHSEED", "0")
        .stdin(Stdio::null());
    Ok(command)
}

/// Runs a call whose answer is one JSON value on stdout.
fn answer(mut command: Command) -> Result<Value, BuildError> {
    let output = command
        .output()
        .map_err(|source| BuildError::Spawn { program: "python".to_owned(), source })?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return serde_json::from_str(text.trim()).map_err(|source| BuildError::CompilerOutput {
            what: "answer",
            source: Box::new(source),
        });
    }
    for line in text.lines() {
        if let Some(error) = refusal(line) {
            return Err(error);
        }
    }
    Err(BuildError::CompilerCrashed {
        status: output.status.to_string(),
        stderr: last_lines(&output.stderr, 15),
    })
}

/// The error that a line of the compiler's output tells, if it tells one.
fn refusal(line: &str) -> Option<BuildError> {
    match serde_json::from_str(line) {
        Ok(Line::Error { code, node, message, hint }) => {
            Some(BuildError::Compiler { code, node, message, hint })
        }
        _ => None,
    }
}

/// Runs a call that tells its progress line by line.
fn stream(mut command: Command, progress: &mut dyn Progress) -> Result<(), BuildError> {
    let spawn = |source| BuildError::Spawn { program: "python".to_owned(), source };
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(spawn)?;
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    // Read both at once: a full stderr pipe would stop the child.
    let messages = thread::spawn(move || {
        let mut bytes = Vec::new();
        // What cannot be read is missing from an error's text, no more.
        let _ = stderr.map(|mut pipe| pipe.read_to_end(&mut bytes));
        bytes
    });
    let mut running: Option<(String, Instant)> = None;
    let mut refused = None;
    for line in stdout.into_iter().flat_map(|pipe| BufReader::new(pipe).lines()) {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(Line::Phase { name }) => {
                if let Some((name, since)) = running.replace((name.clone(), Instant::now())) {
                    progress.event(Event::Done { name, took: since.elapsed() });
                }
                progress.event(Event::Phase { name });
            }
            Ok(Line::Fallback { node, operator, macs, share, reason }) => {
                progress.event(Event::Fallback { node, operator, macs, share, reason });
            }
            Ok(Line::Error { code, node, message, hint }) => {
                refused = Some(BuildError::Compiler { code, node, message, hint });
            }
            Ok(Line::Other) | Err(_) => {}
        }
    }
    let status = child.wait().map_err(spawn)?;
    let stderr = messages.join().unwrap_or_default();
    if let Some((name, since)) = running {
        progress.event(Event::Done { name, took: since.elapsed() });
    }
    match refused {
        Some(error) => Err(error),
        None if status.success() => Ok(()),
        None => Err(BuildError::CompilerCrashed {
            status: status.to_string(),
            stderr: last_lines(&stderr, 15),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_code_node_and_hint() {
        let line = r#"{"event":"error","code":"unsupported_operator","node":"n1","message":"no Foo","hint":"export again"}"#;
        let Some(BuildError::Compiler { code, node, message, hint }) = refusal(line) else {
            panic!("no refusal");
        };
        assert_eq!(
            [code, node, message, hint],
            ["unsupported_operator", "n1", "no Foo", "export again"]
        );
        assert!(refusal("{\"event\":\"phase\",\"name\":\"import\"}").is_none());
        assert!(refusal("not json").is_none());
    }

    #[test]
    fn a_crash_shows_the_end_of_stderr() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo '{\"event\":\"phase\",\"name\":\"import\"}'; echo boom >&2; exit 3",
        ]);
        let mut seen = Seen::default();
        let error = stream(command, &mut seen).unwrap_err().to_string();
        assert!(error.contains("boom") && error.contains('3'), "{error}");
        assert_eq!(seen.0.len(), 2);
    }

    #[derive(Default)]
    struct Seen(Vec<Event>);

    impl Progress for Seen {
        fn event(&mut self, event: Event) {
            self.0.push(event);
        }
    }
}
