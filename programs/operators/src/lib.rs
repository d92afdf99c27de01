//! The WASM operator library: a module without imports that computes one operator a call.
//!
//! The exports and what the operators mean stand in `docs/operators.md`. [`Library`] is all of it
//! as a safe value; `exports`, which exists on WebAssembly only, is the C side of it.

#[cfg(target_arch = "wasm32")]
mod exports;
mod library;
mod operator;

pub use library::Library;
pub use operator::{Operator, OperatorError};
