//! What a module is beside its numbers: no slow convolution, and no more memory than it needs.
#![allow(clippy::unwrap_used, reason = "tests")]

use conformance::{Guest, Model, Name, Output, home, module, pictures, with_stack};
use model_spec::SimdLevel;

// Beyond weights and activations: the stack, constants of code, and the heap with a decoded picture.
const ALLOWANCE: u64 = 4_000_000;

fn open(name: Name) -> Option<(Model, conformance::Module)> {
    let home = home().unwrap();
    let model = Model::open(&home, name, Output::Final).unwrap()?;
    let module = module(&home, &model, SimdLevel::Relaxed).unwrap();
    Some((model, module))
}

#[test]
fn no_heavy_operator_falls_to_generated_loops() {
    for name in Name::ALL.into_iter().chain(Name::MODERN) {
        let Some((_, module)) = open(name) else { continue };
        assert_eq!(module.report["fallbacks"], serde_json::json!([]), "{name:?}");
        // And the list is empty because all of them were given a kernel.
        let nodes = module.report["nodes"].as_array().unwrap();
        let by_kernel: u64 = nodes.iter().map(|node| node["macs"].as_u64().unwrap()).sum();
        assert_eq!(by_kernel, module.reported("macs"), "{name:?}");
    }
}

#[test]
fn activations_take_no_more_than_the_fullest_step_needs() {
    for name in Name::ALL.into_iter().chain(Name::MODERN) {
        let Some((_, module)) = open(name) else { continue };
        let (planned, needed) =
            (module.reported("activation_bytes"), module.reported("peak_bytes"));
        assert!(planned * 20 <= needed * 21, "{name:?}: {planned} bytes, {needed} needed");
    }
}

fn memory_is_weights_activations_and_little_else(name: Name) {
    let Some((model, module)) = open(name) else { return };
    let home = home().unwrap();
    let (loaded, run) = with_stack(|| {
        let mut guest = Guest::start(&home, &module.bytes, &model.spec).unwrap();
        let loaded = guest.memory_bytes();
        for (_, picture) in pictures(&home, name).unwrap() {
            guest.request("PUT", "/", picture).unwrap();
        }
        (loaded, guest.memory_bytes())
    });
    let (weights, activations) =
        (module.reported("param_bytes"), module.reported("activation_bytes"));
    eprintln!(
        "measured: {name:?}: module {:.2} MB, weights {:.2} MB, activations {:.2} MB, memory \
         beyond both {:.2} MB after load, {:.2} MB after pictures",
        module.bytes.len() as f64 / 1e6,
        weights as f64 / 1e6,
        activations as f64 / 1e6,
        (loaded as f64 - (weights + activations) as f64) / 1e6,
        (run as f64 - (weights + activations) as f64) / 1e6,
    );
    for bytes in [loaded, run] {
        assert!(
            bytes <= weights + activations + ALLOWANCE,
            "{name:?}: {bytes} bytes, weights {weights}, activations {activations}"
        );
    }
}

#[test]
fn digits_takes_little_memory() {
    memory_is_weights_activations_and_little_else(Name::Digits);
}

#[test]
fn mobilenet_v2_takes_little_memory() {
    memory_is_weights_activations_and_little_else(Name::MobileNetV2);
}

#[test]
fn squeezenet_takes_little_memory() {
    memory_is_weights_activations_and_little_else(Name::SqueezeNet);
}

#[test]
fn resnet50_takes_little_memory() {
    memory_is_weights_activations_and_little_else(Name::ResNet50);
}
