//! wasmtime's configuration, compiled-code cache, limits and deadline.
//!
//! A module goes through [`Engine::compile`] (checks, poll instructions, code cache) and comes to
//! life as a [`Sandbox`], which bounds its memory, its stack and its time. What the module may
//! import and what its exports mean is for the rooms above.
//!
//! Unsafe code lives here, with its proofs: mapping compiled code (`cache`), having its pages
//! mapped ahead of their use (`ahead`), and protecting the poll page (`page`).

mod ahead;
mod cache;
mod checksum;
mod config;
mod deadline;
mod instrument;
mod limits;
mod page;
mod sandbox;

pub use self::{
    cache::{CacheError, CodeCache, UncheckedData},
    config::{
        CompileError, Compiled, Engine, EngineError, EngineOptions, Found, Interruption, Origin,
        Pool,
    },
    deadline::{Alarm, Watchdog},
    instrument::{InstrumentError, POLL_MEMORY, START_FUNCTION},
    limits::{Limiter, Limits},
    sandbox::{Guest, Sandbox, Stop},
};
pub use wasmtime;
