//! The graph executor: one loaded graph, its inputs and its last results.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use engine::{
    Engine, EngineOptions, Guest, Limits, Sandbox, Stop,
    wasmtime::{InstancePre, Linker},
};
use sha2::{Digest as _, Sha256};
use tensor::{
    Storage, Tensor, TensorError, TensorPlace, TensorView, descriptor_len, read_descriptor,
    write_descriptor,
};

use crate::{Description, GraphError, TensorInfo, module::Instance};

/// How graphs are run.
#[derive(Debug, Clone)]
pub struct GraphOptions {
    /// Where compiled code is kept; `None` compiles every time.
    pub cache_dir: Option<PathBuf>,
    /// Memory of one graph, weights and all.
    pub limits: Limits,
    /// Longest time that loading, or one run, may take.
    pub time_limit: Duration,
}

impl Default for GraphOptions {
    fn default() -> Self {
        // Loading takes the time to compile, which is not counted; a minute is a hundred times
        // what a large image model needs for one picture.
        Self { cache_dir: None, limits: Limits::default(), time_limit: Duration::from_secs(60) }
    }
}

/// Runs one WASM graph.
///
/// Inputs keep their values from run to run. A graph that has trapped or run out of time has to be
/// instantiated again; its compiled code is there already when there is a cache.
pub struct GraphExecutor {
    engine: Engine,
    limits: Limits,
    time_limit: Duration,
    loaded: Option<Loaded>,
}

struct Loaded {
    instance: Instance,
    description: Description,
    /// Where descriptors are written to, and results read from.
    request: u32,
    inputs: Vec<Input>,
    results: Option<Vec<TensorPlace>>,
}

struct Input {
    place: TensorPlace,
    set: bool,
}

impl GraphExecutor {
    /// Makes an executor with an engine of its own, and no graph yet.
    ///
    /// # Errors
    /// [`GraphError::Engine`] when wasmtime cannot be used on this machine.
    pub fn new(options: &GraphOptions) -> Result<Self, GraphError> {
        let engine =
            EngineOptions { cache_dir: options.cache_dir.clone(), ..EngineOptions::default() };
        Ok(Self::with_engine(Engine::new(&engine)?, options))
    }

    /// Makes an executor on an engine that others use too; its cache is the engine's.
    pub fn with_engine(engine: Engine, options: &GraphOptions) -> Self {
        let GraphOptions { limits, time_limit, .. } = *options;
        GraphExecutor { engine, limits, time_limit, loaded: None }
    }

    /// Compiles a graph (or takes its code from the cache), starts it and asks what it is; it
    /// takes the place of the one before.
    ///
    /// # Errors
    /// [`GraphError::Compile`], [`GraphError::Import`] or [`GraphError::Export`] when it is no
    /// graph; [`GraphError::Description`]; [`GraphError::Stopped`] when it does not load within
    /// the limits; [`GraphError::Refused`] when its model is damaged.
    pub fn instantiate(&mut self, module: &[u8]) -> Result<&Description, GraphError> {
        self.loaded = None;
        let pre = prepare(&self.engine, module)?;
        let deadline = Instant::now() + self.time_limit;
        let sandbox = Sandbox::new(&self.engine, &pre, self.limits, (), deadline)?;
        let mut instance = Instance::graph(sandbox, deadline)?;
        let description = Description::parse(&instance.describe(deadline)?)?;

        let mut inputs = Vec::with_capacity(description.inputs.len());
        for input in &description.inputs {
            let bytes = input.byte_count().map_err(TensorError::from)?;
            let address = instance.allocate(bytes, deadline)?;
            let place = TensorPlace::new(input.dtype, input.shape.clone(), address)
                .map_err(GraphError::Result)?;
            inputs.push(Input { place, set: false });
        }
        let len = |tensors: &[TensorInfo]| descriptor_len(tensors.iter().map(|t| t.shape.rank()));
        let room = len(&description.inputs).max(len(&description.outputs));
        let request = instance.allocate(room, deadline)?;
        let loaded = Loaded { instance, description, request, inputs, results: None };
        Ok(&self.loaded.insert(loaded).description)
    }

    /// What the loaded graph says about itself.
    ///
    /// # Errors
    /// [`GraphError::NotInstantiated`].
    pub fn description(&self) -> Result<&Description, GraphError> {
        Ok(&self.loaded.as_ref().ok_or(GraphError::NotInstantiated)?.description)
    }

    /// Copies a tensor into the input of this name.
    ///
    /// # Errors
    /// [`GraphError::UnknownInput`], [`GraphError::WrongDType`] or [`GraphError::WrongShape`];
    /// [`GraphError::NotInstantiated`].
    pub fn set_input<'v>(
        &mut self,
        name: &str,
        tensor: impl Into<TensorView<'v>>,
    ) -> Result<(), GraphError> {
        let inputs = &self.description()?.inputs;
        let Some(index) = inputs.iter().position(|input| input.name == name) else {
            let known: Vec<_> = inputs.iter().map(|input| format!("`{}`", input.name)).collect();
            let (name, known) = (name.to_owned(), known.join(", "));
            return Err(GraphError::UnknownInput { name, known });
        };
        self.set_input_at(index, tensor)
    }

    /// Copies a tensor into an input, counted from 0.
    ///
    /// # Errors
    /// As [`GraphExecutor::set_input`], with [`GraphError::UnknownIndex`].
    pub fn set_input_at<'v>(
        &mut self,
        index: usize,
        tensor: impl Into<TensorView<'v>>,
    ) -> Result<(), GraphError> {
        let deadline = Instant::now() + self.time_limit;
        let loaded = self.loaded.as_mut().ok_or(GraphError::NotInstantiated)?;
        let count = loaded.inputs.len();
        let input = loaded.inputs.get_mut(index);
        let input = input.ok_or(GraphError::UnknownIndex { kind: "inputs", index, count })?;
        let (name, tensor) = (&loaded.description.inputs[index].name, tensor.into());
        if tensor.dtype() != input.place.dtype {
            let (name, actual) = (name.clone(), tensor.dtype());
            return Err(GraphError::WrongDType { name, expected: input.place.dtype, actual });
        }
        if *tensor.shape() != input.place.shape {
            let (expected, actual) = (input.place.shape.clone(), tensor.shape().clone());
            return Err(GraphError::WrongShape { name: name.clone(), expected, actual });
        }
        loaded.instance.write(input.place.address, tensor.as_bytes(), deadline)?;
        input.set = true;
        Ok(())
    }

    /// Runs the graph on its inputs.
    ///
    /// # Errors
    /// [`GraphError::NotSet`] for an input that never got a value; [`GraphError::Stopped`] when
    /// the graph does not return; [`GraphError::Refused`] when a kernel fails;
    /// [`GraphError::NotInstantiated`].
    pub fn run(&mut self) -> Result<(), GraphError> {
        let deadline = Instant::now() + self.time_limit;
        let loaded = self.loaded.as_mut().ok_or(GraphError::NotInstantiated)?;
        loaded.results = None;
        if let Some(index) = loaded.inputs.iter().position(|input| !input.set) {
            return Err(GraphError::NotSet(loaded.description.inputs[index].name.clone()));
        }
        let places: Vec<_> = loaded.inputs.iter().map(|input| input.place.clone()).collect();
        let request = write_descriptor(&places).map_err(GraphError::Result)?;
        loaded.instance.write(loaded.request, &request, deadline)?;
        let len = loaded.instance.run(loaded.request, request.len(), deadline)?;
        let outputs = &loaded.description.outputs;
        if len != descriptor_len(outputs.iter().map(|output| output.shape.rank())) {
            return Err(GraphError::Answer { what: "result" });
        }
        let mut answer = vec![0; len];
        loaded.instance.read(loaded.request, &mut answer, deadline)?;
        let results = read_descriptor(&answer).map_err(GraphError::Result)?;
        let fits = |(result, output): (&TensorPlace, &TensorInfo)| {
            result.dtype == output.dtype && result.shape == output.shape
        };
        if results.len() != outputs.len() || !results.iter().zip(outputs).all(fits) {
            return Err(GraphError::Answer { what: "result" });
        }
        loaded.results = Some(results);
        Ok(())
    }

    /// An output of the last run, counted from 0.
    ///
    /// # Errors
    /// [`GraphError::NotRun`], [`GraphError::UnknownIndex`]; [`GraphError::Tensor`] when there is
    /// no memory for the copy; [`GraphError::NotInstantiated`].
    pub fn get_output(&mut self, index: usize) -> Result<Tensor<'static>, GraphError> {
        let deadline = Instant::now() + self.time_limit;
        let loaded = self.loaded.as_mut().ok_or(GraphError::NotInstantiated)?;
        let results = loaded.results.as_ref().ok_or(GraphError::NotRun)?;
        let count = results.len();
        let result = results.get(index);
        let result = result.ok_or(GraphError::UnknownIndex { kind: "outputs", index, count })?;
        let mut storage = Storage::zeroed(result.byte_count as usize).map_err(TensorError::from)?;
        let target = storage.as_bytes_mut().expect("owned");
        loaded.instance.read(result.address, target, deadline)?;
        Ok(Tensor::new(result.dtype, result.shape.clone(), storage)?)
    }

    /// Bytes of the graph's memory as it stands; 0 when none is loaded.
    pub fn memory_bytes(&mut self) -> usize {
        self.loaded.as_mut().map_or(0, |loaded| loaded.instance.memory_bytes())
    }
}

/// Compiles a module that imports nothing.
pub(crate) fn prepare(
    engine: &Engine,
    module: &[u8],
) -> Result<InstancePre<Guest<()>>, GraphError> {
    let digest: [u8; 32] = Sha256::digest(module).into();
    let compiled = engine.compile(module, &digest)?.module;
    if let Some(import) = compiled.imports().next() {
        let (module, name) = (import.module().to_owned(), import.name().to_owned());
        return Err(GraphError::Import { module, name });
    }
    let linker = Linker::new(engine.wasmtime());
    Ok(linker.instantiate_pre(&compiled).map_err(Stop::Host)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executor_may_move_to_another_thread() {
        fn send<T: Send>() {}
        send::<GraphExecutor>();
    }

    #[test]
    fn nothing_is_answered_before_a_graph_is_loaded() {
        let mut graph = GraphExecutor::new(&GraphOptions::default()).expect("an engine");
        assert!(matches!(graph.run(), Err(GraphError::NotInstantiated)));
        assert!(matches!(graph.get_output(0), Err(GraphError::NotInstantiated)));
        assert!(matches!(graph.description(), Err(GraphError::NotInstantiated)));
        assert_eq!(graph.memory_bytes(), 0);
        assert!(matches!(graph.instantiate(b"<html>"), Err(GraphError::Compile(_))));
    }
}
