//! The waSCC actor that every model is linked with: HTTP message in, classification out.
//!
//! [`routes::answer`] answers one request with one [`model::Model`]; everything in it is a plain
//! function of the request, so that one request can leave nothing behind for the next. What makes
//! it a waPC guest is in `guest`, and the one classifier that lives in its memory in `linked`; both
//! exist on WebAssembly only. A program with another door than waPC's goes without the feature
//! `wapc` and calls `linked`.
//!
//! Messages are read and written with `wire`, which defines the types of `wascc-actor` a second
//! time, byte for byte the same: its reader allocates nothing for lengths that a message merely
//! claims, and leaves a large body where it lies.

pub mod accept;
pub mod answer;
pub mod model;
pub mod multipart;
pub mod openinference;
pub mod page;
pub mod query;
pub mod raw;
pub mod routes;
pub mod tensor_data;
pub mod torchserve;

#[cfg(all(target_arch = "wasm32", feature = "wapc"))]
mod guest;
#[cfg(target_arch = "wasm32")]
pub mod linked;
#[cfg(all(target_arch = "wasm32", feature = "wapc"))]
mod profile;
