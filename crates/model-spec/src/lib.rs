//! What a model eats and answers: `model.toml` as a typed, validated value.
//!
//! The same value travels three ways: Rust parses it from TOML, the compiler gets it as JSON,
//! and the module carries it as JSON, so that the classifier and `graphlet inspect` read what
//! the author wrote. `docs/model-toml.md` is the reference that authors read.

#[cfg(feature = "toml")]
mod draft;
mod facts;
#[cfg(feature = "toml")]
mod init;
mod labels;
mod mistakes;
#[cfg(feature = "toml")]
mod parse;
mod presets;
mod spec;
mod validate;

#[cfg(feature = "toml")]
pub use draft::Draft;
pub use facts::{Dimension, OnnxFacts, ValueFacts};
#[cfg(feature = "toml")]
pub use init::{InitError, InitOptions, write_model_toml};
pub use labels::{LabelError, parse_labels};
pub use mistakes::{Mistake, Mistakes};
#[cfg(feature = "toml")]
pub use parse::{Lines, ParsedSpec, parse};
pub use presets::{Preset, PresetError, from_preprocessor_config};
pub use spec::{
    ChannelOrder, Compile, Filter, Input, InputDType, Layout, Model, ModelSpec, Output, OutputKind,
    Preprocess, Quantisation, ResizePolicy, SimdLevel, Size,
};
