//! Capability provider `wascc:http_server`: takes HTTP/1.1 from strangers and hands whole,
//! bounded, well-formed requests to actors.
//!
//! A request's way: `listen` accepts the connection, `gate` lets only well-formed request heads
//! through to hyper (`strict` says which are), `endpoint` reads the body (`body` bounds it), calls
//! the actor, and turns what it says into a response (`answer`). [`Limits`] holds every number.
//!
//! HTTP/2 is not served: every client that this project serves speaks HTTP/1.1 in clear text, and
//! a front proxy that speaks h2 to the world speaks HTTP/1.1 to what stands behind it; so the
//! floods that h2 makes possible (rapid reset, CONTINUATION, empty DATA) meet a closed door. Its
//! preface is answered with 505 and the connection closed.

mod admin;
mod answer;
mod body;
mod endpoint;
mod gate;
mod limits;
mod listen;
mod metrics;
mod provider;
mod request_id;
mod strict;

pub use limits::{LimitError, Limits};
pub use provider::{Bound, DEFAULT_ADMIN_ADDRESS, HttpProvider};
pub use strict::head_len;
