//! `model.toml` and an ONNX file to a module that is ready to be signed.
//!
//! The steps, each a file here: the compiler package turns ONNX into `graph.json`,
//! `graph.params` and `libgraph_wasm32.a` ([`compiler`]); the guest (an actor or a WASI command
//! with the graph runtime and the kernels) is a static library that is built once and kept
//! ([`guest`], [`Library`]); graph, weights, spec and labels become one data symbol (`object`); the linker
//! joins the three (`link`); an actor or component is then run until its model is loaded, and written
//! down as it stands (`preinit`); a component's module is wrapped at last (`component`). No Rust is
//! compiled for a second model.

mod build;
pub mod compiler;
mod component;
mod error;
pub mod guest;
mod home;
mod join;
mod kept;
mod layers;
mod link;
mod object;
mod operator;
mod preinit;
mod progress;
mod tensors;
mod tuning;

pub use build::{BuildOptions, Built, Card, build, build_with_choices, read_model};
pub use error::BuildError;
pub use guest::GuestKind;
pub use guest_toolchain::GuestToolchain;
pub use home::Home;
pub use kept::Library;
pub use layers::{LAYERS_SECTION, Layer};
pub use model_spec::SimdLevel;
pub use operator::{Operator, OperatorInput, OperatorOptions, build_operator};
pub use progress::{Event, Progress, Silent};
pub use tensors::{
    BuiltTensors, GRAPH_ABI, GRAPH_SECTION, TensorOptions, build_operators, build_tensors,
    link_tensors,
};
pub use tuning::{
    EngineId, EngineLog, LayerLog, TUNING_FILE, Trial, TuningError, TuningLog, Unused, tuning_path,
};
