//! The C symbols: arguments are validated here, and nothing is read before they all are.

pub(crate) mod elements;
pub(crate) mod values;
pub(crate) mod windows;

use crate::KernelError;

/// Turns a kernel's result into its C answer.
fn answer(result: Result<(), KernelError>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => error.code(),
    }
}

/// Refuses a missing buffer.
fn present<T>(pointer: *const T) -> Result<(), KernelError> {
    if pointer.is_null() { Err(KernelError::Geometry("a buffer is missing")) } else { Ok(()) }
}
