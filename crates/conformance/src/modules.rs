//! Models as modules.

use std::{ffi::OsStr, fs, time::Instant};

use anyhow::{Context as _, Result};
use builder::{BuildOptions, GuestKind, Home, Silent};
use model_spec::SimdLevel;
use serde_json::Value;

use crate::{
    Model,
    kept::{self, Key},
};

/// A module without claims, and what the compiler said about it.
#[derive(Debug, Clone)]
pub struct Module {
    /// The file.
    pub bytes: Vec<u8>,
    /// The compiler's `report.json`.
    pub report: Value,
}

impl Module {
    /// A number of the report, bytes.
    ///
    /// # Panics
    /// When the report has no such number.
    pub fn reported(&self, what: &str) -> u64 {
        self.report[what].as_u64().unwrap_or_else(|| panic!("the report has no `{what}`"))
    }
}

/// The module of a model at a SIMD level, built when it is not kept.
///
/// # Errors
/// When it does not build.
pub fn module(home: &Home, model: &Model, simd: SimdLevel) -> Result<Module> {
    let toolchain = GuestKind::Actor.toolchain()?;
    // Its name holds a digest over everything that it is made of.
    let guest = builder::guest::library(home, &toolchain, GuestKind::Actor, simd, &mut Silent)?;
    let key = Key::default()
        .bytes(guest.file_name().map(OsStr::as_encoded_bytes).unwrap_or_default())
        .bytes(simd.as_str().as_bytes())
        .bytes(home.python()?.as_os_str().as_encoded_bytes())
        .content(&home.root().join("compiler/requirements.txt"))?
        .content(&home.root().join("compiler/graphlet_compiler"))?
        .content(&home.root().join("crates/builder/src"))?
        .content(&model.spec_path)?
        .content(&model.labels)?
        .content(&model.onnx)?;
    let path = model.folder.join(format!("{}.wasm", simd.as_str()));
    let report = path.with_extension("json");
    let bytes = kept::file(&path, &key, || {
        let begun = Instant::now();
        let options = BuildOptions {
            spec: model.spec_path.clone(),
            kind: GuestKind::Actor,
            simd: Some(simd),
            artifacts: None,
        };
        let built = builder::build(home, &options, &mut Silent)?;
        fs::write(&report, serde_json::to_vec(&built.report)?)?;
        eprintln!(
            "measured: {} {} built in {:.1} s",
            built.spec.model.name,
            simd.as_str(),
            begun.elapsed().as_secs_f64()
        );
        Ok(built.module)
    })?;
    let report = fs::read(&report).with_context(|| format!("cannot read {}", report.display()))?;
    Ok(Module { bytes, report: serde_json::from_slice(&report)? })
}
