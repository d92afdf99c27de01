//! The module's exports, and the linked model.
#![expect(unsafe_code, reason = "a host finds functions by their symbols")]

use std::{cell::RefCell, error::Error};

use tvm_graph_rt::{SystemLibModule, linked_block};

use crate::{Program, Session};

thread_local! {
    static PROGRAM: RefCell<Program> = RefCell::default();
}

fn load() -> Result<Session, Box<dyn Error>> {
    Ok(Session::load(linked_block(), &SystemLibModule::new())?)
}

fn with<T>(work: impl FnOnce(&mut Program) -> T) -> T {
    // No export calls another, and the module imports nothing that could call back.
    PROGRAM.with_borrow_mut(work)
}

// SAFETY, for all of them: nothing else in the module defines these names; they begin with
// `graphlet_`, and `run` is what the hosts of TVM's own WASM graphs call.

/// Runs the graph on the tensors that the descriptor at `wasm_addr` names.
#[unsafe(no_mangle)]
extern "C" fn run(wasm_addr: u32, in_size: u32) -> i32 {
    with(|program| program.run(wasm_addr, in_size, load))
}

/// A buffer of `size` bytes at a multiple of 64; 0 when there is no such memory.
#[unsafe(no_mangle)]
extern "C" fn graphlet_alloc(size: u32) -> u32 {
    with(|program| program.allocate(size))
}

/// Takes a buffer back.
#[unsafe(no_mangle)]
extern "C" fn graphlet_free(wasm_addr: u32) -> i32 {
    with(|program| program.free(wasm_addr))
}

/// Writes the description of inputs and outputs, as JSON.
#[unsafe(no_mangle)]
extern "C" fn graphlet_describe(wasm_addr: u32, size: u32) -> i32 {
    with(|program| program.describe(wasm_addr, size, load))
}

/// Writes why the last call failed.
#[unsafe(no_mangle)]
extern "C" fn graphlet_message(wasm_addr: u32, size: u32) -> i32 {
    with(|program| program.message(wasm_addr, size))
}
