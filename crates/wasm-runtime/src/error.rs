//! What can go wrong between a program and a graph.

use engine::{CompileError, EngineError, Stop};
use tensor::{DType, DescriptorError, Shape, TensorError};

use crate::DescriptionError;

/// A graph could not be loaded, fed or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// No engine could be had.
    #[error("wasmtime cannot be used")]
    Engine(#[from] EngineError),
    /// The module is malformed, or uses what guests may not use.
    #[error("the module cannot be compiled")]
    Compile(#[from] CompileError),
    /// The module imports something; a graph imports nothing.
    #[error("not a WASM graph: it imports `{module}.{name}`")]
    Import {
        /// From which module.
        module: String,
        /// What.
        name: String,
    },
    /// The module lacks an export, or has it with another type.
    #[error("not a WASM graph: it has no `{0}` of the right type")]
    Export(&'static str),
    /// What the graph says about itself cannot be understood.
    #[error("the graph's description cannot be read")]
    Description(#[from] DescriptionError),
    /// No graph has been instantiated yet.
    #[error("no graph is loaded")]
    NotInstantiated,
    /// The graph trapped, ran past its deadline or out of memory. It has to be instantiated
    /// anew.
    #[error(transparent)]
    Stopped(#[from] Stop),
    /// The graph answered with an error.
    #[error("{message} (code {code})")]
    Refused {
        /// The number, as `docs/wasm-graph.md` lists them.
        code: i32,
        /// What the graph says about it.
        message: String,
    },
    /// The graph gave something that cannot be: it is broken, or means harm.
    #[error("the graph's {what} cannot be")]
    Answer {
        /// What.
        what: &'static str,
    },
    /// The graph's result is no descriptor.
    #[error("the graph's result cannot be read")]
    Result(#[source] DescriptorError),
    /// The graph has no memory for a tensor of this size.
    #[error("the graph cannot hold {bytes} bytes more")]
    OutOfMemory {
        /// How much was asked for.
        bytes: usize,
    },
    /// The graph has no input of this name.
    #[error("the graph has no input `{name}`; it reads {known}")]
    UnknownInput {
        /// What was asked for.
        name: String,
        /// The inputs that there are.
        known: String,
    },
    /// There are fewer inputs or outputs.
    #[error("the graph has {count} {kind}, no number {index}")]
    UnknownIndex {
        /// `inputs` or `outputs`.
        kind: &'static str,
        /// Which one was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A tensor has another element type than the graph reads.
    #[error("`{name}` holds {expected}, not {actual}")]
    WrongDType {
        /// The input.
        name: String,
        /// The graph's element type.
        expected: DType,
        /// The tensor's.
        actual: DType,
    },
    /// A tensor has another shape than the graph reads.
    #[error("`{name}` has shape {expected}, not {actual}")]
    WrongShape {
        /// The input.
        name: String,
        /// The graph's shape.
        expected: Shape,
        /// The tensor's.
        actual: Shape,
    },
    /// The graph was run before this input had a value.
    #[error("the input `{0}` has no value yet")]
    NotSet(String),
    /// An output was asked for before the graph has run.
    #[error("the graph has not run yet")]
    NotRun,
    /// A tensor cannot be made.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}
