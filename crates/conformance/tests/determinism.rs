//! The same files give the same module, wherever they lie and whoever builds.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    env, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use conformance::{MODULE_TIME, Model, Name, Output, home, module, sign};
use model_spec::SimdLevel;

/// Copies a folder without what builds leave in it.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if name == "target" || name == "__pycache__" || name.as_encoded_bytes()[0] == b'.' {
            continue;
        }
        let to = to.join(name);
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            // Also what a link leads to: the copy stands alone.
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// A folder with the same content under another path: Cargo's downloads need not be repeated.
fn mirror(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).into_iter().flatten() {
        let entry = entry.unwrap();
        if entry.file_name().as_encoded_bytes()[0] != b'.' {
            symlink(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn folder_of(variable: &str, in_home: &str) -> PathBuf {
    let home = PathBuf::from(env::var_os("HOME").unwrap());
    env::var_os(variable).map_or_else(|| home.join(in_home), PathBuf::from)
}

fn guest_libraries(cache: &Path) -> Vec<String> {
    let names = fs::read_dir(cache.join("guest")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".a")).collect()
}

#[test]
fn another_folder_cache_user_and_time_zone_give_the_same_bytes() {
    let here = home().unwrap();
    let models: Vec<Model> = [Name::Digits, Name::MobileNetV2]
        .into_iter()
        .filter_map(|name| Model::open(&here, name, Output::Final).unwrap())
        .collect();
    let ours: Vec<Vec<u8>> = models
        .iter()
        .map(|model| module(&here, model, SimdLevel::Relaxed).unwrap().bytes)
        .collect();

    let elsewhere = tempfile::Builder::new().prefix("graphlet elsewhere ").tempdir().unwrap();
    let at = |name: &str| elsewhere.path().join(name);
    for name in ["actor", "compiler", "crates", "e2e", "models", "programs"] {
        copy(&here.root().join(name), &at("checkout").join(name)).unwrap();
    }
    for name in ["Cargo.toml", "Cargo.lock"] {
        fs::copy(here.root().join(name), at("checkout").join(name)).unwrap();
    }
    let cargo_home = folder_of("CARGO_HOME", ".cargo");
    mirror(&cargo_home, &at("cargo"));
    for name in ["home", "tmp", "out"] {
        fs::create_dir(at(name)).unwrap();
    }
    // Python would import it in place of its own, were this folder on its path.
    fs::write(at("home").join("inspect.py"), "raise SystemExit('imported from outside')").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_build-signed"));
    command
        .current_dir(at("home"))
        .env("HOME", at("home"))
        .env_remove("XDG_CACHE_HOME")
        .env("TMPDIR", at("tmp"))
        .env("CARGO_HOME", at("cargo"))
        .env("RUSTUP_HOME", folder_of("RUSTUP_HOME", ".rustup"))
        .env("GRAPHLET_HOME", at("checkout"))
        .env("GRAPHLET_CACHE_DIR", at("cache"))
        .env("GRAPHLET_PYTHON", here.python().unwrap())
        .env("PYTHONHASHSEED", "4711")
        .env("TZ", "Pacific/Chatham")
        .env("LC_ALL", "C")
        .env("SOURCE_DATE_EPOCH", MODULE_TIME.0.to_string());
    for (index, model) in models.iter().enumerate() {
        let folder = at(&format!("model {index}"));
        let spec_folder = model.spec_path.parent().unwrap();
        fs::create_dir(&folder).unwrap();
        for name in ["model.toml", &model.spec.model.onnx, &model.spec.output.labels] {
            fs::copy(spec_folder.join(name), folder.join(name)).unwrap();
        }
        command.args([format!("../model {index}/model.toml"), format!("../out/{index}")]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // A file that changed while this test ran would look like a fault of the build.
    let [library] = &guest_libraries(&at("cache"))[..] else { panic!("not one guest library") };
    let known = guest_libraries(here.cache());
    assert!(known.contains(library), "the sources changed during the test");

    for (index, (model, ours)) in models.iter().zip(&ours).enumerate() {
        let theirs = fs::read(at("out").join(index.to_string())).unwrap();
        let name = &model.spec.model.name;
        let signed = sign(ours, name, MODULE_TIME).unwrap();
        if signed != theirs {
            let first = signed.iter().zip(&theirs).position(|(a, b)| a != b);
            let lengths = (signed.len(), theirs.len());
            panic!("{name}: the modules differ from byte {first:?} on, lengths {lengths:?}");
        }
        for folder in [
            here.root(),
            here.cache(),
            &cargo_home,
            elsewhere.path(),
            &env::temp_dir(),
            Path::new(&env::var_os("HOME").unwrap()),
            Path::new("/home"),
        ] {
            let text = format!("{}/", folder.display());
            let found = ours.windows(text.len()).position(|bytes| bytes == text.as_bytes());
            assert_eq!(found, None, "{name}: the module names the folder {text}");
        }
    }
}

#[test]
fn another_time_changes_the_claims_and_nothing_else() {
    let home = home().unwrap();
    let model = Model::open(&home, Name::Digits, Output::Final).unwrap().unwrap();
    let bytes = module(&home, &model, SimdLevel::Relaxed).unwrap().bytes;
    let later = claims::Timestamp(MODULE_TIME.0 + 1);
    let [first, second] = [MODULE_TIME, later].map(|time| sign(&bytes, "digits", time).unwrap());
    assert_ne!(first, second);
    let common = first.iter().zip(&second).take_while(|(a, b)| a == b).count();
    let minimal = claims::minimal(&bytes).unwrap();
    assert!(common >= minimal.len(), "{common} of {} bytes are alike", minimal.len());
}
