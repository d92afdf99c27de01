//! Compiled code, by module and engine: made once by a process without privileges, kept in a
//! folder that only root can write, handed to pods as an open file that they map and share.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File},
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use pod_settings::{ModuleKind, Order, Trust, channel};
use rustix::fs::{MemfdFlags, memfd_create};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::{
    RuntimeError, StartError,
    limits::Limits,
    run_dir::RunDir,
    shim::{self, Plan},
};

/// Everything older leaves first: machine code and weights of forty large models.
const MAX_BYTES: u64 = 8 << 30;

/// Longest time for one module: ten times what 50 MB of code take on one core.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Most memory for one compiler: ten times what our largest module takes.
const MEMORY_BYTES: u64 = 4 << 30;

/// The store of compiled code.
#[derive(Debug)]
pub(crate) struct CodeStore {
    folder: PathBuf,
    work: PathBuf,
    empty_dir: PathBuf,
    program: Program,
    shim: PathBuf,
    uid: Option<u32>,
    turns: Semaphore,
    /// Modules that are being compiled: whoever comes second waits for the first.
    underway: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// The `graphlet` command, held open: what is running stays what was hashed.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) file: OwnedFd,
    digest: [u8; 32],
}

impl Program {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        Ok(Self { file: file.into(), digest: hasher.finalize().into() })
    }
}

/// Where a store keeps what.
pub(crate) struct Places<'a> {
    /// Compiled code.
    pub(crate) folder: &'a Path,
    /// Folders of compilers at work.
    pub(crate) work: &'a Path,
    /// An empty folder.
    pub(crate) empty_dir: &'a Path,
}

impl CodeStore {
    pub(crate) fn open(
        places: &Places<'_>,
        program: Program,
        shim: PathBuf,
        uid: Option<u32>,
        compilers: usize,
    ) -> Result<Self, RuntimeError> {
        for (path, mode) in [(places.folder, 0o755), (places.work, 0o700)] {
            let made = DirBuilder::new().recursive(true).mode(mode).create(path);
            made.map_err(|source| RuntimeError::State {
                action: "create",
                path: path.to_owned(),
                source,
            })?;
        }
        // Compilers that an earlier agent left; what they make has nobody to take it.
        if let Ok(left) = fs::read_dir(places.work) {
            for entry in left.flatten() {
                let dir = RunDir::at(entry.path());
                if let Ok(processes) = dir.processes() {
                    processes.pod.signal(rustix::process::Signal::KILL);
                }
                let _ = dir.remove();
            }
        }
        Ok(Self {
            folder: places.folder.to_owned(),
            work: places.work.to_owned(),
            empty_dir: places.empty_dir.to_owned(),
            program,
            shim,
            uid,
            turns: Semaphore::new(compilers.max(1)),
            underway: Mutex::default(),
        })
    }

    pub(crate) fn program(&self) -> &OwnedFd {
        &self.program.file
    }

    /// The code of a module: found, or made now.
    pub(crate) async fn get(
        &self,
        module: &Path,
        digest: &str,
        kind: ModuleKind,
        trust: &Trust,
    ) -> Result<File, StartError> {
        let key = self.key(digest, kind);
        let path = self.folder.join(format!("{key}.code"));
        if let Some(found) = found(&path) {
            return Ok(found);
        }
        let turn = Arc::clone(self.underway().entry(key.clone()).or_default());
        let result = {
            let _mine = turn.lock().await;
            match found(&path) {
                Some(found) => Ok(found),
                None => self.make(module, digest, kind, trust, &path, &key).await,
            }
        };
        drop(turn);
        self.underway().retain(|_, turn| Arc::strong_count(turn) > 1);
        result
    }

    // No code panics under this lock.
    fn underway(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<()>>>> {
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn make(
        &self,
        module: &Path,
        digest: &str,
        kind: ModuleKind,
        trust: &Trust,
        path: &Path,
        key: &str,
    ) -> Result<File, StartError> {
        let begin = Instant::now();
        let _turn = self.turns.acquire().await.map_err(|_| StartError::System {
            what: "compiling has been stopped".into(),
            source: io::ErrorKind::Interrupted.into(),
        })?;
        let run = self.work.join(key);
        let (dir, lock) = RunDir::create(&run).map_err(system("a folder to compile in"))?;
        let made = self.compile(&dir, lock, module, kind, trust).await;
        let removed = dir.remove();
        let output = made?;
        removed.map_err(system("a compiler's folder"))?;
        let folder = self.folder.clone();
        let target = path.to_owned();
        let stored = tokio::task::spawn_blocking(move || store(&folder, &target, output));
        let (file, bytes) = stored
            .await
            .map_err(io::Error::other)
            .and_then(|stored| stored)
            .map_err(system("compiled code cannot be kept"))?;
        info!(
            module.digest = %digest,
            code_bytes = bytes,
            compile_ms = begin.elapsed().as_millis(),
            "Module compiled"
        );
        Ok(file)
    }

    async fn compile(
        &self,
        dir: &RunDir,
        lock: File,
        module: &Path,
        kind: ModuleKind,
        trust: &Trust,
    ) -> Result<File, StartError> {
        let log = dir.path().join("log");
        let module = File::open(module).map_err(system("the module cannot be opened"))?;
        let output = memfd_create("code", MemfdFlags::CLOEXEC)
            .map_err(io::Error::from)
            .map_err(system("no memory file for compiled code"))?;
        let plan = Plan {
            run_dir: dir.path().to_owned(),
            log: log.clone(),
            empty_dir: self.empty_dir.clone(),
            uid: self.uid,
            limits: Limits { memory_bytes: Some(MEMORY_BYTES), ..Limits::default() },
            timeout: Some(TIMEOUT),
        };
        let mut child = {
            let (ours, theirs) = channel::pair().map_err(system("no socket for the compiler"))?;
            let order = Order::Compile { kind, trust: trust.clone() };
            channel::send(&ours, &order, &[module.as_fd(), output.as_fd()])
                .map_err(not_launched)?;
            shim::launch(&self.shim, &plan, [&self.program.file, &theirs, &ours, &lock.into()])
                .map_err(not_launched)?
        };
        let waited = tokio::task::spawn_blocking(move || child.wait()).await;
        waited
            .map_err(io::Error::other)
            .and_then(|waited| waited)
            .map_err(system("no compiler"))?;
        let exit = dir.exit().map_err(system("the compiler left no exit status"))?;
        match exit.reason.as_str() {
            "Completed" => Ok(File::from(output)),
            shim::OUT_OF_MEMORY => Err(StartError::Compile("it takes too much memory".into())),
            _ => {
                let message = exit.message.trim_start_matches("error: ");
                Err(StartError::Compile(message.to_owned()))
            }
        }
    }

    // What the code depends on: the module, its kind, the program and so the engine's version and
    // settings, and this processor (state may be copied to another machine).
    fn key(&self, digest: &str, kind: ModuleKind) -> String {
        let mut hasher = Sha256::new();
        hasher.update(self.program.digest);
        hasher.update(digest);
        hasher.update(match kind {
            ModuleKind::Actor => b"a",
            ModuleKind::Command => b"c",
        });
        let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let features = processor.lines().find(|line| {
            let name = line.split(':').next().unwrap_or_default().trim();
            name == "flags" || name == "Features"
        });
        hasher.update(features.unwrap_or_default());
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

pub(crate) fn not_launched(error: channel::ChannelError) -> StartError {
    let source = match error {
        channel::ChannelError::Io(source) => source,
        other => io::Error::other(other),
    };
    StartError::System { what: "the process's shim cannot be started".into(), source }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { what: what.into(), source }
}

/// Each caller gets a file of its own: a shared one would share its position too.
fn found(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    if let Err(error) = file.set_modified(SystemTime::now()) {
        warn!(%error, path = %path.display(), "Use of compiled code was not marked");
    }
    Some(file)
}

/// Copies what the compiler made, which nobody can change any more once it is copied.
fn store(folder: &Path, path: &Path, made: File) -> io::Result<(File, u64)> {
    let mut made = made;
    io::Seek::rewind(&mut made)?;
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)?;
    let bytes = io::copy(&mut made, &mut file)?;
    file.persist(path)?;
    prune(folder, MAX_BYTES)?;
    Ok((File::open(path)?, bytes))
}

/// Removes what was used longest ago until the rest fits. What pods have mapped stays theirs.
fn prune(folder: &Path, max_bytes: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "code") {
            let metadata = entry.metadata()?;
            files.push((metadata.modified()?, metadata.len(), entry.path()));
        }
    }
    files.sort_unstable_by(|a, b| b.cmp(a));
    let mut total = 0;
    for (index, (_, bytes, path)) in files.into_iter().enumerate() {
        total += bytes;
        // The newest one is about to be used, however large it is.
        if index > 0 && total > max_bytes {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_used_longest_ago_leaves_first_and_the_newest_stays() {
        let folder = tempfile::tempdir().unwrap();
        for (age, name) in [(3, "old"), (2, "middle"), (1, "new")] {
            let path = folder.path().join(format!("{name}.code"));
            fs::write(&path, [0; 100]).unwrap();
            let time = SystemTime::now() - Duration::from_secs(age * 100);
            File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        }
        let left = || {
            let mut names: Vec<_> = fs::read_dir(&folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        prune(folder.path(), 250).unwrap();
        assert_eq!(left(), ["middle.code", "new.code"]);
        prune(folder.path(), 0).unwrap();
        assert_eq!(left(), ["new.code"]);
    }
}
