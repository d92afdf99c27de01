//! The module's exports.
#![expect(unsafe_code, reason = "a host finds functions by their symbols")]

use crate::Library;

guest_exports::exports!(Library);

// SAFETY: nothing else in the module defines this name.

/// Computes operator `op_type` on the tensors that the descriptor at `wasm_addr` names.
#[unsafe(no_mangle)]
extern "C" fn run(op_type: u32, wasm_addr: u32, in_size: u32) -> i32 {
    with(|library| library.run(op_type, wasm_addr, in_size))
}
