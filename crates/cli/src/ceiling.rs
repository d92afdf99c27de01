//! How fast the core under us multiplies and adds at best: the ceiling of every kernel.
//!
//! A loop of nothing but 128-bit multiply-adds on registers, run by the production engine with its
//! deadline. On a processor with fused multiply-add it is as fast as the same loop in native code
//! (`cargo bench -p operators --bench kernels` prints that one); where there is none, it is what
//! the guest gets in its place.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use engine::{
    Engine, EngineOptions, Limits, Sandbox,
    wasmtime::{Linker, TypedFunc},
};
use wasm_encoder::{
    BlockType, CodeSection, ExportKind, ExportSection, Function, FunctionSection, InstructionSink,
    MemorySection, MemoryType, Module, TypeSection, ValType,
};

// Two multiply-adds a cycle with a latency of four or five need ten at a time; registers are
// sixteen, two of which hold the factor and a copy.
const SUMS: u32 = 12;
// Each sum twice a turn, so that the turn itself is not seen.
const REPEATS: u32 = 2;
const LANES: u32 = 4;
const TURNS: u32 = 3 << 18;
const RUN: &str = "run";

/// The loop, ready to run.
pub struct Ceiling {
    sandbox: Sandbox<()>,
}

impl Ceiling {
    /// Compiles the loop.
    ///
    /// # Errors
    /// When the engine cannot run here.
    pub fn new() -> Result<Self> {
        let engine = Engine::new(&EngineOptions::default())?;
        // Without a cache the digest names nothing.
        let compiled = engine.compile(&module(), &[0; 32])?;
        let pre = Linker::new(engine.wasmtime()).instantiate_pre(&compiled.module)?;
        let limits = Limits { memory_bytes: 1 << 20, table_elements: 0 };
        let sandbox = Sandbox::new(&engine, &pre, limits, (), deadline())?;
        Ok(Ceiling { sandbox })
    }

    /// Multiply-accumulates a second at this moment, over about three milliseconds. Not the best
    /// of several: whatever shares the core now shares it with the kernels, too.
    ///
    /// # Errors
    /// When the loop does not end in time.
    pub fn measure(&mut self) -> Result<f64> {
        let took = self
            .sandbox
            .enter(deadline(), |mut store, instance| {
                let run: TypedFunc<u32, f32> = instance.get_typed_func(&mut store, RUN)?;
                let begin = Instant::now();
                run.call(&mut store, TURNS)?;
                Ok(begin.elapsed())
            })
            .context("the core's speed could not be measured")?;
        Ok(f64::from(TURNS) * f64::from(REPEATS * SUMS * LANES) / took.as_secs_f64())
    }
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// `run(turns)`: adds up products in [`SUMS`] vectors; the answer keeps them all alive.
fn module() -> Vec<u8> {
    let (turns, factor, first) = (0, 1, 2);
    let mut run = Function::new([(1 + SUMS, ValType::V128)]);
    let mut code = run.instructions();
    code.f32_const(0.5.into()).f32x4_splat().local_set(factor);
    code.loop_(BlockType::Empty);
    for sum in (0..REPEATS).flat_map(|_| first..first + SUMS) {
        code.local_get(factor).local_get(factor).local_get(sum);
        code.f32x4_relaxed_madd().local_set(sum);
    }
    code.local_get(turns).i32_const(1).i32_sub().local_tee(turns).br_if(0).end();
    code.local_get(first);
    (first + 1..first + SUMS).fold(&mut code, add);
    code.f32x4_extract_lane(0).end();

    let mut module = Module::new();
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], [ValType::F32]);
    let mut functions = FunctionSection::new();
    functions.function(0);
    // The engine wants one; the loop does not touch it.
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: Some(1),
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut exports = ExportSection::new();
    exports.export(RUN, ExportKind::Func, 0);
    let mut bodies = CodeSection::new();
    bodies.function(&run);
    module
        .section(&types)
        .section(&functions)
        .section(&memories)
        .section(&exports)
        .section(&bodies);
    module.finish()
}

fn add<'a, 'b>(code: &'a mut InstructionSink<'b>, sum: u32) -> &'a mut InstructionSink<'b> {
    code.local_get(sum).f32x4_add()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_runs_under_the_production_engine() {
        let speed = Ceiling::new().unwrap().measure().unwrap();
        assert!(speed.is_finite() && speed > 0.0, "{speed}");
    }
}
