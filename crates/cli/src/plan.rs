//! Where an instance's memory goes: what `graphlet inspect` says of it, from the module itself and
//! from its card.

use serde::Serialize;
use serde_json::Value;
use wasmparser::{BinaryReaderError, DataKind, Operator, Parser, Payload, TypeRef};

use crate::card::Card;

const PAGE_BYTES: u64 = 1 << 16;

/// The linear memory of an instance, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// All of it, before the first request; a request makes it grow by its own length and little
    /// more.
    pub start: u64,
    /// Weights, where the kernels read them: one copy on a machine, whatever runs there.
    pub weights: Option<u64>,
    /// The other data of the module: graph and labels, the loaded model, constants. Shared, too,
    /// but for the pages that a request writes.
    pub state: u64,
    /// The arena: whatever kernels write, with the picture's tensor where it finds room. A picture
    /// is decoded there, too.
    pub activations: Option<u64>,
    /// What is needed at the fullest step of the graph: no arena can be smaller.
    pub activations_peak: Option<u64>,
    /// The stack, touched as deep as calls go.
    pub stack: Option<u64>,
    /// What a further instance takes at most before its first request: all but the data.
    pub instance: u64,
}

impl Plan {
    /// The plan of a module that has one memory of its own; `None` for others.
    ///
    /// # Errors
    /// The parser's own, for what is not well-formed.
    pub fn of(bytes: &[u8], card: Option<&Card>) -> Result<Option<Self>, BinaryReaderError> {
        let (mut pages, mut data, mut stack) = (None, 0, None);
        let mut imports_globals = false;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        match import?.ty {
                            TypeRef::Memory(_) => return Ok(None),
                            TypeRef::Global(_) => imports_globals = true,
                            _ => {}
                        }
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        pages = Some(memory?.initial);
                    }
                }
                Payload::GlobalSection(section) => {
                    // The linker's first global is the stack's end, and the stack lies below it.
                    if let Some(first) = section.into_iter().next()
                        && !imports_globals
                    {
                        let first = first?;
                        let value = first.init_expr.get_operators_reader().read()?;
                        if let (true, Operator::I32Const { value }) = (first.ty.mutable, value) {
                            stack = u64::try_from(value).ok();
                        }
                    }
                }
                Payload::DataSection(section) => {
                    for segment in section {
                        let segment = segment?;
                        if matches!(segment.kind, DataKind::Active { .. }) {
                            data += segment.data.len() as u64;
                        }
                    }
                }
                _ => {}
            }
        }
        let Some(pages) = pages else { return Ok(None) };
        let size = |name: &str| card?.sizes.get(name).and_then(Value::as_u64);
        let start = pages.saturating_mul(PAGE_BYTES);
        let weights = size("params").map(|weights| weights.min(data));
        Ok(Some(Self {
            start,
            weights,
            state: data - weights.unwrap_or(0),
            activations: size("activations"),
            activations_peak: size("activations_peak").filter(|bytes| *bytes > 0),
            stack,
            instance: start.saturating_sub(data),
        }))
    }

    /// Its lines: bytes, and of what.
    pub fn lines(&self) -> Vec<(u64, String)> {
        let mut lines = Vec::new();
        if let Some(weights) = self.weights {
            lines.push((weights, "weights, shared by all instances and never written".to_owned()));
        }
        lines.push((self.state, "loaded model, labels and constants, shared until written".into()));
        if let Some(activations) = self.activations {
            let peak = self
                .activations_peak
                .map(|bytes| format!(" ({} at the fullest step)", crate::units::show_count(bytes)));
            lines.push((activations, format!("activations{}", peak.unwrap_or_default())));
        }
        if let Some(stack) = self.stack {
            lines.push((stack, "stack, as deep as it is touched".into()));
        }
        lines.push((self.start, "all of it, at the start".into()));
        lines.push((self.instance, "a further instance, at most, and its requests".into()));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str, card: Option<&Card>) -> Option<Plan> {
        Plan::of(&wat::parse_str(text).unwrap(), card).unwrap()
    }

    #[test]
    fn a_plan_is_read_from_the_module_and_its_card() {
        let text = r#"(module (memory 4) (global (mut i32) (i32.const 65536))
            (data (i32.const 65536) "weights") (data (i32.const 70000) "abc") (data "passive"))"#;
        let alone = plan(text, None).unwrap();
        let expected = Plan {
            start: 4 << 16,
            weights: None,
            state: 10,
            activations: None,
            activations_peak: None,
            stack: Some(65_536),
            instance: (4 << 16) - 10,
        };
        assert_eq!(alone, expected);
        let card = serde_json::json!({
            "spec": {
                "model": {"name": "m", "version": "1", "onnx": "m.onnx"},
                "input": {"shape": [1, 3, 8, 8]}, "preprocess": {},
                "output": {"labels": "labels.txt"},
            },
            "labels": 2,
            "sizes": {"params": 7, "activations": 9000, "activations_peak": 8000},
        });
        let card: Card = serde_json::from_value(card).unwrap();
        let with = plan(text, Some(&card)).unwrap();
        assert_eq!((with.weights, with.state), (Some(7), 3));
        let lines: Vec<_> =
            with.lines().into_iter().map(|(bytes, of)| format!("{bytes} {of}")).collect();
        assert!(lines.iter().any(|line| line == "9000 activations (8,000 at the fullest step)"));
        assert!(lines.iter().any(|line| line.starts_with("7 weights")), "{lines:?}");
    }

    #[test]
    fn modules_without_a_memory_of_their_own_have_none() {
        for text in ["(module)", r#"(module (import "env" "memory" (memory 1)))"#] {
            assert_eq!(plan(text, None), None, "{text}");
        }
        // A global that is no stack is none.
        for global in ["(global i32 (i32.const 5))", "(global (mut i64) (i64.const 5))"] {
            let found = plan(&format!("(module (memory 1) {global})"), None).unwrap();
            assert_eq!(found.stack, None, "{global}");
        }
    }
}
