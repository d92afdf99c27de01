//! Builds and signs models: `build-signed [MODEL.toml OUT.wasm]...`. A process of its own, so that
//! a test can build in another environment: the checkout is `GRAPHLET_HOME`, the cache
//! `GRAPHLET_CACHE_DIR`, the time of the claims `SOURCE_DATE_EPOCH`.

use std::{env, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use builder::{BuildOptions, GuestKind, Silent, build};
use claims::Timestamp;

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let (pairs, rest) = arguments.as_chunks::<2>();
    ensure!(!pairs.is_empty() && rest.is_empty(), "usage: build-signed [MODEL.toml OUT.wasm]...");
    let epoch = env::var("SOURCE_DATE_EPOCH").context("SOURCE_DATE_EPOCH")?;
    let epoch = Timestamp(epoch.parse().context("SOURCE_DATE_EPOCH")?);
    let home = conformance::home()?;
    for [spec, out] in pairs {
        let options =
            BuildOptions { spec: spec.into(), kind: GuestKind::Actor, simd: None, artifacts: None };
        let built = build(&home, &options, &mut Silent)?;
        let signed = conformance::sign(&built.module, &built.spec.model.name, epoch)?;
        let out = Path::new(out);
        fs::write(out, signed).with_context(|| format!("cannot write {}", out.display()))?;
    }
    Ok(())
}
