//! A module's sections and hashes: how they are read and written.

use std::{fmt, io, ops::Range, str::FromStr};

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
    /// The file cannot be read, or became shorter meanwhile.
    #[error("the module cannot be read at byte {offset}: {kind}")]
    Read {
        /// Where.
        offset: usize,
        /// What the system says.
        kind: io::ErrorKind,
    },
}

/// SHA-256 of a module without its tokens, as claims spell it: upper-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModuleHash(pub(crate) [u8; 32]);

impl ModuleHash {
    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

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
pub struct Digest(pub(crate) [u8; 32]);

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
        fits(bytes.len() as u64)?;
        Self::of_any_size(bytes)
    }

    /// Begins a scan of a module that may be larger than one with tokens: to look at it.
    ///
    /// # Errors
    /// [`ModuleError::NotWasm`] or [`ModuleError::Component`].
    pub fn of_any_size(bytes: &'a [u8]) -> Result<Self, ModuleError> {
        has_header(&bytes[..bytes.len().min(HEADER.len())])?;
        Ok(Sections { bytes, offset: HEADER.len() })
    }

    fn read(&mut self) -> Result<Section<'a>, ModuleError> {
        let start = self.offset;
        let Header { id, name, data, end, minimal } =
            header(&self.bytes[start..], start, self.bytes.len())?;
        let name = name.map(|name| text(&self.bytes[name], start)).transpose()?;
        self.offset = end;
        Ok(Section { id, name, span: start..end, data: &self.bytes[data], minimal })
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

/// The contents of the first custom section called `name`, of a core module of any size.
///
/// # Errors
/// [`ModuleError`] when the file cannot be scanned up to that section.
pub fn custom_section<'a>(bytes: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, ModuleError> {
    for section in Sections::of_any_size(bytes)? {
        let section = section?;
        if section.name == Some(name) {
            return Ok(Some(section.data));
        }
    }
    Ok(None)
}

pub(crate) fn begins_as_module(size: u64, beginning: &[u8]) -> Result<(), ModuleError> {
    fits(size)?;
    has_header(beginning)
}

fn fits(size: u64) -> Result<(), ModuleError> {
    if size > MAX_MODULE_BYTES as u64 {
        return Err(ModuleError::TooLarge { bytes: usize::try_from(size).unwrap_or(usize::MAX) });
    }
    Ok(())
}

fn has_header(beginning: &[u8]) -> Result<(), ModuleError> {
    match beginning {
        header if header == HEADER => Ok(()),
        // The upper half of the version is the layer; 1 means component.
        [b'\0', b'a', b's', b'm', _, _, 1, 0] => Err(ModuleError::Component),
        _ => Err(ModuleError::NotWasm),
    }
}

/// What stands at the beginning of a section; ranges are offsets in the file.
pub(crate) struct Header {
    id: u8,
    /// Name of a custom section.
    pub(crate) name: Option<Range<usize>>,
    pub(crate) data: Range<usize>,
    pub(crate) end: usize,
    pub(crate) minimal: bool,
}

// An id, and two numbers of five bytes at most.
pub(crate) const MAX_HEADER_BYTES: usize = 11;

/// Reads a header from `window`: the bytes from `start` on, [`MAX_HEADER_BYTES`] or all there are
/// of a file of `size`.
pub(crate) fn header(window: &[u8], start: usize, size: usize) -> Result<Header, ModuleError> {
    let error = |reason| ModuleError::Section { offset: start, reason };
    let Some((&id, numbers)) = window.split_first() else {
        return Err(error("the section has no id"));
    };
    if id > LAST_SECTION_ID {
        return Err(error("unknown section id"));
    }
    let (length, length_bytes, mut minimal) =
        leb_u32(numbers).ok_or(error("the size cannot be read"))?;
    let body = start + 1 + length_bytes;
    if length as usize > size - body {
        return Err(error("longer than the rest of the file"));
    }
    let end = body + length as usize;
    let (mut name, mut data) = (None, body..end);
    if id == CUSTOM {
        let own = &numbers[length_bytes..];
        let (name_length, name_length_bytes, name_minimal) =
            leb_u32(&own[..own.len().min(length as usize)])
                .ok_or(error("the length of the name cannot be read"))?;
        let name_start = body + name_length_bytes;
        if name_length as usize > end - name_start {
            return Err(error("the name is longer than its section"));
        }
        data.start = name_start + name_length as usize;
        name = Some(name_start..data.start);
        minimal &= name_minimal;
    }
    Ok(Header { id, name, data, end, minimal })
}

pub(crate) fn text(name: &[u8], offset: usize) -> Result<&str, ModuleError> {
    let reason = "the name is not UTF-8";
    std::str::from_utf8(name).map_err(|_| ModuleError::Section { offset, reason })
}

/// Which of the token sections is called so, if any.
pub(crate) fn token_name(name: &str) -> Option<&'static str> {
    [JWT, WASMCLOUD_JWT].into_iter().find(|known| *known == name)
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
pub(crate) const CUSTOM: u8 = 0;
// 13 is the tag section of the exception-handling proposal, the last one standardised.
const LAST_SECTION_ID: u8 = 13;
