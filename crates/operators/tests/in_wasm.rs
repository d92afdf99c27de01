//! The kernels inside a sandbox, in every vector variant, against the plain reference.
//!
//! Each test builds this crate as a guest of its own (some minutes the first time where the
//! standard library must be built too) and is skipped, with a word, where no toolchain can.

#[path = "support/guest.rs"]
mod guest;
mod support;

use guest::{Guest, Place, Variant};
use support::{Call, Case, Random};

/// Runs a call in a fresh instance and compares its output.
fn check(guest: &Guest, call: &Call) -> Result<(), String> {
    let mut running = guest.start();
    let placed = running.prepare(call, Place::Aligned, 4);
    match running.call(&placed)? {
        0 => call.check(&running.output(&placed)),
        code => Err(format!("code {code}")),
    }
}

/// Runs a call with each of its buffers in turn at the very end of the memory, where reading or
/// writing behind it traps.
fn check_edges(guest: &Guest, call: &Call) -> Result<(), String> {
    for last in 0..5 {
        let mut running = guest.start();
        // The first run lets scratch grow, which would add memory behind the last buffer.
        let warm = running.prepare(call, Place::Aligned, 4);
        running.call(&warm)?;
        let placed = running.prepare(call, Place::End, last);
        running.call(&placed).map_err(|trap| format!("buffer {last}: {trap}"))?;
        call.check(&running.output(&placed))?;
    }
    Ok(())
}

fn check_variant(variant: Variant) {
    let Some(file) = guest::build(variant) else {
        eprintln!("skipped: no toolchain here builds for wasm32-unknown-unknown");
        return;
    };
    let guest = Guest::load(&file);
    for (seed, case) in support::layers::layers().into_iter().enumerate() {
        let call = case.prepare(seed as u64);
        check(&guest, &call).unwrap_or_else(|error| panic!("{variant:?}, {case:?}: {error}"));
    }
    let mut random = Random::new(11);
    for seed in 0..500 {
        let case = Case::random(&mut random);
        let call = case.prepare(seed);
        check_edges(&guest, &call).unwrap_or_else(|error| panic!("{variant:?}, {case:?}: {error}"));
    }
}

#[test]
fn kernels_with_relaxed_simd_agree_with_the_reference() {
    check_variant(Variant::Relaxed);
}

#[test]
fn kernels_with_simd128_agree_with_the_reference() {
    check_variant(Variant::Simd128);
}

#[test]
fn kernels_without_simd_agree_with_the_reference() {
    check_variant(Variant::Scalar);
}
