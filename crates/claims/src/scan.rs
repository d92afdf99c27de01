//! Where the tokens stand in a module, and the hashes they speak of.
//!
//! A scan of its own and a strict one: tools that look for a section by name, wherever it is,
//! can be shown one token while another is checked. Accepted are only core modules whose last
//! sections are `wasmcloud_jwt`, or `jwt`, or both in that order, each once, at the top level,
//! with headers of minimal length.

use std::{io, ops::Range};

use sha2::{Digest as _, Sha256};

use crate::{
    Digest, ModuleError, ModuleHash, Source, WASMCLOUD_JWT,
    module::{HEADER, Header, MAX_HEADER_BYTES, begins_as_module, header, text, token_name},
};

/// A token section, found by the strict scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenSection {
    pub(crate) name: &'static str,
    /// Where the section begins, and what its token speaks of ends.
    pub(crate) start: usize,
    /// Where the token's text is.
    pub(crate) data: Range<usize>,
}

/// Scans a whole module: its token sections, none, one, or two (`wasmcloud_jwt`, then `jwt`).
pub(crate) fn scan(source: &dyn Source) -> Result<Vec<TokenSection>, ModuleError> {
    let mut found: Vec<TokenSection> = Vec::new();
    each_section(source, |header, name, start| {
        let Some(name) = name.and_then(token_name) else {
            return match found.first() {
                Some(token) => Err(ModuleError::Place { name: token.name, offset: token.start }),
                None => Ok(true),
            };
        };
        if found.iter().any(|earlier| earlier.name == name) {
            return Err(ModuleError::Twice { name, offset: start });
        }
        if name == WASMCLOUD_JWT && !found.is_empty() {
            return Err(ModuleError::Place { name, offset: start });
        }
        // A padded header would make a second file with the same tokens.
        if !header.minimal {
            let reason = "the header of a token section is padded";
            return Err(ModuleError::Section { offset: start, reason });
        }
        found.push(TokenSection { name, start, data: header.data.clone() });
        Ok(true)
    })?;
    Ok(found)
}

/// The hashes of a module, in one pass: for each token that of everything before its section, and
/// the digest of the whole file.
///
/// So the hash of `wasmcloud_jwt` is over everything before both token sections, that of `jwt`
/// over everything before `jwt`: what the tools that read each section see.
pub(crate) fn hashes(
    source: &dyn Source,
    tokens: &[TokenSection],
) -> Result<(Vec<ModuleHash>, Digest), ModuleError> {
    let size = size_of(source)?;
    let (mut hasher, mut hashed, mut buffer) = (Sha256::new(), 0, Vec::new());
    let mut up_to = |hasher: &mut Sha256, end: usize| {
        while hashed < end {
            let part = hashed..end.min(hashed + CHUNK_BYTES);
            hasher.update(piece(source, part.clone(), &mut buffer)?);
            hashed = part.end;
        }
        Ok(())
    };
    let mut found = Vec::with_capacity(tokens.len());
    for token in tokens {
        up_to(&mut hasher, token.start)?;
        found.push(ModuleHash(hasher.clone().finalize().into()));
    }
    up_to(&mut hasher, size)?;
    Ok((found, Digest(hasher.finalize().into())))
}

/// The contents of the first custom section called `name`, of a module that is read in pieces.
pub(crate) fn section_of(source: &dyn Source, name: &str) -> Result<Option<Vec<u8>>, ModuleError> {
    let mut found = None;
    each_section(source, |header, section_name, _| {
        if section_name == Some(name) {
            found = Some(header.data.clone());
        }
        Ok(found.is_none())
    })?;
    let mut buffer = Vec::new();
    found.map(|data| Ok(piece(source, data, &mut buffer)?.to_vec())).transpose()
}

/// Shows each section's header, name and place to `see`, until it has seen enough.
fn each_section(
    source: &dyn Source,
    mut see: impl FnMut(&Header, Option<&str>, usize) -> Result<bool, ModuleError>,
) -> Result<(), ModuleError> {
    let (mut buffer, mut name_buffer) = (Vec::new(), Vec::new());
    let size = size_of(source)?;
    let mut start = HEADER.len().min(size);
    begins_as_module(size as u64, piece(source, 0..start, &mut buffer)?)?;
    while start < size {
        let window = start..size.min(start + MAX_HEADER_BYTES);
        let header = header(piece(source, window, &mut buffer)?, start, size)?;
        let name = match header.name.clone() {
            Some(name) => Some(text(piece(source, name, &mut name_buffer)?, start)?),
            None => None,
        };
        if !see(&header, name, start)? {
            break;
        }
        start = header.end;
    }
    Ok(())
}

fn piece<'a>(
    source: &'a dyn Source,
    range: Range<usize>,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], ModuleError> {
    let offset = range.start;
    let failed = |error: io::Error| ModuleError::Read { offset, kind: error.kind() };
    source.piece(range, buffer).map_err(failed)
}

/// How many bytes there are, if they can be counted at all.
fn size_of(source: &dyn Source) -> Result<usize, ModuleError> {
    usize::try_from(source.size()).map_err(|_| ModuleError::TooLarge { bytes: usize::MAX })
}

// Small enough for the second-level cache, where the hash finds it.
const CHUNK_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{JWT, MAX_MODULE_BYTES, module::CUSTOM};

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
            scan(&&module(&sections)[..]).map(|tokens| tokens.len())
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
        let tokens = scan(&&file[..]).unwrap();
        let (found, digest) = hashes(&&file[..], &tokens).unwrap();
        assert_eq!(found[0].as_bytes(), Digest::of(&body).as_bytes());
        assert_eq!(found[1].as_bytes(), Digest::of(&[body, wc].concat()).as_bytes());
        assert_eq!(digest, Digest::of(&file));
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
            match scan(&&bytes[..]) {
                Err(ModuleError::Section { offset: found, .. }) => assert_eq!(found, offset),
                other => panic!("{bytes:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn components_and_other_files_are_told_apart() {
        assert_eq!(scan(&&b"\0asm\x0d\0\x01\0"[..]), Err(ModuleError::Component));
        for bytes in
            [&b""[..], b"\0asm", b"\0asm\x02\0\0\0", b"\x7fELF\x01\0\0\0", b"\0asm\x01\0\0"]
        {
            assert_eq!(scan(&bytes), Err(ModuleError::NotWasm), "{bytes:?}");
        }
    }

    #[test]
    fn a_module_over_the_limit_is_not_read() {
        // Zeroed pages are never touched, so this costs no memory.
        let bytes = vec![0; MAX_MODULE_BYTES + 1];
        assert_eq!(scan(&&bytes[..]), Err(ModuleError::TooLarge { bytes: bytes.len() }));
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error() {
        struct Shrunk(Vec<u8>);
        impl Source for Shrunk {
            fn size(&self) -> u64 {
                self.0.len() as u64 + 1
            }
            fn piece<'a>(
                &'a self,
                range: Range<usize>,
                _: &'a mut Vec<u8>,
            ) -> io::Result<&'a [u8]> {
                self.0.get(range).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
        }
        let kind = io::ErrorKind::UnexpectedEof;
        let file = Shrunk(module(&[custom("other", b"o")]));
        assert_eq!(scan(&file), Err(ModuleError::Read { offset: 8, kind }));
        assert_eq!(hashes(&file, &[]), Err(ModuleError::Read { offset: 0, kind }));
    }
}
