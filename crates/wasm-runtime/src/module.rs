//! One instance of a graph or of the operator library, and the calls of its exports. Nothing that
//! it gives is believed.

use std::{ops::Range, time::Instant};

use engine::{
    Guest, Sandbox,
    wasmtime::{self, Memory, StoreContextMut, TypedFunc},
};

use crate::GraphError;

// A description of 65,535 tensors with long names has less.
const MAX_TEXT_BYTES: usize = 16 << 20;

type Call = TypedFunc<(u32, u32), i32>;

/// What a module computes: the graph that it is, or one of several operators.
enum Run {
    Graph { run: Call, describe: Call },
    Operators(TypedFunc<(u32, u32, u32), i32>),
}

/// An instance with its exports.
pub(crate) struct Instance {
    sandbox: Sandbox<()>,
    memory: Memory,
    run: Run,
    message: Call,
    alloc: TypedFunc<u32, u32>,
}

impl Instance {
    /// The instance of a graph.
    pub(crate) fn graph(sandbox: Sandbox<()>, deadline: Instant) -> Result<Self, GraphError> {
        Self::new(sandbox, deadline, |mut store, instance| {
            let mut call = |name| instance.get_typed_func(&mut store, name).ok();
            let (run, describe) = (call("run"), call("graphlet_describe"));
            let run = run.ok_or(GraphError::Export("run"))?;
            let describe = describe.ok_or(GraphError::Export("graphlet_describe"))?;
            Ok(Run::Graph { run, describe })
        })
    }

    /// The instance of an operator library.
    pub(crate) fn library(sandbox: Sandbox<()>, deadline: Instant) -> Result<Self, GraphError> {
        Self::new(sandbox, deadline, |mut store, instance| {
            let run = instance.get_typed_func(&mut store, "run").ok();
            run.map(Run::Operators).ok_or(GraphError::Export("run"))
        })
    }

    /// Looks the exports up, which runs nothing of the guest's.
    fn new(
        mut sandbox: Sandbox<()>,
        deadline: Instant,
        find: impl FnOnce(
            StoreContextMut<'_, Guest<()>>,
            &wasmtime::Instance,
        ) -> Result<Run, GraphError>,
    ) -> Result<Self, GraphError> {
        let exports = sandbox.enter(deadline, |mut store, instance| {
            let memory = instance.get_memory(&mut store, "memory");
            let message = instance.get_typed_func(&mut store, "graphlet_message").ok();
            let alloc = instance.get_typed_func(&mut store, "graphlet_alloc").ok();
            Ok((memory, message, alloc, find(store, instance)))
        })?;
        let (memory, message, alloc, run) = exports;
        Ok(Instance {
            sandbox,
            memory: memory.ok_or(GraphError::Export("memory"))?,
            run: run?,
            message: message.ok_or(GraphError::Export("graphlet_message"))?,
            alloc: alloc.ok_or(GraphError::Export("graphlet_alloc"))?,
        })
    }

    /// The JSON of `graphlet_describe`.
    pub(crate) fn describe(&mut self, deadline: Instant) -> Result<Vec<u8>, GraphError> {
        let Run::Graph { describe, .. } = &self.run else {
            return Err(GraphError::Export("graphlet_describe"));
        };
        let describe = describe.clone();
        match self.text(&describe, deadline)? {
            Ok(text) => Ok(text),
            Err(code) => Err(self.refusal(code, deadline)),
        }
    }

    /// Room for `bytes` in the guest's memory.
    pub(crate) fn allocate(&mut self, bytes: usize, deadline: Instant) -> Result<u32, GraphError> {
        let wanted = u32::try_from(bytes).map_err(|_| GraphError::OutOfMemory { bytes })?;
        let address = self.sandbox.enter(deadline, |store, _| self.alloc.call(store, wanted))?;
        if address == 0 {
            return Err(GraphError::OutOfMemory { bytes });
        }
        self.range(address, bytes, deadline)?;
        Ok(address)
    }

    /// Writes into the guest's memory.
    pub(crate) fn write(
        &mut self,
        address: u32,
        bytes: &[u8],
        deadline: Instant,
    ) -> Result<(), GraphError> {
        let range = self.range(address, bytes.len(), deadline)?;
        self.with_memory(deadline, |memory| memory[range].copy_from_slice(bytes))
    }

    /// Reads the guest's memory.
    pub(crate) fn read(
        &mut self,
        address: u32,
        target: &mut [u8],
        deadline: Instant,
    ) -> Result<(), GraphError> {
        let range = self.range(address, target.len(), deadline)?;
        self.with_memory(deadline, |memory| target.copy_from_slice(&memory[range]))
    }

    /// Calls the `run` of a graph; the length of the result's descriptor.
    pub(crate) fn run(
        &mut self,
        address: u32,
        bytes: usize,
        deadline: Instant,
    ) -> Result<usize, GraphError> {
        let Run::Graph { run, .. } = &self.run else { return Err(GraphError::Export("run")) };
        // A descriptor that was written into the guest's memory fits 32 bits.
        let arguments = (address, bytes as u32);
        let answer = self.sandbox.enter(deadline, |store, _| run.call(store, arguments))?;
        usize::try_from(answer).map_err(|_| self.refusal(answer, deadline))
    }

    /// Calls the `run` of an operator library; the length of the result's descriptor.
    pub(crate) fn run_operator(
        &mut self,
        operator: u32,
        address: u32,
        bytes: usize,
        deadline: Instant,
    ) -> Result<usize, GraphError> {
        let Run::Operators(run) = &self.run else { return Err(GraphError::Export("run")) };
        let arguments = (operator, address, bytes as u32);
        let answer = self.sandbox.enter(deadline, |store, _| run.call(store, arguments))?;
        usize::try_from(answer).map_err(|_| self.refusal(answer, deadline))
    }

    /// Bytes of the guest's memory, as it stands.
    pub(crate) fn memory_bytes(&mut self) -> usize {
        self.sandbox.memory_bytes("memory")
    }

    /// What a negative code stands for, in the guest's own words if it has any.
    fn refusal(&mut self, code: i32, deadline: Instant) -> GraphError {
        let message = self.message.clone();
        let text = match self.text(&message, deadline) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => Vec::new(),
            Err(error) => return error,
        };
        let text = String::from_utf8_lossy(&text);
        // It goes into logs and terminals.
        let message = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        GraphError::Refused { code, message }
    }

    /// A text that an export writes, or the negative number that it answers with.
    fn text(&mut self, call: &Call, deadline: Instant) -> Result<Result<Vec<u8>, i32>, GraphError> {
        let answer = self.sandbox.enter(deadline, |store, _| call.call(store, (0, 0)))?;
        let Ok(len) = usize::try_from(answer) else { return Ok(Err(answer)) };
        if len > MAX_TEXT_BYTES {
            return Err(GraphError::Answer { what: "text" });
        }
        let address = self.allocate(len, deadline)?;
        let arguments = (address, len as u32);
        let again = self.sandbox.enter(deadline, |store, _| call.call(store, arguments))?;
        if again != answer {
            return Err(GraphError::Answer { what: "text" });
        }
        let mut text = vec![0; len];
        self.read(address, &mut text, deadline)?;
        self.free(address, deadline)?;
        Ok(Ok(text))
    }

    /// Gives room back.
    pub(crate) fn free(&mut self, address: u32, deadline: Instant) -> Result<(), GraphError> {
        // Without it the room is lost, no more.
        self.sandbox.enter(deadline, |mut store, instance| {
            match instance.get_typed_func::<u32, i32>(&mut store, "graphlet_free") {
                Ok(free) => free.call(store, address).map(drop),
                Err(_) => Ok(()),
            }
        })?;
        Ok(())
    }

    /// Where bytes lie, if they lie in the guest's memory.
    fn range(
        &mut self,
        address: u32,
        len: usize,
        deadline: Instant,
    ) -> Result<Range<usize>, GraphError> {
        let size = self.with_memory(deadline, |memory| memory.len())?;
        let start = address as usize;
        match start.checked_add(len) {
            Some(end) if end <= size => Ok(start..end),
            _ => Err(GraphError::Answer { what: "address" }),
        }
    }

    fn with_memory<R>(
        &mut self,
        deadline: Instant,
        work: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<R, GraphError> {
        let memory = self.memory;
        let touch = |mut store: StoreContextMut<'_, Guest<()>>, _: &_| {
            Ok(work(memory.data_mut(&mut store)))
        };
        Ok(self.sandbox.enter(deadline, touch)?)
    }
}
