//! Tests of the whole: modules pushed to a registry, a control plane, two node agents, `kubectl`.
//!
//! Everything is in `tests/e2e`; `make e2e` brings the cluster and runs it. Here is only what
//! makes the modules that must be refused.

pub mod wasm;
