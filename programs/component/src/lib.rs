//! The classifier as a `wasi:http` component, for `wasmtime serve`, Spin and wasmCloud.
//!
//! It answers what the actor answers, with the actor's code; `docs/component.md` says what differs
//! where another host than ours stands before it. [`Message`] is what comes in and goes out, as
//! plain values; `door`, which exists on WebAssembly only, is the component's side of it.

#[cfg(target_arch = "wasm32")]
mod door;
mod message;

pub use message::{MAX_BODY_BYTES, Message, fields, has_body};
