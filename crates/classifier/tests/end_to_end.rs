//! Image bytes to labels with kernels written in Rust: the whole path but TVM's object.

#![allow(clippy::unwrap_used, reason = "tests")]

use classifier::{Classifier, ClassifyError, ErrorKind, LoadError};
use tensor::{BlockBuilder, Shape, Tensor};
use tvm_graph_rt::NativeModule;

/// `scores = p0 * means(image)`: the mean of each channel, weighed.
const GRAPH: &str = r#"{
    "nodes": [
        {"op": "null", "name": "image", "inputs": []},
        {"op": "null", "name": "p0", "inputs": []},
        {"op": "tvm_op", "name": "means", "inputs": [[0, 0, 0], [1, 0, 0]], "attrs": {
            "func_name": "weighed_means", "num_inputs": "2", "num_outputs": "1",
            "flatten_data": "0"}}
    ],
    "arg_nodes": [0, 1], "heads": [[2, 0, 0]], "node_row_ptr": [0, 1, 2, 3],
    "attrs": {"storage_id": ["list_int", [0, 1, 2]],
              "shape": ["list_shape", [[1, 3, 4, 4], [3], [1, 3]]],
              "dltype": ["list_str", ["float32", "float32", "float32"]]}
}"#;

const SPEC: &str = r#"{
    "model": {"name": "colours", "version": "1", "onnx": "colours.onnx"},
    "input": {"name": "image", "shape": [1, 3, 4, 4]},
    "preprocess": {"resize": "exact"},
    "output": {"kind": "logits", "labels": "labels.txt"}
}"#;

const LABELS: [&str; 3] = ["n00000001 red, a colour", "n00000002 green", "blue"];

fn kernels() -> NativeModule {
    let mut kernels = NativeModule::default();
    kernels.register("weighed_means", 1, |args| {
        let (image, weights) = (args.input::<f32>(0)?, args.input::<f32>(1)?);
        let planes = image.chunks_exact(image.len() / weights.len());
        for ((score, plane), weight) in args.output::<f32>(0)?.iter_mut().zip(planes).zip(weights) {
            *score = weight * plane.iter().sum::<f32>() / plane.len() as f32;
        }
        Ok(())
    });
    kernels
}

fn load(graph: &str, spec: &str, labels: &[&str]) -> Result<Classifier, LoadError> {
    let weights = Tensor::copy_of(Shape::new([3]).unwrap(), &[10.0_f32; 3]).unwrap();
    let block = BlockBuilder::new(graph, spec).labels(labels).unwrap();
    let block = block.tensor("p0", weights.view()).build().unwrap();
    // A linked block lives as long as its module.
    Classifier::from_block(block.leak(), &kernels())
}

/// A BMP of one colour.
fn image(red: u8, green: u8, blue: u8) -> Vec<u8> {
    let mut bytes = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bytes.extend([5, 0, 0, 0, 2, 0, 0, 0, 1, 0, 24, 0]);
    bytes.extend([0; 24]);
    for _ in 0..2 {
        bytes.extend([blue, green, red].repeat(5));
        bytes.push(0);
    }
    bytes
}

fn classify(classifier: &mut Classifier, bytes: &[u8]) -> Result<Vec<f32>, ClassifyError> {
    let picture = classifier.decode(bytes)?;
    classifier.preprocess(&picture)?;
    classifier.infer()?;
    Ok(classifier.scores())
}

#[test]
fn image_bytes_become_labels_with_probabilities() {
    let mut classifier = load(GRAPH, SPEC, &LABELS).unwrap();
    assert_eq!(classifier.spec().model.name, "colours");
    assert_eq!(classifier.labels(), ["red, a colour", "green", "blue"]);
    // Twice each: nothing of one picture is left for the next.
    for (bytes, expected) in [
        (image(255, 0, 0), "red, a colour"),
        (image(0, 255, 0), "green"),
        (image(0, 0, 255), "blue"),
        (image(255, 0, 0), "red, a colour"),
    ] {
        let scores = classify(&mut classifier, &bytes).unwrap();
        let found = classifier.top_k(&scores, 2);
        assert_eq!((found.len(), found[0].label), (2, expected));
        // e^10 / (e^10 + 2).
        assert!((found[0].score - 0.999_909_2).abs() < 1e-6, "{found:?}");
        assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
    assert_eq!(classifier.output(), [10.0, 0.0, 0.0]);
}

#[test]
fn the_kind_of_output_decides_what_becomes_of_it() {
    for (kind, expected) in [
        ("logits", [0.999_909_2, 0.000_045_4, 0.000_045_4]),
        ("softmax", [10.0, 0.0, 0.0]),
        ("sigmoid-logits", [0.999_954_6, 0.5, 0.5]),
        ("sigmoid", [10.0, 0.0, 0.0]),
    ] {
        let spec = SPEC.replace("\"logits\"", &format!("{kind:?}"));
        let mut classifier = load(GRAPH, &spec, &LABELS).unwrap();
        let scores = classify(&mut classifier, &image(255, 0, 0)).unwrap();
        for (score, expected) in scores.iter().zip(expected) {
            assert!((score - expected).abs() < 1e-6, "{kind}: {scores:?}");
        }
    }
}

#[test]
fn a_tensor_can_take_the_place_of_an_image() {
    let mut classifier = load(GRAPH, SPEC, &LABELS).unwrap();
    let mut values = [0.0; 48];
    values[32..].fill(0.5);
    classifier.set_tensor(&values).unwrap();
    classifier.infer().unwrap();
    assert_eq!(classifier.output(), [0.0, 0.0, 5.0]);

    let error = classifier.set_tensor(&values[1..]).unwrap_err();
    assert_eq!(error.to_string(), "the tensor has 47 values; the model's input has 48");
    assert_eq!(error.kind(), ErrorKind::BadTensor);
}

#[test]
fn bad_images_are_told_apart_and_harm_nothing() {
    let mut classifier = load(GRAPH, SPEC, &LABELS).unwrap();
    let mut large = image(1, 2, 3);
    large[18..22].copy_from_slice(&70_000_u32.to_le_bytes());
    let mut unsupported = image(1, 2, 3);
    unsupported[30] = 4;
    for (bytes, expected) in [
        (b"<html>".to_vec(), ErrorKind::NotAnImage),
        (image(1, 2, 3)[..60].to_vec(), ErrorKind::BrokenImage),
        (large, ErrorKind::ImageTooLarge),
        (unsupported, ErrorKind::UnsupportedImage),
    ] {
        assert_eq!(classify(&mut classifier, &bytes).unwrap_err().kind(), expected);
    }
    let scores = classify(&mut classifier, &image(0, 0, 255)).unwrap();
    assert_eq!(classifier.top_k(&scores, 1)[0].label, "blue");
}

#[test]
fn a_failing_kernel_is_the_models_fault() {
    let mut kernels = kernels();
    kernels.register("weighed_means", 1, |_| Err("out of luck".into()));
    let weights = Tensor::copy_of(Shape::new([3]).unwrap(), &[1.0_f32; 3]).unwrap();
    let block = BlockBuilder::new(GRAPH, SPEC).labels(&LABELS).unwrap();
    let block = block.tensor("p0", weights.view()).build().unwrap();
    let mut classifier = Classifier::from_block(block.leak(), &kernels).unwrap();
    let error = classify(&mut classifier, &image(1, 2, 3)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
}

#[test]
fn parts_that_do_not_fit_each_other_are_not_loaded() {
    let graph = |from: &str, to: &str| GRAPH.replacen(from, to, 1);
    let spec = |from: &str, to: &str| SPEC.replacen(from, to, 1);
    for (graph, spec, labels, expected) in [
        (GRAPH.into(), SPEC.into(), &LABELS[..2], "there are 2 labels for 3 classes"),
        (GRAPH.into(), SPEC.into(), &[][..], "there are 0 labels for 3 classes"),
        ("{".into(), SPEC.into(), &LABELS, "malformed graph"),
        (GRAPH.into(), "{}".into(), &LABELS, "malformed model spec"),
        (GRAPH.into(), spec("[1, 3, 4, 4]", "[1, 3, 4]"), &LABELS, "the model spec is not valid"),
        (
            GRAPH.into(),
            spec("[1, 3, 4, 4]", "[1, 3, 8, 8]"),
            &LABELS,
            "the spec's input is `image float32 [1, 3, 8, 8]`; the graph's is `image float32 [1, 3, 4, 4]`",
        ),
        (
            GRAPH.into(),
            spec("\"image\"", "\"data\""),
            &LABELS,
            "the spec's input is `data float32 [1, 3, 4, 4]`; the graph's is `image",
        ),
        (graph("weighed_means", "other"), SPEC.into(), &LABELS, "the graph cannot be executed"),
        (
            graph("[2, 0, 0]], \"node_row", "[0, 0, 0]], \"node_row"),
            SPEC.into(),
            &LABELS,
            "there are 3 labels for 48 classes",
        ),
    ] {
        let error = load(&graph, &spec, labels).expect_err(expected).to_string();
        assert!(error.starts_with(expected), "expected {expected:?}, got {error:?}");
    }
    let two_inputs = GRAPH.replace("\"p0\"", "\"mask\"").replace(
        "{\"op\": \"tvm_op\"",
        "{\"op\": \"null\", \"name\": \"p0\", \"inputs\": []}, {\"op\": \"tvm_op\"",
    );
    let two_inputs = two_inputs
        .replace("[0, 1], \"heads\": [[2", "[0, 1, 2], \"heads\": [[3")
        .replace("[0, 1, 2, 3]", "[0, 1, 2, 3, 4]")
        .replace("[0, 1, 2]]", "[0, 1, 2, 3]]")
        .replace("[3], [1, 3]", "[3], [3], [1, 3]")
        .replace("[\"float32\", ", "[\"float32\", \"float32\", ");
    let error = load(&two_inputs, SPEC, &LABELS).unwrap_err();
    assert!(matches!(&error, LoadError::Inputs(names) if names == &["image", "mask"]), "{error}");

    let error = Classifier::from_block(b"GRAPHLET", &kernels()).unwrap_err();
    assert!(matches!(error, LoadError::Block(_)), "{error}");
}
