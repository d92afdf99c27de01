//! The model block that the builder has linked into this module.
//!
//! Unsafe stands here because the block is a symbol that only the linker knows.
#![expect(unsafe_code, reason = "reads a symbol that the linker places; the proof is below")]

use std::slice;

use tensor::Block;
use tensor::block::HEADER_BYTES;

unsafe extern "C" {
    // As `extern const char x[]` in C: the symbol has a place, and its size stands in its header.
    #[link_name = "graphlet_model"]
    static MODEL: [u8; 0];
}

/// The bytes of the linked model block, for [`Block::parse`].
///
/// Where the header is not that of a block, only the header comes back, and `parse` says why.
pub fn linked_block() -> &'static [u8] {
    let start = (&raw const MODEL).cast::<u8>();
    // SAFETY: the builder defines the symbol as a whole block in read-only data, which has at
    // least a header.
    let header = unsafe { &*start.cast::<[u8; HEADER_BYTES]>() };
    let len = Block::total_len(header).unwrap_or(HEADER_BYTES);
    // SAFETY: the header of a block gives the length of the block, which nobody writes to.
    unsafe { slice::from_raw_parts(start, len) }
}
