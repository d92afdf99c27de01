//! Signing: a module in, the same module with both token sections out.

use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest as _, Sha256};
use wasm_encoder::reencode::{Reencode, RoundtripReencoder};

use crate::{
    ActorKey, Claims, IssuerKey, IssuerKeyPair, ModuleError, ModuleHash, Timestamp, TokenError,
    module::{HEADER, JWT, Sections, WASMCLOUD_JWT, token_name},
    token::Token,
};

/// What is to be said about a module; the rest follows from the module and the issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Which actor this is.
    pub subject: ActorKey,
    /// Its name.
    pub name: String,
    /// Free text version.
    pub version: Option<String>,
    /// A number that grows from release to release.
    pub revision: Option<i32>,
    /// Free words.
    pub tags: Vec<String>,
    /// Capabilities it may be linked to.
    pub capabilities: Vec<String>,
    /// When the statement is made.
    pub issued_at: Timestamp,
    /// How long it holds after `issued_at`; `None` for ever.
    pub valid_for: Option<Duration>,
    /// From when it holds; `None` from the beginning.
    pub not_before: Option<Timestamp>,
}

/// A module could not be signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The file cannot be scanned.
    #[error("the module cannot be signed")]
    Module(#[from] ModuleError),
    /// The file is not well-formed WebAssembly.
    #[error("not well-formed WebAssembly: {reason}")]
    Malformed {
        /// What the reader says.
        reason: String,
    },
    /// The statement holds a text that no reader would accept, or is too long.
    #[error("the claims would not be accepted")]
    Claims(#[from] TokenError),
    /// With its tokens the module would pass the limit.
    #[error("with its tokens the module would have {bytes} bytes, more than {max}", max = crate::MAX_MODULE_BYTES)]
    TooLarge {
        /// Size with tokens.
        bytes: usize,
    },
}

/// Signs a module; tokens that it carries already, in whatever place, are replaced.
///
/// The module is first written anew with every number in as few bytes as it needs, because tools
/// that read `jwt` hash what they would write themselves. Then `wasmcloud_jwt` (hash over the
/// module) and `jwt` (hash over module and `wasmcloud_jwt`) are appended. The same module,
/// statement and key give the same bytes.
///
/// # Errors
/// [`SignError`]; nothing is signed then.
pub fn sign(
    module: &[u8],
    issuer: &IssuerKeyPair,
    statement: &Statement,
) -> Result<Vec<u8>, SignError> {
    let mut signed = minimal(module)?;
    let mut hasher = Sha256::new();
    hasher.update(&signed);
    let hash = ModuleHash(hasher.clone().finalize().into());
    let mut claims = statement.claims(issuer.public(), hash);

    for name in [WASMCLOUD_JWT, JWT] {
        let token = claims.encode(issuer);
        // What we would refuse to read we refuse to sign.
        Token::parse(token.as_bytes())?;
        let start = signed.len();
        append_custom_section(&mut signed, name, token.as_bytes());
        hasher.update(&signed[start..]);
        claims.hash = ModuleHash(hasher.clone().finalize().into());
    }
    if signed.len() > crate::MAX_MODULE_BYTES {
        return Err(SignError::TooLarge { bytes: signed.len() });
    }
    Ok(signed)
}

/// The module without token sections, every number in it written in as few bytes as it needs.
///
/// Signing starts from these bytes; two builds are compared by them.
///
/// # Errors
/// [`SignError::Module`] or [`SignError::Malformed`].
pub fn minimal(module: &[u8]) -> Result<Vec<u8>, SignError> {
    let mut bare = Vec::with_capacity(module.len());
    bare.extend_from_slice(&HEADER);
    for section in Sections::of(module)? {
        let section = section?;
        if section.name.and_then(token_name).is_none() {
            bare.extend_from_slice(&module[section.span]);
        }
    }
    let mut written = wasm_encoder::Module::new();
    RoundtripReencoder
        .parse_core_module(&mut written, wasmparser::Parser::new(0), &bare)
        .map_err(|error| SignError::Malformed { reason: error.to_string() })?;
    Ok(written.finish())
}

impl Statement {
    fn claims(&self, issuer: IssuerKey, hash: ModuleHash) -> Claims {
        let mut claims = Claims {
            issuer,
            subject: self.subject,
            id: String::new(),
            issued_at: self.issued_at,
            expires: self.valid_for.map(|valid_for| self.issued_at.later(valid_for)),
            not_before: self.not_before,
            name: Some(self.name.clone()),
            hash,
            tags: self.tags.clone(),
            capabilities: self.capabilities.clone(),
            revision: self.revision,
            version: self.version.clone(),
            provider: false,
        };
        claims.id = token_id(&claims);
        claims
    }
}

/// A `jti` that follows from the module's hash and everything else that is said about it: the
/// same when the same is said again, another one otherwise.
fn token_id(claims: &Claims) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"graphlet jti 1\0");
    hasher.update(claims.to_json());
    // 128 bits, 26 characters.
    BASE32_NOPAD.encode(&hasher.finalize()[..16])
}

fn append_custom_section(module: &mut Vec<u8>, name: &str, data: &[u8]) {
    use wasm_encoder::Section as _;
    wasm_encoder::CustomSection { name: name.into(), data: data.into() }.append_to(module);
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::{Seed, custom_section, scan::scan};

    fn issuer(byte: u8) -> IssuerKeyPair {
        IssuerKeyPair::from_seed(&Seed::issuer(Zeroizing::new([byte; 32]))).unwrap()
    }

    fn statement() -> Statement {
        Statement {
            subject: Seed::actor(Zeroizing::new([8; 32])).actor_key().unwrap(),
            name: "digits".into(),
            version: None,
            revision: None,
            tags: vec![],
            capabilities: vec!["wascc:http_server".into()],
            issued_at: Timestamp(1000),
            valid_for: Some(Duration::from_secs(10)),
            not_before: None,
        }
    }

    // A type section and a custom section; sizes and counts padded, as linkers write them.
    const PADDED: &[u8] = b"\0asm\x01\0\0\0\
        \x01\x87\x80\x80\x80\0\x81\x80\0\x60\x80\0\0\
        \0\x88\0\x05model\x01\x02";
    const MINIMAL: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\0\x08\x05model\x01\x02";

    #[test]
    fn numbers_are_written_in_as_few_bytes_as_they_need() {
        assert_eq!(minimal(PADDED).unwrap(), MINIMAL);
        assert_eq!(minimal(MINIMAL).unwrap(), MINIMAL);
    }

    #[test]
    fn both_sections_are_written_and_signing_again_replaces_them() {
        let once = sign(PADDED, &issuer(1), &statement()).unwrap();
        assert_eq!(scan(&&once[..]).unwrap().len(), 2);
        assert_eq!(sign(PADDED, &issuer(1), &statement()).unwrap(), once, "deterministic");
        let other = sign(&once, &issuer(2), &statement()).unwrap();
        assert_eq!(scan(&&other[..]).unwrap().len(), 2);
        assert_eq!(sign(&other, &issuer(1), &statement()).unwrap(), once);
        assert_eq!(minimal(&once).unwrap(), MINIMAL);
        assert_eq!(custom_section(&once, "model"), Ok(Some(&[1, 2][..])));
    }

    #[test]
    fn conflicting_tokens_in_wrong_places_are_replaced_too() {
        let mut odd = HEADER.to_vec();
        append_custom_section(&mut odd, JWT, b"first");
        odd.extend_from_slice(&MINIMAL[HEADER.len()..]);
        append_custom_section(&mut odd, JWT, b"second");
        append_custom_section(&mut odd, WASMCLOUD_JWT, b"third");
        assert_eq!(
            sign(&odd, &issuer(1), &statement()).unwrap(),
            sign(MINIMAL, &issuer(1), &statement()).unwrap()
        );
    }

    #[test]
    fn the_id_follows_from_the_module_and_from_what_is_said() {
        let id = |statement: &Statement, hash| statement.claims(issuer(1).public(), hash).id;
        let base = statement();
        let first = id(&base, ModuleHash([1; 32]));
        assert_eq!(first.len(), 26);
        assert_eq!(first, id(&base, ModuleHash([1; 32])));
        assert_ne!(first, id(&base, ModuleHash([2; 32])));
        let later = Statement { valid_for: Some(Duration::from_secs(11)), ..base };
        assert_ne!(first, id(&later, ModuleHash([1; 32])));
    }

    #[test]
    fn what_no_reader_would_accept_is_not_signed() {
        let named = |name: &str| Statement { name: name.into(), ..statement() };
        for name in ["line\nfeed", &"x".repeat(2000)] {
            let result = sign(MINIMAL, &issuer(1), &named(name));
            assert!(matches!(result, Err(SignError::Claims(_))), "{name}: {result:?}");
        }
        let long = Statement { tags: vec!["t".repeat(1000); 20], ..statement() };
        assert!(matches!(sign(MINIMAL, &issuer(1), &long), Err(SignError::Claims(_))));
        let component = b"\0asm\x0d\0\x01\0";
        assert!(matches!(sign(component, &issuer(1), &statement()), Err(SignError::Module(_))));
        let broken = [MINIMAL, &[3, 1, 9]].concat();
        assert!(matches!(
            sign(&broken, &issuer(1), &statement()),
            Err(SignError::Malformed { .. })
        ));
    }
}
