//! The row convolution in WebAssembly's vectors, which no native build contains, against Pillow.
//!
//! Builds `in_wasm/guest.rs` (some minutes the first time where the standard library must be built
//! too; it is shared with the guests of `operators`) and is skipped, with a word, where no
//! toolchain can.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use wasmtime::{Engine, Instance, Module, Store};

const TARGET: &str = "wasm32-unknown-unknown";

/// The cargo and the rustc to build for wasm32 with, and whether they must build `std`.
fn toolchain() -> Option<(PathBuf, PathBuf, bool)> {
    let named = |cargo: &str, rustc: &str| {
        Some((PathBuf::from(env::var_os(cargo)?), PathBuf::from(env::var_os(rustc)?)))
    };
    let candidates = [
        named("GRAPHLET_GUEST_CARGO", "GRAPHLET_GUEST_RUSTC"),
        Some((PathBuf::from(env!("CARGO")), PathBuf::from("rustc"))),
        Some((PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"))),
    ];
    candidates.into_iter().flatten().find_map(|(cargo, rustc)| {
        let output = Command::new(&rustc).args(["--print", "sysroot"]).output().ok()?;
        let sysroot = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
        let libraries = sysroot.join("lib/rustlib");
        let builds_std = !libraries.join(TARGET).exists();
        let possible = !builds_std || libraries.join("src/rust/library/std").exists();
        possible.then_some((cargo, rustc, builds_std))
    })
}

#[test]
fn every_resize_in_a_guest_with_simd128_is_pillows_bit_for_bit() {
    let Some((cargo, rustc, builds_std)) = toolchain() else {
        eprintln!("skipped: no toolchain here builds for {TARGET}");
        return;
    };
    // The folder, profile and flags of the guests of `operators`.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest/simd128");
    let mut command = Command::new(cargo);
    command
        .args(["build", "--quiet", "--package", "image-input", "--example", "resizes_in_wasm"])
        .args(["--profile", "guest", "--target", TARGET, "--target-dir"])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("RUSTC", rustc)
        .env("RUSTFLAGS", "-C target-feature=+simd128,-relaxed-simd -C linker=rust-lld")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    if builds_std {
        command.arg("-Zbuild-std=std,panic_abort").env("RUSTC_BOOTSTRAP", "1");
    }
    let status = command.status().unwrap();
    assert!(status.success(), "the guest does not build: {status}");

    let engine = Engine::default();
    let file = target.join(TARGET).join("guest/examples/resizes_in_wasm.wasm");
    let module = Module::from_file(&engine, file).unwrap();
    let mut store = Store::new(&engine, ());
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    let main = instance.get_typed_func::<(i32, i32), i32>(&mut store, "main").unwrap();
    assert_eq!(main.call(&mut store, (0, 0)).unwrap(), 0, "cases that differ (at most 255)");
}
