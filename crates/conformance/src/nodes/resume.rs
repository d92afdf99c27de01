//! What a run of all cases has found so far, kept until anything changes that a module is made of
//! or run by: a run that was stopped goes on where it was.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use builder::Home;

use super::Verdict;
use crate::kept::{self, Key};

// What a module is made of, and what runs and compares it.
const SOURCES: [&str; 11] = [
    "Cargo.lock",
    "compiler/graphlet_compiler",
    "compiler/requirements.txt",
    "crates/builder",
    "crates/conformance/src",
    "crates/engine",
    "crates/operators",
    "crates/tensor",
    "crates/tvm-graph-rt",
    "crates/wasm-runtime",
    "programs/graph",
];

/// The file, a line for each case behind the key.
pub struct Progress {
    file: Mutex<File>,
    known: Vec<Verdict>,
}

impl Progress {
    /// Opens it; `anew` forgets what is there.
    ///
    /// # Errors
    /// When sources cannot be read, or the cache cannot be written.
    pub fn open(home: &Home, anew: bool) -> Result<Self> {
        let mut key = Key::default();
        for source in SOURCES {
            key = key.content(&home.root().join(source))?;
        }
        let key = key.to_text();
        let path = kept::folder(home, "node-cases")?.join("verdicts");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut lines = text.lines();
        let known: Vec<Verdict> = if lines.next() == Some(&key) && !anew {
            // The last line may have been cut short.
            lines.map_while(|line| serde_json::from_str(line).ok()).collect()
        } else {
            Vec::new()
        };
        let mut whole = format!("{key}\n");
        for verdict in &known {
            whole += &serde_json::to_string(verdict)?;
            whole.push('\n');
        }
        let context = || format!("cannot write {}", path.display());
        fs::write(&path, whole).with_context(context)?;
        let file = OpenOptions::new().append(true).open(&path).with_context(context)?;
        Ok(Progress { file: Mutex::new(file), known })
    }

    /// What is known already.
    pub fn known(&self) -> &[Verdict] {
        &self.known
    }

    /// Keeps what became of a case.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep(&self, verdict: &Verdict) -> Result<()> {
        let mut line = serde_json::to_vec(verdict)?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line).context("cannot keep a case's result")
    }
}
