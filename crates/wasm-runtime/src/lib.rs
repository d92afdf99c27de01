//! Loads a WASM graph (`docs/wasm-graph.md`) under wasmtime and runs it: tensors in, tensors out.
//!
//! A graph has no imports: what it computes is all that it can do. It runs in a sandbox that
//! bounds its memory and its time, and its compiled code is kept in a cache. Whose modules may run
//! is not decided here: `graphlet graph run` asks for a signature first, and a program that
//! loads a file which somebody could have exchanged should do so too (crate `claims`).
//!
//! ```no_run
//! // Not run: a graph has to be built first, by `graphlet build model.onnx --as graph`.
//! use ndarray::Array4;
//! use wasm_runtime::{GraphExecutor, GraphOptions, Tensor};
//!
//! let mut graph = GraphExecutor::new(&GraphOptions {
//!     cache_dir: Some("/var/cache/graphs".into()),
//!     ..GraphOptions::default()
//! })?;
//! let description = graph.instantiate(&std::fs::read("wasm_graph.wasm")?)?;
//! println!("{} reads {}", description.name, description.inputs[0].shape);
//!
//! let picture = Array4::<f32>::zeros((1, 3, 224, 224));
//! graph.set_input("data", &Tensor::from_array(&picture)?)?;
//! graph.run()?;
//! let scores = graph.get_output(0)?.to_array::<f32>()?;
//! println!("{} scores", scores.len());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`OperatorLibrary`] does the same for the WASM operator library (`docs/operators.md`).

mod description;
mod error;
mod executor;
mod module;
mod operators;

pub use description::{Description, DescriptionError, TensorInfo};
pub use engine::{Engine, EngineOptions, Limits};
pub use error::GraphError;
pub use executor::{GraphExecutor, GraphOptions};
pub use operators::{Operator, OperatorLibrary};
pub use tensor::{DType, Element, Shape, Storage, Tensor, TensorError, TensorView};
