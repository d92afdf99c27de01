//! Models as signed modules, built by the command once per content of everything they are made
//! of, and shared by all test files.

use std::{
    env, fs,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use sha2::{Digest as _, Sha256};

use super::{User, root, shared};

/// When every module of the tests is signed.
pub const EPOCH: &str = "1700000000";

/// A module that was built, and whose issuer only its builder trusts.
#[derive(Debug)]
pub struct Built {
    /// The signed module.
    pub path: PathBuf,
    /// The builder's configuration folder, with the keys.
    pub config: PathBuf,
    /// The issuer's public key.
    pub issuer: String,
}

impl Built {
    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }
}

/// The embedded model; says so when what builds it is not set up.
pub fn digits() -> Option<&'static Built> {
    static BUILT: OnceLock<Option<Built>> = OnceLock::new();
    let spec = || root().join("models/digits");
    BUILT.get_or_init(|| built("digits", &spec())).as_ref().or_else(skipped)
}

/// MobileNetV2, whose weights and labels are not part of the repository.
pub fn mobilenet() -> Option<&'static Built> {
    static BUILT: OnceLock<Option<Built>> = OnceLock::new();
    let shared = shared()?;
    let build = || {
        let folder = tempfile::tempdir().unwrap();
        let models = [
            (root().join("models/mobilenet_v2"), "model.toml"),
            (shared.join("models"), "mobilenet_v2.onnx"),
            (shared.join("models"), "imagenet_labels.txt"),
        ];
        for (from, name) in models {
            std::os::unix::fs::symlink(from.join(name), folder.path().join(name)).unwrap();
        }
        built("mobilenet_v2", folder.path())
    };
    BUILT.get_or_init(build).as_ref().or_else(skipped)
}

fn skipped<T>() -> Option<T> {
    println!("skipped: what builds modules is not set up (make setup)");
    None
}

/// Builds the model of a folder unless that was done before; `None` when the tools are missing.
fn built(name: &str, model: &Path) -> Option<Built> {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(tmp).unwrap();
    // Test files run one after the other, but several `cargo test` may run at once.
    let lock = File::create(tmp.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    let key = key(model);
    let folder = tmp.join(name);
    let stamp = folder.join("key");
    if fs::read_to_string(&stamp).ok().as_deref() != Some(&key) {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let user = User::new();
        let mut command = user.building("build");
        command.arg(model.join("model.toml")).arg("-o").arg(module_in(&folder));
        command.env("GRAPHLET_CONFIG_DIR", folder.join("config"));
        command.env("SOURCE_DATE_EPOCH", EPOCH);
        let run = user.finish(command);
        let missing = ["no Python environment", "no Rust toolchain"];
        if run.code == 1 && missing.iter().any(|what| run.stderr.contains(what)) {
            return None;
        }
        assert_eq!(run.code, 0, "{name} does not build: {}", run.stderr);
        fs::write(&stamp, &key).unwrap();
    }
    let (path, config) = (module_in(&folder), folder.join("config"));
    let trust = fs::read_to_string(config.join("trust.toml")).unwrap();
    let issuer = trust.split('"').find(|text| text.len() == 56 && text.starts_with('A'));
    let issuer = issuer.unwrap_or_else(|| panic!("no issuer in {trust}")).to_owned();
    Some(Built { path, config, issuer })
}

fn module_in(folder: &Path) -> PathBuf {
    folder.join("module.wasm")
}

/// A digest over everything that a module is made of.
fn key(model: &Path) -> String {
    let root = root();
    let mut hash = Sha256::new();
    hash.update(env::var_os("GRAPHLET_PYTHON").unwrap_or_default().as_encoded_bytes());
    let mut files = Vec::new();
    for source in ["Cargo.toml", "Cargo.lock", "actor", "crates", "compiler/graphlet_compiler"] {
        walk(&root.join(source), &mut files).unwrap();
    }
    files.push(root.join("compiler/requirements.txt"));
    for entry in fs::read_dir(model).unwrap() {
        files.push(entry.unwrap().path());
    }
    files.sort();
    for path in files.into_iter().filter(|path| path.is_file()) {
        let bytes = fs::read(&path).unwrap();
        hash.update(path.file_name().unwrap().as_encoded_bytes());
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn walk(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let skip = ["tests", "testdata", "target", "benches", "examples", "__pycache__"];
        if !skip.iter().any(|skip| name == *skip) {
            walk(&entry.path(), files)?;
        }
    }
    Ok(())
}
