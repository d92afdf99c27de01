//! A graph runtime for TVM: it plans storage once and calls compiled kernels in order.
//!
//! The public names are those of TVM's own Rust runtime; the calls speak TVM 0.27's packed ABI.
//!
//! ```
//! use tvm_graph_rt::{Graph, GraphExecutor, NativeModule, Shape, Tensor};
//!
//! let graph: Graph = r#"{
//!     "nodes": [
//!         {"op": "null", "name": "x", "inputs": []},
//!         {"op": "tvm_op", "name": "double_1", "inputs": [[0, 0, 0]], "attrs": {
//!             "func_name": "double", "num_inputs": "1", "num_outputs": "1", "flatten_data": "0"}}
//!     ],
//!     "arg_nodes": [0], "heads": [[1, 0, 0]], "node_row_ptr": [0, 1, 2],
//!     "attrs": {"storage_id": ["list_int", [0, 1]], "shape": ["list_shape", [[2], [2]]],
//!               "dltype": ["list_str", ["float32", "float32"]]}
//! }"#.parse()?;
//!
//! // In a module the kernels are TVM's: `SystemLibModule::new()`.
//! let mut kernels = NativeModule::default();
//! kernels.register("double", 1, |args| {
//!     let x = args.input::<f32>(0)?;
//!     for (y, x) in args.output::<f32>(0)?.iter_mut().zip(x) {
//!         *y = 2.0 * x;
//!     }
//!     Ok(())
//! });
//!
//! let mut executor = GraphExecutor::new(graph, &kernels)?;
//! executor.set_input("x", &Tensor::copy_of(Shape::new([2])?, &[1.0f32, 2.0])?)?;
//! executor.run()?;
//! assert_eq!(executor.get_output(0)?.as_slice::<f32>()?, [2.0, 4.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arena;
mod call;
mod executor;
mod graph;
#[cfg(feature = "linked")]
mod linked;
mod native;
mod packed;
mod params;
mod system_lib;
mod workspace;

pub use executor::{ExecutorError, GraphExecutor};
pub use graph::{EntryId, Graph, GraphError, Node, NodeOp};
#[cfg(feature = "linked")]
pub use linked::linked_block;
pub use native::{KernelArgs, KernelError, NativeModule};
pub use packed::{ArgValue, CallError, PackedCFunc, PackedFunc, RetValue, TVMFFIAny};
pub use params::{ParamsError, load_param_dict};
pub use system_lib::SystemLibModule;
pub use tensor::{
    Block, BlockError, DLDevice, DLTensor, DType as DataType, Element, Shape, Storage, Tensor,
    TensorError, TensorView,
};

/// A collection of compiled kernels.
pub trait Module {
    /// The kernel that a graph calls `name`, if the module has it.
    fn get_function(&self, name: &str) -> Option<PackedFunc>;
}
