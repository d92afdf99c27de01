//! The kubelet's role for WebAssembly pods, as Krustlet had it, on today's Kubernetes API.
//!
//! [`identity`] gets the node its certificates, [`node`] keeps the Node object and its lease,
//! [`pods`] drives each pod through its life, [`runtime`] starts and watches the processes that
//! pods are, and [`server`] answers what the API server asks of a kubelet.

pub mod backoff;
pub mod identity;
pub mod node;
pub mod pods;
pub mod runtime;
pub mod server;
