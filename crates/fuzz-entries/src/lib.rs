//! One function for each parser that reads what strangers send: it takes any bytes, never
//! panics, and asserts what must hold of whatever is accepted.
//!
//! The targets of `fuzz/` (cargo-fuzz, a workspace of its own) call these functions. `tests/`
//! calls them too, with the committed corpora and with seeded mutations of them, so that a fault
//! that was found once is looked for in every test run, on any toolchain.

mod entries;
mod mutate;
mod seeds;

pub use entries::{
    descriptor, graph_json, http_head, image, messages, model_toml, module, npy, params,
};
pub use mutate::Mutator;
pub use seeds::{Seed, seeds};

/// A parser under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name of the fuzz target and of its corpus' folder.
    pub name: &'static str,
    /// Reads any bytes; tells whether they were accepted.
    pub run: fn(&[u8]) -> bool,
}

/// All of them, as `fuzz/fuzz_targets` has them.
pub const TARGETS: [Target; 9] = [
    Target { name: "descriptor", run: descriptor },
    Target { name: "graph_json", run: graph_json },
    Target { name: "http_head", run: http_head },
    Target { name: "image", run: image },
    Target { name: "messages", run: messages },
    Target { name: "model_toml", run: model_toml },
    Target { name: "module", run: module },
    Target { name: "npy", run: npy },
    Target { name: "params", run: params },
];
