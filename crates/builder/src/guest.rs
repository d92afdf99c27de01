//! The guest as a static library: built on first use per kind and SIMD level, kept by content.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use guest_toolchain::GuestToolchain;
use model_spec::SimdLevel;
use sha2::{Digest as _, Sha256};

use crate::{
    BuildError, Event, Home, Progress,
    kept::{self, Library},
};

/// What a module is to its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestKind {
    /// A waSCC actor: messages in, messages out.
    Actor,
    /// A WASI command: `classify.wasm cat.png`.
    Wasi,
    /// A `wasi:http` component: HTTP requests in, labels out.
    Component,
    /// A WASM graph: tensors in, tensors out.
    Graph,
    /// The WASM operator library, which has no model.
    Operators,
}

impl GuestKind {
    /// The target triple.
    pub fn target(self) -> &'static str {
        match self {
            GuestKind::Actor | GuestKind::Component | GuestKind::Graph | GuestKind::Operators => {
                "wasm32-unknown-unknown"
            }
            GuestKind::Wasi => "wasm32-wasip1",
        }
    }

    /// The toolchain that compiles guests of this kind.
    ///
    /// # Errors
    /// [`BuildError::NoGuestToolchain`] when there is none here.
    pub fn toolchain(self) -> Result<GuestToolchain, BuildError> {
        let target = self.target();
        GuestToolchain::find(target).ok_or(BuildError::NoGuestToolchain { target })
    }

    /// The word used on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            GuestKind::Actor => "actor",
            GuestKind::Wasi => "wasi",
            GuestKind::Component => "component",
            GuestKind::Graph => "graph",
            GuestKind::Operators => "operators",
        }
    }

    fn package(self) -> &'static str {
        match self {
            GuestKind::Actor => "actor",
            GuestKind::Wasi => "wasi-program",
            GuestKind::Component => "component-program",
            GuestKind::Graph => "graph-program",
            GuestKind::Operators => "operators-program",
        }
    }

    /// Its sources, beside [`SOURCES`].
    fn sources(self) -> &'static [&'static str] {
        match self {
            GuestKind::Actor => &[
                "actor",
                "crates/classifier",
                "crates/image-input",
                "crates/model-spec",
                "crates/wire",
            ],
            GuestKind::Wasi => {
                &["programs/wasi", "crates/classifier", "crates/image-input", "crates/model-spec"]
            }
            GuestKind::Component => &[
                "programs/component",
                "actor",
                "crates/classifier",
                "crates/image-input",
                "crates/model-spec",
                "crates/wire",
            ],
            GuestKind::Graph => &["programs/graph", "programs/exports"],
            GuestKind::Operators => &["programs/operators", "programs/exports"],
        }
    }

    fn library(self) -> &'static str {
        match self {
            GuestKind::Actor => "libactor.a",
            GuestKind::Wasi => "libwasi_program.a",
            GuestKind::Component => "libcomponent_program.a",
            GuestKind::Graph => "libgraph_program.a",
            GuestKind::Operators => "liboperators_program.a",
        }
    }
}

// What every guest library is made of; a change in one of them makes a new library.
const SOURCES: [&str; 5] =
    ["Cargo.toml", "Cargo.lock", "crates/operators", "crates/tensor", "crates/tvm-graph-rt"];

/// The linkable guest, built if it is not kept already. It stays where it is as long as it is
/// held; libraries that nobody used for long are removed when another one is kept.
///
/// # Errors
/// [`BuildError::Guest`] when it does not compile; reading and writing errors.
pub fn library(
    home: &Home,
    toolchain: &GuestToolchain,
    kind: GuestKind,
    simd: SimdLevel,
    progress: &mut dyn Progress,
) -> Result<Library, BuildError> {
    let key = key(home.root(), toolchain, kind, simd)?;
    let folder = home.cache().join("guest");
    let kept = folder.join(format!("{}-{}-{key}.a", kind.as_str(), simd.as_str()));
    let hold =
        || Library::hold(&kept).map_err(|source| BuildError::Read { path: kept.clone(), source });
    if let Some(library) = hold()? {
        return Ok(library);
    }
    let write = |path: &Path| {
        let path = path.to_path_buf();
        move |source| BuildError::Write { path, source }
    };
    fs::create_dir_all(&folder).map_err(write(&folder))?;
    // Two builds at once would compile the same library twice.
    let lock_path = folder.join("lock");
    let lock = File::create(&lock_path).map_err(write(&lock_path))?;
    lock_within(&lock, PATIENCE, || progress.event(Event::WaitsForLibrary))
        .map_err(write(&lock_path))?;
    if let Some(library) = hold()? {
        return Ok(library);
    }
    progress.event(Event::CompilesLibrary);
    let target_dirs = folder.join("target");
    kept::prune_target(&target_dirs, kept::MAX_TARGET_BYTES).map_err(write(&target_dirs))?;
    // Where paths are remapped, cargo gives what it makes one name whatever the other flags are:
    // in one folder the standard library of a level would take the place of another level's.
    let target_dir = target_dirs.join(simd.as_str());
    let root = home.root();
    leave_other_checkouts(root, toolchain, &target_dir)?;
    compile(root, toolchain, kind, simd, &target_dir)?;
    // The library is kept as that of the sources which were read before.
    if self::key(root, toolchain, kind, simd)? != key {
        let stderr = "its sources were changed meanwhile; build again".to_owned();
        return Err(BuildError::Guest { stderr });
    }
    let built = target_dir.join(kind.target()).join("guest").join(kind.library());
    let partial = tempfile::Builder::new().prefix(kept::PARTIAL).tempfile_in(&folder);
    let partial = partial.map_err(write(&folder))?;
    fs::copy(&built, partial.path()).map_err(write(&kept))?;
    partial
        .persist(&kept)
        .map_err(|error| BuildError::Write { path: kept.clone(), source: error.error })?;
    let library = hold()?.ok_or_else(|| {
        let source = io::Error::from(io::ErrorKind::NotFound);
        BuildError::Read { path: kept.clone(), source }
    })?;
    // What cannot be removed now is so when the next library is kept.
    kept::prune(&folder, kept::MAX_LIBRARY_BYTES).ok();
    Ok(library)
}

/// How long a build waits for another one without a word.
const PATIENCE: Duration = Duration::from_secs(1);

/// Locks a file; tells when that takes longer than `patience`, and waits on.
fn lock_within(file: &File, patience: Duration, tell: impl FnOnce()) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if begun.elapsed() < patience => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => break,
        }
    }
    tell();
    file.lock()
}

/// The checkout whose crates `target_dir` holds, as the file in it says.
const CHECKOUT: &str = "checkout";

/// Removes what another checkout's crates left in `target_dir`; what they depend on stays.
///
/// Cargo takes crates of two checkouts for the same, and the ages of their files for the order in
/// which they were written: it would join one's objects to the other's sources.
fn leave_other_checkouts(
    root: &Path,
    toolchain: &GuestToolchain,
    target_dir: &Path,
) -> Result<(), BuildError> {
    let marker = target_dir.join(CHECKOUT);
    let name = root.as_os_str().as_encoded_bytes();
    if !target_dir.is_dir() || fs::read(&marker).is_ok_and(|last| last == name) {
        return mark(&marker, name);
    }
    let mut command = toolchain.cargo("clean", GuestKind::Actor.target(), &[]);
    command
        .current_dir(root)
        .args(["--target", GuestKind::Wasi.target()])
        .args(["--locked", "--profile", "guest", "--workspace", "--target-dir"])
        .arg(target_dir);
    finished(command)?;
    mark(&marker, name)
}

fn mark(marker: &Path, name: &[u8]) -> Result<(), BuildError> {
    let write = |source| BuildError::Write { path: marker.to_path_buf(), source };
    if let Some(folder) = marker.parent() {
        fs::create_dir_all(folder).map_err(write)?;
    }
    fs::write(marker, name).map_err(write)
}

/// Runs cargo to its end, which is to be a good one.
fn finished(mut command: Command) -> Result<(), BuildError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| BuildError::Spawn { program: "cargo".to_owned(), source })?;
    if !output.status.success() {
        return Err(BuildError::Guest { stderr: last_lines(&output.stderr, 40) });
    }
    Ok(())
}

fn compile(
    root: &Path,
    toolchain: &GuestToolchain,
    kind: GuestKind,
    simd: SimdLevel,
    target_dir: &Path,
) -> Result<(), BuildError> {
    let mut rustflags = Vec::new();
    let features = match simd {
        SimdLevel::None => None,
        SimdLevel::Simd128 => Some("+simd128"),
        SimdLevel::Relaxed => Some("+simd128,+relaxed-simd"),
    };
    rustflags.extend(features.map(|features| format!("-Ctarget-feature={features}")));
    // Panic messages name source files: the module must be the same wherever it is built. Ours are
    // named from the root on in any case; were it remapped, each checkout would compile the standard
    // library anew, for flags of its own.
    let folders = toolchain.remapped();
    let folders = folders.iter().map(|(from, to)| (from.as_path(), *to));
    for (from, to) in folders.chain([(target_dir, "target")]) {
        rustflags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    let mut command = toolchain.cargo("build", kind.target(), &rustflags);
    command
        .current_dir(root)
        .args(["--locked", "--profile", "guest", "--package", kind.package(), "--lib"])
        .arg("--target-dir")
        .arg(target_dir);
    finished(command)
}

/// The end of a program's messages, at most `count` lines.
pub(crate) fn last_lines(bytes: &[u8], count: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Hex digest over the sources, the toolchain and the settings.
fn key(
    root: &Path,
    toolchain: &GuestToolchain,
    kind: GuestKind,
    simd: SimdLevel,
) -> Result<String, BuildError> {
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    field(toolchain.version().as_bytes());
    field(kind.as_str().as_bytes());
    field(simd.as_str().as_bytes());
    for source in SOURCES.iter().chain(kind.sources()) {
        let mut files = Vec::new();
        let path = root.join(source);
        walk(&path, &mut files).map_err(|source| BuildError::Read { path, source })?;
        files.sort();
        for path in files {
            let mut bytes = Vec::new();
            File::open(&path)
                .and_then(|mut file| file.read_to_end(&mut bytes))
                .map_err(|source| BuildError::Read { path: path.clone(), source })?;
            let name = path.strip_prefix(root).unwrap_or(&path);
            field(name.to_string_lossy().as_bytes());
            field(&bytes);
        }
    }
    let digest = hash.finalize();
    Ok(digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect())
}

fn walk(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_file() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        // Tests and their data do not reach the library.
        if ["tests", "testdata", "target", "benches", "examples"].iter().any(|skip| name == *skip) {
            continue;
        }
        walk(&entry.path(), files)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, sync::mpsc};

    use super::*;

    #[test]
    fn a_build_that_waits_for_another_one_says_so_and_one_that_does_not_wait_is_silent() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let told = Cell::new(false);
        let lock = File::open(file.path()).expect("it is there");
        lock_within(&lock, Duration::MAX, || told.set(true)).expect("nobody has it");
        assert!(!told.get());

        let (waits, waiting) = mpsc::channel();
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                let lock = File::open(file.path()).expect("it is there");
                lock_within(&lock, Duration::ZERO, || waits.send(()).expect("heard"))
            });
            // It waits already, and goes on waiting until this one is done.
            waiting.recv().expect("it says so");
            lock.unlock().expect("ours");
            other.join().expect("no panic").expect("it gets the lock");
        });
    }

    #[test]
    fn crates_of_another_checkout_are_not_taken_for_ours() {
        let Some(toolchain) = GuestToolchain::find(GuestKind::Actor.target()) else {
            eprintln!("skipped: no toolchain here builds for {}", GuestKind::Actor.target());
            return;
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let folder = tempfile::tempdir().expect("a folder");
        let left = |name: &str| {
            let built = folder.path().join("wasm32-unknown-unknown/guest/.fingerprint").join(name);
            fs::create_dir_all(&built).expect("room");
            built
        };
        fs::write(folder.path().join("CACHEDIR.TAG"), "").expect("room");
        let ours = left("operators-0123456789abcdef");
        let foreign = left("serde-0123456789abcdef");
        leave_other_checkouts(&root, &toolchain, folder.path()).expect("cargo cleans");
        assert!(!ours.exists(), "whose it is was not known");
        assert!(foreign.exists(), "the same in each checkout");

        let ours = left("operators-0123456789abcdef");
        leave_other_checkouts(&root, &toolchain, folder.path()).expect("nothing to do");
        assert!(ours.exists(), "this checkout's own");

        fs::write(folder.path().join(CHECKOUT), "/another/checkout").expect("room");
        leave_other_checkouts(&root, &toolchain, folder.path()).expect("cargo cleans");
        assert!(!ours.exists(), "another checkout has been here");
    }
}
