//! The folder of one run: what was asked for, who runs it, and how it ended. It is all that a
//! restarted agent has.
//!
//! `container.json` is the agent's, the rest is written by the shim. The shim holds a lock on
//! `lock` as long as it lives, so that a run without one can be told from a run whose shim has not
//! written anything yet.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{ContainerId, ContainerSpec, Exit, process::Process};

/// What the agent knows of a run when it begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: ContainerId,
    pub(crate) spec: ContainerSpec,
    pub(crate) started_at: SystemTime,
}

/// Who runs it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Processes {
    pub(crate) shim: Process,
    pub(crate) pod: Process,
}

/// One folder of `runs/`.
#[derive(Debug, Clone)]
pub(crate) struct RunDir {
    path: PathBuf,
}

impl RunDir {
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes the folder, with a lock that whoever inherits the file holds.
    pub(crate) fn create(path: impl Into<PathBuf>) -> io::Result<(Self, File)> {
        let dir = Self::at(path);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir.path)?;
        let lock = File::create(dir.path.join(LOCK))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok((dir, lock))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a shim lives.
    pub(crate) fn is_locked(&self) -> bool {
        let Ok(lock) = File::open(self.path.join(LOCK)) else { return false };
        flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
    }

    pub(crate) fn write_record(&self, record: &Record) -> io::Result<()> {
        write_json(&self.path.join(RECORD), record)
    }

    pub(crate) fn record(&self) -> io::Result<Record> {
        read_json(&self.path.join(RECORD))
    }

    pub(crate) fn write_processes(&self, processes: &Processes) -> io::Result<()> {
        write_json(&self.path.join(PROCESSES), processes)
    }

    pub(crate) fn processes(&self) -> io::Result<Processes> {
        read_json(&self.path.join(PROCESSES))
    }

    pub(crate) fn write_exit(&self, exit: &Exit) -> io::Result<()> {
        write_json(&self.path.join(EXIT), exit)
    }

    /// How it ended; an error of kind `NotFound` while it runs.
    pub(crate) fn exit(&self) -> io::Result<Exit> {
        read_json(&self.path.join(EXIT))
    }

    pub(crate) fn set_ready(&self) -> io::Result<()> {
        File::create(self.path.join(READY)).map(drop)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.path.join(READY).exists()
    }

    /// Marks an end as told.
    pub(crate) fn set_told(&self) -> io::Result<()> {
        File::create(self.path.join(TOLD)).map(drop)
    }

    pub(crate) fn is_told(&self) -> bool {
        self.path.join(TOLD).exists()
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        gone_is_fine(fs::remove_dir_all(&self.path))
    }
}

const RECORD: &str = "container.json";
const PROCESSES: &str = "processes.json";
const EXIT: &str = "exit.json";
const READY: &str = "ready";
const TOLD: &str = "told";
const LOCK: &str = "lock";

/// Removing what is not there is no failure.
pub(crate) fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Writes a private file, whole or not at all.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
    serde_json::to_writer(&mut file, value)?;
    file.flush()?;
    file.persist(path)?;
    Ok(())
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_locked_as_long_as_somebody_holds_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, lock) = RunDir::create(folder.path().join("run")).unwrap();
        let inherited = lock.try_clone().unwrap();
        drop(lock);
        assert!(dir.is_locked());
        drop(inherited);
        assert!(!dir.is_locked());
        dir.remove().unwrap();
        dir.remove().unwrap();
        assert!(!dir.is_locked());
    }

    #[test]
    fn an_end_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, _lock) = RunDir::create(folder.path().join("run")).unwrap();
        assert_eq!(dir.exit().unwrap_err().kind(), io::ErrorKind::NotFound);
        let exit = Exit {
            code: 137,
            reason: "OOMKilled".into(),
            message: "too much".into(),
            finished_at: SystemTime::now(),
        };
        dir.write_exit(&exit).unwrap();
        assert_eq!(dir.exit().unwrap(), exit);
        assert!(!dir.is_ready() && !dir.is_told());
        dir.set_ready().unwrap();
        dir.set_told().unwrap();
        assert!(dir.is_ready() && dir.is_told());
    }
}
