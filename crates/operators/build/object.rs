//! Functions as a relocatable wasm object, and the object as a static library.
//!
//! The object is LLVM's as the WebAssembly tool conventions describe it (`Linking.md`): an imported
//! memory, the functions, and a `linking` section that names them. They call nothing and know no
//! address, so there is nothing to relocate. The library is an archive as GNU `ar` writes it, one
//! member behind the index without which linkers do not look into it.

use std::num::TryFromIntError;

use wasm_encoder::{
    CodeSection, EntityType, Function, FunctionSection, ImportSection, LinkingSection, MemoryType,
    Module, SymbolTable, TypeSection, ValType,
};

/// An object with these functions, each from one pointer to nothing.
pub(crate) fn write(functions: &[(&str, Function)]) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], []);
    let mut imports = ImportSection::new();
    let memory = MemoryType {
        minimum: 0,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    };
    imports.import("env", "__linear_memory", EntityType::Memory(memory));
    let (mut signatures, mut code) = (FunctionSection::new(), CodeSection::new());
    let mut symbols = SymbolTable::new();
    for (index, (name, function)) in (0..).zip(functions) {
        signatures.function(0);
        code.function(function);
        // Other objects see it, modules do not export it.
        symbols.function(SymbolTable::WASM_SYM_VISIBILITY_HIDDEN, index, Some(name));
    }
    let mut linking = LinkingSection::new();
    linking.symbol_table(&symbols);
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&signatures).section(&code).section(&linking);
    module.finish()
}

/// An archive of one object that defines `names`.
///
/// # Errors
/// When it exceeds 4 GiB.
pub(crate) fn archive(object: &[u8], names: &[&str]) -> Result<Vec<u8>, TryFromIntError> {
    const MAGIC: &[u8] = b"!<arch>\n";
    const HEADER: usize = 60;
    let names_len: usize = names.iter().map(|name| name.len() + 1).sum();
    let index_len = (4 + 4 * names.len() + names_len).next_multiple_of(2);
    let place = u32::try_from(MAGIC.len() + HEADER + index_len)?;
    let mut index = u32::try_from(names.len())?.to_be_bytes().to_vec();
    for _ in names {
        index.extend(place.to_be_bytes());
    }
    for name in names {
        index.extend(name.bytes());
        index.push(0);
    }
    index.resize(index_len, 0);
    let mut archive = MAGIC.to_vec();
    for (name, content) in [("/", index.as_slice()), ("strips.o/", object)] {
        // Name, time, owner, group, mode, size.
        let header =
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 644, content.len());
        archive.extend(header.bytes());
        archive.extend(content);
        if !content.len().is_multiple_of(2) {
            archive.push(b'\n');
        }
    }
    Ok(archive)
}
