//! Descriptors: one that asynchronous code can wait for, and those that no child may inherit.

#![allow(unsafe_code, reason = "tokio asks for a proof, and one system call has no safe form")]

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers a descriptor with the runtime, to be told when it is readable.
pub(crate) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same open descriptor from its making to its end, and the
    // `AsyncFd` owns it from here on.
    let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

/// Marks all descriptors but the three standard ones to be closed when a program is started.
///
/// # Errors
/// When the kernel is older than 5.11.
pub(crate) fn close_others_on_exec() -> io::Result<()> {
    // SAFETY: only sets a flag; no descriptor is closed in this process.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
