//! Where the tokens stand in a module, and the hashes they speak of.
//!
//! A scan of its own and a strict one: tools that look for a section by name, wherever it is,
//! can be shown one token while another is checked. Accepted are only core modules whose last
//! sections are `wasmcloud_jwt`, or `jwt`, or both in that order, each once, at the top level,
//! with headers of minimal length.

use std::{fmt, ops::Range, str::FromStr};

use data_encoding::{HEXLOWER, HEXUPPER};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

/// The section that stock waSCC tools read and write.
pub const JWT: &str = "jwt";
/// The section that newer tools (wascap 0.9 and up) write.
pub const WASMCLOUD_JWT: &str = "wasmcloud_jwt";
/// The largest module that is looked at, in bytes.
///
/// ResNet50 is 100 MB; twice that and some leaves room, and a hostile file ends here.
pub const MAX_MODULE_BYTES: usize = 256 << 20;

/// A file is not a module whose tokens could be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// Larger than [`MAX_MODULE_BYTES`].
    #[error("the module has {bytes} bytes, more than {MAX_MODULE_BYTES}")]
    TooLarge {
        /// Size of the file.
        bytes: usize,
    },
    /// Not WebAssembly.
    #[error("not a WebAssembly module: it does not begin with `\\0asm` version 1")]
    NotWasm,
    /// A component: its core modules are nested, and so would be their tokens.
    #[error("a WebAssembly component, not a core module")]
    Component,
    /// A section does not fit or its header cannot be read.
    #[error("malformed section at byte {offset}: {reason}")]
    Section {
        /// Where the section begins.
        offset: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// A token section stands where none may stand.
    #[error("section `{name}` at byte {offset} is not in its place at the end of the module")]
    Place {
        /// Name of the section.
        name: &'static str,
        /// Where it begins.
        offset: usize,
    },
    /// A token section stands there twice.
    #[error("section `{name}` occurs a second time at byte {offset}")]
    Twice {
        /// Name of the section.
        name: &'static str,
        /// Where the second one begins.
        offset: usize,
    },
}

/// SHA-256 of a module without its tokens, as claims spell it: upper-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModuleHash(pub(crate) [u8; 32]);

impl fmt::Display for ModuleHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&HEXUPPER.encode(&self.0))
    }
}

impl fmt::Debug for ModuleHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ModuleHash({self})")
    }
}

/// A text is not a module hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 64 upper-case hexadecimal digits")]
pub struct HashError;

impl FromStr for ModuleHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let bytes = HEXUPPER.decode(text.as_bytes()).map_err(|_| HashError)?;
        Ok(ModuleHash(bytes.try_into().map_err(|_| HashError)?))
    }
}

impl Serialize for ModuleHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ModuleHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// SHA-256 of a whole file, tokens included; written `sha256:…` as OCI does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Digest(Sha256::digest(bytes).into())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&format!("sha256:{}", HEXLOWER.encode(&self.0)))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// One section of a core module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section<'a> {
    /// The section's id; 0 is a custom section.
    pub id: u8,
    /// Name of a custom section.
    pub name: Option<&'a str>,
    /// The whole section with its header, as offsets in the file.
    pub span: Range<usize>,
    /// The contents; of a custom section what follows the name.
    pub data: &'a [u8],
    /// Whether section size and name length are written in as few bytes as they need.
    pub minimal: bool,
}

/// The sections of a core module, one after the other; ends after the first error.
pub struct Sections<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Sections<'a> {
    /// Begins a scan.
    ///
    /// # Errors
    /// [`ModuleError::TooLarge`], [`ModuleError::NotWasm`] or [`ModuleError::Component`].
    pub fn of(bytes: &'a [u8]) -> Result<Self, ModuleError> {
        if bytes.len() > MAX_MODULE_BYTES {
            return Err(ModuleError::TooLarge { bytes: bytes.len() });
        }
        match bytes.split_at_checked(HEADER.len()) {
            Some((header, _)) if header == HEADER => Ok(Sections { bytes, offset: HEADER.len() }),
            // The upper half of the version is the layer; 1 means component.
            Some(([b'\0', b'a', b's', b'm', _, _, 1, 0], _)) => Err(ModuleError::Component),
            _ => Err(ModuleError::NotWasm),
        }
    }

    fn read(&mut self) -> Result<Section<'a>, ModuleError> {
        let start = self.offset;
        let error = |reason| ModuleError::Section { offset: start, reason };
        let id = self.bytes[start];
        if id > LAST_SECTION_ID {
            return Err(error("unknown section id"));
        }
        let (size, size_bytes, mut minimal) =
            leb_u32(&self.bytes[start + 1..]).ok_or(error("the size cannot be read"))?;
        let body = start + 1 + size_bytes;
        let left = self.bytes.len() - body;
        if size as usize > left {
            return Err(error("longer than the rest of the file"));
        }
        let end = body + size as usize;
        let mut data = &self.bytes[body..end];
        let mut name = None;
        if id == CUSTOM {
            let (length, length_bytes, length_minimal) =
                leb_u32(data).ok_or(error("the length of the name cannot be read"))?;
            let (text, rest) = data[length_bytes..]
                .split_at_checked(length as usize)
                .ok_or(error("the name is longer than its section"))?;
            name = Some(std::str::from_utf8(text).map_err(|_| error("the name is not UTF-8"))?);
            data = rest;
            minimal &= length_minimal;
        }
        self.offset = end;
        Ok(Section { id, name, span: start..end, data, minimal })
    }
}

impl<'a> Iterator for Sections<'a> {
    type Item = Result<Section<'a>, ModuleError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset >= self.bytes.len() {
            return None;
        }
        let section = self.read();
        if section.is_err() {
            self.offset = self.bytes.len();
        }
        Some(section)
    }
}

/// The contents of the first custom section called `name`, of a core module.
///
/// # Errors
/// [`ModuleError`] when the file cannot be scanned up to that section.
pub fn custom_section<'a>(bytes: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, ModuleError> {
    for section in Sections::of(bytes)? {
        let section = section?;
        if section.name == Some(name) {
            return Ok(Some(section.data));
        }
    }
    Ok(None)
}

/// A token section: its text and the hash that its claims must name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenSection<'a> {
    pub(crate) name: &'static str,
    pub(crate) data: &'a [u8],
    pub(crate) hash: ModuleHash,
}

/// What the strict scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scan<'a> {
    /// None, one, or two (`wasmcloud_jwt`, then `jwt`).
    pub(crate) tokens: Vec<TokenSection<'a>>,
    /// Digest of the whole file.
    pub(crate) digest: Digest,
}

/// Scans a whole module and hashes it, in one pass each.
///
/// The hash of `wasmcloud_jwt` is over everything before both token sections, that of `jwt` over
/// everything before `jwt`: what the tools that read each section see.
pub(crate) fn scan(bytes: &[u8]) -> Result<Scan<'_>, ModuleError> {
    let mut found: Vec<(&'static str, Section<'_>)> = Vec::new();
    for section in Sections::of(bytes)? {
        let section = section?;
        let Some(name) = token_name(&section) else {
            if let Some((name, token)) = found.first() {
                return Err(ModuleError::Place { name, offset: token.span.start });
            }
            continue;
        };
        if found.iter().any(|(earlier, _)| *earlier == name) {
            return Err(ModuleError::Twice { name, offset: section.span.start });
        }
        if name == WASMCLOUD_JWT && !found.is_empty() {
            return Err(ModuleError::Place { name, offset: section.span.start });
        }
        // A padded header would make a second file with the same tokens.
        if !section.minimal {
            let reason = "the header of a token section is padded";
            return Err(ModuleError::Section { offset: section.span.start, reason });
        }
        found.push((name, section));
    }

    let mut hasher = Sha256::new();
    let mut hashed = 0;
    let mut tokens = Vec::with_capacity(found.len());
    for (name, section) in found {
        hasher.update(&bytes[hashed..section.span.start]);
        hashed = section.span.start;
        let hash = ModuleHash(hasher.clone().finalize().into());
        tokens.push(TokenSection { name, data: section.data, hash });
    }
    hasher.update(&bytes[hashed..]);
    Ok(Scan { tokens, digest: Digest(hasher.finalize().into()) })
}

/// Which of the token sections this is, if any.
pub(crate) fn token_name(section: &Section<'_>) -> Option<&'static str> {
    match section.name {
        Some(JWT) => Some(JWT),
        Some(WASMCLOUD_JWT) => Some(WASMCLOUD_JWT),
        _ => None,
    }
}

/// Value, number of bytes, and whether fewer bytes would do.
fn leb_u32(bytes: &[u8]) -> Option<(u32, usize, bool)> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().enumerate().take(5) {
        // Only four bits of the fifth byte belong to 32.
        if index == 4 && byte > 0x0f {
            return None;
        }
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1, index == 0 || byte != 0));
        }
    }
    None
}

/// `\0asm`, version 1.
pub(crate) const HEADER: [u8; 8] = *b"\0asm\x01\0\0\0";
const CUSTOM: u8 = 0;
// 13 is the tag section of the exception-handling proposal, the last one standardised.
const LAST_SECTION_ID: u8 = 13;

#[cfg(test)]
mod tests {
    use super::*;

    fn custom(name: &str, data: &[u8]) -> Vec<u8> {
        let mut body = vec![name.len() as u8];
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(data);
        assert!(body.len() < 128);
        let mut section = vec![CUSTOM, body.len() as u8];
        section.extend(body);
        section
    }

    fn module(sections: &[Vec<u8>]) -> Vec<u8> {
        [HEADER.to_vec(), sections.concat()].concat()
    }

    #[test]
    fn tokens_are_found_only_at_the_end_in_their_order_and_once() {
        let (wc, jwt, other) =
            (custom(WASMCLOUD_JWT, b"w"), custom(JWT, b"j"), custom("other", b"o"));
        let count = |sections: &[&Vec<u8>]| {
            let sections: Vec<_> = sections.iter().map(|&section| section.clone()).collect();
            scan(&module(&sections)).map(|scan| scan.tokens.len())
        };
        assert_eq!(count(&[&other]), Ok(0));
        assert_eq!(count(&[&other, &jwt]), Ok(1));
        assert_eq!(count(&[&other, &wc]), Ok(1));
        assert_eq!(count(&[&other, &wc, &jwt]), Ok(2));
        for (wrong, place) in [
            (vec![&other, &jwt, &wc], true),
            (vec![&jwt, &other], true),
            (vec![&wc, &other, &jwt], true),
            (vec![&wc, &jwt, &other], true),
            (vec![&other, &jwt, &jwt], false),
            (vec![&wc, &wc], false),
            (vec![&wc, &jwt, &wc], false),
            (vec![&wc, &jwt, &jwt], false),
        ] {
            match count(&wrong) {
                Err(ModuleError::Place { .. }) => assert!(place, "{wrong:?}"),
                Err(ModuleError::Twice { .. }) => assert!(!place, "{wrong:?}"),
                other => panic!("{wrong:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn each_hash_is_over_what_its_readers_see() {
        let body = module(&[custom("other", b"o")]);
        let wc = custom(WASMCLOUD_JWT, b"w");
        let file = [body.clone(), wc.clone(), custom(JWT, b"j")].concat();
        let scan = scan(&file).unwrap();
        assert_eq!(scan.tokens[0].hash.0, *Digest::of(&body).as_bytes());
        assert_eq!(scan.tokens[1].hash.0, *Digest::of(&[body, wc].concat()).as_bytes());
        assert_eq!(scan.digest, Digest::of(&file));
    }

    #[test]
    fn malformed_files_are_errors_with_their_place() {
        let padded_size = [&HEADER[..], &[0, 0x85, 0, 3, b'j', b'w', b't', b'x']].concat();
        let padded_name = [&HEADER[..], &[0, 6, 0x83, 0, b'j', b'w', b't', b'x']].concat();
        for (bytes, offset) in [
            ([&HEADER[..], &[14, 0]].concat(), 8),
            ([&HEADER[..], &[1]].concat(), 8),
            ([&HEADER[..], &[1, 0x80, 0x80, 0x80, 0x80, 0x10]].concat(), 8),
            ([&HEADER[..], &[1, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat(), 8),
            ([&HEADER[..], &[1, 2, 0]].concat(), 8),
            ([&HEADER[..], &[1, 1, 0, 0, 0]].concat(), 11),
            ([&HEADER[..], &[0, 1, 1]].concat(), 8),
            ([&HEADER[..], &[0, 2, 1, 0xff]].concat(), 8),
            (padded_size, 8),
            (padded_name, 8),
        ] {
            match scan(&bytes) {
                Err(ModuleError::Section { offset: found, .. }) => assert_eq!(found, offset),
                other => panic!("{bytes:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn components_and_other_files_are_told_apart() {
        assert_eq!(scan(b"\0asm\x0d\0\x01\0"), Err(ModuleError::Component));
        for bytes in
            [&b""[..], b"\0asm", b"\0asm\x02\0\0\0", b"\x7fELF\x01\0\0\0", b"\0asm\x01\0\0"]
        {
            assert_eq!(scan(bytes), Err(ModuleError::NotWasm), "{bytes:?}");
        }
    }

    #[test]
    fn a_module_over_the_limit_is_not_read() {
        // Zeroed pages are never touched, so this costs no memory.
        let bytes = vec![0; MAX_MODULE_BYTES + 1];
        assert_eq!(scan(&bytes), Err(ModuleError::TooLarge { bytes: bytes.len() }));
    }
}
