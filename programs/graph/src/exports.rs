//! The module's exports, and the linked model.
#![expect(unsafe_code, reason = "a host finds functions by their symbols")]

use std::error::Error;

use tvm_graph_rt::{SystemLibModule, linked_block};

use crate::{Program, Session};

guest_exports::exports!(Program);

fn load() -> Result<Session, Box<dyn Error>> {
    Ok(Session::load(linked_block(), &SystemLibModule::new())?)
}

// SAFETY, for both: nothing else in the module defines these names; `run` is what the hosts of
// TVM's own WASM graphs call.

/// Runs the graph on the tensors that the descriptor at `wasm_addr` names.
#[unsafe(no_mangle)]
extern "C" fn run(wasm_addr: u32, in_size: u32) -> i32 {
    with(|program| program.run(wasm_addr, in_size, load))
}

/// Writes the description of inputs and outputs, as JSON.
#[unsafe(no_mangle)]
extern "C" fn graphlet_describe(wasm_addr: u32, size: u32) -> i32 {
    with(|program| program.describe(wasm_addr, size, load))
}
