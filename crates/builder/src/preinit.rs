//! A linked guest, run at build time until its model is loaded, and written down as it stands then.
//!
//! What a guest does at its beginning (graph parsed, kernels found, plan laid out, labels indexed)
//! is the same every time, so it is done once: the builder is the waPC host of an actor's first
//! health request, or calls what a component's module exports for it, and what the guest's memory
//! holds afterwards becomes the data of the module. An instance of it starts with its model loaded,
//! on any host.
//!
//! This is what Wizer does (`wasmtime-wizer`); here it is less general and leaves less behind. The
//! dead part of the stack is not kept, a run of data is cut only where a page of zeros saves
//! something (so that weights stay one piece, where the linker put them), and no feature of
//! wasmtime is needed beyond those that run the module later. What is all zeros, as the memory of
//! activations is, takes no byte in the module.

use std::{
    iter,
    ops::Range,
    time::{Duration, Instant},
};

use engine::{
    Engine, EngineOptions, Guest, Limits, Sandbox, Stop,
    wasmtime::{self, Caller, Extern, ExternType, InstancePre, Linker, Val},
};
use sha2::{Digest as _, Sha256};
use wasm_encoder::{
    ConstExpr, DataCountSection, DataSection, ExportKind, ExportSection, MemorySection, MemoryType,
    Module, RawSection,
};
use wasmparser::{DataKind, Export, ExternalKind, Operator, Parser, Payload};

use crate::{
    BuildError,
    link::{LOAD, STACK_BYTES},
};

/// A hundred times what 100 MB of weights take in an engine that is not optimised.
const LOAD_TIME: Duration = Duration::from_secs(60);

/// Runs of zeros of this length are left out: a page, which is what sharing works with.
const GAP_BYTES: usize = 4096;

const PAGE_BYTES: usize = 1 << 16;
const MEMORY: &str = "memory";
const GUEST_CALL: &str = "__guest_call";
/// Under this prefix and a number the mutable globals are exported while the guest runs here.
const GLOBAL_PREFIX: &str = "graphlet:global:";

/// How a guest is told to load its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// By a waPC host's health request.
    Wapc,
    /// By a function of its own, which is gone afterwards.
    Load,
}

/// Loads the model of a linked guest, and gives the module in which it is loaded.
///
/// # Errors
/// [`BuildError::Load`] when the model cannot be loaded, with the guest's own words: the same
/// would have happened wherever the module is run. [`BuildError::Snapshot`] when the guest is of
/// a form that cannot be written down, and [`BuildError::Invalid`] when it is no module.
pub(crate) fn preinitialise(linked: &[u8], door: Door) -> Result<Vec<u8>, BuildError> {
    let shape = Shape::of(linked)?;
    let globals = shape.mutable.iter().map(|&index| (format!("{GLOBAL_PREFIX}{index}"), index));
    let memory = load(&with_exports(linked, globals, |_| true)?, &shape, door)?;
    let loaded = rewritten(linked, &memory)?;
    match door {
        Door::Wapc => Ok(loaded),
        Door::Load => with_exports(&loaded, iter::empty(), |name| name != LOAD),
    }
}

/// What has to be known of a module before it is run.
struct Shape {
    /// Indices of its mutable globals.
    mutable: Vec<u32>,
}

impl Shape {
    fn of(wasm: &[u8]) -> Result<Self, BuildError> {
        let mut mutable = Vec::new();
        let mut memories = 0;
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.map_err(BuildError::Invalid)? {
                Payload::MemorySection(section) => memories = section.count(),
                Payload::GlobalSection(section) => {
                    // Guests import functions only, so that globals count from 0.
                    for (index, global) in section.into_iter().enumerate() {
                        if global.map_err(BuildError::Invalid)?.ty.mutable {
                            mutable.push(index as u32);
                        }
                    }
                }
                Payload::StartSection { .. } => return Err(snapshot("it has a start function")),
                Payload::DataSection(section) => {
                    for data in section {
                        // What `memory.init` would copy later is not in memory yet.
                        if !matches!(
                            data.map_err(BuildError::Invalid)?.kind,
                            DataKind::Active { .. }
                        ) {
                            return Err(snapshot("it has passive data"));
                        }
                    }
                }
                _ => {}
            }
        }
        if memories != 1 {
            return Err(snapshot(format!("it has {memories} memories")));
        }
        Ok(Self { mutable })
    }
}

fn snapshot(reason: impl Into<String>) -> BuildError {
    BuildError::Snapshot { reason: reason.into() }
}

/// The module with these globals exported too, by name and number, and without the functions that
/// `keeps` refuses by name.
fn with_exports(
    wasm: &[u8],
    globals: impl Iterator<Item = (String, u32)> + Clone,
    keeps: impl Fn(&str) -> bool,
) -> Result<Vec<u8>, BuildError> {
    edited(wasm, |payload, output| {
        let Payload::ExportSection(section) = payload else { return Ok(false) };
        let mut exports = ExportSection::new();
        for export in section.clone() {
            let Export { name, kind, index } = export.map_err(BuildError::Invalid)?;
            let kind = match kind {
                ExternalKind::Func if !keeps(name) => continue,
                ExternalKind::Func => ExportKind::Func,
                ExternalKind::Table => ExportKind::Table,
                ExternalKind::Memory => ExportKind::Memory,
                ExternalKind::Global => ExportKind::Global,
                other => return Err(snapshot(format!("it exports `{name}`, a {other:?}"))),
            };
            exports.export(name, kind, index);
        }
        for (name, index) in globals.clone() {
            exports.export(&name, ExportKind::Global, index);
        }
        output.section(&exports);
        Ok(true)
    })
}

/// Copies a module section by section; `replace` says whether it wrote another in its place.
fn edited(
    wasm: &[u8],
    mut replace: impl FnMut(&Payload<'_>, &mut Module) -> Result<bool, BuildError>,
) -> Result<Vec<u8>, BuildError> {
    let mut output = Module::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(BuildError::Invalid)?;
        if let Some((id, range)) = payload.as_section()
            && !replace(&payload, &mut output)?
        {
            output.section(&RawSection { id, data: &wasm[range] });
        }
    }
    Ok(output.finish())
}

/// The one call that is made, from the host's side.
#[derive(Default)]
struct Call {
    message: Vec<u8>,
    /// What the guest says is wrong.
    error: Option<String>,
    /// Globals before the call.
    globals: Vec<u64>,
}

/// Runs the guest until it has loaded its model, and gives its memory.
fn load(wasm: &[u8], shape: &Shape, door: Door) -> Result<Vec<u8>, BuildError> {
    let failed = |error: &dyn std::error::Error| snapshot(error.to_string());
    let engine = Engine::new(&EngineOptions::default()).map_err(|error| failed(&error))?;
    let digest: [u8; 32] = Sha256::digest(wasm).into();
    let compiled = engine.compile(wasm, &digest).map_err(|error| failed(&error))?;
    let pre = linked(&engine, &compiled.module).map_err(|error| snapshot(format!("{error:#}")))?;
    let message =
        wire::encode(&wire::HealthRequest { placeholder: true }).map_err(|error| failed(&error))?;
    let lens = (wire::OP_HEALTH_REQUEST.len() as u32, message.len() as u32);
    // All of the address space: how much the model needs is for whoever runs it to grant.
    let limits = Limits { memory_bytes: usize::MAX, ..Limits::default() };
    let deadline = Instant::now() + LOAD_TIME;
    let call = Call { message, ..Call::default() };
    let stopped = |stop: Stop| BuildError::Load { reason: stop.explanation() };
    let mut sandbox = Sandbox::new(&engine, &pre, limits, call, deadline).map_err(stopped)?;
    let before = sandbox
        .enter(deadline, |store, instance| globals(store, instance, shape))
        .map_err(stopped)?;
    sandbox.data_mut().globals = before;
    let refused = sandbox
        .enter(deadline, |mut store, instance| match door {
            Door::Wapc => {
                let call = instance.get_typed_func::<(u32, u32), u32>(&mut store, GUEST_CALL)?;
                let answered = call.call(&mut store, lens)?;
                let reason = store.data_mut().data.error.take();
                Ok((answered == 0).then(|| reason.unwrap_or_else(|| "no reason given".into())))
            }
            Door::Load => {
                let call = instance.get_typed_func::<(), u64>(&mut store, LOAD)?;
                let text = call.call(&mut store, ())?;
                let memory = instance.get_memory(&mut store, MEMORY);
                let memory = memory.map(|memory| memory.data(&store)).unwrap_or_default();
                Ok((text != 0).then(|| words(memory, (text >> 32) as u32, text as u32)))
            }
        })
        .map_err(stopped)?;
    if let Some(reason) = refused {
        return Err(BuildError::Load { reason });
    }
    let (after, memory) = sandbox
        .enter(deadline, |mut store, instance| {
            let after = globals(&mut store, instance, shape)?;
            let memory = instance.get_memory(&mut store, MEMORY);
            let memory = memory.ok_or_else(|| wasmtime::Error::msg("it exports no memory"))?;
            Ok((after, memory.data(&store).to_vec()))
        })
        .map_err(stopped)?;
    // The stack pointer is back where it was; nothing else in our guests is a mutable global.
    if after != sandbox.data().globals {
        return Err(snapshot("it keeps state in globals"));
    }
    Ok(without_stack(memory))
}

/// The stack lies at the bottom of memory (`--stack-first`), and nobody is on it between calls.
fn without_stack(mut memory: Vec<u8>) -> Vec<u8> {
    let stack = memory.len().min(STACK_BYTES as usize);
    memory[..stack].fill(0);
    memory
}

/// Values of the mutable globals, as bits.
fn globals(
    mut store: impl wasmtime::AsContextMut,
    instance: &wasmtime::Instance,
    shape: &Shape,
) -> wasmtime::Result<Vec<u64>> {
    let mut values = Vec::with_capacity(shape.mutable.len());
    for index in &shape.mutable {
        let global = instance.get_global(&mut store, &format!("{GLOBAL_PREFIX}{index}"));
        let value = global.map(|global| global.get(&mut store));
        values.push(match value {
            Some(Val::I32(value)) => u64::from(value.cast_unsigned()),
            Some(Val::I64(value)) => value.cast_unsigned(),
            Some(Val::F32(bits)) => u64::from(bits),
            Some(Val::F64(bits)) => bits,
            _ => return Err(wasmtime::Error::msg("a mutable global is no plain number")),
        });
    }
    Ok(values)
}

/// Imports as a waPC host has them that refuses every call of the guest.
fn linked(
    engine: &Engine,
    module: &wasmtime::Module,
) -> wasmtime::Result<InstancePre<Guest<Call>>> {
    let mut linker = Linker::<Guest<Call>>::new(engine.wasmtime());
    for import in module.imports() {
        let ExternType::Func(ty) = import.ty() else { continue };
        let name = import.name().to_owned();
        linker.func_new(import.module(), import.name(), ty, move |caller, args, results| {
            for result in results.iter_mut() {
                // No success, no length: of what is asked, nothing is there.
                *result = Val::I32(0);
            }
            let args: Vec<i32> = args.iter().filter_map(Val::i32).collect();
            serve(caller, &name, &args)
        })?;
    }
    linker.instantiate_pre(module)
}

fn serve(mut caller: Caller<'_, Guest<Call>>, name: &str, args: &[i32]) -> wasmtime::Result<()> {
    let Some(Extern::Memory(memory)) = caller.get_export(MEMORY) else {
        return Err(wasmtime::Error::msg("it exports no memory"));
    };
    match (name, args) {
        ("__guest_request", &[operation, message]) => {
            let bytes = caller.data().data.message.clone();
            let name = wire::OP_HEALTH_REQUEST.as_bytes();
            memory.write(&mut caller, operation.cast_unsigned() as usize, name)?;
            memory.write(&mut caller, message.cast_unsigned() as usize, &bytes)?;
        }
        ("__guest_error", &[text, len]) => {
            let text = words(memory.data(&caller), text.cast_unsigned(), len.cast_unsigned());
            caller.data_mut().data.error = Some(text);
        }
        _ => {}
    }
    Ok(())
}

/// A text of the guest's; empty when it does not lie in its memory.
fn words(memory: &[u8], address: u32, len: u32) -> String {
    let start = address as usize;
    let bytes = memory.get(start..start.saturating_add(len as usize)).unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// The module with `memory` as its data.
fn rewritten(wasm: &[u8], memory: &[u8]) -> Result<Vec<u8>, BuildError> {
    let pieces = pieces(memory);
    edited(wasm, |payload, output| {
        match payload {
            Payload::MemorySection(section) => {
                let mut memories = MemorySection::new();
                for ty in section.clone() {
                    let ty = ty.map_err(BuildError::Invalid)?;
                    memories.memory(MemoryType {
                        minimum: (memory.len() / PAGE_BYTES) as u64,
                        maximum: ty.maximum,
                        memory64: ty.memory64,
                        shared: ty.shared,
                        page_size_log2: ty.page_size_log2,
                    });
                }
                output.section(&memories);
            }
            Payload::DataCountSection { .. } => {
                output.section(&DataCountSection { count: pieces.len() as u32 });
            }
            Payload::DataSection(_) => {
                let mut data = DataSection::new();
                for piece in &pieces {
                    let offset = u32::try_from(piece.start)
                        .map_err(|_| snapshot("its memory is larger than 4 GiB"))?;
                    let offset = ConstExpr::i32_const(offset.cast_signed());
                    data.active(0, &offset, memory[piece.clone()].iter().copied());
                }
                output.section(&data);
            }
            Payload::CodeSectionStart { .. } => {
                forbid_data_instructions(wasm)?;
                return Ok(false);
            }
            _ => return Ok(false),
        }
        Ok(true)
    })
}

/// Instructions that name a data segment by its number would name another one afterwards.
fn forbid_data_instructions(wasm: &[u8]) -> Result<(), BuildError> {
    for payload in Parser::new(0).parse_all(wasm) {
        let Payload::CodeSectionEntry(body) = payload.map_err(BuildError::Invalid)? else {
            continue;
        };
        for operator in body.get_operators_reader().map_err(BuildError::Invalid)? {
            if let Operator::MemoryInit { .. } | Operator::DataDrop { .. } =
                operator.map_err(BuildError::Invalid)?
            {
                return Err(snapshot("its code names data segments"));
            }
        }
    }
    Ok(())
}

/// The parts of memory that hold something, cut at runs of [`GAP_BYTES`] zeros.
fn pieces(memory: &[u8]) -> Vec<Range<usize>> {
    let mut pieces: Vec<Range<usize>> = Vec::new();
    // Words first: nearly all of a large memory is skipped or taken by whole words.
    let mut at = 0;
    for word in memory.chunks(size_of::<u64>()) {
        if word.iter().any(|&byte| byte != 0) {
            let end = at + word.len();
            match pieces.last_mut() {
                Some(last) if at - last.end < GAP_BYTES => last.end = end,
                _ => pieces.push(at..end),
            }
        }
        at += word.len();
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guest that asks for its message, and does `work` before it answers with `answer`.
    fn guest(work: &str, answer: i32) -> Vec<u8> {
        let text = format!(
            r#"(module
                (import "wapc" "__guest_request" (func $request (param i32 i32)))
                (import "wapc" "__guest_error" (func $error (param i32 i32)))
                (import "wapc" "__host_call" (func $host_call
                    (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
                (memory (export "memory") 17)
                (global $sp (mut i32) (i32.const 1048576))
                (data (i32.const 1048576) "weights")
                (data (i32.const 1060000) "no such kernel")
                (func (export "__guest_call") (param $operation i32) (param $message i32)
                    (result i32)
                    (call $request (i32.const 1050000) (i32.const 1050100))
                    {work}
                    (i32.const {answer})))"#
        );
        wat::parse_str(text).unwrap()
    }

    /// Memory of a fresh instance of `wasm`, which needs no import to do anything.
    fn fresh_memory(wasm: &[u8]) -> Vec<u8> {
        let engine = Engine::new(&EngineOptions::default()).unwrap();
        let module = engine.compile(wasm, &Sha256::digest(wasm).into()).unwrap().module;
        let pre = linked(&engine, &module).unwrap();
        let deadline = Instant::now() + LOAD_TIME;
        let limits = Limits::default();
        let mut sandbox = Sandbox::new(&engine, &pre, limits, Call::default(), deadline).unwrap();
        let memory = |mut store: wasmtime::StoreContextMut<'_, Guest<Call>>,
                      instance: &wasmtime::Instance| {
            let memory = instance.get_memory(&mut store, MEMORY).unwrap();
            Ok(memory.data(&store).to_vec())
        };
        sandbox.enter(deadline, memory).unwrap()
    }

    #[test]
    fn an_instance_begins_where_the_first_one_was_after_its_health_request() {
        // On the stack, far behind in memory that was grown, and in what was data before.
        let work = "(i32.store (i32.const 1000) (i32.const 7))
            (drop (memory.grow (i32.const 40)))
            (i32.store (i32.const 3000000) (i32.const 0x01020304))
            (i32.store8 (i32.const 1048576) (i32.const 87))";
        let linked = guest(work, 1);
        let module = preinitialise(&linked, Door::Wapc).unwrap();
        let memory = fresh_memory(&module);
        assert_eq!(memory.len(), 57 * PAGE_BYTES);
        assert_eq!(memory[3_000_000..3_000_004], [4, 3, 2, 1]);
        assert_eq!(memory[1_048_576..1_048_583], *b"Weights");
        assert_eq!(memory[1_050_000..][..wire::OP_HEALTH_REQUEST.len()], *b"HealthRequest");
        assert!(memory[..1_048_576].iter().all(|&byte| byte == 0), "the stack is not kept");
        // Four megabytes of zeros take nothing.
        assert!(module.len() < linked.len() + 4096, "{} bytes", module.len());
        assert_eq!(module, preinitialise(&linked, Door::Wapc).unwrap(), "the same bytes each time");
    }

    #[test]
    fn what_the_guest_says_of_a_model_that_cannot_be_loaded_ends_the_build() {
        let error = "(call $error (i32.const 1060000) (i32.const 14))";
        for (work, answer, expected) in [
            (error, 0, "no such kernel"),
            ("", 0, "no reason given"),
            ("unreachable", 1, "trapped"),
            ("(i32.store (i32.const -4) (i32.const 1))", 1, "trapped"),
        ] {
            let error = preinitialise(&guest(work, answer), Door::Wapc).unwrap_err();
            let BuildError::Load { reason } = &error else { panic!("{error:?}") };
            assert!(reason.contains(expected), "{work}: {reason}");
        }
    }

    #[test]
    fn a_module_with_a_function_for_it_loads_its_model_by_that_and_loses_it() {
        let guest = |answer: &str| {
            let text = format!(
                r#"(module
                    (import "wasi:io/streams@0.2.12" "[method]output-stream.flush"
                        (func (param i32 i32)))
                    (memory (export "memory") 17)
                    (data (i32.const 1048576) "no such kernel")
                    (func (export "other"))
                    (func (export "graphlet_load") (result i64)
                        (i32.store (i32.const 1060000) (i32.const 7))
                        (i64.const {answer})))"#
            );
            wat::parse_str(text).unwrap()
        };
        let module = preinitialise(&guest("0"), Door::Load).unwrap();
        assert_eq!(fresh_memory(&module)[1_060_000], 7);
        let exports: Vec<_> = Parser::new(0)
            .parse_all(&module)
            .filter_map(|payload| match payload.unwrap() {
                Payload::ExportSection(section) => Some(section),
                _ => None,
            })
            .flatten()
            .map(|export| export.unwrap().name)
            .collect();
        assert_eq!(exports, ["memory", "other"]);
        for (answer, expected) in
            [("0x10000000000007", "no such"), ("0xfffffff00000010", "cannot load its model: ")]
        {
            let error = preinitialise(&guest(answer), Door::Load).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        }
    }

    #[test]
    fn calls_to_the_host_are_refused_and_do_no_harm() {
        let call = "(if (call $host_call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)) (then unreachable))";
        preinitialise(&guest(call, 1), Door::Wapc).unwrap();
    }

    #[test]
    fn guests_whose_state_is_not_all_in_memory_are_refused() {
        for (text, expected) in [
            ("(module (memory 1) (memory 1))", "2 memories"),
            ("(module (memory 1) (func $f) (start $f))", "start function"),
            ("(module (memory 1) (data \"later\"))", "passive data"),
        ] {
            let error = preinitialise(&wat::parse_str(text).unwrap(), Door::Wapc).unwrap_err();
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
        let moved = guest("(global.set $sp (i32.const 5))", 1);
        let error = preinitialise(&moved, Door::Wapc).unwrap_err();
        assert!(error.to_string().contains("globals"), "{error}");
        assert!(preinitialise(b"\0asm", Door::Wapc).is_err());
    }

    #[test]
    fn data_is_cut_at_pages_of_zeros_only() {
        let mut memory = vec![0; 40_000];
        for (at, byte) in [(8, 1), (4000, 2), (8200, 3), (39_999, 4)] {
            memory[at] = byte;
        }
        // 3,992 and 4,200 zeros lie between the first three.
        assert_eq!(pieces(&memory), [8..4008, 8200..8208, 39_992..40_000]);
        assert!(pieces(&[0; 100]).is_empty());
    }
}
