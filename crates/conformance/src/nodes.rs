//! ONNX's node cases: each compiled, run in the sandbox, and held against the outputs that the
//! wheel of onnx has for it.
//!
//! `compiler/graphlet_compiler/node_cases.py` says what a case is. Every processor has one Python
//! that compiles case after case; the module is linked by the builder and run by `wasm-runtime`,
//! as a graph of `graphlet build --as graph` is. What does not pass stands in a list
//! ([`Known`]), and the result of a whole run is a table of operators ([`table`]).

mod agree;
mod case;
mod known;
mod resume;
mod table;
mod worker;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result};
use builder::Home;
use serde::{Deserialize, Serialize};
use wasm_runtime::{Engine, EngineOptions};

pub use self::{
    agree::{Disagreement, ONNX, Tolerance, agree},
    known::{Known, Surprise},
    resume::Progress,
    table::{Summary, insert, table},
};
use self::{case::Sandbox, worker::Worker};
pub(crate) use self::{case::run_module, worker::Compiled};

/// How far cases are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Through the compiler's first half, in which what is unsupported is refused.
    Import,
    /// Until their numbers are compared.
    Run,
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every output is what it has to be.
    Passed {
        /// Bytes of the module.
        module_bytes: usize,
    },
    /// Imported; more was not asked for.
    Imported,
    /// All of it is known when it is compiled, or it gives back what it got: nothing is left to
    /// run.
    NoKernel,
    /// The compiler says why not.
    Refused {
        /// The compiler's word for the kind of error.
        code: String,
        /// Operator, node and reason.
        message: String,
    },
    /// It ran, and an output is not what it has to be.
    Wrong(String),
    /// Something broke that should not.
    Broken(String),
}

impl Outcome {
    /// The word for this in the list of what does not pass; `None` for what passes, or must never
    /// be on a list.
    pub fn word(&self) -> Option<&str> {
        match self {
            Outcome::Passed { .. } | Outcome::Imported => None,
            Outcome::NoKernel => Some(known::NO_KERNEL),
            Outcome::Refused { code, .. } => Some(code),
            Outcome::Wrong(_) | Outcome::Broken(_) => None,
        }
    }
}

/// One case and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The case.
    pub case: String,
    /// The operator that it is about.
    pub operator: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// The names of all cases, in alphabetical order.
///
/// # Errors
/// When Python does not answer.
pub fn names(home: &Home) -> Result<Vec<String>> {
    worker::names(home)
}

/// Takes cases as far as `depth` says, `jobs` at once; `done` is told after each how many are,
/// and an error of its own ends the run. The verdicts come in the order of the cases.
///
/// # Errors
/// When this machine cannot run any case: no Python, no engine.
pub fn run(
    home: &Home,
    cases: &[String],
    depth: Depth,
    jobs: usize,
    done: impl Fn(usize, &Verdict) -> Result<()> + Sync,
) -> Result<Vec<Verdict>> {
    let engine = Engine::new(&EngineOptions::default())?;
    let (next, finished) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let verdicts = Mutex::new(Vec::with_capacity(cases.len()));
    let work = || -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let mut worker = Worker::start(home, scratch.path(), depth)?;
        let mut sandbox = Sandbox::new(home, engine.clone());
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (operator, outcome) = match worker.compile(case)? {
                worker::Answer { operator, compiled: Ok(compiled) } => {
                    let outcome = match depth {
                        Depth::Import => Outcome::Imported,
                        Depth::Run => sandbox.run(case, scratch.path(), &compiled),
                    };
                    (operator, outcome)
                }
                worker::Answer { operator, compiled: Err(outcome) } => (operator, outcome),
            };
            let verdict = Verdict { case: case.clone(), operator, outcome };
            done(finished.fetch_add(1, Ordering::Relaxed) + 1, &verdict)?;
            verdicts.lock().unwrap_or_else(PoisonError::into_inner).push(verdict);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.clamp(1, cases.len().max(1)))
            // A guest needs more stack than a thread has by default.
            .map(|_| thread::Builder::new().stack_size(8 << 20).spawn_scoped(scope, work))
            .collect::<Result<_, _>>()
            .context("no thread can be had")?;
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let mut verdicts = verdicts.into_inner().unwrap_or_else(PoisonError::into_inner);
    verdicts.sort_by(|a, b| a.case.cmp(&b.case));
    Ok(verdicts)
}
