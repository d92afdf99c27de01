//! The row convolution and the JPEG decoder in WebAssembly's vectors, which no native build contains,
//! against Pillow and against plain numbers.
//!
//! Builds `in_wasm/guest.rs` (some minutes the first time where the standard library must be built
//! too; it is shared with the guests of `operators`) and is skipped, with a word, where no
//! toolchain can.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use guest_toolchain::GuestToolchain;
use wasmtime::{Engine, Instance, Module, Store};

const TARGET: &str = "wasm32-unknown-unknown";

#[test]
fn resizes_and_jpegs_in_a_guest_with_simd128_are_the_same_bit_for_bit() {
    let Some(toolchain) = GuestToolchain::find(TARGET) else {
        eprintln!("skipped: no toolchain here builds for {TARGET}");
        return;
    };
    // The folder, profile and flags of the guests of `operators`.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest/simd128");
    let linker = format!("-Clinker={}", toolchain.linker().display());
    let flags = ["-Ctarget-feature=+simd128,-relaxed-simd".to_owned(), linker];
    let status = toolchain
        .cargo("build", TARGET, &flags)
        .args(["--quiet", "--package", "image-input", "--example", "resizes_in_wasm"])
        .args(["--profile", "guest", "--target-dir"])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(status.success(), "the guest does not build: {status}");

    let engine = Engine::default();
    let file = target.join(TARGET).join("guest/examples/resizes_in_wasm.wasm");
    let module = Module::from_file(&engine, file).unwrap();
    let mut store = Store::new(&engine, ());
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    let main = instance.get_typed_func::<(i32, i32), i32>(&mut store, "main").unwrap();
    assert_eq!(main.call(&mut store, (0, 0)).unwrap(), 0, "cases that differ (at most 255)");
}
