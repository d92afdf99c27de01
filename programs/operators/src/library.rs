//! What the exports do, as one value: buffers, the last result, and the last failure's text.

use std::{error::Error, iter};

use tensor::{
    Buffers, DescriptorError, Tensor, TensorPlace, TensorView, address_of, read_descriptor,
    write_descriptor,
};

use crate::{Operator, OperatorError};

/// The state of a module.
#[derive(Debug, Default)]
pub struct Library {
    buffers: Buffers,
    result: Option<Tensor<'static>>,
    message: String,
}

/// A call that gave no result, with the codes of `docs/operators.md`.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("malformed request")]
    Descriptor(#[source] DescriptorError),
    #[error("{what}: {bytes} bytes at address {address} lie in no buffer of graphlet_alloc")]
    Outside { what: &'static str, address: u32, bytes: u32 },
    #[error(transparent)]
    Operator(#[from] OperatorError),
    #[error("the result's descriptor takes {needed} bytes but its buffer has {room}")]
    Room { needed: usize, room: usize },
}

impl CallError {
    fn code(&self) -> i32 {
        match self {
            CallError::Descriptor(_) => -1,
            CallError::Outside { .. } => -2,
            CallError::Operator(OperatorError::Unknown(_)) => -6,
            CallError::Operator(OperatorError::Kernel(_) | OperatorError::Tensor(_)) => -5,
            CallError::Operator(_) => -3,
            CallError::Room { .. } => -4,
        }
    }
}

impl Library {
    /// A buffer of `bytes` zeros at a multiple of 64; 0 when there is no such memory.
    pub fn allocate(&mut self, bytes: u32) -> u32 {
        self.buffers.allocate(bytes).unwrap_or(0)
    }

    /// Takes a buffer back: 0, or -2 when it was none.
    pub fn free(&mut self, address: u32) -> i32 {
        if self.buffers.free(address) {
            return 0;
        }
        self.fail(&CallError::Outside { what: "graphlet_free", address, bytes: 0 })
    }

    /// Computes an operator on the tensors that the descriptor at `address` names, and writes the
    /// result's descriptor over it: its length, or a negative code.
    pub fn run(&mut self, operator: u32, address: u32, bytes: u32) -> i32 {
        let answer = self.answer(operator, address, bytes);
        // One tensor's descriptor has at most 536 bytes.
        answer.map_or_else(|error| self.fail(&error), |len| len as i32)
    }

    /// Writes why the last call failed into a buffer, as far as `bytes` go, and gives the text's
    /// whole length.
    pub fn message(&mut self, address: u32, bytes: u32) -> i32 {
        if bytes > 0 {
            let Some(target) = self.buffers.get_mut(address, bytes) else { return -2 };
            let len = self.message.len().min(target.len());
            target[..len].copy_from_slice(&self.message.as_bytes()[..len]);
        }
        i32::try_from(self.message.len()).unwrap_or(i32::MAX)
    }

    fn answer(&mut self, operator: u32, address: u32, bytes: u32) -> Result<usize, CallError> {
        let operator = Operator::new(operator)?;
        let outside = |what, address, bytes| CallError::Outside { what, address, bytes };
        let request = self.buffers.get(address, bytes);
        let request = request.ok_or_else(|| outside("the request", address, bytes))?;
        let places = read_descriptor(request).map_err(CallError::Descriptor)?;
        let mut inputs = Vec::with_capacity(places.len());
        for place in &places {
            let data = self.buffers.get(place.address, place.byte_count);
            let data = data.ok_or_else(|| outside("a tensor", place.address, place.byte_count))?;
            let view = TensorView::new(place.dtype, &place.shape, data);
            inputs.push(view.expect("lengths were checked with the descriptor"));
        }
        let result = operator.compute(&inputs, &mut self.result)?;
        let at = address_of(result.as_bytes());
        let place = TensorPlace::new(result.dtype(), result.shape().clone(), at);
        let descriptor = place.and_then(|place| write_descriptor(&[place]));
        let descriptor = descriptor.map_err(CallError::Descriptor)?;
        let (needed, room) = (descriptor.len(), self.buffers.room(address));
        let target = self.buffers.get_mut(address, needed as u32);
        target.ok_or(CallError::Room { needed, room })?.copy_from_slice(&descriptor);
        Ok(needed)
    }

    fn fail(&mut self, error: &CallError) -> i32 {
        self.message = chain(error);
        error.code()
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn Error) -> String {
    iter::successors(error.source(), |&cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use tensor::{DType, Shape};

    use super::*;

    #[test]
    fn every_failure_has_a_code_and_words_and_the_next_call_is_answered() {
        let mut library = Library::default();
        let (at, data) = (library.allocate(256), library.allocate(16));
        let place = |dtype, extents: &[usize], address| {
            TensorPlace::new(dtype, Shape::new(extents).unwrap(), address).unwrap()
        };
        let mut call = |operator, tensors: &[TensorPlace]| {
            let bytes = write_descriptor(tensors).unwrap();
            let len = bytes.len() as u32;
            library.buffers.get_mut(at, len).unwrap().copy_from_slice(&bytes);
            let code = library.run(operator, at, len);
            (code, library.message.clone())
        };
        let good = place(DType::INT8, &[4], data);
        assert_eq!(call(0, &[good.clone(), good.clone()]).0, 8 + 16 + 8);
        assert_eq!(call(4, std::slice::from_ref(&good)).0, -6);
        assert_eq!(call(0, std::slice::from_ref(&good)).0, -3);
        let long = place(DType::INT8, &[17], data);
        let (code, words) = call(0, &[good.clone(), long]);
        assert_eq!(code, -2);
        assert!(words.contains("graphlet_alloc"), "{words}");
        let odd = TensorPlace { address: data + 1, ..good.clone() };
        assert_eq!(call(0, &[good.clone(), odd]).0, -1);
        let empty = place(DType::FLOAT32, &[0], data);
        assert_eq!(call(2, &[empty]).0, -5);
        assert_eq!(call(3, &[good.clone(), good]).0, 8 + 16);
        assert_eq!((library.run(0, 0, 0), library.run(0, at, 257)), (-2, -2));
        assert_eq!((library.free(data), library.free(data)), (0, -2));
        assert!(library.message(0, 0) > 0 && library.message(data, 1) == -2);
    }

    #[test]
    fn a_results_descriptor_fits_where_the_request_was() {
        let mut library = Library::default();
        let data = library.allocate(64);
        for (operator, shapes) in
            [(2, &[&[2_usize, 3][..]][..]), (0, &[&[2, 3], &[]]), (3, &[&[6], &[6]])]
        {
            let place = |extents: &&[usize]| {
                TensorPlace::new(DType::INT8, Shape::new(*extents).unwrap(), data).unwrap()
            };
            let request = write_descriptor(&shapes.iter().map(place).collect::<Vec<_>>());
            let request = request.unwrap();
            // Not one byte more than the request.
            let (at, len) = (library.allocate(request.len() as u32), request.len() as u32);
            library.buffers.get_mut(at, len).unwrap().copy_from_slice(&request);
            assert!(library.run(operator, at, len) > 0, "{}", library.message);
        }
    }
}
