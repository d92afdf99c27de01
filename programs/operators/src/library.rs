//! What the exports do, as one value: buffers, the last result, and the last failure's text.

use guest_exports::{Desk, DeskError};
use tensor::{Tensor, TensorPlace, address_of};

use crate::{Operator, OperatorError};

/// The state of a module.
#[derive(Debug, Default)]
pub struct Library {
    desk: Desk,
    result: Option<Tensor<'static>>,
}

/// A call that gave no result, with the codes of `docs/operators.md`.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error(transparent)]
    Desk(#[from] DeskError),
    #[error(transparent)]
    Operator(#[from] OperatorError),
}

impl CallError {
    fn code(&self) -> i32 {
        match self {
            CallError::Desk(error) => error.code(),
            CallError::Operator(OperatorError::Unknown(_)) => -6,
            CallError::Operator(OperatorError::Kernel(_) | OperatorError::Tensor(_)) => -5,
            CallError::Operator(_) => -3,
        }
    }
}

impl Library {
    /// Where a host lays requests and finds results.
    pub fn desk(&mut self) -> &mut Desk {
        &mut self.desk
    }

    /// Computes an operator on the tensors that the descriptor at `address` names, and writes the
    /// result's descriptor over it: its length, or a negative code.
    pub fn run(&mut self, operator: u32, address: u32, bytes: u32) -> i32 {
        let answer = self.answer(operator, address, bytes);
        answer.map_or_else(|error| self.desk.fail(error.code(), &error), |len| len as i32)
    }

    fn answer(&mut self, operator: u32, address: u32, bytes: u32) -> Result<u32, CallError> {
        let operator = Operator::new(operator)?;
        let places = self.desk.request(address, bytes)?;
        let inputs = self.desk.views("a tensor", &places)?;
        let result = operator.compute(&inputs, &mut self.result)?;
        let at = address_of(result.as_bytes());
        let place = TensorPlace::new(result.dtype(), result.shape().clone(), at);
        Ok(self.desk.answer(address, &[place.map_err(DeskError::from)?])?)
    }
}

#[cfg(test)]
mod tests {
    use tensor::{DType, Shape, write_descriptor};

    use super::*;

    #[test]
    fn every_failure_has_a_code_and_words_and_the_next_call_is_answered() {
        let mut library = Library::default();
        let (at, data) = (library.desk.allocate(256), library.desk.allocate(16));
        let place = |dtype, extents: &[usize], address| {
            TensorPlace::new(dtype, Shape::new(extents).unwrap(), address).unwrap()
        };
        let mut call = |operator, tensors: &[TensorPlace]| {
            let bytes = write_descriptor(tensors).unwrap();
            let len = bytes.len() as u32;
            library.desk.bytes_mut(at, len).unwrap().copy_from_slice(&bytes);
            let code = library.run(operator, at, len);
            (code, library.desk.reason().to_owned())
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
        assert_eq!((library.desk.free(data), library.desk.free(data)), (0, -2));
        assert!(library.desk.message(0, 0) > 0 && library.desk.message(data, 1) == -2);
    }

    #[test]
    fn a_results_descriptor_fits_where_the_request_was() {
        let mut library = Library::default();
        let data = library.desk.allocate(64);
        for (operator, shapes) in
            [(2, &[&[2_usize, 3][..]][..]), (0, &[&[2, 3], &[]]), (3, &[&[6], &[6]])]
        {
            let place = |extents: &&[usize]| {
                TensorPlace::new(DType::INT8, Shape::new(*extents).unwrap(), data).unwrap()
            };
            let request = write_descriptor(&shapes.iter().map(place).collect::<Vec<_>>());
            let request = request.unwrap();
            // Not one byte more than the request.
            let (at, len) = (library.desk.allocate(request.len() as u32), request.len() as u32);
            library.desk.bytes_mut(at, len).unwrap().copy_from_slice(&request);
            assert!(library.run(operator, at, len) > 0, "{}", library.desk.reason());
        }
    }
}
