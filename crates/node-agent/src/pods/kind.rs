//! Actor or command: read from a module's exports.

use claims::Sections;

use crate::runtime::ModuleKind;

/// Id of the export section.
const EXPORT_SECTION: u8 = 7;
/// Kind byte of an exported function.
const FUNCTION: u8 = 0;
/// What an actor answers to.
const ACTOR_EXPORT: &[u8] = b"__guest_call";
/// Where a WASI command begins. TinyGo's actors have it too.
const COMMAND_EXPORT: &[u8] = b"_start";

/// What a module is; `None` when it is neither.
pub(crate) fn of_module(bytes: &[u8]) -> Option<ModuleKind> {
    let sections = Sections::of(bytes).ok()?;
    let exports = sections.map_while(Result::ok).find(|section| section.id == EXPORT_SECTION)?;
    let mut rest = exports.data;
    let (mut actor, mut command) = (false, false);
    for _ in 0..leb_u32(&mut rest)? {
        let length = leb_u32(&mut rest)? as usize;
        let (name, after) = rest.split_at_checked(length)?;
        let (&kind, after) = after.split_first()?;
        rest = after;
        leb_u32(&mut rest)?;
        actor |= kind == FUNCTION && name == ACTOR_EXPORT;
        command |= kind == FUNCTION && name == COMMAND_EXPORT;
    }
    match (actor, command) {
        (true, _) => Some(ModuleKind::Actor),
        (false, true) => Some(ModuleKind::Command),
        (false, false) => None,
    }
}

/// An unsigned LEB128 number of at most five bytes.
fn leb_u32(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(exports: &[(&str, u8)]) -> Vec<u8> {
        let mut section = vec![exports.len() as u8];
        for (name, kind) in exports {
            section.push(name.len() as u8);
            section.extend(name.as_bytes());
            section.extend([*kind, 0]);
        }
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        module.extend([EXPORT_SECTION, section.len() as u8]);
        module.extend(section);
        module
    }

    #[test]
    fn exports_tell_an_actor_from_a_command() {
        for (exports, expected) in [
            (&[("memory", 2), ("__guest_call", 0)][..], Some(ModuleKind::Actor)),
            (&[("_start", 0), ("memory", 2)], Some(ModuleKind::Command)),
            (&[("_start", 0), ("__guest_call", 0)], Some(ModuleKind::Actor)),
            (&[("_start", 2)], None),
            (&[], None),
        ] {
            assert_eq!(of_module(&module(exports)), expected, "exports {exports:?}");
        }
    }

    #[test]
    fn a_cut_module_is_neither() {
        let whole = module(&[("__guest_call", 0)]);
        for length in 0..whole.len() {
            assert_eq!(of_module(&whole[..length]), None, "first {length} bytes");
        }
        assert_eq!(of_module(b"\0asm\x01\0\0\0\x07\x02\xff\xff"), None);
    }
}
