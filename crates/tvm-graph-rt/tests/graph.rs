//! graph.json, read strictly.

mod support;

use serde_json::{Value, json};
use support::{graph, graph_json};
use tvm_graph_rt::{DataType, Graph, NodeOp};

#[test]
fn a_graph_tells_its_nodes_shapes_and_memory() {
    let graph = graph();
    let names: Vec<_> = graph.nodes().iter().map(tvm_graph_rt::Node::name).collect();
    assert_eq!(names, ["x", "double_1", "p0", "add_3", "split_4", "add_5"]);
    assert_eq!(graph.nodes()[0].op(), &NodeOp::Null);
    assert_eq!(graph.nodes()[4].op(), &NodeOp::TvmOp("split".into()));
    assert_eq!(graph.nodes()[4].outputs().len(), 2);
    let [sum, half] = graph.heads() else { panic!("two heads") };
    assert_eq!(graph.shape(*sum).extents(), [1, 4]);
    assert_eq!(graph.dtype(*half), DataType::FLOAT32);
    // Storages 1, 3, 4 and 5, a cache line each; inputs and parameters are not counted.
    assert_eq!(graph.activation_bytes(), 4 * 64);
}

#[test]
fn every_mistake_in_a_graph_is_an_error_that_names_it() {
    let cases: Vec<(&str, Value, &str)> = vec![
        ("/nodes", json!({}), "malformed graph description"),
        ("/node_row_ptr/0", json!(-1), "malformed graph description"),
        (
            "/node_row_ptr",
            json!([0, 1]),
            "the graph's `node_row_ptr` has 2 values where 7 are needed",
        ),
        ("/node_row_ptr/0", json!(1), "node `x` has a wrong place in `node_row_ptr`"),
        ("/node_row_ptr/5", json!(5), "node `split_4` has a wrong place in `node_row_ptr`"),
        ("/node_row_ptr/6", json!(u64::MAX), "node `add_5` has a wrong place in `node_row_ptr`"),
        ("/arg_nodes", json!([0]), "`arg_nodes` does not list the nodes without an operator"),
        ("/arg_nodes", json!([0, 3]), "`arg_nodes` does not list the nodes without an operator"),
        ("/heads", json!([]), "the graph has no output"),
        (
            "/heads/0",
            json!([6, 0, 0]),
            "`heads` refers to output 0 of node 6, which does not come before it",
        ),
        (
            "/heads/0",
            json!([4, 2, 0]),
            "`heads` refers to output 2 of node 4, which does not come before it",
        ),
        ("/heads/0", json!([5]), "the graph's `inputs` has 1 values where 3 are needed"),
        ("/nodes/1/op", json!("call"), "node `double_1` has unknown operator `call`"),
        (
            "/nodes/0/inputs",
            json!([[0, 0, 0]]),
            "node `x` has num_inputs `1`, which cannot be carried out",
        ),
        (
            "/nodes/1/inputs/0",
            json!([1, 0, 0]),
            "`double_1` refers to output 0 of node 1, which does not come before it",
        ),
        (
            "/nodes/1/inputs/0",
            json!([3, 0, 0]),
            "`double_1` refers to output 0 of node 3, which does not come before it",
        ),
        (
            "/nodes/1/attrs/num_inputs",
            json!("2"),
            "node `double_1` has num_inputs `2`, which cannot be carried out",
        ),
        (
            "/nodes/1/attrs/num_outputs",
            json!("0"),
            "node `double_1` has num_outputs `0`, which cannot be carried out",
        ),
        (
            "/nodes/1/attrs/num_outputs",
            json!("two"),
            "node `double_1` has num_outputs `two`, which cannot be carried out",
        ),
        (
            "/nodes/1/attrs/flatten_data",
            json!("1"),
            "node `double_1` has flatten_data `1`, which cannot be carried out",
        ),
        (
            "/nodes/1/attrs/func_name",
            json!(""),
            "node `double_1` has func_name ``, which cannot be carried out",
        ),
        (
            "/nodes/1/attrs",
            json!({}),
            "node `double_1` has func_name ``, which cannot be carried out",
        ),
        ("/nodes/2/name", json!("x"), "two inputs are called `x`"),
        (
            "/attrs/shape/0",
            json!("list_int"),
            "the graph's `shape` holds `list_int`, not `list_shape`",
        ),
        ("/attrs/shape/1", json!([[1]]), "the graph's `shape` has 1 values where 7 are needed"),
        ("/attrs/shape/1/3", json!([1, -4]), "node `add_3`: extent -4 is negative"),
        (
            "/attrs/shape/1/3",
            json!([i64::MAX, 2]),
            "node `add_3`: a tensor of shape [9223372036854775807, 2] is too large for this machine's memory",
        ),
        ("/attrs/dltype/1/0", json!("float33"), "node `x`: unknown element type `float33`"),
        ("/attrs/storage_id/1/0", json!(-1), "node `x` has impossible storage id -1"),
        (
            "/attrs/storage_offset",
            json!(["list_int", [0, 0, 0, -64, 0, 0, 0]]),
            "node `add_3` has impossible storage offset -64",
        ),
        (
            "/attrs/storage_offset",
            json!(["list_int", [0, 0, 0, 4, 0, 0, 0]]),
            "node `add_3` has impossible storage offset 4",
        ),
        (
            "/attrs/storage_offset",
            json!(["list_int", [0, 0, 0, i64::MAX & !63, 0, 0, 0]]),
            "the graph's activations do not fit this machine's memory",
        ),
        (
            "/attrs/storage_offset",
            json!(["list_int", [0]]),
            "the graph's `storage_offset` has 1 values where 7 are needed",
        ),
        (
            "/attrs/consumed",
            json!(["list_int", [1]]),
            "entry 1 is no tensor from outside that a run could consume",
        ),
        (
            "/attrs/consumed",
            json!(["list_int", [-1]]),
            "entry -1 is no tensor from outside that a run could consume",
        ),
    ];
    for (pointer, value, expected) in cases {
        let mut json = graph_json();
        let (parent, key) = pointer.rsplit_once('/').expect("a path");
        match json.pointer_mut(pointer) {
            Some(place) => *place = value.clone(),
            // Left out by most graphs.
            None => json.pointer_mut(parent).expect(parent)[key] = value.clone(),
        }
        let error = json.to_string().parse::<Graph>().expect_err(pointer);
        let mut text = error.to_string();
        if let Some(source) = std::error::Error::source(&error)
            && !expected.starts_with("malformed")
        {
            text = format!("{text}: {source}");
        }
        assert_eq!(text, expected, "{pointer} = {value}");
    }
}

#[test]
fn a_storage_plan_that_overwrites_what_is_still_read_is_refused() {
    // Entries: x, double_1, p0, add_3, split_4 (two), add_5.
    for (entry, storage, node, holder) in [
        (1, 0, "double_1", "x"),       // the input keeps its value from run to run
        (3, 2, "add_3", "p0"),         // a parameter is never written
        (3, 1, "add_3", "double_1"),   // a kernel may not write what it reads
        (4, 1, "split_4", "double_1"), // add_5 still reads it
        (5, 4, "split_4", "split_4"),  // two outputs in one place
        (6, 4, "add_5", "split_4"),    // an output of the graph
        (6, 5, "add_5", "split_4"),
        (2, 0, "p0", "x"),
    ] {
        let mut json = graph_json();
        json["attrs"]["storage_id"][1][entry] = json!(storage);
        let error = json.to_string().parse::<Graph>().expect_err("overwrites");
        assert_eq!(
            error.to_string(),
            format!(
                "node `{node}` would overwrite storage {storage} while `{holder}` is still in it"
            )
        );
    }
}

/// All activations in storage 9, and the input too if a run may consume it.
fn in_one_arena(offsets: [i64; 7], consumed: bool) -> Value {
    let mut json = graph_json();
    let input = if consumed { 9 } else { 0 };
    json["attrs"]["storage_id"][1] = json!([input, 9, 2, 9, 9, 9, 9]);
    json["attrs"]["storage_offset"] = json!(["list_int", offsets]);
    if consumed {
        json["attrs"]["consumed"] = json!(["list_int", [0]]);
    }
    json
}

#[test]
fn tensors_share_a_storage_side_by_side() {
    // Entries: x, double_1, p0, add_3, split_4 (two), add_5.
    let read = |offsets, consumed| in_one_arena(offsets, consumed).to_string().parse::<Graph>();
    let graph = read([0, 0, 0, 64, 128, 192, 64], false).expect("add_3 is done before add_5");
    assert_eq!(graph.activation_bytes(), 256);
    let graph = read([128, 0, 0, 64, 128, 192, 64], true).expect("x is done before split_4");
    assert_eq!(graph.activation_bytes(), 256);
    for (offsets, consumed, node, holder) in [
        ([0, 0, 0, 0, 128, 192, 64], false, "add_3", "double_1"),
        ([0, 0, 0, 64, 0, 192, 64], false, "split_4", "double_1"),
        ([0, 0, 0, 64, 128, 192, 192], false, "add_5", "split_4"),
        ([0, 0, 0, 64, 128, 192, 64], true, "double_1", "x"),
    ] {
        assert_eq!(
            read(offsets, consumed).expect_err("overwrites").to_string(),
            format!("node `{node}` would overwrite storage 9 while `{holder}` is still in it")
        );
    }
}

#[test]
fn activations_that_fit_no_memory_are_refused() {
    let mut json = graph_json();
    for entry in 1..7 {
        json["attrs"]["shape"][1][entry] = json!([isize::MAX / 8, 1]);
    }
    let error = json.to_string().parse::<Graph>().expect_err("too large");
    assert_eq!(error.to_string(), "the graph's activations do not fit this machine's memory");
}

#[test]
fn references_may_leave_out_their_version() {
    let mut json = graph_json();
    json["nodes"][1]["inputs"] = json!([[0, 0]]);
    json["heads"] = json!([[5, 0]]);
    assert!(json.to_string().parse::<Graph>().is_ok());
}
