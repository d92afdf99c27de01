//! The kubelet's role for WebAssembly pods, as Krustlet had it, on today's Kubernetes API.
//!
//! [`identity`] gets the node its certificates, [`node`] keeps the Node object and its lease,
//! [`pods`] drives each pod through its life, [`runtime`] starts and watches the processes that
//! pods are, and [`server`] answers what the API server asks of a kubelet. [`agent`] wires them.

pub mod agent;
pub mod backoff;
pub mod config;
pub mod identity;
pub mod node;
pub mod options;
pub mod pods;
pub mod runtime;
pub mod server;
