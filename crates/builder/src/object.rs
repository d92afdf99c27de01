//! The model as a linkable wasm object: one data symbol, `graphlet_model`.
//!
//! The format is LLVM's relocatable object as the WebAssembly tool conventions describe it
//! (`Linking.md`): the data section, and a `linking` section with the symbol table and the
//! segment's alignment. The block refers only to itself, so there is nothing to relocate.

use tensor::block::BLOCK_ALIGNMENT;
use wasm_encoder::{
    ConstExpr, CustomSection, DataSection, Encode as _, EntityType, ImportSection, MemoryType,
    Module,
};

use crate::BuildError;

/// The symbol that the guest declares as an extern static.
pub(crate) const MODEL_SYMBOL: &str = "graphlet_model";

const SEGMENT_NAME: &str = ".rodata.graphlet_model";
// Linking.md: version of the section, ids of its subsections, kind of a data symbol.
const LINKING_VERSION: u32 = 2;
const WASM_SEGMENT_INFO: u8 = 5;
const WASM_SYMBOL_TABLE: u8 = 8;
const SYMTAB_DATA: u8 = 1;

/// Wraps a model block (`tensor::block`) as an object that defines `graphlet_model`, aligned as
/// the block demands.
///
/// # Errors
/// [`BuildError::TooLarge`] when it does not fit 32 bits.
pub(crate) fn model_object(block: &[u8]) -> Result<Vec<u8>, BuildError> {
    let size =
        u32::try_from(block.len()).map_err(|_| BuildError::TooLarge { bytes: block.len() })?;
    let mut module = Module::new();
    let mut imports = ImportSection::new();
    imports.import(
        "env",
        "__linear_memory",
        EntityType::Memory(MemoryType {
            minimum: 0,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        }),
    );
    module.section(&imports);
    let mut data = DataSection::new();
    data.active(0, &ConstExpr::i32_const(0), block.iter().copied());
    module.section(&data);
    module.section(&CustomSection { name: "linking".into(), data: linking(size).into() });
    Ok(module.finish())
}

fn linking(size: u32) -> Vec<u8> {
    let mut symbols = Vec::new();
    1_u32.encode(&mut symbols);
    symbols.push(SYMTAB_DATA);
    // No flags: defined here, visible to other objects.
    0_u32.encode(&mut symbols);
    MODEL_SYMBOL.encode(&mut symbols);
    // Segment 0, from its first byte.
    0_u32.encode(&mut symbols);
    0_u32.encode(&mut symbols);
    size.encode(&mut symbols);

    let mut segments = Vec::new();
    1_u32.encode(&mut segments);
    SEGMENT_NAME.encode(&mut segments);
    BLOCK_ALIGNMENT.trailing_zeros().encode(&mut segments);
    0_u32.encode(&mut segments);

    let mut bytes = Vec::new();
    LINKING_VERSION.encode(&mut bytes);
    for (id, content) in [(WASM_SYMBOL_TABLE, symbols), (WASM_SEGMENT_INFO, segments)] {
        bytes.push(id);
        content.as_slice().encode(&mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_defines_one_aligned_data_symbol() {
        let object = model_object(b"GRAPHLET and the rest").unwrap();
        let mut seen = Vec::new();
        for payload in wasmparser::Parser::new(0).parse_all(&object) {
            if let wasmparser::Payload::CustomSection(section) = payload.unwrap()
                && let wasmparser::KnownCustom::Linking(linking) = section.as_known()
            {
                for subsection in linking.subsections() {
                    match subsection.unwrap() {
                        wasmparser::Linking::SymbolTable(table) => {
                            for symbol in table {
                                seen.push(format!("{:?}", symbol.unwrap()));
                            }
                        }
                        wasmparser::Linking::SegmentInfo(segments) => {
                            for segment in segments {
                                let segment = segment.unwrap();
                                assert_eq!(1 << segment.alignment, BLOCK_ALIGNMENT);
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        assert_eq!(seen.len(), 1);
        assert!(seen[0].contains("graphlet_model") && seen[0].contains("size: 21"), "{seen:?}");
    }
}
