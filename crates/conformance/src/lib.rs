//! What the tests of this crate share: models with real and with seeded weights, their modules
//! and onnxruntime's answers (both kept in the cache folder, made anew when anything that they
//! are made of changes), inputs, and a sandbox to send them into.
//!
//! The way is the real one: `model.toml` and ONNX through the builder, the module signed and
//! verified, an instance of the host, FP32 tensors over `POST /v2/models/MODEL/infer`.

mod compare;
mod environment;
mod inputs;
mod kept;
mod light;
mod models;
mod modules;
pub mod nodes;
mod npy;
mod reference;
mod sandbox;

pub use compare::{ABSOLUTE, Difference, RELATIVE, compare};
pub use environment::{cache, home, shared};
pub use inputs::{Input, inputs, photographs, pictures};
pub use light::{LIGHT_MODELS, LightModel, light_model};
pub use models::{Model, Name, Output};
pub use modules::{Module, module};
pub use reference::{reference, reference_with_swapped_channels};
pub use sandbox::{Answer, Guest, MODULE_TIME, sign, with_stack};
