//! One model, ready to run on tensors that lie in the host's buffers.

use tensor::{
    Buffers, DescriptorError, TensorPlace, TensorView, address_of, read_descriptor,
    write_descriptor,
};
use tvm_graph_rt::{Block, BlockError, ExecutorError, GraphError, GraphExecutor, Module};

/// A model and what it says about itself.
#[derive(Debug)]
pub struct Session {
    executor: GraphExecutor,
    description: String,
}

/// The linked model cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The model block is damaged.
    #[error("the model block cannot be read")]
    Block(#[from] BlockError),
    /// The graph in it is.
    #[error("the graph cannot be read")]
    Graph(#[from] GraphError),
    /// Graph, weights and kernels do not fit together, or do not fit into memory.
    #[error("the graph cannot be run")]
    Executor(#[from] ExecutorError),
}

/// A run that gave no result. Nothing is lost: the next run may be another one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The request is no descriptor.
    #[error("malformed request")]
    Descriptor(#[source] DescriptorError),
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
    /// The tensors are not those that the graph reads.
    #[error("wrong inputs")]
    Inputs(#[source] ExecutorError),
    /// The result's descriptor does not fit behind the request's address.
    #[error("the result's descriptor takes {needed} bytes but its buffer has {room}")]
    Room {
        /// What it takes.
        needed: usize,
        /// What there is from the address on.
        room: usize,
    },
    /// A kernel failed.
    #[error("the graph failed")]
    Graph(#[source] ExecutorError),
    /// The model could not be loaded, now or before.
    #[error("{0}")]
    Model(String),
}

impl RunError {
    /// The number that stands for it across the border, as `docs/wasm-graph.md` lists them.
    pub fn code(&self) -> i32 {
        match self {
            RunError::Descriptor(_) => -1,
            RunError::Outside { .. } => -2,
            RunError::Inputs(_) => -3,
            RunError::Room { .. } => -4,
            RunError::Graph(_) => -5,
            RunError::Model(_) => -6,
        }
    }
}

impl Session {
    /// Loads a model block whose graph calls kernels of `module`; the weights are used where
    /// they lie.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(bytes: &'static [u8], module: &dyn Module) -> Result<Self, LoadError> {
        let block = Block::parse(bytes)?;
        let mut executor = GraphExecutor::new(block.graph().parse()?, module)?;
        executor.load_params_from_block(&block)?;
        Ok(Session { executor, description: block.spec().to_owned() })
    }

    /// The JSON that the builder wrote about inputs and outputs.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Runs the graph on the tensors that the descriptor at `address` names, and writes a
    /// descriptor of the results over it; gives its length. Results stay where they are until the
    /// next run.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn run(
        &mut self,
        buffers: &mut Buffers,
        address: u32,
        bytes: u32,
    ) -> Result<u32, RunError> {
        let outside = |what, address, bytes| RunError::Outside { what, address, bytes };
        let request = buffers.get(address, bytes);
        let request = request.ok_or_else(|| outside("the request", address, bytes))?;
        let places = read_descriptor(request).map_err(RunError::Descriptor)?;
        let mut inputs = Vec::with_capacity(places.len());
        for place in &places {
            let data = buffers.get(place.address, place.byte_count);
            let data = data.ok_or_else(|| outside("an input", place.address, place.byte_count))?;
            let view = TensorView::new(place.dtype, &place.shape, data);
            inputs.push(view.expect("lengths were checked with the descriptor"));
        }
        self.executor.run_on(&inputs).map_err(|error| match error {
            error @ (ExecutorError::Kernel { .. } | ExecutorError::Signature { .. }) => {
                RunError::Graph(error)
            }
            error => RunError::Inputs(error),
        })?;
        let results = self.results(&places)?;
        let descriptor = write_descriptor(&results).map_err(RunError::Descriptor)?;
        let (needed, room) = (descriptor.len(), buffers.room(address));
        // Lies within a buffer, so it fits 32 bits.
        let target = buffers.get_mut(address, needed as u32);
        target.ok_or(RunError::Room { needed, room })?.copy_from_slice(&descriptor);
        Ok(needed as u32)
    }

    /// Where the results lie.
    fn results(&self, inputs: &[TensorPlace]) -> Result<Vec<TensorPlace>, RunError> {
        let place = |output: usize| {
            if let Some(input) = self.executor.passed_through(output) {
                return Ok(inputs[input].clone());
            }
            let tensor = self.executor.get_output(output).map_err(RunError::Graph)?;
            let address = address_of(tensor.as_bytes());
            TensorPlace::new(tensor.dtype(), tensor.shape().clone(), address)
                .map_err(RunError::Descriptor)
        };
        (0..self.executor.output_count()).map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use tensor::{BlockBuilder, DType, Shape, Storage};
    use tvm_graph_rt::NativeModule;

    use super::*;

    // doubled = 2 x; count goes out as it came in.
    const GRAPH: &str = r#"{
        "nodes": [
            {"op": "null", "name": "x", "inputs": []},
            {"op": "null", "name": "count", "inputs": []},
            {"op": "tvm_op", "name": "double_1", "inputs": [[0, 0, 0]], "attrs": {
                "func_name": "double", "num_inputs": "1", "num_outputs": "1", "flatten_data": "0"}}
        ],
        "arg_nodes": [0, 1], "heads": [[2, 0, 0], [1, 0, 0]], "node_row_ptr": [0, 1, 2, 3],
        "attrs": {"storage_id": ["list_int", [1, 2, 0]],
                  "shape": ["list_shape", [[3], [2, 2], [3]]],
                  "dltype": ["list_str", ["float32", "int8", "float32"]]}
    }"#;

    fn session() -> Session {
        let mut kernels = NativeModule::default();
        kernels.register("double", 1, |args| {
            let x = args.input::<f32>(0)?;
            for (y, x) in args.output::<f32>(0)?.iter_mut().zip(x) {
                *y = 2.0 * x;
            }
            Ok(())
        });
        let block = BlockBuilder::new(GRAPH, "{\"abi\":1}").build().expect("small");
        let block: &'static Storage<'static> =
            Box::leak(Box::new(Storage::copy_of(&block).expect("small")));
        Session::load(block.as_bytes(), &kernels).expect("well-formed")
    }

    fn place(dtype: DType, extents: &[usize], address: u32) -> TensorPlace {
        TensorPlace::new(dtype, Shape::new(extents).expect("small"), address).expect("small")
    }

    fn write(buffers: &mut Buffers, at: u32, bytes: &[u8]) {
        buffers.get_mut(at, bytes.len() as u32).expect("inside").copy_from_slice(bytes);
    }

    /// Buffers with a request for the graph, its address, its length, and the addresses of `x`
    /// and `count`.
    fn request() -> (Buffers, u32, u32, [u32; 2]) {
        let mut buffers = Buffers::default();
        let at = buffers.allocate(256).expect("small");
        let data = [12, 4].map(|bytes| buffers.allocate(bytes).expect("small"));
        for (index, value) in [1.0_f32, -2.0, 0.5].iter().enumerate() {
            write(&mut buffers, data[0] + 4 * index as u32, &value.to_le_bytes());
        }
        let inputs = [place(DType::FLOAT32, &[3], data[0]), place(DType::INT8, &[2, 2], data[1])];
        let bytes = write_descriptor(&inputs).expect("two");
        write(&mut buffers, at, &bytes);
        (buffers, at, bytes.len() as u32, data)
    }

    #[test]
    fn results_are_described_where_the_request_was() {
        let (mut buffers, at, len, data) = request();
        let mut session = session();
        for _ in 0..3 {
            let inputs = buffers.get(at, len).expect("inside").to_vec();
            let written = session.run(&mut buffers, at, len).expect("a good request");
            let results = read_descriptor(buffers.get(at, written).expect("inside"));
            let [doubled, count] = &results.expect("a descriptor")[..] else {
                panic!("two results")
            };
            assert_eq!((doubled.dtype, doubled.byte_count), (DType::FLOAT32, 12));
            // An input that goes out unchanged stays where it is.
            assert_eq!((count.dtype, count.address), (DType::INT8, data[1]));
            let output = session.executor.get_output(0).expect("run");
            assert_eq!(output.as_slice::<f32>(), Ok(&[2.0, -4.0, 1.0][..]));
            assert_eq!(doubled.address, address_of(output.as_bytes()));
            write(&mut buffers, at, &inputs);
        }
    }

    #[test]
    fn every_wrong_request_has_a_code_and_the_next_one_is_answered() {
        let mut session = session();
        let (mut buffers, at, len, data) = request();
        let good = buffers.get(at, len).expect("inside").to_vec();
        let x = place(DType::FLOAT32, &[3], data[0]);
        let count = place(DType::INT8, &[2, 2], data[1]);
        let mut code = |tensors: &[TensorPlace]| {
            let bytes = write_descriptor(tensors).expect("few");
            write(&mut buffers, at, &bytes);
            session.run(&mut buffers, at, bytes.len() as u32).unwrap_err().code()
        };
        assert_eq!(code(std::slice::from_ref(&x)), -3, "one input too few");
        assert_eq!(code(&[x.clone(), x.clone()]), -3, "another type");
        let square = place(DType::FLOAT32, &[3, 1], data[0]);
        assert_eq!(code(&[square, count.clone()]), -3, "another shape");
        let beyond = TensorPlace { address: data[0] + 64, ..x.clone() };
        assert_eq!(code(&[beyond, count.clone()]), -2, "outside of the buffers");
        let low = TensorPlace { address: 0, ..x.clone() };
        assert_eq!(code(&[low, count.clone()]), -2, "an address of the module's own");
        let odd = TensorPlace { address: data[0] + 4, ..x };
        assert_eq!(code(&[odd, count]), -1, "not aligned");

        for (address, bytes) in [(at, 257), (at - 1, 8), (0, 0), (at, u32::MAX), (u32::MAX, 1)] {
            let error = session.run(&mut buffers, address, bytes).unwrap_err();
            assert_eq!(error.code(), -2, "{error}");
        }
        assert_eq!(session.run(&mut buffers, at, 0).unwrap_err().code(), -1);

        let tight = buffers.allocate(len - 1).expect("small");
        write(&mut buffers, tight, &good[..good.len() - 1]);
        assert_eq!(session.run(&mut buffers, tight, len).unwrap_err().code(), -2);
        write(&mut buffers, at, &good);
        assert!(session.run(&mut buffers, at, len).is_ok());
    }
}
