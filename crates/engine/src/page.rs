//! The poll page in this process: taking and giving back its read permission.

#![allow(unsafe_code, reason = "page protection is a system call on raw addresses")]

use std::io;

/// Bytes of one page of this machine; 0 where pages cannot be protected.
pub(crate) fn page_bytes() -> usize {
    #[cfg(unix)]
    {
        // SAFETY: sysconf reads a constant of the system.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(bytes).unwrap_or(0)
    }
    #[cfg(not(unix))]
    0
}

/// Whether pages of this size fit into the one WebAssembly page of the poll memory.
pub(crate) fn usable(page_bytes: usize) -> bool {
    page_bytes.is_power_of_two() && page_bytes <= WASM_PAGE_BYTES
}

const WASM_PAGE_BYTES: usize = 1 << 16;

/// The poll page of one live instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PollPage {
    address: usize,
    bytes: usize,
}

impl PollPage {
    /// The page at the beginning of a poll memory.
    ///
    /// # Safety
    /// `base` is the address of a WebAssembly memory of at least one page, mapped by wasmtime for
    /// this instance alone; only the poll's loads ever touch it; and the result is not used after
    /// that instance is gone.
    pub(crate) unsafe fn new(base: *mut u8) -> Option<Self> {
        let bytes = page_bytes();
        let address = base.addr();
        (usable(bytes) && address != 0 && address.is_multiple_of(bytes))
            .then_some(Self { address, bytes })
    }

    /// Loads from the page fault from now on.
    pub(crate) fn forbid(self) -> io::Result<()> {
        #[cfg(unix)]
        return self.protect(libc::PROT_NONE);
        #[cfg(not(unix))]
        return Err(io::ErrorKind::Unsupported.into());
    }

    /// The page as wasmtime mapped it.
    pub(crate) fn permit(self) -> io::Result<()> {
        #[cfg(unix)]
        return self.protect(libc::PROT_READ | libc::PROT_WRITE);
        #[cfg(not(unix))]
        return Err(io::ErrorKind::Unsupported.into());
    }

    #[cfg(unix)]
    fn protect(self, protection: libc::c_int) -> io::Result<()> {
        let address = std::ptr::without_provenance_mut(self.address);
        // SAFETY: the page is mapped and belongs to the poll memory of a live instance (contract
        // of `new`); nothing but the poll's loads reads it, and a fault there is a trap that
        // wasmtime handles.
        let status = unsafe { libc::mprotect(address, self.bytes, protection) };
        if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
