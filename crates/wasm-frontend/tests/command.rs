//! The command on the real library: results, and every wrong input with its exit code.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use builder::{BuildError, Home, Silent};
use serde_json::{Value, json};

/// The library, built once; `None`, having said why, where builds are not possible.
fn library() -> Option<&'static Path> {
    static LIBRARY: OnceLock<Result<(tempfile::TempDir, PathBuf), String>> = OnceLock::new();
    let built = LIBRARY.get_or_init(|| {
        let cache = env::var_os("GRAPHLET_CACHE_DIR").map(PathBuf::from).unwrap_or_else(|| {
            let home = || PathBuf::from(env::var_os("HOME").unwrap()).join(".cache");
            env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("graphlet")
        });
        let home = Home::find(cache).unwrap();
        match builder::build_operators(&home, builder::SimdLevel::Simd128, &mut Silent) {
            Ok(module) => {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("operators.wasm");
                fs::write(&path, module).unwrap();
                Ok((folder, path))
            }
            Err(error @ BuildError::NoGuestToolchain { .. }) => Err(error.to_string()),
            Err(error) => panic!("the operator library does not build: {error}"),
        }
    });
    match built {
        Ok((_, path)) => Some(path),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

/// Exit code, stdout, stderr.
fn frontend(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_wasm-frontend")).args(arguments).output();
    let output = output.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn tensor(values: &Value, shape: &[usize]) -> Value {
    json!({"input-data": values, "dim-size": shape.len(), "shape": shape})
}

#[track_caller]
fn computed(library: &Path, operator: &str, dtype: &str, input: &Value) -> Value {
    let (library, input) = (library.to_str().unwrap(), input.to_string());
    let arguments = ["-c", library, "-o", operator, "-d", dtype, "-I", &input];
    let (code, out, err) = frontend(&arguments);
    assert_eq!((code, err.as_str()), (0, ""), "{operator} {dtype} {input}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn every_operator_computes_every_type() {
    let Some(library) = library() else { return };
    let pair = |a: Value, b: Value| json!([tensor(&a, &[2, 2]), tensor(&b, &[2, 2])]);
    for dtype in ["FP32", "INT32", "INT8"] {
        let input = pair(json!([1, 2, 3, 4]), json!([3, 4, 3, 6]));
        let float = |values: Value| match dtype {
            // JSON's 4.0 is not its 4.
            "FP32" => values.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect(),
            _ => values,
        };
        let sum = tensor(&float(json!([4, 6, 6, 10])), &[2, 2]);
        assert_eq!(computed(library, "Add", dtype, &input), sum);
        let product = tensor(&float(json!([3, 8, 9, 24])), &[2, 2]);
        assert_eq!(computed(library, "Mul", dtype, &input), product);
        let count = computed(library, "EqualCount", dtype, &input);
        assert_eq!(count, tensor(&json!([1]), &[]));
        let mut one = tensor(&json!([1, 7, 3, 7, 2, 8]), &[2, 3]);
        let place = computed(library, "Argmax", dtype, &json!([one]));
        assert_eq!(place, tensor(&json!([5]), &[]));
        one["axis"] = json!(-1);
        let places = computed(library, "Argmax", dtype, &json!([one]));
        assert_eq!(places, tensor(&json!([1, 2]), &[2]));
    }
}

#[test]
fn integers_wrap_round_shapes_broadcast_and_nan_is_told() {
    let Some(library) = library() else { return };
    let input = json!([tensor(&json!([127, -128]), &[2, 1]), tensor(&json!([1, 2, -1]), &[3])]);
    let sum = computed(library, "Add", "INT8", &input);
    assert_eq!(sum, tensor(&json!([-128, -127, 126, -127, -126, 127]), &[2, 3]));
    let input = json!([tensor(&json!([1, "NaN", "Infinity", "NaN"]), &[4])]);
    assert_eq!(computed(library, "Argmax", "FP32", &input), tensor(&json!([1]), &[]));
    let input =
        json!([tensor(&json!(["NaN", 3e38, 0.1]), &[3]), tensor(&json!(["NaN", 3e38, 0.2]), &[3])]);
    let sum = computed(library, "Add", "FP32", &input);
    assert_eq!(sum["input-data"], json!(["NaN", "Infinity", 0.3]));
    assert_eq!(computed(library, "EqualCount", "FP32", &input), tensor(&json!([1]), &[]));
}

#[test]
fn what_is_wrong_is_told_in_one_line_with_exit_code_2() {
    let Some(library) = library() else { return };
    let library = library.to_str().unwrap();
    let good = json!([tensor(&json!([1]), &[1]), tensor(&json!([1]), &[1])]).to_string();
    let three = json!([tensor(&json!([1, 2, 3]), &[3]), tensor(&json!([1, 2]), &[2])]).to_string();
    let one = json!([tensor(&json!([1]), &[1])]).to_string();
    let many =
        json!([tensor(&json!([1]), &[1]), tensor(&json!([1]), &[1]), tensor(&json!([1]), &[1])]);
    let many = many.to_string();
    let mut along = tensor(&json!([1]), &[1]);
    along["axis"] = json!(0);
    let along = json!([along, tensor(&json!([1]), &[1])]).to_string();
    let empty = json!([tensor(&json!([]), &[0])]).to_string();
    for (arguments, expected) in [
        (&["-o", "Sub", "-I", &good][..], "Sub"),
        (&["-d", "FP64", "-I", &good], "FP64"),
        (&["-I", "[{"], "not a list of tensors"),
        (&["-I", r#"[{"input-data": [1], "dim-size": 2, "shape": [1]}]"#], "dim-size"),
        (&["-d", "INT8", "-I", r#"[{"input-data": [200], "dim-size": 1, "shape": [1]}]"#], "INT8"),
        (&["-I", &three], "do not broadcast"),
        (&["-I", &one], "takes two tensors, not 1"),
        (&["-I", &many], "Add takes two tensors, not 3"),
        (&["-I", "[]"], "Add takes two tensors, not 0"),
        (&["-o", "Argmax", "-I", &good], "Argmax takes one tensor, not 2"),
        (&["-I", &along], "`axis` is for Argmax"),
        (&["-o", "Argmax", "-I", &empty], "no elements"),
        (&["-i", "/nowhere/inputs.json"], "/nowhere/inputs.json"),
        (&["-I", &good, "-i", "x.json"], "cannot be used with"),
        (&[], "required"),
    ] {
        let (code, out, err) = frontend(&[&["-c", library], arguments].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.starts_with("error: ") && err.contains(expected), "{arguments:?}: {err}");
        assert!(err.matches(" at line ").count() < 2, "said twice: {err}");
    }
    for wrong in ["/nowhere/operators.wasm", file!(), "/"] {
        let (code, _, err) = frontend(&["-c", wrong, "-I", &good]);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains("operator library") && err.contains("hint: graphlet"), "{err}");
    }
    let (code, out, _) = frontend(&["-h"]);
    assert_eq!(code, 0);
    for option in ["-c", "-o", "-d", "-I", "-i", "--ms-backend-config", "--input-data-file"] {
        assert!(out.contains(option), "{out}");
    }
}

#[test]
fn the_library_computes_with_vectors() {
    let Some(library) = library() else { return };
    let module = fs::read(library).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for payload in wasmparser::Parser::new(0).parse_all(&module) {
        if let wasmparser::Payload::CodeSectionEntry(body) = payload.unwrap() {
            for operator in body.get_operators_reader().unwrap() {
                seen.insert(format!("{:?}", operator.unwrap()));
            }
        }
    }
    for instruction in [
        "F32x4Add", "F32x4Mul", "I32x4Add", "I32x4Mul", "I8x16Add", "I8x16Eq", "I32x4Eq", "F32x4Eq",
    ] {
        assert!(seen.contains(instruction), "no {instruction}");
    }
}
