//! Actors, their instances, and the links between actors and capability providers.
//!
//! A [`Host`] takes verified modules and runs each as an [`Actor`]: a queue, and instances behind
//! it, each on a thread of its own. Providers reach an actor through
//! [`provider::ActorService`]; an actor reaches its providers through waPC host calls, as far as
//! its claims and its links allow.
//!
//! A large module need not be hashed before its instances begin: [`Host::load_ahead`] and
//! [`Host::instance_ahead`] say what may run ahead of that, and why.
//!
//! A `command` (a feature) is a verified module of another kind: a WASI program, run to its end.

mod actor;
mod capabilities;
#[cfg(feature = "command")]
pub mod command;
mod confirm;
mod host;
mod identity;
mod instance;
mod isolation;
pub mod limits;
pub mod manifest;
mod phases;
pub mod provider;
mod queue;
mod recheck;
mod wapc;

pub use self::{
    actor::{Actor, StartError},
    host::{Host, HostBuilder, LinkError, LoadError, LoadOptions, PolicySource},
    instance::{Instance, ModuleError},
    isolation::{Isolation, ParseIsolationError},
};
pub use engine::{EngineError, Interruption};
