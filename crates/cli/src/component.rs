//! What a component says about itself: `graphlet inspect` shows it, though no host of ours runs it.

use wasmparser::{BinaryReaderError, Parser, Payload};

use crate::shape::Entry;

/// The outermost layer of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component<'a> {
    /// Its own sections by kind, in the order in which each first stands, with their bytes: a kind
    /// may stand there many times.
    pub sections: Vec<(String, usize)>,
    /// What it wants from the host.
    pub imports: Vec<Entry>,
    /// What it offers to the host.
    pub exports: Vec<Entry>,
    /// The largest core module in it: the one that computes, where others only join.
    pub module: Option<&'a [u8]>,
    customs: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Component<'a> {
    /// Whether the bytes begin as a component does.
    pub fn is_one(bytes: &[u8]) -> bool {
        Parser::is_component(bytes)
    }

    /// Reads a component.
    ///
    /// # Errors
    /// The parser's own, for what is not well-formed.
    pub fn of(bytes: &'a [u8]) -> Result<Self, BinaryReaderError> {
        let mut component = Component {
            sections: Vec::new(),
            imports: Vec::new(),
            exports: Vec::new(),
            module: None,
            customs: Vec::new(),
        };
        // Modules and components inside begin and end between the sections of the one around them.
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload?;
            match &payload {
                Payload::Version { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                _ => {}
            }
            if let Payload::ModuleSection { unchecked_range, .. } = &payload {
                let module = bytes.get(unchecked_range.clone()).unwrap_or_default();
                if component.module.is_none_or(|largest| largest.len() < module.len()) {
                    component.module = Some(module);
                }
            }
            if depth == 1 {
                component.note(&payload)?;
            }
        }
        Ok(component)
    }

    /// The contents of its first own custom section called `name`.
    pub fn custom_section(&self, name: &str) -> Option<&'a [u8]> {
        self.customs.iter().find(|(other, _)| *other == name).map(|(_, data)| *data)
    }

    fn note(&mut self, payload: &Payload<'a>) -> Result<(), BinaryReaderError> {
        let entry = |name: &str, kind: String| Entry { module: None, name: name.to_owned(), kind };
        match payload {
            Payload::CustomSection(custom) => self.customs.push((custom.name(), custom.data())),
            Payload::ComponentImportSection(section) => {
                for import in section.clone() {
                    let import = import?;
                    self.imports.push(entry(import.name.name, word(&import.ty.kind())));
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section.clone() {
                    let export = export?;
                    self.exports.push(entry(export.name.name, word(&export.kind)));
                }
            }
            _ => {}
        }
        if let Some((id, range)) = payload.as_section() {
            let name = match payload {
                Payload::CustomSection(custom) => format!("custom {:?}", custom.name()),
                _ => SECTION_NAMES.get(usize::from(id)).copied().unwrap_or("unknown").to_owned(),
            };
            match self.sections.iter_mut().find(|(other, _)| *other == name) {
                Some((_, bytes)) => *bytes += range.len(),
                None => self.sections.push((name, range.len())),
            }
        }
        Ok(())
    }
}

fn word(kind: &impl std::fmt::Debug) -> String {
    format!("{kind:?}").to_ascii_lowercase()
}

/// By section id, as the component model's binary format lists them.
const SECTION_NAMES: [&str; 12] = [
    "custom",
    "core module",
    "core instance",
    "core type",
    "component",
    "instance",
    "alias",
    "type",
    "canon",
    "start",
    "import",
    "export",
];

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"(component
        (import "wasi:io/poll@0.2.0" (instance))
        (core module (@custom "model" "inner"))
        (core module $large (func (export "f")) (memory 1))
        (component (core module) (import "nested" (func)))
        (core instance $i (instantiate $large))
        (func $f (canon lift (core func $i "f")))
        (export "f" (func $f))
        (@custom "model" "outer"))"#;

    #[test]
    fn only_what_is_its_own_counts() {
        let bytes = wat::parse_str(TEXT).unwrap();
        assert!(Component::is_one(&bytes) && !Component::is_one(b"\0asm\x01\0\0\0"));
        let component = Component::of(&bytes).unwrap();
        let names = |entries: &[Entry]| {
            entries.iter().map(|entry| format!("{} {}", entry.name, entry.kind)).collect::<Vec<_>>()
        };
        assert_eq!(names(&component.imports), ["wasi:io/poll@0.2.0 instance"]);
        assert_eq!(names(&component.exports), ["f func"]);
        assert_eq!(component.custom_section("model"), Some(&b"outer"[..]));
        assert_eq!(component.custom_section("other"), None);
        let module = component.module.unwrap();
        assert!(module.starts_with(b"\0asm\x01\0\0\0") && module.len() > 20, "the large one");
        let (_, bytes) = component.sections.iter().find(|(name, _)| name == "core module").unwrap();
        assert!(*bytes > module.len(), "both: {:?}", component.sections);
    }

    #[test]
    fn a_component_that_is_cut_anywhere_is_read_without_a_panic() {
        let bytes = wat::parse_str(TEXT).unwrap();
        for end in 8..bytes.len() {
            // Some are components still, with less in them.
            let _ = Component::of(&bytes[..end]);
        }
        assert!(Component::of(&bytes[..bytes.len() - 1]).is_err());
    }
}
