//! The module's exports.
#![expect(unsafe_code, reason = "a host finds functions by their symbols")]

use std::cell::RefCell;

use crate::Library;

thread_local! {
    static LIBRARY: RefCell<Library> = RefCell::default();
}

fn with<T>(work: impl FnOnce(&mut Library) -> T) -> T {
    // No export calls another, and the module imports nothing that could call back.
    LIBRARY.with_borrow_mut(work)
}

// SAFETY, for all of them: nothing else in the module defines these names.

/// Computes operator `op_type` on the tensors that the descriptor at `wasm_addr` names.
#[unsafe(no_mangle)]
extern "C" fn run(op_type: u32, wasm_addr: u32, in_size: u32) -> i32 {
    with(|library| library.run(op_type, wasm_addr, in_size))
}

/// A buffer of `size` bytes at a multiple of 64; 0 when there is no such memory.
#[unsafe(no_mangle)]
extern "C" fn graphlet_alloc(size: u32) -> u32 {
    with(|library| library.allocate(size))
}

/// Takes a buffer back.
#[unsafe(no_mangle)]
extern "C" fn graphlet_free(wasm_addr: u32) -> i32 {
    with(|library| library.free(wasm_addr))
}

/// Writes why the last call failed.
#[unsafe(no_mangle)]
extern "C" fn graphlet_message(wasm_addr: u32, size: u32) -> i32 {
    with(|library| library.message(wasm_addr, size))
}
