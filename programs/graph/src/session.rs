//! One model, ready to run on tensors that lie in the host's buffers.

use guest_exports::{Desk, DeskError};
use tensor::{TensorPlace, address_of};
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
    /// The request, or the place for the result.
    #[error(transparent)]
    Desk(#[from] DeskError),
    /// The tensors are not those that the graph reads.
    #[error("wrong inputs")]
    Inputs(#[source] ExecutorError),
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
            RunError::Desk(error) => error.code(),
            RunError::Inputs(_) => -3,
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
    pub fn run(&mut self, desk: &mut Desk, address: u32, bytes: u32) -> Result<u32, RunError> {
        let places = desk.request(address, bytes)?;
        let inputs = desk.views("an input", &places)?;
        self.executor.run_on(&inputs).map_err(|error| match error {
            error @ (ExecutorError::Kernel { .. } | ExecutorError::Signature { .. }) => {
                RunError::Graph(error)
            }
            error => RunError::Inputs(error),
        })?;
        Ok(desk.answer(address, &self.results(&places)?)?)
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
                .map_err(|error| DeskError::from(error).into())
        };
        (0..self.executor.output_count()).map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use tensor::{BlockBuilder, DType, Shape, Storage, read_descriptor, write_descriptor};
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

    fn write(desk: &mut Desk, at: u32, bytes: &[u8]) {
        desk.bytes_mut(at, bytes.len() as u32).expect("inside").copy_from_slice(bytes);
    }

    /// A desk with a request for the graph, its address, its length, and the addresses of `x`
    /// and `count`.
    fn request() -> (Desk, u32, u32, [u32; 2]) {
        let mut desk = Desk::default();
        let at = desk.allocate(256);
        let data = [12, 4].map(|bytes| desk.allocate(bytes));
        for (index, value) in [1.0_f32, -2.0, 0.5].iter().enumerate() {
            write(&mut desk, data[0] + 4 * index as u32, &value.to_le_bytes());
        }
        let inputs = [place(DType::FLOAT32, &[3], data[0]), place(DType::INT8, &[2, 2], data[1])];
        let bytes = write_descriptor(&inputs).expect("two");
        write(&mut desk, at, &bytes);
        (desk, at, bytes.len() as u32, data)
    }

    #[test]
    fn results_are_described_where_the_request_was() {
        let (mut desk, at, len, data) = request();
        let mut session = session();
        for _ in 0..3 {
            let inputs = desk.bytes(at, len).expect("inside").to_vec();
            let written = session.run(&mut desk, at, len).expect("a good request");
            let results = read_descriptor(desk.bytes(at, written).expect("inside"));
            let [doubled, count] = &results.expect("a descriptor")[..] else {
                panic!("two results")
            };
            assert_eq!((doubled.dtype, doubled.byte_count), (DType::FLOAT32, 12));
            // An input that goes out unchanged stays where it is.
            assert_eq!((count.dtype, count.address), (DType::INT8, data[1]));
            let output = session.executor.get_output(0).expect("run");
            assert_eq!(output.as_slice::<f32>(), Ok(&[2.0, -4.0, 1.0][..]));
            assert_eq!(doubled.address, address_of(output.as_bytes()));
            write(&mut desk, at, &inputs);
        }
    }

    #[test]
    fn every_wrong_request_has_a_code_and_the_next_one_is_answered() {
        let mut session = session();
        let (mut desk, at, len, data) = request();
        let good = desk.bytes(at, len).expect("inside").to_vec();
        let x = place(DType::FLOAT32, &[3], data[0]);
        let count = place(DType::INT8, &[2, 2], data[1]);
        let mut code = |tensors: &[TensorPlace]| {
            let bytes = write_descriptor(tensors).expect("few");
            write(&mut desk, at, &bytes);
            session.run(&mut desk, at, bytes.len() as u32).unwrap_err().code()
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
            let error = session.run(&mut desk, address, bytes).unwrap_err();
            assert_eq!(error.code(), -2, "{error}");
        }
        assert_eq!(session.run(&mut desk, at, 0).unwrap_err().code(), -1);

        let tight = desk.allocate(len - 1);
        write(&mut desk, tight, &good[..good.len() - 1]);
        assert_eq!(session.run(&mut desk, tight, len).unwrap_err().code(), -2);
        write(&mut desk, at, &good);
        assert!(session.run(&mut desk, at, len).is_ok());
    }
}
