//! What a module needs and offers, read from its sections and instructions.

use std::fmt;

use model_spec::SimdLevel;
use serde::Serialize;
use wasmparser::{
    BinaryReaderError, ExternalKind, FuncType, Operator, Parser, Payload, TypeRef,
    for_each_operator,
};

/// What a module needs and offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The vector instructions that occur in its code.
    pub simd: SimdLevel,
    /// Its own memories.
    pub memories: Vec<Memory>,
    /// What it wants from the host.
    pub imports: Vec<Entry>,
    /// What it offers to the host.
    pub exports: Vec<Entry>,
}

/// A linear memory in pages of 64 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// At the start.
    pub pages: u64,
    /// At most.
    pub maximum_pages: Option<u64>,
}

/// An import or export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The module that an import comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// Its name.
    pub name: String,
    /// What it is: `func (i32, i32) -> i32`, `memory`, `table`, `global` or `tag`.
    pub kind: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(module) = &self.module {
            write!(out, "{module}.")?;
        }
        write!(out, "{}  {}", self.name, self.kind)
    }
}

impl Shape {
    /// Reads a core module.
    ///
    /// # Errors
    /// The parser's own, for what is not well-formed.
    pub fn of(bytes: &[u8]) -> Result<Self, BinaryReaderError> {
        let mut shape = Shape {
            simd: SimdLevel::None,
            memories: Vec::new(),
            imports: Vec::new(),
            exports: Vec::new(),
        };
        let mut types: Vec<Option<FuncType>> = Vec::new();
        // Type index of every function, imported ones first.
        let mut functions: Vec<u32> = Vec::new();
        let signature = |types: &[Option<FuncType>], index: u32| {
            types.get(index as usize).and_then(Option::as_ref).map_or_else(|| "func".into(), show)
        };
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::TypeSection(section) => {
                    for group in section {
                        for ty in group?.into_types() {
                            let func = match ty.composite_type.inner {
                                wasmparser::CompositeInnerType::Func(func) => Some(func),
                                _ => None,
                            };
                            types.push(func);
                        }
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        let kind = match import.ty {
                            TypeRef::Func(index) | TypeRef::FuncExact(index) => {
                                functions.push(index);
                                signature(&types, index)
                            }
                            TypeRef::Table(_) => "table".into(),
                            TypeRef::Memory(_) => "memory".into(),
                            TypeRef::Global(_) => "global".into(),
                            TypeRef::Tag(_) => "tag".into(),
                        };
                        shape.imports.push(Entry {
                            module: Some(import.module.to_owned()),
                            name: import.name.to_owned(),
                            kind,
                        });
                    }
                }
                Payload::FunctionSection(section) => {
                    for index in section {
                        functions.push(index?);
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        let memory = memory?;
                        let (pages, maximum_pages) = (memory.initial, memory.maximum);
                        shape.memories.push(Memory { pages, maximum_pages });
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        let kind = match export.kind {
                            ExternalKind::Func | ExternalKind::FuncExact => {
                                match functions.get(export.index as usize) {
                                    Some(index) => signature(&types, *index),
                                    None => "func".into(),
                                }
                            }
                            ExternalKind::Table => "table".into(),
                            ExternalKind::Memory => "memory".into(),
                            ExternalKind::Global => "global".into(),
                            ExternalKind::Tag => "tag".into(),
                        };
                        let name = export.name.to_owned();
                        shape.exports.push(Entry { module: None, name, kind });
                    }
                }
                Payload::CodeSectionEntry(body) => {
                    for operator in body.get_operators_reader()? {
                        shape.simd = shape.simd.max(level(&operator?));
                    }
                }
                _ => {}
            }
        }
        Ok(shape)
    }
}

fn show(func: &FuncType) -> String {
    let list = |types: &[wasmparser::ValType]| {
        types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let mut text = format!("func ({})", list(func.params()));
    if !func.results().is_empty() {
        text.push_str(&format!(" -> {}", list(func.results())));
    }
    text
}

/// Which vector instructions this one belongs to, by the proposal that brought it.
fn level(operator: &Operator<'_>) -> SimdLevel {
    macro_rules! by_proposal {
        ($(@$proposal:ident $op:ident $({ $($payload:tt)* })? => $visit:ident ($($ann:tt)*))*) => {
            match operator {
                $(Operator::$op { .. } => stringify!($proposal),)*
                _ => "",
            }
        };
    }
    match for_each_operator!(by_proposal) {
        "simd" => SimdLevel::Simd128,
        "relaxed_simd" => SimdLevel::Relaxed,
        _ => SimdLevel::None,
    }
}
