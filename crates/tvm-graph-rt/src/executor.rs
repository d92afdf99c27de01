//! The graph executor: storage planned once, kernels called in order.

use std::collections::BTreeMap;
use std::ops::Range;

use tensor::{
    Block, DType, Element, Shape, Storage, StorageError, Tensor, TensorError, TensorView,
    elements_mut,
};

use crate::arena::Arena;
use crate::call::{CallFrame, CallPlan, Place};
use crate::graph::{EntryId, Graph, NodeOp};
use crate::{CallError, Module, workspace};

/// Runs a graph.
///
/// What the kernels write lies in one arena, planned when the executor is made. Parameters are
/// used where they lie. An input has memory of its own, so that it may be filled in place; one
/// that the graph lets a run consume lies in the arena and has to be filled before each run.
#[derive(Debug)]
pub struct GraphExecutor {
    graph: Graph,
    calls: Vec<Call>,
    /// One for each node without an operator, in the graph's order.
    args: Vec<Arg>,
    /// Their tensors; apart from `args`, because calls borrow them all.
    bound: Vec<Option<Tensor<'static>>>,
    arena: Arena,
    places: Vec<Place>,
    frame: CallFrame,
}

#[derive(Debug)]
struct Call {
    /// Index of the node.
    node: usize,
    plan: CallPlan,
}

#[derive(Debug)]
struct Arg {
    entry: EntryId,
    name: String,
    is_param: bool,
    /// Where in the arena an input lies that a run consumes.
    place: Option<Range<usize>>,
    /// Whether such an input was filled since the last run.
    filled: bool,
}

/// The executor could not be made, fed or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// The graph names a kernel that the module does not contain.
    #[error("node `{node}` calls unknown kernel `{kernel}`")]
    UnknownKernel {
        /// The node.
        node: String,
        /// The kernel, as the graph spells it.
        kernel: String,
    },
    /// A kernel cannot be called with the tensors that the graph gives it.
    #[error("kernel `{kernel}` cannot be called as node `{node}` wants")]
    Signature {
        /// The node.
        node: String,
        /// The kernel.
        kernel: String,
    },
    /// The graph has no input of this name.
    #[error("the graph has no input `{0}`")]
    UnknownInput(String),
    /// The graph has no parameter of this name.
    #[error("the graph has no parameter `{0}`")]
    UnknownParam(String),
    /// A parameter is not there to be written.
    #[error("`{0}` is a parameter, not an input")]
    NotAnInput(String),
    /// A parameter would have to be loaded again before each run.
    #[error("`{0}` is consumed by each run, so it cannot be a parameter")]
    Consumed(String),
    /// A tensor has another shape than the graph says.
    #[error("`{name}` has shape {expected} in the graph, not {actual}")]
    WrongShape {
        /// The input or parameter.
        name: String,
        /// The graph's shape.
        expected: Shape,
        /// The tensor's.
        actual: Shape,
    },
    /// A tensor has another element type than the graph says.
    #[error("`{name}` holds {expected} in the graph, not {actual}")]
    WrongDType {
        /// The input or parameter.
        name: String,
        /// The graph's element type.
        expected: DType,
        /// The tensor's.
        actual: DType,
    },
    /// More or fewer tensors were given than the graph reads.
    #[error("the graph has {expected} inputs, not {actual}")]
    InputCount {
        /// What the graph reads.
        expected: usize,
        /// What was given.
        actual: usize,
    },
    /// The graph was run before this input or parameter had a value.
    #[error("`{0}` has no value yet")]
    NotSet(String),
    /// There are fewer outputs.
    #[error("the graph has {count} outputs, no output {index}")]
    UnknownOutput {
        /// Which one was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// There are fewer kernel calls.
    #[error("the graph has {count} kernel calls, no call {index}")]
    UnknownNode {
        /// Which one was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// A kernel failed.
    #[error("node `{node}` failed in kernel `{kernel}`")]
    Kernel {
        /// The node.
        node: String,
        /// The kernel.
        kernel: String,
        /// What it raised.
        source: CallError,
    },
    /// Memory for activations or inputs could not be had.
    #[error(transparent)]
    OutOfMemory(#[from] StorageError),
    /// A tensor cannot be made or seen that way.
    #[error("`{name}`")]
    Tensor {
        /// The input or parameter.
        name: String,
        /// Why not.
        source: TensorError,
    },
}

impl GraphExecutor {
    /// Finds the graph's kernels in `module` and plans its memory.
    ///
    /// # Errors
    /// [`ExecutorError::UnknownKernel`] for the first kernel that is missing,
    /// [`ExecutorError::OutOfMemory`] when the activations do not fit.
    pub fn new(graph: Graph, module: &dyn Module) -> Result<Self, ExecutorError> {
        let mut args = Vec::new();
        let (places, arena_len) = plan_places(&graph);
        for node in graph.nodes().iter().filter(|node| *node.op() == NodeOp::Null) {
            for entry in node.outputs() {
                let place = match &places[entry.0] {
                    Place::Arena(range) => Some(range.clone()),
                    Place::Bound(_) => None,
                };
                let name = node.name().to_owned();
                args.push(Arg { entry, name, is_param: false, place, filled: false });
            }
        }
        let calls = plan_calls(&graph, &places, module)?;
        let most = calls.iter().map(|call| call.plan.argument_count()).max().unwrap_or(0);
        Ok(GraphExecutor {
            bound: args.iter().map(|_| None).collect(),
            arena: Arena::zeroed(arena_len)?,
            frame: CallFrame::with_capacity(most),
            graph,
            calls,
            args,
            places,
        })
    }

    /// The graph that is run.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Gives the graph its parameters. A tensor that is aligned to [`tensor::ALIGNMENT`] is used
    /// where it lies; another one is copied, once.
    ///
    /// # Errors
    /// [`ExecutorError::UnknownParam`], [`ExecutorError::WrongDType`] or
    /// [`ExecutorError::WrongShape`] when a tensor is none of the graph's;
    /// [`ExecutorError::Tensor`] when a copy finds no memory.
    pub fn load_params(
        &mut self,
        params: BTreeMap<String, Tensor<'static>>,
    ) -> Result<(), ExecutorError> {
        params.into_iter().try_for_each(|(name, tensor)| self.load_param(&name, tensor))
    }

    /// Gives the graph the parameters that a model block carries, used where they lie.
    ///
    /// # Errors
    /// As [`GraphExecutor::load_params`].
    pub fn load_params_from_block(&mut self, block: &Block<'static>) -> Result<(), ExecutorError> {
        block
            .tensors()
            .iter()
            .try_for_each(|param| self.load_param(param.name(), param.to_tensor()))
    }

    fn load_param(&mut self, name: &str, tensor: Tensor<'static>) -> Result<(), ExecutorError> {
        let index =
            self.arg_index(name).ok_or_else(|| ExecutorError::UnknownParam(name.to_owned()))?;
        self.check_tensor(index, tensor.view())?;
        if self.args[index].place.is_some() {
            return Err(ExecutorError::Consumed(name.to_owned()));
        }
        let tensor = if tensor.storage().is_aligned() {
            tensor
        } else {
            tensor
                .into_owned()
                .map_err(|source| ExecutorError::Tensor { name: name.to_owned(), source })?
        };
        self.bound[index] = Some(tensor);
        self.args[index].is_param = true;
        Ok(())
    }

    /// Name, element type and extents of each tensor from outside that is no loaded parameter:
    /// after the parameters are loaded, the graph's inputs.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, DType, &Shape)> {
        let inputs = self.args.iter().filter(|arg| !arg.is_param);
        inputs.map(|arg| {
            (arg.name.as_str(), self.graph.dtype(arg.entry), self.graph.shape(arg.entry))
        })
    }

    /// Copies a tensor into an input.
    ///
    /// # Errors
    /// [`ExecutorError::UnknownInput`], [`ExecutorError::NotAnInput`],
    /// [`ExecutorError::WrongDType`] or [`ExecutorError::WrongShape`];
    /// [`ExecutorError::Tensor`] when its memory cannot be had.
    pub fn set_input<'v>(
        &mut self,
        name: &str,
        value: impl Into<TensorView<'v>>,
    ) -> Result<(), ExecutorError> {
        let value = value.into();
        let index = self.input_index(name)?;
        self.check_tensor(index, value)?;
        self.input_bytes(index)?.0.copy_from_slice(value.as_bytes());
        Ok(())
    }

    /// The elements of an input, row-major, to be written in place. They keep their values from
    /// run to run, and are zeros before the first time; but in a graph that lets a run consume
    /// the input they have any value, and all have to be written before each run.
    ///
    /// # Errors
    /// [`ExecutorError::UnknownInput`], [`ExecutorError::NotAnInput`], or
    /// [`ExecutorError::Tensor`] when the input holds another type than `T` or its memory cannot
    /// be had.
    pub fn input_mut<T: Element>(&mut self, name: &str) -> Result<&mut [T], ExecutorError> {
        Ok(self.input_and_scratch(name)?.0)
    }

    /// As [`GraphExecutor::input_mut`], with memory of the activations: between two runs nothing
    /// of it is needed but the outputs, which are lost by writing there.
    ///
    /// # Errors
    /// As [`GraphExecutor::input_mut`].
    pub fn input_and_scratch<T: Element>(
        &mut self,
        name: &str,
    ) -> Result<(&mut [T], &mut [u8]), ExecutorError> {
        let index = self.input_index(name)?;
        let error = |source| ExecutorError::Tensor { name: name.to_owned(), source };
        let actual = self.graph.dtype(self.args[index].entry);
        if actual != T::DTYPE {
            return Err(error(TensorError::WrongDType { wanted: T::DTYPE, actual }));
        }
        let (bytes, scratch) = self.input_bytes(index)?;
        Ok((elements_mut(bytes).map_err(error)?, scratch))
    }

    /// The value of an input or parameter.
    ///
    /// # Errors
    /// [`ExecutorError::UnknownInput`], or [`ExecutorError::NotSet`].
    pub fn get_input(&self, name: &str) -> Result<TensorView<'_>, ExecutorError> {
        let index =
            self.arg_index(name).ok_or_else(|| ExecutorError::UnknownInput(name.to_owned()))?;
        let arg = &self.args[index];
        let bytes = match &arg.place {
            Some(range) if arg.filled => self.arena.bytes().get(range.clone()),
            Some(_) => None,
            None => self.bound[index].as_ref().map(Tensor::as_bytes),
        };
        let bytes = bytes.ok_or_else(|| ExecutorError::NotSet(name.to_owned()))?;
        let (dtype, shape) = (self.graph.dtype(arg.entry), self.graph.shape(arg.entry));
        Ok(TensorView::new(dtype, shape, bytes).expect("planned with the entry's bytes"))
    }

    /// Number of kernel calls in one run.
    pub fn node_count(&self) -> usize {
        self.calls.len()
    }

    /// Name of the node and of the kernel of each call, in order.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.calls.iter().map(|call| node_and_kernel(&self.graph, call.node))
    }

    /// Runs the whole graph. The second and every later run allocates nothing.
    ///
    /// # Errors
    /// [`ExecutorError::NotSet`] when an input or parameter has no value;
    /// [`ExecutorError::Kernel`] when a kernel fails.
    pub fn run(&mut self) -> Result<(), ExecutorError> {
        self.check_bound()?;
        if let Some(arg) = self.args.iter().find(|arg| arg.place.is_some() && !arg.filled) {
            return Err(ExecutorError::NotSet(arg.name.clone()));
        }
        self.args.iter_mut().for_each(|arg| arg.filled = false);
        (0..self.calls.len()).try_for_each(|index| self.call(index))
    }

    /// Runs the whole graph on tensors that lie elsewhere, in the order of
    /// [`GraphExecutor::inputs`]. They are used where they lie and not kept; those that the graph
    /// lets a run consume are copied.
    ///
    /// # Errors
    /// [`ExecutorError::InputCount`] unless there is one for each input;
    /// [`ExecutorError::WrongDType`] or [`ExecutorError::WrongShape`];
    /// [`ExecutorError::Tensor`] for one that is not aligned to [`tensor::ALIGNMENT`];
    /// [`ExecutorError::Kernel`] when a kernel fails.
    pub fn run_on(&mut self, inputs: &[TensorView<'_>]) -> Result<(), ExecutorError> {
        let places = self.match_inputs(inputs)?;
        let arena = self.arena.bytes_mut();
        for (arg, input) in self.args.iter_mut().zip(&places) {
            if let (Some(range), Some(input)) = (&arg.place, input) {
                arena[range.clone()].copy_from_slice(inputs[*input].as_bytes());
                arg.filled = false;
            }
        }
        let bound = &self.bound;
        let bytes_of = |arg: usize| match places.get(arg)? {
            Some(input) => inputs.get(*input).map(TensorView::as_bytes),
            None => bound[arg].as_ref().map(Tensor::as_bytes),
        };
        self.calls
            .iter()
            .try_for_each(|call| call.run(&self.graph, &mut self.frame, &mut self.arena, bytes_of))
    }

    /// Which input an output is, where the graph gives one out as it came in; its place among
    /// [`GraphExecutor::inputs`].
    pub fn passed_through(&self, output: usize) -> Option<usize> {
        let head = self.graph.heads().get(output)?;
        match self.places[head.0] {
            Place::Bound(arg) if !self.args[arg].is_param => {
                Some(self.args[..arg].iter().filter(|arg| !arg.is_param).count())
            }
            _ => None,
        }
    }

    /// Runs one kernel call alone, with whatever the ones before it have left: for a profiler.
    ///
    /// # Errors
    /// [`ExecutorError::UnknownNode`], and as [`GraphExecutor::run`].
    pub fn run_node(&mut self, index: usize) -> Result<(), ExecutorError> {
        let count = self.calls.len();
        if index >= count {
            return Err(ExecutorError::UnknownNode { index, count });
        }
        self.check_bound()?;
        self.call(index)
    }

    /// Number of outputs.
    pub fn output_count(&self) -> usize {
        self.graph.heads().len()
    }

    /// An output as the last run has left it.
    ///
    /// # Errors
    /// [`ExecutorError::UnknownOutput`], or [`ExecutorError::NotSet`] when the output is an input
    /// that has no value.
    pub fn get_output(&self, index: usize) -> Result<TensorView<'_>, ExecutorError> {
        let count = self.output_count();
        let head = self.graph.heads().get(index).copied();
        let head = head.ok_or(ExecutorError::UnknownOutput { index, count })?;
        match &self.places[head.0] {
            Place::Arena(range) => {
                let bytes = &self.arena.bytes()[range.clone()];
                let (dtype, shape) = (self.graph.dtype(head), self.graph.shape(head));
                Ok(TensorView::new(dtype, shape, bytes).expect("planned with the entry's bytes"))
            }
            Place::Bound(arg) => self.bound[*arg]
                .as_ref()
                .map(Tensor::view)
                .ok_or_else(|| ExecutorError::NotSet(self.args[*arg].name.clone())),
        }
    }

    fn call(&mut self, index: usize) -> Result<(), ExecutorError> {
        let bound = &self.bound;
        self.calls[index].run(&self.graph, &mut self.frame, &mut self.arena, |arg| {
            bound.get(arg)?.as_ref().map(Tensor::as_bytes)
        })
    }

    /// For each node without an operator, which of `inputs` stands for it; none for parameters.
    fn match_inputs(&self, inputs: &[TensorView<'_>]) -> Result<Vec<Option<usize>>, ExecutorError> {
        let expected = self.inputs().count();
        if inputs.len() != expected {
            return Err(ExecutorError::InputCount { expected, actual: inputs.len() });
        }
        let mut numbered = inputs.iter().enumerate();
        let mut places = Vec::with_capacity(self.args.len());
        for (index, arg) in self.args.iter().enumerate() {
            let input = if arg.is_param { None } else { numbered.next() };
            if let Some((_, input)) = input {
                self.check_tensor(index, *input)?;
                if !Storage::Borrowed(input.as_bytes()).is_aligned() {
                    let source = TensorError::Misaligned(input.dtype());
                    return Err(ExecutorError::Tensor { name: arg.name.clone(), source });
                }
            }
            places.push(input.map(|(number, _)| number));
        }
        Ok(places)
    }

    fn check_bound(&self) -> Result<(), ExecutorError> {
        let mut args = self.args.iter().zip(&self.bound);
        match args.find(|(arg, bound)| arg.place.is_none() && bound.is_none()) {
            Some((arg, _)) => Err(ExecutorError::NotSet(arg.name.clone())),
            None => Ok(()),
        }
    }

    fn check_tensor(&self, index: usize, tensor: TensorView<'_>) -> Result<(), ExecutorError> {
        let Arg { entry, name, .. } = &self.args[index];
        let (dtype, shape) = (self.graph.dtype(*entry), self.graph.shape(*entry));
        if tensor.dtype() != dtype {
            let (name, actual) = (name.clone(), tensor.dtype());
            return Err(ExecutorError::WrongDType { name, expected: dtype, actual });
        }
        if tensor.shape() != shape {
            let (expected, actual) = (shape.clone(), tensor.shape().clone());
            return Err(ExecutorError::WrongShape { name: name.clone(), expected, actual });
        }
        Ok(())
    }

    fn arg_index(&self, name: &str) -> Option<usize> {
        self.args.iter().position(|arg| arg.name == name)
    }

    fn input_index(&self, name: &str) -> Result<usize, ExecutorError> {
        match self.arg_index(name) {
            Some(index) if self.args[index].is_param => {
                Err(ExecutorError::NotAnInput(name.to_owned()))
            }
            Some(index) => Ok(index),
            None => Err(ExecutorError::UnknownInput(name.to_owned())),
        }
    }

    /// The bytes of an input, to be written, and the larger part of the arena beside them. An
    /// input outside the arena is made on first use.
    fn input_bytes(&mut self, index: usize) -> Result<(&mut [u8], &mut [u8]), ExecutorError> {
        let arg = &mut self.args[index];
        let arena = self.arena.bytes_mut();
        if let Some(range) = arg.place.clone() {
            arg.filled = true;
            let (before, rest) = arena.split_at_mut(range.start);
            let (own, after) = rest.split_at_mut(range.len());
            // What follows begins on a cache line only if the tensor ends on one; bytes need none.
            return Ok((own, if before.len() < after.len() { after } else { before }));
        }
        let slot = &mut self.bound[index];
        if slot.is_none() {
            let (dtype, shape) = (self.graph.dtype(arg.entry), self.graph.shape(arg.entry).clone());
            let zeros = Tensor::zeros(dtype, shape);
            let error = |source| ExecutorError::Tensor { name: arg.name.clone(), source };
            *slot = Some(zeros.map_err(error)?);
        }
        let tensor = slot.as_mut().expect("filled above");
        Ok((tensor.as_bytes_mut().expect("inputs own their bytes"), arena))
    }
}

impl Call {
    fn run<'b>(
        &self,
        graph: &Graph,
        frame: &mut CallFrame,
        arena: &mut Arena,
        bound: impl Fn(usize) -> Option<&'b [u8]>,
    ) -> Result<(), ExecutorError> {
        let error = |source: Option<CallError>| {
            let (node, kernel) = node_and_kernel(graph, self.node);
            let (node, kernel) = (node.to_owned(), kernel.to_owned());
            match source {
                Some(source) => ExecutorError::Kernel { node, kernel, source },
                None => ExecutorError::Signature { node, kernel },
            }
        };
        let arena = arena.bytes_mut();
        match self.plan.run(frame, arena, bound) {
            Some(Ok(_)) => Ok(()),
            Some(Err(source)) => {
                workspace::free_all();
                Err(error(Some(source)))
            }
            None => Err(error(None)),
        }
    }
}

/// Where each entry lies, and how long the arena is.
fn plan_places(graph: &Graph) -> (Vec<Place>, usize) {
    let mut arena_len = 0;
    let mut starts = BTreeMap::new();
    for (storage, bytes) in graph.storages() {
        starts.insert(storage, arena_len);
        // Cannot overflow: the graph has added them up.
        arena_len += bytes;
    }
    let mut places = Vec::new();
    let mut args = 0;
    for node in graph.nodes() {
        for output in node.outputs() {
            let entry = graph.entry(output);
            places.push(if *node.op() == NodeOp::Null && !entry.consumed {
                Place::Bound(args)
            } else {
                let start = starts[&entry.storage] + entry.offset;
                Place::Arena(start..start + entry.bytes)
            });
        }
        args += usize::from(*node.op() == NodeOp::Null);
    }
    (places, arena_len)
}

fn plan_calls(
    graph: &Graph,
    places: &[Place],
    module: &dyn Module,
) -> Result<Vec<Call>, ExecutorError> {
    let argument = |entry: EntryId| (places[entry.0].clone(), graph.entry(entry));
    let mut calls = Vec::new();
    for (index, node) in graph.nodes().iter().enumerate() {
        let NodeOp::TvmOp(kernel) = node.op() else { continue };
        let names = || (node.name().to_owned(), kernel.clone());
        let func = module.get_function(kernel).ok_or_else(|| {
            let (node, kernel) = names();
            ExecutorError::UnknownKernel { node, kernel }
        })?;
        let inputs: Vec<_> = node.inputs().iter().copied().map(argument).collect();
        let outputs: Vec<_> = node.outputs().map(argument).collect();
        let plan = CallPlan::new(func, &inputs, &outputs).ok_or_else(|| {
            let (node, kernel) = names();
            ExecutorError::Signature { node, kernel }
        })?;
        calls.push(Call { node: index, plan });
    }
    Ok(calls)
}

fn node_and_kernel(graph: &Graph, index: usize) -> (&str, &str) {
    let node = &graph.nodes()[index];
    match node.op() {
        NodeOp::TvmOp(kernel) => (node.name(), kernel),
        NodeOp::Null => (node.name(), ""),
    }
}
