//! `graphlet profile` on the embedded model and on what is no model of ours.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::fs;

use serde_json::Value;

use support::{User, digits, pictures, root, tiny_module};

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

#[test]
fn every_node_is_listed_with_its_kernel_and_cost() {
    if digits().is_none() {
        return;
    }
    let user = User::new();
    for name in ["model.toml", "labels.txt", "digits.onnx"] {
        user.write(name, fs::read(root().join("models/digits").join(name)).unwrap());
    }
    let run =
        user.finish(user.building("build model.toml -o digits.wasm --quiet --artifacts kept"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let report = json(&user.read("kept/report.json"));
    let nodes = report["nodes"].as_array().unwrap();
    user.write("7.png", pictures::digit(7));

    let profile = json(user.done("profile digits.wasm 7.png --repeat 3 --json").as_bytes());
    assert_eq!((&profile["model"], &profile["repeat"]), (&"digits".into(), &3.into()));
    let layers = profile["layers"].as_array().unwrap();
    assert_eq!(layers.len(), nodes.len());
    let mut kernels = 0;
    for (place, (layer, node)) in layers.iter().zip(nodes).enumerate() {
        assert_eq!(layer["index"], place + 1);
        for (ours, reported) in [("name", "name"), ("function", "function"), ("macs", "macs")] {
            assert_eq!(layer[ours], node[reported], "{layer}");
        }
        assert_eq!(layer["written_bytes"], node["bytes"], "{layer}");
        assert_eq!(layer["shape"], node["shape"][0], "{layer}");
        let symbols: Vec<_> = node["kernel"].as_str().unwrap_or("").split_whitespace().collect();
        assert_eq!(layer["kernels"], Value::from(symbols), "{layer}");
        kernels += usize::from(!node["kernel"].is_null());
        // Sums of shares and such are tested without a clock; here, that there are times at all.
        assert!(layer["ms"].as_f64().unwrap() >= layer["min_ms"].as_f64().unwrap(), "{layer}");
        let has_macs = node["macs"].as_u64().unwrap() > 0;
        assert!(has_macs || layer["gmacs"].is_null(), "{layer}");
    }
    assert!(kernels > 0, "no layer has a kernel: {report}");
    let total: u64 = layers.iter().map(|layer| layer["macs"].as_u64().unwrap()).sum();
    assert_eq!(total, report["macs"].as_u64().unwrap());
    let weights: u64 = layers.iter().map(|layer| layer["weight_bytes"].as_u64().unwrap()).sum();
    assert_eq!(weights, report["param_bytes"].as_u64().unwrap(), "no weight is read twice here");
    let of_classes: u64 =
        profile["classes"].as_array().unwrap().iter().map(|c| c["layers"].as_u64().unwrap()).sum();
    assert_eq!(of_classes, layers.len() as u64);
    assert!(profile["ceiling_gmacs"].as_f64().unwrap() > 0.0);

    // The same for people, and only the slowest.
    let text = user.done("profile digits.wasm 7.png --repeat 1");
    for node in nodes {
        let name = node["name"].as_str().unwrap();
        let found = text.lines().filter(|line| line.split_whitespace().nth(1) == Some(name));
        assert_eq!(found.count(), 1, "{name}: {text}");
    }
    let top = json(user.done("profile digits.wasm 7.png --repeat 1 --top 2 --json").as_bytes());
    let slowest = top["layers"].as_array().unwrap();
    assert_eq!(slowest.len(), 2);
    assert!(slowest[0]["ms"].as_f64().unwrap() >= slowest[1]["ms"].as_f64().unwrap());
}

#[test]
fn the_graph_gives_the_same_label_before_and_after_a_profile() {
    let Some(built) = digits() else { return };
    let user = User::with_module(built, "digits.wasm");
    user.write("7.png", pictures::digit(7));
    let label = user.done("classify digits.wasm 7.png");
    user.done("profile digits.wasm 7.png --repeat 1");
    assert_eq!(user.done("classify digits.wasm 7.png"), label);
}

#[test]
fn what_is_no_actor_of_ours_is_refused_in_words() {
    let user = User::with_scripted_guest("foreign.wasm");
    user.write("7.png", pictures::digit(7));
    let words =
        ["foreign.wasm does not list its layers", "graphlet.layers", "hint: build it again"];
    user.refused("profile foreign.wasm 7.png", 2, &words);
    user.write("tiny.wasm", tiny_module(&[0x41, 0], None));
    user.refused("profile tiny.wasm 7.png", 1, &["tiny.wasm", "hint: "]);
    user.refused("profile absent.wasm 7.png", 1, &["absent.wasm"]);
    user.refused("profile foreign.wasm 7.png --repeat 0", 2, &["--repeat"]);
}

#[test]
fn a_wasi_program_cannot_be_profiled_and_the_actor_is_named() {
    if digits().is_none() {
        return;
    }
    let user = User::new();
    for name in ["model.toml", "labels.txt", "digits.onnx"] {
        user.write(name, fs::read(root().join("models/digits").join(name)).unwrap());
    }
    let run = user.finish(user.building("build model.toml -o classify.wasm --quiet --as wasi"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    user.write("7.png", pictures::digit(7));
    let words = ["classify.wasm is a WASI program", "hint: build the model as an actor"];
    user.refused("profile classify.wasm 7.png", 2, &words);
}

#[test]
fn a_picture_that_cannot_be_read_is_named() {
    let Some(built) = digits() else { return };
    let user = User::with_module(built, "digits.wasm");
    user.write("note.txt", "no picture");
    user.refused("profile digits.wasm note.txt", 1, &["note.txt", "image"]);
    user.refused("profile digits.wasm absent.png", 1, &["absent.png"]);
}
