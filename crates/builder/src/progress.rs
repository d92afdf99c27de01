//! What a build tells while it runs.

use std::time::Duration;

use crate::Unused;

/// One thing worth telling.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A step begins.
    Phase {
        /// What it does, in a few words.
        name: String,
    },
    /// A convolution or matrix product found no kernel and runs in generated loops.
    Fallback {
        /// The ONNX node.
        node: String,
        /// Its operator.
        operator: String,
        /// Multiply-accumulates it takes.
        macs: u64,
        /// Its part of the whole model's, 0 to 1.
        share: f64,
        /// Why no kernel fits.
        reason: String,
    },
    /// Choices of the tuning log are not used; told once a build.
    Untuned {
        /// Which, and why; never empty.
        unused: Vec<Unused>,
        /// The command that measures for this build.
        tune: String,
    },
    /// Another build compiles a guest library, and this one waits for its end.
    WaitsForLibrary,
    /// There is no guest library of this kind yet: it is compiled, which takes a minute or two.
    CompilesLibrary,
    /// The step that was running ended.
    Done {
        /// What it did.
        name: String,
        /// How long it took.
        took: Duration,
    },
}

/// Takes the events of a build; called on the thread that called [`crate::build`].
pub trait Progress {
    /// One event.
    fn event(&mut self, event: Event);
}

/// Tells nobody.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn event(&mut self, _: Event) {}
}
