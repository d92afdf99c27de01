//! Who the node is: its client certificate and the one it serves with, from the first bootstrap
//! token to every renewal.

mod api;

pub use api::Api;
