//! The life of a pod: what it asks, how it starts, its probes, its status, its end.
//!
//! [`PodManager`] watches the pods bound to this node and gives each a worker. The worker is the
//! pod's state machine: it admits the pod ([`POD_SPEC_FIELDS`]), fetches and verifies its module,
//! resolves its settings, starts it, probes it, restarts it and stops it, and what it knows goes
//! to the API server as status and events. Everything that a worker needs of the world is behind
//! traits (`seams`), so that the state machine is tested with fakes and virtual time.

mod admission;
mod backoff;
mod board;
mod cluster;
mod compose;
mod config;
mod containers;
mod end;
mod env;
mod events;
mod eviction;
mod expand;
#[cfg(test)]
mod fakes;
mod fields;
mod images;
mod kind;
mod ledger;
mod manager;
mod prepare;
mod probe_io;
mod probes;
mod resources;
mod running;
mod seams;
mod status;
mod status_writer;
mod takeover;
#[cfg(test)]
mod tests;
mod trouble;
mod volumes;
mod worker;

pub use config::{PodsConfig, Trust};
pub use fields::{Class, POD_SPEC_FIELDS, SpecField, Values};
pub use ledger::Capacity;
pub use manager::PodManager;
