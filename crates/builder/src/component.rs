//! A linked module as a component: its imports and exports as `wasi:http` has them.

use wit_component::ComponentEncoder;

use crate::BuildError;

/// Wraps the module of a component.
///
/// What it imports and exports beyond plain functions is told by the sections that the bindings
/// leave in it; interfaces of which it uses nothing are not imported.
///
/// # Errors
/// [`BuildError::Component`] when module and sections do not fit together: a fault of ours.
pub(crate) fn encode(module: &[u8]) -> Result<Vec<u8>, BuildError> {
    let encoder = ComponentEncoder::default().validate(true).module(module);
    encoder
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| BuildError::Component(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_without_the_sections_of_the_bindings_is_refused() {
        let module = r#"(module (import "wasi:http/types@0.2.12" "[constructor]fields"
            (func (result i32))) (memory (export "memory") 1))"#;
        let error = encode(&wat::parse_str(module).unwrap()).unwrap_err();
        assert!(matches!(error, BuildError::Component(_)), "{error:?}");
        assert!(encode(b"\0asm").is_err());
    }
}
