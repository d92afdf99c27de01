//! A small graph with every feature, and kernels for it.
#![allow(dead_code, reason = "each test file uses its part")]

use serde_json::{Value, json};
use tvm_graph_rt::{DataType, Graph, GraphExecutor, NativeModule, Shape, Storage, Tensor};

/// ```text
/// x ──► double ──► add(·, p0) ──► split ──┬─► add ──► heads[0]
///         └──────────────────────────────────┘        (+ the first half of split: heads[1])
/// ```
/// All tensors are float32 of shape [1, 4]. The sum takes over the storage of `add(·, p0)`.
pub fn graph_json() -> Value {
    let op = |name: &str, func: &str, inputs: Value, outputs: usize| {
        json!({"op": "tvm_op", "name": name, "inputs": inputs, "attrs": {
            "func_name": func, "num_inputs": inputs.as_array().expect("list").len().to_string(),
            "num_outputs": outputs.to_string(), "flatten_data": "0"}})
    };
    json!({
        "nodes": [
            {"op": "null", "name": "x", "inputs": []},
            op("double_1", "double", json!([[0, 0, 0]]), 1),
            {"op": "null", "name": "p0", "inputs": []},
            op("add_3", "add", json!([[1, 0, 0], [2, 0, 0]]), 1),
            op("split_4", "split", json!([[3, 0, 0]]), 2),
            op("add_5", "add", json!([[4, 1, 0], [1, 0, 0]]), 1),
        ],
        "arg_nodes": [0, 2],
        "heads": [[5, 0, 0], [4, 0, 0]],
        "node_row_ptr": [0, 1, 2, 3, 4, 6, 7],
        "attrs": {
            "storage_id": ["list_int", [0, 1, 2, 3, 4, 5, 3]],
            "shape": ["list_shape", vec![[1, 4]; 7]],
            "dltype": ["list_str", vec!["float32"; 7]],
        },
    })
}

pub fn graph() -> Graph {
    graph_json().to_string().parse().expect("well-formed")
}

/// The same with everything that kernels write in one storage, and the input there too, where
/// `split_4` writes later.
pub fn consuming_graph() -> Graph {
    let mut json = graph_json();
    json["attrs"]["storage_id"][1] = json!([9, 9, 2, 9, 9, 9, 9]);
    json["attrs"]["storage_offset"] = json!(["list_int", [128, 0, 0, 64, 128, 192, 64]]);
    json["attrs"]["consumed"] = json!(["list_int", [0]]);
    json.to_string().parse().expect("well-formed")
}

pub fn kernels() -> NativeModule {
    let mut module = NativeModule::default();
    module.register("double", 1, |args| {
        let x = args.input::<f32>(0)?;
        args.output::<f32>(0)?.iter_mut().zip(x).for_each(|(y, x)| *y = 2.0 * x);
        Ok(())
    });
    module.register("add", 1, |args| {
        let (a, b) = (args.input::<f32>(0)?, args.input::<f32>(1)?);
        let sum = args.output::<f32>(0)?;
        if [a.len(), b.len()] != [sum.len(); 2] {
            return Err("shapes differ".into());
        }
        for (i, sum) in sum.iter_mut().enumerate() {
            *sum = a[i] + b[i];
        }
        Ok(())
    });
    // The first output is the input, the second its negation.
    module.register("split", 2, |args| {
        let x = args.input::<f32>(0)?;
        args.output::<f32>(0)?.iter_mut().zip(x).for_each(|(y, x)| *y = *x);
        args.output::<f32>(1)?.iter_mut().zip(x).for_each(|(y, x)| *y = -x);
        Ok(())
    });
    module
}

pub fn row(values: [f32; 4]) -> Tensor<'static> {
    Tensor::copy_of(Shape::new([1, 4]).expect("small"), &values).expect("fits")
}

pub fn executor() -> GraphExecutor {
    executor_of(graph())
}

pub fn consuming_executor() -> GraphExecutor {
    executor_of(consuming_graph())
}

fn executor_of(graph: Graph) -> GraphExecutor {
    let mut executor = GraphExecutor::new(graph, &kernels()).expect("all kernels are there");
    let params = [("p0".to_owned(), row([10.0, 20.0, 30.0, 40.0]))];
    executor.load_params(params.into()).expect("the graph's own");
    executor
}

/// A tensor over bytes that start one byte past an aligned address.
pub fn misaligned(values: [f32; 4]) -> Tensor<'static> {
    let mut bytes = vec![0u8; 64 + 17];
    let start = bytes.as_ptr().align_offset(64) + 1;
    for (i, value) in values.iter().enumerate() {
        bytes[start + 4 * i..][..4].copy_from_slice(&value.to_le_bytes());
    }
    let bytes: &'static [u8] = bytes.leak();
    let shape = Shape::new([1, 4]).expect("small");
    Tensor::new(DataType::FLOAT32, shape, Storage::Borrowed(&bytes[start..start + 16]))
        .expect("16 bytes")
}

/// A linear generator: tests need the same mutations each time, not good randomness.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 33) as usize) % bound.max(1)
    }
}
