//! The WASM operator library under wasmtime: one operator a call.

use std::time::Instant;

use engine::{Engine, EngineOptions, Sandbox};
use tensor::{
    Storage, Tensor, TensorError, TensorPlace, TensorView, descriptor_len, read_descriptor,
    write_descriptor,
};

use crate::{GraphError, GraphOptions, executor::prepare, module::Instance};

/// The operators of the library, numbered as its export `run` numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// The sum of two tensors; integers wrap round.
    Add = 0,
    /// The product of two tensors, element by element; integers wrap round.
    Mul = 1,
    /// The place of the greatest element, of one tensor and, if given, along the axis that a second
    /// one names; int64.
    Argmax = 2,
    /// How many elements of two tensors are equal; int64.
    EqualCount = 3,
}

/// A loaded `operators.wasm` (`docs/operators.md`).
///
/// Buffers in the library's memory are kept from call to call, so that calls of the same sizes
/// allocate nothing.
pub struct OperatorLibrary {
    instance: Instance,
    options: GraphOptions,
    request: u32,
    /// Address and size of a buffer for each operand.
    operands: [Option<(u32, usize)>; 2],
}

// Two operands of the greatest rank.
const REQUEST_BYTES: usize = 8 + 2 * (16 + 8 * tensor::MAX_RANK);

impl OperatorLibrary {
    /// Compiles a library (or takes its code from the cache) and starts it.
    ///
    /// # Errors
    /// As [`crate::GraphExecutor::new`] and [`crate::GraphExecutor::instantiate`].
    pub fn load(module: &[u8], options: &GraphOptions) -> Result<Self, GraphError> {
        let engine =
            EngineOptions { cache_dir: options.cache_dir.clone(), ..EngineOptions::default() };
        let engine = Engine::new(&engine)?;
        let pre = prepare(&engine, module)?;
        let deadline = Instant::now() + options.time_limit;
        let sandbox = Sandbox::new(&engine, &pre, options.limits, (), deadline)?;
        let mut instance = Instance::library(sandbox, deadline)?;
        let request = instance.allocate(REQUEST_BYTES, deadline)?;
        Ok(OperatorLibrary { instance, options: options.clone(), request, operands: [None; 2] })
    }

    /// Computes an operator on one or two tensors.
    ///
    /// # Errors
    /// [`GraphError::Refused`] with the library's own words when the tensors are not what the
    /// operator takes; [`GraphError::Stopped`] when it does not return.
    pub fn run(
        &mut self,
        operator: Operator,
        inputs: &[TensorView<'_>],
    ) -> Result<Tensor<'static>, GraphError> {
        let deadline = Instant::now() + self.options.time_limit;
        if inputs.len() > self.operands.len() {
            let (count, index) = (self.operands.len(), inputs.len() - 1);
            return Err(GraphError::UnknownIndex { kind: "operands", index, count });
        }
        let mut places = Vec::with_capacity(inputs.len());
        for (index, input) in inputs.iter().enumerate() {
            let bytes = input.as_bytes();
            let address = self.buffer(index, bytes.len(), deadline)?;
            self.instance.write(address, bytes, deadline)?;
            let place = TensorPlace::new(input.dtype(), input.shape().clone(), address);
            places.push(place.map_err(GraphError::Result)?);
        }
        let request = write_descriptor(&places).map_err(GraphError::Result)?;
        self.instance.write(self.request, &request, deadline)?;
        let number = operator as u32;
        let len = self.instance.run_operator(number, self.request, request.len(), deadline)?;
        if len > descriptor_len([tensor::MAX_RANK]) {
            return Err(GraphError::Answer { what: "result" });
        }
        let mut answer = vec![0; len];
        self.instance.read(self.request, &mut answer, deadline)?;
        let results = read_descriptor(&answer).map_err(GraphError::Result)?;
        let [result] = &results[..] else { return Err(GraphError::Answer { what: "result" }) };
        // Not more than there is: the size is the library's word.
        let bytes = result.byte_count as usize;
        if bytes > self.instance.memory_bytes() {
            return Err(GraphError::Answer { what: "result" });
        }
        let mut storage = Storage::zeroed(bytes).map_err(TensorError::from)?;
        let target = storage.as_bytes_mut().ok_or(TensorError::ReadOnly)?;
        self.instance.read(result.address, target, deadline)?;
        Ok(Tensor::new(result.dtype, result.shape.clone(), storage)?)
    }

    /// Bytes of the library's memory as it stands.
    pub fn memory_bytes(&mut self) -> usize {
        self.instance.memory_bytes()
    }

    /// A buffer of at least `bytes` for an operand: the one of the last call if it has as many.
    fn buffer(&mut self, index: usize, bytes: usize, deadline: Instant) -> Result<u32, GraphError> {
        if let Some((address, size)) = self.operands[index] {
            if size >= bytes {
                return Ok(address);
            }
            self.operands[index] = None;
            self.instance.free(address, deadline)?;
        }
        let address = self.instance.allocate(bytes, deadline)?;
        self.operands[index] = Some((address, bytes));
        Ok(address)
    }
}
