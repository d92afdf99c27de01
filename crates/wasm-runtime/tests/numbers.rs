//! Graphs in the sandbox beside onnxruntime and NumPy: every element type, several inputs and
//! outputs, the same memory from call to call.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

mod support;

use support::{Case, built, case, executor};
use wasm_runtime::{DType, GraphError, GraphExecutor, Shape, Storage, Tensor};

/// A tensor of the kind that the graph's input has, with these bytes.
fn tensor(graph: &GraphExecutor, input: usize, bytes: &[u8]) -> Tensor<'static> {
    let info = &graph.description().unwrap().inputs[input];
    Tensor::new(info.dtype, info.shape.clone(), Storage::copy_of(bytes).unwrap()).unwrap()
}

fn set_all(graph: &mut GraphExecutor, case: &Case) {
    for index in 0..graph.description().unwrap().inputs.len() {
        let tensor = tensor(graph, index, &case.tensor(&format!("input_{index}.bin")));
        graph.set_input_at(index, &tensor).unwrap();
    }
}

/// Compares an output: bit by bit, floats within a few roundings.
#[track_caller]
fn assert_close(actual: &Tensor<'_>, expected: &[u8], what: &str) {
    let dtype = actual.dtype();
    let pairs: Vec<(f64, f64, f64)> = match dtype {
        DType::FLOAT16 | DType::BFLOAT16 => {
            let number = |bytes: &[u8]| {
                let bits = u16::from_le_bytes(bytes.try_into().unwrap());
                if dtype == DType::FLOAT16 {
                    half::f16::from_bits(bits).to_f64()
                } else {
                    half::bf16::from_bits(bits).to_f64()
                }
            };
            let epsilon = if dtype == DType::FLOAT16 { 0.002 } else { 0.016 };
            let both = actual.as_bytes().chunks(2).zip(expected.chunks(2));
            both.map(|(a, b)| (number(a), number(b), epsilon)).collect()
        }
        DType::FLOAT32 => {
            let number = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()));
            let both = actual.as_bytes().chunks(4).zip(expected.chunks(4));
            both.map(|(a, b)| (number(a), number(b), 1e-5)).collect()
        }
        _ => Vec::new(),
    };
    assert_eq!(actual.as_bytes().len(), expected.len(), "{what}");
    if pairs.is_empty() {
        assert_eq!(actual.as_bytes(), expected, "{what}");
    }
    for (a, b, epsilon) in pairs {
        assert!((a - b).abs() <= epsilon * (1.0 + b.abs()), "{what}: {a} is not {b}");
    }
}

fn check(model: &str) -> Option<(GraphExecutor, Case, tempfile::TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    let case = case(model, folder.path())?;
    let module = built(&case.onnx)?;
    let mut graph = executor();
    let outputs = graph.instantiate(&module).unwrap().outputs.len();
    set_all(&mut graph, &case);
    graph.run().unwrap();
    assert_eq!(case.facts()["output"].as_array().unwrap().len(), outputs);
    for index in 0..outputs {
        let output = graph.get_output(index).unwrap();
        let expected = case.tensor(&format!("output_{index}.bin"));
        assert_close(&output, &expected, &format!("{model}, output {index}"));
    }
    Some((graph, case, folder))
}

#[test]
fn a_graph_of_mixed_types_gives_onnxruntimes_numbers_call_after_call() {
    let Some((mut graph, case, _folder)) = check("mixed") else { return };
    let names: Vec<_> =
        graph.description().unwrap().outputs.iter().map(|output| output.name.clone()).collect();
    assert_eq!(names, ["y", "sum", "both", "square", "twice"]);

    let memory = graph.memory_bytes();
    for round in 0..1000 {
        if round % 100 == 0 {
            set_all(&mut graph, &case);
        }
        graph.run().unwrap();
    }
    assert_eq!(graph.memory_bytes(), memory, "memory has grown");
    assert_close(&graph.get_output(0).unwrap(), &case.tensor("output_0.bin"), "the last run");

    // Inputs keep their values; one that is set anew changes what depends on it alone.
    graph.set_input("count", &Tensor::copy_of(shape(&[5]), &[100_i8; 5]).unwrap()).unwrap();
    graph.run().unwrap();
    let twice = graph.get_output(4).unwrap();
    assert_eq!(twice.as_slice::<i8>().unwrap(), [-56; 5], "integers wrap round");
    assert_close(&graph.get_output(1).unwrap(), &case.tensor("output_1.bin"), "sum");

    wrong_tensors_are_refused_by_name(&mut graph);
}

fn wrong_tensors_are_refused_by_name(graph: &mut GraphExecutor) {
    let x = Tensor::zeros(DType::FLOAT32, shape(&[3, 2])).unwrap();
    let error = graph.set_input("x", &x).unwrap_err();
    assert!(matches!(error, GraphError::WrongShape { ref name, .. } if name == "x"), "{error}");
    let x = Tensor::zeros(DType::FLOAT64, shape(&[2, 3])).unwrap();
    let error = graph.set_input("x", &x).unwrap_err();
    assert!(matches!(error, GraphError::WrongDType { ref name, .. } if name == "x"), "{error}");
    let error = graph.set_input("z", &x).unwrap_err();
    assert!(error.to_string().contains("`x`, `ids`, `mask`, `exact`, `count`"), "{error}");
    let error = graph.set_input_at(5, &x).unwrap_err();
    assert!(matches!(error, GraphError::UnknownIndex { index: 5, count: 5, .. }), "{error}");
    let error = graph.get_output(5).unwrap_err();
    assert!(matches!(error, GraphError::UnknownIndex { index: 5, count: 5, .. }), "{error}");
}

fn shape(extents: &[usize]) -> Shape {
    Shape::new(extents).unwrap()
}

#[test]
fn every_element_type_is_computed_with() {
    for dtype in [
        "float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8",
        "uint16", "uint32", "uint64", "bool",
    ] {
        let Some((graph, ..)) = check(dtype) else { return };
        assert_eq!(graph.description().unwrap().inputs[0].dtype.to_string(), dtype);
    }
}

#[test]
fn an_input_without_a_value_and_an_output_without_a_run_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let Some(case) = case("int32", folder.path()) else { return };
    let Some(module) = built(&case.onnx) else { return };
    let mut graph = executor();
    graph.instantiate(&module).unwrap();
    assert!(matches!(graph.get_output(0), Err(GraphError::NotRun)));
    let first = tensor(&graph, 0, &case.tensor("input_0.bin"));
    graph.set_input("a", &first).unwrap();
    let error = graph.run().unwrap_err();
    assert!(matches!(error, GraphError::NotSet(ref name) if name == "b"), "{error}");
}
