//! What the nodes of a model's graph are, in the custom section `graphlet.layers`: what
//! `graphlet profile` and `graphlet tune` show beside the times.
//!
//! The section is never loaded into a guest's memory; it is covered by the signature like the rest
//! of the module.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tvm_graph_rt::{Graph, GraphError, NodeOp};

use crate::BuildError;

/// Name of the custom section.
pub const LAYERS_SECTION: &str = "graphlet.layers";

/// One kernel call of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The node's name.
    pub name: String,
    /// The compiled function that it calls.
    pub function: String,
    /// The kernels of the operator library that the function calls, by symbol; empty for a
    /// function of TVM's own.
    #[serde(default)]
    pub kernels: Vec<String>,
    /// The layers that a reader compares with each other: a kernel with its window and stride, or
    /// the operators of a function of TVM's own.
    pub class: String,
    /// Multiply-accumulates; 0 for what only moves, adds or compares. Those of the plain
    /// convolution where the kernel gets by with fewer.
    #[serde(default)]
    pub macs: u64,
    /// Extents of its first output.
    pub shape: Vec<usize>,
    /// Bytes of activations that it reads.
    pub read_bytes: u64,
    /// Bytes of weights that it reads.
    pub weight_bytes: u64,
    /// Bytes that it writes.
    pub written_bytes: u64,
}

/// The section's content for what the compiler left in `folder`.
///
/// # Errors
/// [`BuildError::CompilerOutput`] when the graph is malformed, or the report lacks a node of it.
pub(crate) fn section(folder: &Path, report: &Value) -> Result<Vec<u8>, BuildError> {
    let path = folder.join("graph.json");
    let text = fs::read_to_string(&path).map_err(|source| BuildError::Read { path, source })?;
    let graph: Graph = text.parse().map_err(|source: GraphError| BuildError::CompilerOutput {
        what: "graph.json",
        source: source.into(),
    })?;
    let layers = layers(&graph, report)?;
    serde_json::to_vec(&layers)
        .map_err(|source| BuildError::CompilerOutput { what: "layers", source: source.into() })
}

/// The layers of a graph in the order in which they run: what the graph says of its tensors,
/// joined with what the compiler's report says of its kernels. All that comes from outside but
/// the inputs is weights.
fn layers(graph: &Graph, report: &Value) -> Result<Vec<Layer>, BuildError> {
    let inputs = report["inputs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_input = |name: &str| inputs.iter().any(|input| input["name"] == name);
    let nodes = report["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut layers = Vec::new();
    for node in graph.nodes() {
        let NodeOp::TvmOp(function) = node.op() else { continue };
        // Both list the calls in the order in which they run.
        let reported = nodes.get(layers.len()).filter(|told| told["name"] == node.name());
        let Some(reported) = reported else {
            let source = format!("it has no node `{}` where the graph has one", node.name());
            return Err(BuildError::CompilerOutput { what: "report", source: source.into() });
        };
        let bytes = |entry| graph.shape(entry).byte_count(graph.dtype(entry)).unwrap_or_default();
        let (mut read_bytes, mut weight_bytes) = (0, 0);
        for &input in node.inputs() {
            let producer = graph.nodes().iter().find(|node| node.outputs().any(|o| o == input));
            let is_weight =
                producer.is_some_and(|node| *node.op() == NodeOp::Null && !is_input(node.name()));
            *(if is_weight { &mut weight_bytes } else { &mut read_bytes }) += bytes(input) as u64;
        }
        let kernels = reported["kernel"].as_str().unwrap_or_default();
        layers.push(Layer {
            name: node.name().to_owned(),
            function: function.clone(),
            kernels: kernels.split_whitespace().map(str::to_owned).collect(),
            class: class(reported, function),
            macs: reported["macs"].as_u64().unwrap_or_default(),
            shape: node
                .outputs()
                .next()
                .map(|output| graph.shape(output).extents().to_vec())
                .unwrap_or_default(),
            read_bytes,
            weight_bytes,
            written_bytes: node.outputs().map(|output| bytes(output) as u64).sum(),
        });
    }
    Ok(layers)
}

/// A layer's class, such as `conv2d 3x3 s2`, or `tvm add_relu`.
fn class(reported: &Value, function: &str) -> String {
    let Some(kernels) = reported["kernel"].as_str() else {
        return format!("tvm {}", without_number(function));
    };
    let one = std::slice::from_ref(&reported["call"]);
    let calls = reported["calls"].as_array().map_or(one, Vec::as_slice);
    let mut classes: Vec<String> = Vec::new();
    for (index, kernel) in kernels.split_whitespace().enumerate() {
        let class = kernel_class(kernel, calls.get(index).unwrap_or(&Value::Null));
        if !classes.contains(&class) {
            classes.push(class);
        }
    }
    classes.join(" + ")
}

/// `graphlet_conv2d_f32` with its window, stride, dilation and groups where they are not 1.
fn kernel_class(kernel: &str, call: &Value) -> String {
    let name = kernel.strip_prefix("graphlet_").unwrap_or(kernel);
    let mut class = name.strip_suffix("_f32").unwrap_or(name).to_owned();
    let number = |name: &str| call[name].as_u64();
    if let (Some(rows), Some(columns)) = (number("kh"), number("kw")) {
        class.push_str(&format!(" {rows}x{columns}"));
    }
    for (name, letter) in [("sh", 's'), ("dh", 'd'), ("groups", 'g')] {
        if let Some(value) = number(name).filter(|&value| value > 1) {
            class.push_str(&format!(" {letter}{value}"));
        }
    }
    class
}

/// TVM numbers functions of the same operators.
fn without_number(function: &str) -> &str {
    function.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_class_names_kernel_window_and_stride() {
        for (reported, function, expected) in [
            (
                json!({"kernel": "graphlet_conv2d_f32",
                       "call": {"kh": 3, "kw": 3, "sh": 2, "dh": 1, "groups": 1}}),
                "conv_7",
                "conv2d 3x3 s2",
            ),
            (
                json!({"kernel": "graphlet_conv2d_f32",
                       "call": {"kh": 1, "kw": 7, "sh": 1, "dh": 2, "groups": 4}}),
                "conv",
                "conv2d 1x7 d2 g4",
            ),
            (json!({"kernel": "graphlet_dense_f32", "call": {"k": 8}}), "fc", "dense"),
            (
                json!({"kernel": "graphlet_conv2d_f32 graphlet_conv2d_winograd_f32",
                       "calls": [{"kh": 1, "kw": 1}, {"ic": 3}]}),
                "fire",
                "conv2d 1x1 + conv2d_winograd",
            ),
            (json!({"kernel": null}), "fused_add_relu12", "tvm fused_add_relu"),
            (json!({"kernel": null}), "softmax_3", "tvm softmax"),
        ] {
            assert_eq!(class(&reported, function), expected, "{reported}");
        }
    }

    #[test]
    fn bytes_come_from_the_graph_and_kernels_from_the_report() {
        let graph = r#"{"nodes": [
            {"op": "null", "name": "x", "inputs": []},
            {"op": "null", "name": "w", "inputs": []},
            {"op": "tvm_op", "name": "conv", "inputs": [[0, 0, 0], [1, 0, 0]], "attrs":
             {"func_name": "f", "num_inputs": "2", "num_outputs": "1", "flatten_data": "0"}}],
            "arg_nodes": [0, 1], "heads": [[2, 0, 0]], "node_row_ptr": [0, 1, 2, 3],
            "attrs": {"storage_id": ["list_int", [1, 2, 0]],
                      "shape": ["list_shape", [[1, 3, 4, 4], [5, 3], [1, 5, 4, 4]]],
                      "dltype": ["list_str", ["float32", "float32", "float32"]]}}"#;
        let graph: Graph = graph.parse().unwrap();
        let report = json!({"inputs": [{"name": "x"}], "nodes": [{"name": "conv", "kernel": "graphlet_conv2d_f32",
                                       "macs": 240, "call": {"kh": 1, "kw": 1}}]});
        let expected = Layer {
            name: "conv".into(),
            function: "f".into(),
            kernels: vec!["graphlet_conv2d_f32".into()],
            class: "conv2d 1x1".into(),
            macs: 240,
            shape: vec![1, 5, 4, 4],
            read_bytes: 192,
            weight_bytes: 60,
            written_bytes: 320,
        };
        assert_eq!(layers(&graph, &report).unwrap(), [expected]);
        let other = json!({"nodes": [{"name": "dense"}]});
        let error = layers(&graph, &other).unwrap_err();
        assert!(matches!(error, BuildError::CompilerOutput { what: "report", .. }));
    }
}
