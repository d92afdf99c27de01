//! `graphlet build --as operator`: one ONNX operator as a WASM graph, and what is wrong with one.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

mod support;

use std::fs;

use support::{User, digits, root};

/// A user, if builds are possible here.
fn user() -> Option<User> {
    digits().map(|_| User::new())
}

/// A .npy file of format 1.0 with float32 elements.
fn npy(extents: &str, values: &[f32]) -> Vec<u8> {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({extents}), }}");
    let padding = 64 - (10 + header.len() + 1) % 64;
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// The elements of a .npy file of float32.
fn values(bytes: &[u8]) -> Vec<f32> {
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let data = bytes[10 + header..].as_chunks::<4>().0;
    data.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn close(found: &[f32], expected: &[f32]) -> bool {
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6)
}

#[test]
fn an_operator_is_built_of_its_name_and_runs_on_tensors() {
    let Some(user) = user() else { return };
    let build = "build Softmax --as operator --input f32[2,3] --attribute axis=-1 -o softmax.wasm";
    let run = user.finish(user.building(build));
    assert_eq!(run.code, 0, "{}", run.stderr);
    user.write("x.npy", npy("2, 3", &[1.0, 2.0, 3.0, -1.0, -1.0, -1.0]));
    user.done("graph run -g softmax.wasm --inputs x.npy --outputs y.npy");
    let softmax = [0.090_030_57, 0.244_728_48, 0.665_240_94, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0];
    let found = values(&user.read("y.npy"));
    assert!(close(&found, &softmax), "{found:?}");
    let described = user.done("graph inspect softmax.wasm --json");
    let described: serde_json::Value = serde_json::from_str(&described).unwrap();
    assert_eq!(described["model"]["name"], "Softmax");
    assert_eq!(described["inputs"][0]["shape"], serde_json::json!([2, 3]));
}

#[test]
fn a_constant_is_part_of_the_module_and_an_optional_input_may_be_left_out() {
    let Some(user) = user() else { return };
    let build = "build Clip --as operator --input f32[4] --input - --input f32[]=2 -o clip.wasm -q";
    let run = user.finish(user.building(build));
    assert_eq!(run.code, 0, "{}", run.stderr);
    user.write("x.npy", npy("4,", &[-5.0, 0.5, 2.5, 1e9]));
    user.done("graph run -g clip.wasm --inputs x.npy --outputs y.npy");
    assert_eq!(values(&user.read("y.npy")), [-5.0, 0.5, 2.0, 2.0]);
}

#[test]
fn what_is_wrong_with_an_operator_is_told_by_name_with_code_2() {
    let Some(user) = user() else { return };
    for name in ["digits.onnx", "model.toml", "labels.txt"] {
        fs::copy(root().join("models/digits").join(name), user.file(name)).unwrap();
    }
    for (build, expected) in [
        ("Sofmax --as operator --input f32[4]", "is it Softmax"),
        ("Add --as operator --input f32[2] --input f32[3]", "Incompatible dimensions"),
        ("Softmax --as operator --input i8[4]", "cannot be int8"),
        ("Softmax --as operator --input f33[4]", "`f33` is no element type"),
        ("Softmax --as operator", "takes 1 inputs, not 0"),
        ("Softmax --as operator --input f32[4] --attribute axis=x", "a whole number"),
        ("Softmax --as operator --input f32[4] --attribute a=1 --attribute a=2", "given twice"),
        ("Softmax --as operator --input f32[4] --shape x=4", "an operator has --input"),
        ("digits.onnx --as operator", "nodes, not one"),
        ("digits.onnx --as graph --input f32[4]", "tell of an operator"),
        ("model.toml --opset 17", "tell of an operator"),
        ("model.toml --as component --revision 3", "carries no claims"),
    ] {
        let run = user.finish(user.building(&format!("build {build} -o out.wasm -q")));
        assert_eq!(run.code, 2, "{build}: {}", run.stderr);
        assert!(run.stderr.contains(expected), "{build}: {}", run.stderr);
        assert!(!user.file("out.wasm").exists(), "{build}");
    }
}
