//! A Python that compiles node cases one after another.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use builder::Home;
use serde::Deserialize;

use super::{Depth, Outcome};

// What the compiler calls a graph in which nothing is left to be computed.
const NO_INPUT: &str = "no_input";
// What it calls a fault of its own.
const INTERNAL: &str = "internal";

/// An input or an output of a case.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct TensorData {
    /// Name, of inputs.
    #[serde(default)]
    pub name: String,
    pub dtype: String,
    pub shape: Vec<usize>,
}

/// What a compiled case takes and has to give; the data lies beside its artifacts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Compiled {
    #[serde(default)]
    pub inputs: Vec<TensorData>,
    #[serde(default)]
    pub outputs: Vec<TensorData>,
}

/// What became of a case in the compiler.
pub(super) struct Answer {
    pub operator: String,
    pub compiled: Result<Compiled, Outcome>,
}

#[derive(Deserialize)]
struct Line {
    event: String,
    case: String,
    #[serde(default)]
    operator: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    #[serde(flatten)]
    compiled: Compiled,
}

/// The process; it ends when this does.
pub(super) struct Worker<'a> {
    home: &'a Home,
    out: PathBuf,
    depth: Depth,
    process: Process,
}

struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl<'a> Worker<'a> {
    /// Starts it; artifacts of each case go into `out`.
    pub fn start(home: &'a Home, out: &Path, depth: Depth) -> Result<Self> {
        let process = Process::start(home, out, depth)?;
        Ok(Worker { home, out: out.to_owned(), depth, process })
    }

    /// Compiles a case. A compiler that dies of it is started anew for the next one.
    pub fn compile(&mut self, case: &str) -> Result<Answer> {
        let Some(line) = self.process.ask(case) else {
            self.process.child.kill().ok();
            let status = self.process.child.wait().context("the compiler cannot be waited for")?;
            self.process = Process::start(self.home, &self.out, self.depth)?;
            let outcome = Outcome::Broken(format!("the compiler died: {status}"));
            return Ok(Answer { operator: String::new(), compiled: Err(outcome) });
        };
        let compiled = match line.code.as_str() {
            "" => Ok(line.compiled),
            NO_INPUT => Err(Outcome::NoKernel),
            INTERNAL => Err(Outcome::Broken(line.message)),
            _ => Err(Outcome::Refused { code: line.code, message: line.message }),
        };
        Ok(Answer { operator: line.operator, compiled })
    }
}

impl Process {
    fn start(home: &Home, out: &Path, depth: Depth) -> Result<Self> {
        let mut command = python(home)?;
        command.arg("--out").arg(out);
        if depth == Depth::Import {
            command.arg("--import-only");
        }
        // Its log would bury ours; what it answers has the reasons.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("python does not start")?;
        let input = child.stdin.take().context("no stdin")?;
        let output = BufReader::new(child.stdout.take().context("no stdout")?);
        Ok(Process { child, input, output })
    }

    /// Its answer; `None` when it is gone.
    fn ask(&mut self, case: &str) -> Option<Line> {
        writeln!(self.input, "{case}").and_then(|()| self.input.flush()).ok()?;
        let mut text = String::new();
        while self.output.read_line(&mut text).ok()? > 0 {
            match serde_json::from_str::<Line>(&text) {
                Ok(line) if line.event == "case" && line.case == case => return Some(line),
                _ => text.clear(),
            }
        }
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It is between two cases or stuck in one; there is nothing to save.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The names of all cases.
pub(super) fn names(home: &Home) -> Result<Vec<String>> {
    let mut command = python(home)?;
    let output = command.arg("--list").output().context("python does not start")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

fn python(home: &Home) -> Result<Command> {
    let compiler = home.root().join("compiler");
    let mut command = Command::new(home.python()?);
    command
        .args(["-m", "graphlet_compiler", "cases"])
        // Also what `-m` looks up first.
        .current_dir(&compiler)
        .env("PYTHONPATH", &compiler)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONHASHSEED", "0")
        .stdin(Stdio::null());
    Ok(command)
}
