//! What one instance may take: memory and table growth are asked here first.

use wasmtime::ResourceLimiter;

/// How much one instance may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory, bytes.
    pub memory_bytes: usize,
    /// Elements of each table.
    pub table_elements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // 512 MiB: three times what ResNet50 takes, weights and activations together. 64 Ki
        // entries (1 MiB on the host): a hundred times the function table of our modules.
        Self { memory_bytes: 512 << 20, table_elements: 1 << 16 }
    }
}

// LLVM emits one table; the reference-types proposal allows more, and nobody needs many.
pub(crate) const TABLES: usize = 4;
// The guest's own and the poll page.
pub(crate) const MEMORIES: usize = 2;

/// Answers wasmtime's questions about growth, and remembers that it said no.
#[derive(Debug)]
pub struct Limiter {
    limits: Limits,
    memory_refused: bool,
}

impl Limiter {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, memory_refused: false }
    }

    /// Whether memory was refused since the last time this was asked: a guest that traps after
    /// that most likely died of it.
    pub(crate) fn take_memory_refused(&mut self) -> bool {
        std::mem::take(&mut self.memory_refused)
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted = desired <= self.limits.memory_bytes;
        self.memory_refused |= !granted;
        Ok(granted)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory_refused = true;
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= self.limits.table_elements)
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        TABLES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }
}
