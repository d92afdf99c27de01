//! Writes the convolution strips as a wasm object for builds with SIMD, and has cargo link it.
//!
//! From Rust they reach four fifths of their speed: LLVM orders their instructions for a machine
//! that it knows nothing of, and the engine's register allocator then spills. `build/strip.rs` says
//! what order they need.

#[path = "build/object.rs"]
mod object;
#[path = "build/strip.rs"]
mod strip;

use std::path::PathBuf;
use std::{env, error, fs};

/// Name of the library that holds them.
const LIBRARY: &str = "graphlet_strips";

fn main() -> Result<(), Box<dyn error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let has = |name: &str| features.split(',').any(|feature| feature == name);
    if env::var("CARGO_CFG_TARGET_ARCH")? != "wasm32" || !has("simd128") {
        return Ok(());
    }
    let object = object::write(&strip::functions(has("relaxed-simd")));
    let folder = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    // `src/strip_wasm.rs` compares it with the structure that it is compiled with: cargo, which goes by
    // the age of files, may take a library that another checkout has left for this one's.
    fs::write(folder.join("strip_fields.rs"), format!("{:?}", strip::FIELDS))?;
    let names = strip::NAMES.map(|(name, _)| name);
    fs::write(folder.join(format!("lib{LIBRARY}.a")), object::archive(&object, &names)?)?;
    println!("cargo::rustc-link-search=native={}", folder.display());
    println!("cargo::rustc-link-lib=static={LIBRARY}");
    Ok(())
}
