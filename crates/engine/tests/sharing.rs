//! Instances share the weights: what the third one costs in memory.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    time::{Duration, Instant},
};

use engine::{Engine, EngineOptions, Guest, Limits, Sandbox};
use wasmtime::Linker;

const WEIGHT_BYTES: usize = 14 << 20;
const ACTIVATION_BYTES: usize = 4 << 20;

/// A module with weights at a 64 KiB boundary behind a wide gap, as the builder links them; `run`
/// reads every page of them and writes the activations.
fn module() -> Vec<u8> {
    let mut weights = String::with_capacity(WEIGHT_BYTES * 3);
    for index in 0..WEIGHT_BYTES / 16 {
        let word = index as u64 * 0x9E37_79B9;
        for byte in word.to_le_bytes().into_iter().chain([1; 8]) {
            weights.push_str(&format!("\\{byte:02x}"));
        }
    }
    let at = 2 << 20;
    let end = at + WEIGHT_BYTES;
    let pages = (end + ACTIVATION_BYTES) >> 16;
    let text = format!(
        r#"(module (memory (export "memory") {pages})
          (data (i32.const 1024) "tables") (data (i32.const {at}) "{weights}")
          (func (export "run") (result i32) (local $p i32) (local $sum i32)
            (local.set $p (i32.const {at}))
            (loop
              (local.set $sum (i32.add (local.get $sum) (i32.load (local.get $p))))
              (br_if 0 (i32.lt_u (local.tee $p (i32.add (local.get $p) (i32.const 4096)))
                                 (i32.const {end}))))
            (memory.fill (i32.const {end}) (i32.const 1) (i32.const {ACTIVATION_BYTES}))
            local.get $sum))"#
    );
    wat::parse_str(text).unwrap()
}

fn pss_bytes() -> usize {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn a_further_instance_costs_its_activations_and_no_weights() {
    let dir = tempfile::tempdir().unwrap();
    let wasm = module();
    for cache_dir in [Some(dir.path().to_owned()), None] {
        let cached = cache_dir.is_some();
        let engine = Engine::new(&EngineOptions { cache_dir, ..EngineOptions::default() }).unwrap();
        let compiled = engine.compile(&wasm, &[1; 32]).unwrap();
        let linker = Linker::<Guest<()>>::new(engine.wasmtime());
        let pre = linker.instantiate_pre(&compiled.module).unwrap();
        let soon = Instant::now() + Duration::from_secs(60);
        let mut sandboxes = Vec::new();
        let mut sums = Vec::new();
        let mut sizes = vec![pss_bytes()];
        for _ in 0..3 {
            let mut sandbox = Sandbox::new(&engine, &pre, Limits::default(), (), soon).unwrap();
            sums.push(
                sandbox
                    .enter(soon, |mut store, instance| {
                        instance.get_typed_func::<(), i32>(&mut store, "run")?.call(store, ())
                    })
                    .unwrap(),
            );
            sandboxes.push(sandbox);
            sizes.push(pss_bytes());
        }
        assert_eq!(sums[0], sums[2]);
        let third = sizes[3].saturating_sub(sizes[2]);
        eprintln!("cached: {cached}, third instance: {third} bytes, sizes: {sizes:?}");
        assert!(
            third <= ACTIVATION_BYTES + (1 << 20),
            "cached: {cached}: the third instance costs {third} bytes"
        );
    }
}
