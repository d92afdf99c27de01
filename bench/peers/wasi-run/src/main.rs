//! Runs a peer that was built for `wasm32-wasip1` under wasmtime, as graphlet's own engine is
//! configured where that matters for speed, but without a deadline or a limit on memory.
//!
//! ```text
//! wasi-run compile PEER.wasm PEER.cwasm
//! wasi-run run PEER.cwasm FOLDER ARGUMENT...     paths in arguments are relative to FOLDER
//! ```

use std::{env, fs, path::Path, process::ExitCode};

use wasmtime::{Config, Engine, Linker, Module, Result, Store, Val, bail, error::Context as _};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder, p1::WasiP1Ctx};

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["compile", module, code] => compile(Path::new(module), Path::new(code)),
        ["run", code, folder, rest @ ..] => run(Path::new(code), Path::new(folder), rest),
        _ => bail!("usage: wasi-run compile MODULE CODE | wasi-run run CODE FOLDER ARGUMENT..."),
    }
}

// Of WASI: the function is not supported.
const ENOSYS: i32 = 52;

fn engine() -> Result<Engine> {
    let mut config = Config::new();
    config.wasm_relaxed_simd(true);
    Engine::new(&config)
}

fn compile(module: &Path, code: &Path) -> Result<ExitCode> {
    let bytes = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    let compiled = engine()?.precompile_module(&bytes)?;
    fs::write(code, compiled).with_context(|| format!("cannot write {}", code.display()))?;
    Ok(ExitCode::SUCCESS)
}

#[allow(unsafe_code)]
fn run(code: &Path, folder: &Path, arguments: &[&str]) -> Result<ExitCode> {
    let engine = engine()?;
    // SAFETY: the bench wrote this file with `compile` above, into its own cache folder, from a
    // peer that it built itself.
    let module = unsafe { Module::deserialize_file(&engine, code)? };
    let wasi = WasiCtxBuilder::new()
        .arg("peer")
        .args(arguments)
        .inherit_stdout()
        .inherit_stderr()
        .preopened_dir(folder, ".", FsPerms::ReadWrite)?
        .build_p1();
    let mut linker = Linker::<WasiP1Ctx>::new(&engine);
    wasmtime_wasi::p1::add_to_linker_sync(&mut linker, |state| state)?;
    // What Debian's C library lacks: see guest_toolchain in setup.py. Threads there are none, as newer
    // libraries answer; the rest must not be called.
    for (name, answer) in [
        ("pthread_attr_init", 0),
        ("pthread_attr_setstacksize", 0),
        ("pthread_attr_destroy", 0),
        ("pthread_create", ENOSYS),
    ] {
        let imports = module.imports().filter(|import| import.name() == name);
        for ty in imports.filter_map(|import| import.ty().func().cloned()) {
            linker.func_new("env", name, ty, move |_, _, results| {
                results.fill(Val::I32(answer));
                Ok(())
            })?;
        }
    }
    linker.define_unknown_imports_as_traps(&module)?;
    let mut store = Store::new(&engine, wasi);
    // Reads of more than 128 MiB at once fail otherwise, and models are read so.
    store.set_hostcall_fuel(usize::MAX);
    let instance = linker.instantiate(&mut store, &module)?;
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
    match start.call(&mut store, ()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(0)) => Ok(ExitCode::SUCCESS),
            Some(_) => Ok(ExitCode::FAILURE),
            None => Err(error),
        },
    }
}
