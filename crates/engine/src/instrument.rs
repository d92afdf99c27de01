//! The poll: what a module is given so that a guest can be stopped at any time.
//!
//! A second memory of one page is added, and every loop header and every function that calls
//! another loads from it and drops the value. A guest cannot run for long without passing one of
//! the two: code without loops and without calls is as long as the module's text, and a chain of
//! calls (recursive or merely exponential) passes an entry with each. Bulk memory instructions are
//! bounded by the memory limit. When the watchdog takes the page's read permission, the next load
//! traps.
//!
//! Instructions are spliced in as bytes; the rest of each section is copied as it is.

use std::ops::Range;

use wasm_encoder::{CodeSection, Encode, RawSection, SectionId};
use wasmparser::{
    Export, ExternalKind, FunctionBody, Operator, Parser, Payload, SectionLimited, TypeRef,
    Validator, WasmFeatures,
};

/// Export by which the host finds the poll page.
pub const POLL_MEMORY: &str = "graphlet:poll";
/// Export that takes the place of the start function, so that it too runs under a deadline.
pub const START_FUNCTION: &str = "graphlet:start";

/// A module is malformed, or of a form that we do not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstrumentError {
    /// Not a module, or it uses something that guests may not use.
    #[error("the module is not valid for this host")]
    Invalid(#[from] wasmparser::BinaryReaderError),
    /// A component or a bare wasm text was given.
    #[error("not a core WebAssembly module")]
    NotAModule,
    /// The module imports a memory: its initial image could not be shared.
    #[error("the module imports memory `{module}.{name}`; it must define its own")]
    ImportedMemory {
        /// Module part of the import's name.
        module: String,
        /// Name of the import.
        name: String,
    },
    /// The module has no memory.
    #[error("the module defines no memory")]
    NoMemory,
    /// Names that the host gives itself.
    #[error("the module exports `{name}`, a name that this host keeps for itself")]
    ReservedExport {
        /// The export's name.
        name: String,
    },
}

// i32.const 0; i32.atomic.load align=4 memory=1 offset=0; drop.
// The validated module has exactly one memory, so the poll is number 1. A plain load would be
// merged with one that was passed before, and a loop behind it spin on; an atomic one is an effect
// that the compiler keeps where it stands.
const POLL: [u8; 8] = [0x41, 0x00, 0xFE, 0x10, 0x42, 0x01, 0x00, 0x1A];
const POLL_INDEX: u32 = 1;
// Limits with maximum; one page at least and at most: never grows, so its address is constant.
const POLL_MEMORY_TYPE: [u8; 3] = [0x01, 0x01, 0x01];

/// Checks that `wasm` is a module that guests may be made of: valid with these features, with one
/// memory of its own.
///
/// # Errors
/// [`InstrumentError`], naming what is wrong.
pub(crate) fn check(wasm: &[u8], features: WasmFeatures) -> Result<(), InstrumentError> {
    if !Parser::is_core_wasm(wasm) {
        return Err(InstrumentError::NotAModule);
    }
    Validator::new_with_features(features).validate_all(wasm)?;
    let mut memories = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    if matches!(import.ty, TypeRef::Memory(_)) {
                        return Err(InstrumentError::ImportedMemory {
                            module: import.module.into(),
                            name: import.name.into(),
                        });
                    }
                }
            }
            Payload::MemorySection(section) => memories = section.count(),
            Payload::ExportSection(exports) => {
                for export in exports {
                    let Export { name, .. } = export?;
                    if name == POLL_MEMORY || name == START_FUNCTION {
                        return Err(InstrumentError::ReservedExport { name: name.into() });
                    }
                }
            }
            _ => {}
        }
    }
    if memories == 0 { Err(InstrumentError::NoMemory) } else { Ok(()) }
}

/// Adds the poll to a module that [`check`] passed: memory [`POLL_MEMORY`], the loads, and
/// [`START_FUNCTION`] in place of a start function. Custom sections are dropped.
///
/// # Errors
/// [`InstrumentError::Invalid`] when the module is malformed after all.
pub(crate) fn instrument(wasm: &[u8]) -> Result<Vec<u8>, InstrumentError> {
    let mut output = wasm_encoder::Module::new();
    let mut code = CodeSection::new();
    let mut bodies_left = 0;
    let mut exports = None;
    let mut body_buffer = Vec::new();
    let start = start_function(wasm)?;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        // Exports come after memories and before code: written as soon as the next section shows
        // that there is none, or by their own arm.
        match &payload {
            Payload::Version { .. } | Payload::CustomSection(_) | Payload::End(_) => continue,
            Payload::StartSection { .. } => continue,
            Payload::MemorySection(section) => {
                let data = extended(wasm, section, &[&POLL_MEMORY_TYPE]);
                output.section(&RawSection { id: SectionId::Memory.into(), data: &data });
                exports = Some(false);
                continue;
            }
            Payload::ExportSection(section) => {
                write_exports(&mut output, wasm, Some(section), start);
                exports = Some(true);
                continue;
            }
            Payload::GlobalSection(_) | Payload::TagSection(_) => {}
            _ if exports == Some(false) => {
                write_exports(&mut output, wasm, None, start);
                exports = Some(true);
            }
            _ => {}
        }
        match &payload {
            Payload::CodeSectionStart { count, .. } => {
                bodies_left = *count;
                if bodies_left == 0 {
                    output.section(&code);
                }
            }
            Payload::CodeSectionEntry(body) => {
                code.raw(polled(wasm, body, &mut body_buffer)?);
                bodies_left -= 1;
                if bodies_left == 0 {
                    output.section(&code);
                }
            }
            other => {
                if let Some((id, range)) = other.as_section() {
                    output.section(&RawSection { id, data: &wasm[range] });
                }
            }
        }
    }
    if exports == Some(false) {
        write_exports(&mut output, wasm, None, start);
    }
    Ok(output.finish())
}

fn start_function(wasm: &[u8]) -> Result<Option<u32>, InstrumentError> {
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::StartSection { func, .. } => return Ok(Some(func)),
            Payload::CodeSectionStart { .. } => break,
            _ => {}
        }
    }
    Ok(None)
}

fn write_exports(
    output: &mut wasm_encoder::Module,
    wasm: &[u8],
    section: Option<&SectionLimited<'_, Export<'_>>>,
    start: Option<u32>,
) {
    let mut poll = Vec::new();
    export(&mut poll, POLL_MEMORY, ExternalKind::Memory, POLL_INDEX);
    let mut entries: Vec<&[u8]> = vec![&poll];
    let mut start_export = Vec::new();
    if let Some(function) = start {
        export(&mut start_export, START_FUNCTION, ExternalKind::Func, function);
        entries.push(&start_export);
    }
    let data = match section {
        Some(section) => extended(wasm, section, &entries),
        None => vector(entries.len(), &entries),
    };
    output.section(&RawSection { id: SectionId::Export.into(), data: &data });
}

fn export(sink: &mut Vec<u8>, name: &str, kind: ExternalKind, index: u32) {
    name.encode(sink);
    sink.push(if kind == ExternalKind::Memory { 2 } else { 0 });
    index.encode(sink);
}

/// A section's contents with further entries behind its own.
fn extended<T>(wasm: &[u8], section: &SectionLimited<'_, T>, entries: &[&[u8]]) -> Vec<u8> {
    // A fresh reader stands behind the count.
    let own: Range<usize> = section.original_position()..section.range().end;
    let mut parts = vec![&wasm[own]];
    parts.extend_from_slice(entries);
    vector(section.count() as usize + entries.len(), &parts)
}

fn vector(count: usize, parts: &[&[u8]]) -> Vec<u8> {
    let mut data = Vec::with_capacity(5 + parts.iter().map(|part| part.len()).sum::<usize>());
    count.encode(&mut data);
    parts.iter().for_each(|part| data.extend_from_slice(part));
    data
}

/// The body with polls, in `buffer`.
fn polled<'a>(
    wasm: &[u8],
    body: &FunctionBody<'_>,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], InstrumentError> {
    let range = body.range();
    let mut reader = body.get_operators_reader()?;
    let entry = reader.original_position();
    let mut places = Vec::new();
    let mut calls = false;
    while !reader.eof() {
        match reader.read()? {
            Operator::Loop { .. } => places.push(reader.original_position()),
            Operator::Call { .. } | Operator::CallIndirect { .. } => calls = true,
            _ => {}
        }
    }
    buffer.clear();
    buffer.reserve(range.len() + POLL.len() * (places.len() + 1));
    let mut copied = range.start;
    for place in calls.then_some(entry).into_iter().chain(places) {
        buffer.extend_from_slice(&wasm[copied..place]);
        buffer.extend_from_slice(&POLL);
        copied = place;
    }
    buffer.extend_from_slice(&wasm[copied..range.end]);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instrumented(text: &str) -> Vec<u8> {
        let wasm = wat::parse_str(text).unwrap();
        check(&wasm, crate::config::GUEST_FEATURES).unwrap();
        let output = instrument(&wasm).unwrap();
        Validator::new_with_features(crate::config::ENGINE_FEATURES).validate_all(&output).unwrap();
        output
    }

    fn polls(wasm: &[u8]) -> usize {
        wasm.windows(POLL.len()).filter(|window| *window == POLL).count()
    }

    #[test]
    fn every_loop_and_every_function_that_calls_gets_one_poll() {
        for (body, expected) in [
            ("(func)", 0),
            ("(func (loop))", 1),
            ("(func (loop (loop)) (loop))", 3),
            ("(func call 0)", 1),
            ("(func (loop call 0))", 2),
            ("(func (block unreachable (loop (result i32) (br 0)) drop))", 1),
            ("(func (call_indirect (i32.const 0)))", 1),
        ] {
            let wasm = instrumented(&format!("(module (memory 1) (table 1 funcref) {body})"));
            assert_eq!(polls(&wasm), expected, "body: {body}");
        }
    }

    #[test]
    fn exports_are_kept_and_the_start_function_becomes_one() {
        let wasm = instrumented(
            r#"(module (memory (export "memory") 1) (func $s) (start $s) (data (i32.const 0) "x"))"#,
        );
        let mut names = Vec::new();
        for payload in Parser::new(0).parse_all(&wasm) {
            match payload.unwrap() {
                Payload::ExportSection(exports) => {
                    names.extend(exports.into_iter().map(|e| e.unwrap().name.to_owned()));
                }
                Payload::StartSection { .. } => panic!("the start section is still there"),
                _ => {}
            }
        }
        assert_eq!(names, ["memory", POLL_MEMORY, START_FUNCTION]);
    }

    #[test]
    fn modules_without_exports_globals_or_code_are_valid_afterwards() {
        for text in [
            "(module (memory 1))",
            "(module (memory 1) (global i32 (i32.const 1)))",
            "(module (memory 1) (data (i32.const 0) \"x\"))",
            "(module (memory 1) (table 1 funcref) (func) (elem (i32.const 0) 0))",
            "(module (memory 1) (func) (func (data.drop 0)) (data \"x\"))",
        ] {
            instrumented(text);
        }
    }

    #[test]
    fn what_guests_may_not_use_is_refused() {
        for (text, expected) in [
            (r#"(module (import "env" "memory" (memory 1)))"#, "imports memory `env.memory`"),
            ("(module)", "defines no memory"),
            ("(module (memory 1) (memory 1))", "not valid"),
            ("(module (memory 1 1 shared))", "not valid"),
            ("(module (memory i64 1))", "not valid"),
            ("(module (memory 1) (func (return_call 0)))", "not valid"),
            ("(module (memory 1) (func (param externref)))", "not valid"),
            (r#"(module (memory (export "graphlet:poll") 1))"#, "keeps for itself"),
            (r#"(module (memory 1) (func (export "graphlet:start")))"#, "keeps for itself"),
            ("(component)", "not a core WebAssembly module"),
        ] {
            let wasm = wat::parse_str(text).unwrap();
            let error = check(&wasm, crate::config::GUEST_FEATURES).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(check(b"", crate::config::GUEST_FEATURES).is_err());
        assert!(check(b"\0asm\x01\0\0\0\xff", crate::config::GUEST_FEATURES).is_err());
    }
}
