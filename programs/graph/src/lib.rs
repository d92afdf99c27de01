//! The WASM graph: a module with a model inside, tensors in and tensors out.
//!
//! The exports and what they mean stand in `docs/wasm-graph.md`. [`Program`] is all of it as a
//! safe value; `exports`, which exists on WebAssembly only, is the C side of it.

#[cfg(target_arch = "wasm32")]
mod exports;
mod program;
mod session;

// Generated functions call the kernels by their C symbols; without this the library would lack them.
#[cfg(target_arch = "wasm32")]
use operators as _;

pub use program::Program;
pub use session::{LoadError, RunError, Session};
