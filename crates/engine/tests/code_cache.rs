//! Compiled code on disk: found again, never believed when it could be another's or is damaged.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use engine::{
    CacheError, CodeCache, Engine, EngineOptions, Guest, Interruption, Limits, Origin, Sandbox,
};
use wasmtime::Linker;

fn engine(dir: &Path, interruption: Interruption) -> Engine {
    Engine::new(&EngineOptions {
        cache_dir: Some(dir.to_owned()),
        interruption: Some(interruption),
        ..EngineOptions::default()
    })
    .unwrap()
}

fn answer(engine: &Engine) -> (i32, Origin) {
    let wasm = wat::parse_str(
        r#"(module (memory (export "memory") 1) (data (i32.const 8) "*")
           (func (export "run") (result i32) (i32.load8_u (i32.const 8))))"#,
    )
    .unwrap();
    let compiled = engine.compile(&wasm, &[7; 32]).unwrap();
    let pre =
        Linker::<Guest<()>>::new(engine.wasmtime()).instantiate_pre(&compiled.module).unwrap();
    let soon = Instant::now() + Duration::from_secs(10);
    let mut sandbox = Sandbox::new(engine, &pre, Limits::default(), (), soon).unwrap();
    let answer = sandbox
        .enter(soon, |mut store, instance| {
            instance.get_typed_func::<(), i32>(&mut store, "run")?.call(store, ())
        })
        .unwrap();
    (answer, compiled.origin)
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn code_is_compiled_once_and_found_by_the_next_engine() {
    let dir = tempfile::tempdir().unwrap();
    let first = engine(dir.path(), Interruption::PollPage);
    assert_eq!(answer(&first), (42, Origin::Compiled));
    assert_eq!(answer(&first), (42, Origin::Cached));
    assert_eq!(answer(&engine(dir.path(), Interruption::PollPage)), (42, Origin::Cached));
    let entries = entries(dir.path());
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(fs::metadata(&entries[0]).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn code_with_another_way_of_stopping_is_another_entry() {
    let dir = tempfile::tempdir().unwrap();
    for interruption in [Interruption::PollPage, Interruption::Epoch, Interruption::Never] {
        assert_eq!(answer(&engine(dir.path(), interruption)), (42, Origin::Compiled));
    }
    assert_eq!(entries(dir.path()).len(), 3);
}

#[test]
fn a_damaged_entry_is_compiled_again() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(dir.path(), Interruption::PollPage);
    answer(&engine);
    let path = entries(dir.path()).remove(0);
    let good = fs::read(&path).unwrap();
    let mut damages: Vec<Vec<u8>> =
        [0, 1, 23, 24, 4096, good.len() - 1].into_iter().map(|len| good[..len].to_vec()).collect();
    for at in (0..good.len()).step_by(good.len() / 50) {
        let mut flipped = good.clone();
        flipped[at] ^= 0x10;
        damages.push(flipped);
    }
    damages.push([good.as_slice(), b"more"].concat());
    for damage in damages {
        fs::remove_file(&path).unwrap();
        fs::write(&path, &damage).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(answer(&engine), (42, Origin::Compiled), "{} bytes", damage.len());
        assert_eq!(answer(&engine), (42, Origin::Cached));
    }
}

#[test]
fn an_entry_that_others_can_write_or_that_is_a_link_is_compiled_again() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let engine = engine(dir.path(), Interruption::PollPage);
    answer(&engine);
    let path = entries(dir.path()).remove(0);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(answer(&engine), (42, Origin::Compiled));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let target = elsewhere.path().join("code");
    fs::rename(&path, &target).unwrap();
    symlink(&target, &path).unwrap();
    assert_eq!(answer(&engine), (42, Origin::Compiled));
    assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
}

#[test]
fn a_directory_that_others_can_write_is_refused_and_the_engine_works_without() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("code");
    CodeCache::open(&dir).unwrap();
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    for (open_to_others, path) in [(0o777, &dir), (0o720, &dir), (0o1777, &dir)] {
        fs::set_permissions(path, fs::Permissions::from_mode(open_to_others)).unwrap();
        let error = CodeCache::open(&dir).unwrap_err();
        assert!(matches!(error, CacheError::Unsafe { .. }), "{open_to_others:o}: {error}");
        assert_eq!(answer(&engine(&dir, Interruption::PollPage)), (42, Origin::Compiled));
        assert!(entries(&dir).is_empty());
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    // A directory above that lets others rename this one; unless it is sticky.
    fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(CodeCache::open(&dir), Err(CacheError::Unsafe { .. })));
    fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    CodeCache::open(&dir).unwrap();
}

#[test]
fn a_cache_that_cannot_be_written_costs_only_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a file");
    fs::write(&file, "").unwrap();
    assert!(CodeCache::open(&file).is_err());
    assert_eq!(answer(&engine(&file, Interruption::PollPage)), (42, Origin::Compiled));
}

#[test]
fn code_that_is_handed_over_is_used_for_its_own_module_only() {
    let dir = tempfile::tempdir().unwrap();
    let wasm = wat::parse_str(r#"(module (memory (export "memory") 1))"#).unwrap();
    let maker = Engine::new(&EngineOptions::default()).unwrap();
    let code = maker.precompile(&wasm, &[7; 32]).unwrap();
    let path = dir.path().join("code");
    let origin = |bytes: &[u8], digest: u8, mode: u32| {
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let code = Some(std::sync::Arc::new(fs::File::open(&path).unwrap()));
        let engine = Engine::new(&EngineOptions { code, ..EngineOptions::default() }).unwrap();
        engine.compile(&wasm, &[digest; 32]).unwrap().origin
    };
    assert_eq!(origin(&code, 7, 0o644), Origin::Cached);
    assert_eq!(origin(&code, 8, 0o644), Origin::Compiled, "another module's");
    assert_eq!(origin(&code, 7, 0o666), Origin::Compiled, "others can write it");
    for damaged in [0, 23, 24, 56, code.len() - 1] {
        assert_eq!(origin(&code[..damaged], 7, 0o644), Origin::Compiled, "{damaged} bytes");
    }
    let mut altered = code.clone();
    altered[100] ^= 1;
    assert_eq!(origin(&altered, 7, 0o644), Origin::Compiled);
}
