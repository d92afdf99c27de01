//! The finished WASI program under wasmtime: its lines, its exit codes.
//!
//! The module is the embedded model's, or the one that `GRAPHLET_TEST_WASI_MODULE` names; then
//! `GRAPHLET_TEST_IMAGES` names a folder of images that are called by their labels (`7.png`).

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![expect(clippy::print_stdout, reason = "what is skipped is told")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use builder::{BuildError, BuildOptions, GuestKind, Home, Silent};
use wasmtime::{Engine, Linker, Module, Store};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder, p1::WasiP1Ctx, p2::pipe::MemoryOutputPipe};

/// The module under test; an error text when what builds it is not set up.
fn module() -> &'static Result<(Engine, Module), String> {
    static MODULE: OnceLock<Result<(Engine, Module), String>> = OnceLock::new();
    MODULE.get_or_init(|| {
        let engine = Engine::default();
        let bytes = bytes()?;
        let module = Module::new(&engine, bytes).unwrap();
        Ok((engine, module))
    })
}

fn bytes() -> Result<Vec<u8>, String> {
    if let Some(path) = env::var_os("GRAPHLET_TEST_WASI_MODULE") {
        return Ok(fs::read(path).unwrap());
    }
    let cache = env::var_os("GRAPHLET_CACHE_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let home = || PathBuf::from(env::var_os("HOME").unwrap()).join(".cache");
        env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("graphlet")
    });
    let home = Home::find(cache).unwrap();
    let options = BuildOptions {
        spec: home.root().join("models/digits/model.toml"),
        kind: GuestKind::Wasi,
        simd: None,
        artifacts: None,
    };
    match builder::build(&home, &options, &mut Silent) {
        Ok(built) => Ok(built.module),
        Err(error @ (BuildError::NoPython { .. } | BuildError::NoGuestToolchain { .. })) => {
            Err(error.to_string())
        }
        Err(error) => panic!("the embedded model does not build: {error:?}"),
    }
}

fn images() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/digits/samples");
    env::var_os("GRAPHLET_TEST_IMAGES").map_or(own, PathBuf::from)
}

struct Outcome {
    code: i32,
    out: String,
    err: String,
}

/// Runs `classify.wasm ARGUMENTS` with `folder` as its only folder; `None`, having said why, when
/// there is no module.
fn run(folder: &Path, arguments: &[&str]) -> Option<Outcome> {
    let (engine, module) = match module() {
        Ok(module) => module,
        Err(reason) => {
            println!("skipped: {reason}");
            return None;
        }
    };
    let (out, err) = (MemoryOutputPipe::new(1 << 16), MemoryOutputPipe::new(1 << 16));
    let wasi = WasiCtxBuilder::new()
        .arg("classify.wasm")
        .args(arguments)
        .stdout(out.clone())
        .stderr(err.clone())
        .preopened_dir(folder, ".", FsPerms::ReadOnly)
        .unwrap()
        .build_p1();
    let mut linker = Linker::<WasiP1Ctx>::new(engine);
    wasmtime_wasi::p1::add_to_linker_sync(&mut linker, |state| state).unwrap();
    let mut store = Store::new(engine, wasi);
    let instance = linker.instantiate(&mut store, module).unwrap();
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start").unwrap();
    let code = match start.call(&mut store, ()) {
        Ok(()) => 0,
        Err(error) => error.downcast::<I32Exit>().expect("it exits and does not trap").0,
    };
    let text = |pipe: MemoryOutputPipe| String::from_utf8(pipe.contents().to_vec()).unwrap();
    Some(Outcome { code, out: text(out), err: text(err) })
}

/// Width and height of a PNG, from its header.
fn png_size(bytes: &[u8]) -> (u32, u32) {
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (word(16), word(20))
}

#[test]
fn each_image_gets_its_three_lines() {
    let folder = images();
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "png") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(outcome) = run(&folder, &[name]) else { return };
        assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{name}");
        let lines: Vec<_> = outcome.out.lines().collect();
        let original = png_size(&fs::read(&path).unwrap());
        assert_eq!(lines.len(), 3, "{}", outcome.out);
        assert_eq!(lines[0], format!("original image dimensions: {original:?}"));
        assert!(lines[1].starts_with("resized image dimensions: ("), "{}", lines[1]);
        let label = path.file_stem().unwrap().to_str().unwrap();
        assert_eq!(lines[2], format!("input image belongs to the class `{label}`"));
        seen += 1;
    }
    assert!(seen > 0, "no images in {}", folder.display());
}

#[test]
fn a_missing_or_broken_file_is_one_line_on_stderr_and_code_1() {
    let folder = env::temp_dir().join(format!("graphlet-wasi-run-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("page.png"), b"<html></html>").unwrap();
    fs::write(folder.join("empty.png"), b"").unwrap();
    fs::write(folder.join("cut.png"), b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").unwrap();
    for name in ["missing.png", "page.png", "empty.png", "cut.png", ".", "../x.png"] {
        let Some(outcome) = run(&folder, &[name]) else { return };
        assert_eq!((outcome.code, outcome.out.as_str()), (1, ""), "{name}");
        assert_eq!(outcome.err.lines().count(), 1, "{}", outcome.err);
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn wrong_usage_is_code_2_and_help_is_code_0() {
    let folder = images();
    for (arguments, code) in [(&[][..], 2), (&["a.png", "b.png"], 2), (&["--no"], 2)] {
        let Some(outcome) = run(&folder, arguments) else { return };
        assert_eq!((outcome.code, outcome.out.as_str()), (code, ""), "{arguments:?}");
        assert!(outcome.err.contains("usage: classify.wasm IMAGE"));
    }
    let Some(help) = run(&folder, &["--help"]) else { return };
    assert_eq!((help.code, help.err.as_str()), (0, ""));
    assert!(help.out.contains("usage: classify.wasm IMAGE"));
}
