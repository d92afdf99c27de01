//! Writes the inner loops of convolutions as a wasm object for builds with SIMD, and has cargo link
//! it.
//!
//! From Rust they reach four fifths of their speed: LLVM orders their instructions for a machine
//! that it knows nothing of, and the engine's register allocator then spills. `build/strip.rs` says
//! what order they need.

#[path = "build/depthwise.rs"]
mod depthwise;
#[path = "build/object.rs"]
mod object;
#[path = "build/phrases.rs"]
mod phrases;
#[path = "build/strip.rs"]
mod strip;
#[path = "build/wide.rs"]
mod wide;

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
    let relaxed = has("relaxed-simd");
    let mut functions = strip::functions(relaxed);
    functions.extend(depthwise::functions(relaxed));
    functions.extend(wide::functions(relaxed));
    let object = object::write(&functions);
    let folder = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    // The crate compares these with the structures that it is compiled with: cargo, which goes by
    // the age of files, may take a library that another checkout has left for this one's.
    fs::write(folder.join("strip_fields.rs"), format!("{:?}", strip::FIELDS))?;
    fs::write(folder.join("depthwise_fields.rs"), format!("{:?}", depthwise::FIELDS))?;
    fs::write(folder.join("wide_fields.rs"), format!("{:?}", wide::FIELDS))?;
    let names: Vec<&str> = functions.iter().map(|(name, _)| *name).collect();
    fs::write(folder.join(format!("lib{LIBRARY}.a")), object::archive(&object, &names)?)?;
    println!("cargo::rustc-link-search=native={}", folder.display());
    println!("cargo::rustc-link-lib=static={LIBRARY}");
    Ok(())
}
