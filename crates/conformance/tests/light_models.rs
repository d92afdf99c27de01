//! The wheel's nine light models compile, run in the sandbox and agree with onnxruntime.
#![allow(clippy::unwrap_used, reason = "tests")]

use conformance::{LIGHT_MODELS, home, light_model, with_stack};

// Beyond that many bytes a model takes its time: `make conformance` has those.
const SMALL: [&str; 3] = ["light_shufflenet", "light_squeezenet", "light_inception_v1"];

fn agrees(name: &str, memory_bytes: usize) {
    let home = home().unwrap();
    let light = with_stack(|| light_model(&home, name, memory_bytes)).unwrap();
    assert_eq!(light.difference, None, "{name}");
    assert!(light.memory_bytes <= memory_bytes, "{name}: {} bytes", light.memory_bytes);
}

#[test]
fn small_light_models_agree_with_onnxruntime() {
    for (name, memory_bytes) in LIGHT_MODELS {
        if SMALL.contains(&name) {
            agrees(name, memory_bytes);
        }
    }
}

#[test]
#[ignore = "a minute, and 3 GB of memory: make conformance"]
fn large_light_models_agree_with_onnxruntime() {
    for (name, memory_bytes) in LIGHT_MODELS {
        if !SMALL.contains(&name) {
            agrees(name, memory_bytes);
        }
    }
}
