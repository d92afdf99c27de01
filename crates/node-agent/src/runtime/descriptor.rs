//! A descriptor that asynchronous code can wait for.

#![allow(unsafe_code, reason = "tokio asks for a proof that the descriptor stays what it is")]

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers a descriptor with the runtime, to be told when it is readable.
pub(crate) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same open descriptor from its making to its end, and the
    // `AsyncFd` owns it from here on.
    let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    registered.map_err(io::Error::from)
}
