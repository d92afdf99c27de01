//! What modules of tensors have in common: a [`Desk`] on which a host lays requests and finds
//! results, and, by [`exports`], the C functions that lead to it.
//!
//! The WASM graph and the operator library are such modules; `docs/wasm-graph.md` describes the
//! exports.

use std::{error::Error, iter};

use tensor::{
    Buffers, DescriptorError, TensorPlace, TensorView, read_descriptor, write_descriptor,
};

/// The buffers that a host has asked for, and why the last call failed.
#[derive(Debug, Default)]
pub struct Desk {
    buffers: Buffers,
    message: String,
}

/// A request that names nothing to work on, or a result that finds no place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeskError {
    /// The request is no descriptor.
    #[error("malformed request")]
    Descriptor(#[from] DescriptorError),
    /// Bytes lie outside of the buffers that the host asked for.
    #[error("{what}: {bytes} bytes at address {address} lie in no buffer of graphlet_alloc")]
    Outside {
        /// Whose bytes.
        what: &'static str,
        /// Where they should be.
        address: u32,
        /// How many.
        bytes: u32,
    },
    /// The result's descriptor does not fit behind the request's address.
    #[error("the result's descriptor takes {needed} bytes but its buffer has {room}")]
    Room {
        /// What it takes.
        needed: usize,
        /// What there is from the address on.
        room: usize,
    },
}

impl DeskError {
    /// The number that stands for it across the border, as `docs/wasm-graph.md` lists them.
    pub fn code(&self) -> i32 {
        match self {
            DeskError::Descriptor(_) => -1,
            DeskError::Outside { .. } => -2,
            DeskError::Room { .. } => -4,
        }
    }
}

impl Desk {
    /// A buffer of `bytes` zeros at a multiple of 64; 0 when there is no such memory.
    pub fn allocate(&mut self, bytes: u32) -> u32 {
        self.buffers.allocate(bytes).unwrap_or(0)
    }

    /// Takes a buffer back: 0, or -2 when it was none.
    pub fn free(&mut self, address: u32) -> i32 {
        if self.buffers.free(address) {
            return 0;
        }
        let error = DeskError::Outside { what: "graphlet_free", address, bytes: 0 };
        self.fail(error.code(), &error)
    }

    /// `len` bytes from `address` on, if they lie within one buffer.
    pub fn bytes(&self, address: u32, len: u32) -> Option<&[u8]> {
        self.buffers.get(address, len)
    }

    /// As [`Desk::bytes`], to write to.
    pub fn bytes_mut(&mut self, address: u32, len: u32) -> Option<&mut [u8]> {
        self.buffers.get_mut(address, len)
    }

    /// The tensors that the descriptor at `address` names.
    ///
    /// # Errors
    /// [`DeskError::Outside`] or [`DeskError::Descriptor`].
    pub fn request(&self, address: u32, bytes: u32) -> Result<Vec<TensorPlace>, DeskError> {
        let request = self.bytes(address, bytes);
        let request = request.ok_or(DeskError::Outside { what: "the request", address, bytes })?;
        Ok(read_descriptor(request)?)
    }

    /// The data of these tensors; `what` is each of them.
    ///
    /// # Errors
    /// [`DeskError::Outside`] for data that does not lie within one buffer.
    pub fn views<'a>(
        &'a self,
        what: &'static str,
        places: &'a [TensorPlace],
    ) -> Result<Vec<TensorView<'a>>, DeskError> {
        let view = |place: &'a TensorPlace| {
            let (address, bytes) = (place.address, place.byte_count);
            let data = self.bytes(address, bytes);
            let data = data.ok_or(DeskError::Outside { what, address, bytes })?;
            let view = TensorView::new(place.dtype, &place.shape, data);
            Ok(view.expect("lengths were checked with the descriptor"))
        };
        places.iter().map(view).collect()
    }

    /// Writes the results' descriptor over the request at `address`; gives its length.
    ///
    /// # Errors
    /// [`DeskError::Room`], or [`DeskError::Descriptor`] for results that none can name.
    pub fn answer(&mut self, address: u32, results: &[TensorPlace]) -> Result<u32, DeskError> {
        let descriptor = write_descriptor(results)?;
        let (needed, room) = (descriptor.len(), self.buffers.room(address));
        // At most 65,535 tensors of 528 bytes: it fits 32 bits, and even 31.
        let target = self.buffers.get_mut(address, needed as u32);
        target.ok_or(DeskError::Room { needed, room })?.copy_from_slice(&descriptor);
        Ok(needed as u32)
    }

    /// Writes a text into a buffer, as far as `bytes` go, and gives its whole length; `bytes` of 0
    /// ask for that alone.
    ///
    /// # Errors
    /// [`DeskError::Outside`].
    pub fn tell(&mut self, text: &str, address: u32, bytes: u32) -> Result<i32, DeskError> {
        copy(text, &mut self.buffers, address, bytes)
    }

    /// Why the last call failed; empty when none has.
    pub fn reason(&self) -> &str {
        &self.message
    }

    /// Writes why the last call failed, as [`Desk::tell`] does; -2 when that is not possible.
    pub fn message(&mut self, address: u32, bytes: u32) -> i32 {
        copy(&self.message, &mut self.buffers, address, bytes).unwrap_or_else(|error| error.code())
    }

    /// Keeps why a call failed, and gives the code back.
    pub fn fail(&mut self, code: i32, error: &dyn Error) -> i32 {
        self.message = chain(error);
        code
    }
}

fn copy(text: &str, buffers: &mut Buffers, address: u32, bytes: u32) -> Result<i32, DeskError> {
    if bytes > 0 {
        let target = buffers.get_mut(address, bytes);
        let target = target.ok_or(DeskError::Outside { what: "the text", address, bytes })?;
        let len = text.len().min(target.len());
        target[..len].copy_from_slice(&text.as_bytes()[..len]);
    }
    Ok(i32::try_from(text.len()).unwrap_or(i32::MAX))
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    iter::successors(error.source(), |&cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The exports `graphlet_alloc`, `graphlet_free` and `graphlet_message` of a module whose state is
/// a `$module` (its `desk()` is its [`Desk`]), and the function `with`, by which its own exports
/// reach it.
#[macro_export]
macro_rules! exports {
    ($module:ty) => {
        ::std::thread_local! {
            static MODULE: ::std::cell::RefCell<$module> = ::std::default::Default::default();
        }

        fn with<T>(work: impl FnOnce(&mut $module) -> T) -> T {
            // No export calls another, and the module imports nothing that could call back.
            MODULE.with_borrow_mut(work)
        }

        // SAFETY, for all of them: nothing else in the module defines these names.

        /// A buffer of `size` bytes at a multiple of 64; 0 when there is no such memory.
        #[unsafe(no_mangle)]
        extern "C" fn graphlet_alloc(size: u32) -> u32 {
            with(|module| module.desk().allocate(size))
        }

        /// Takes a buffer back.
        #[unsafe(no_mangle)]
        extern "C" fn graphlet_free(wasm_addr: u32) -> i32 {
            with(|module| module.desk().free(wasm_addr))
        }

        /// Writes why the last call failed.
        #[unsafe(no_mangle)]
        extern "C" fn graphlet_message(wasm_addr: u32, size: u32) -> i32 {
            with(|module| module.desk().message(wasm_addr, size))
        }
    };
}

#[cfg(test)]
mod tests {
    use tensor::{DType, Shape};

    use super::*;

    #[test]
    fn buffers_are_given_back_once() {
        let mut desk = Desk::default();
        let at = desk.allocate(64);
        assert_eq!((desk.free(at), desk.free(at)), (0, -2));
        assert!(desk.message(0, 0) > 0);
    }

    #[test]
    fn a_text_is_told_as_far_as_there_is_room() {
        let mut desk = Desk::default();
        let at = desk.allocate(8);
        assert_eq!((desk.message(0, 0), desk.message(at, 8)), (0, 0), "nothing has failed yet");
        let error = DeskError::Outside { what: "an input", address: 7, bytes: 9 };
        assert_eq!(desk.fail(error.code(), &error), -2);
        let len = desk.message(at, 3);
        assert_eq!(len as usize, error.to_string().len());
        assert_eq!(desk.bytes(at, 4), Some(&b"an \0"[..]));
        assert_eq!(desk.message(at, 9), -2);
        assert_eq!(desk.message(0, 0), len, "asking changes nothing");
        assert!(matches!(desk.tell("x", at, 9), Err(DeskError::Outside { .. })));
    }

    #[test]
    fn a_cause_is_told_in_the_same_line() {
        let error = DeskError::from(DescriptorError::NotADescriptor);
        assert_eq!(chain(&error), "malformed request: not a tensor descriptor");
    }

    #[test]
    fn requests_are_read_where_they_lie_and_answered_there() {
        let mut desk = Desk::default();
        let (at, data) = (desk.allocate(100), desk.allocate(4));
        let place = |bytes: usize, address| {
            TensorPlace::new(DType::INT8, Shape::new([bytes]).unwrap(), address).unwrap()
        };
        let tensors = [place(4, data)];
        let len = desk.answer(at, &tensors).unwrap();
        assert_eq!(desk.request(at, len).unwrap(), tensors);
        desk.bytes_mut(data, 4).unwrap().copy_from_slice(&[1, 2, 3, 4]);
        let views = desk.views("a tensor", &tensors).unwrap();
        assert_eq!(views[0].as_bytes(), [1, 2, 3, 4]);
        let long = [place(5, data)];
        let error = desk.views("a tensor", &long).unwrap_err();
        assert!(matches!(error, DeskError::Outside { what: "a tensor", .. }), "{error}");
        assert_eq!(desk.request(at, 101).unwrap_err().code(), -2);
        assert_eq!(desk.request(at, len - 1).unwrap_err().code(), -1);
        let many = vec![place(4, data); 9];
        let error = desk.answer(at, &many).unwrap_err();
        assert_eq!(error.code(), -4);
        assert!(matches!(error, DeskError::Room { room: 100, .. }), "{error}");
    }
}
