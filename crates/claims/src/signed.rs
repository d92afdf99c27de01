//! What a module's tokens say, apart from whether they speak of this module: a few kilobytes tell
//! it, and the rest of the file can be hashed while something else is done.

use std::{fmt, sync::Arc};

use crate::{
    Claims, Digest, MAX_TOKEN_BYTES, ModuleError, ModuleHash, Policy, Source, TokenError,
    VerifiedModule, VerifyError, recheck,
    scan::{TokenSection, hashes, scan, section_of},
    token::Token,
    verify::authenticated,
};

/// A module whose tokens hold and satisfy a policy, and whose bytes nobody has hashed yet: what
/// can be known of a large file from a few kilobytes of it. [`open`] makes it.
///
/// Its issuer says that the module with [`SignedModule::code_hash`] may run. That does not say
/// that the file is that module: [`SignedModule::confirm`] finds out, and takes its time.
/// Meanwhile nothing of the file but its tokens may be believed; what was made earlier of a
/// verified module with that hash may be used, for that is what the issuer speaks of.
pub struct SignedModule {
    source: Box<dyn Source>,
    tokens: Vec<(TokenSection, ModuleHash)>,
    claims: Option<Claims>,
}

/// Checks what the tokens of a module say, by a policy, and leaves its bytes for later.
///
/// # Errors
/// As [`crate::verify`], but for hashes: one that differs is named here only when something else is
/// wrong behind it, so that both name the same error.
pub fn open(source: impl Source + 'static, policy: &Policy) -> Result<SignedModule, VerifyError> {
    let source: Box<dyn Source> = Box::new(source);
    let found = signatures(&*source)?;
    let tokens = hashes_named(&found);
    let allowed = agreed(found).and_then(|claims| {
        recheck(claims.as_ref(), policy)?;
        Ok(claims)
    });
    match allowed {
        Ok(claims) => Ok(SignedModule { source, tokens, claims }),
        Err(later) => {
            confirm(&*source, &tokens)?;
            Err(later)
        }
    }
}

impl SignedModule {
    /// The claims; `None` for an unsigned module that a flag let in.
    pub fn claims(&self) -> Option<&Claims> {
        self.claims.as_ref()
    }

    /// SHA-256 of the module that the claims are about, without its tokens: the same as
    /// [`VerifiedModule::code_hash`], if the file turns out to be that module. `None` for an
    /// unsigned module.
    pub fn code_hash(&self) -> Option<ModuleHash> {
        self.tokens.first().map(|(_, hash)| *hash)
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.source.size()
    }

    /// The contents of the first custom section called `name`, as they stand there.
    ///
    /// # Errors
    /// [`ModuleError::Read`].
    pub fn custom_section(&self, name: &str) -> Result<Option<Vec<u8>>, ModuleError> {
        section_of(&*self.source, name)
    }

    /// Hashes the file, and tells its digest if it is the module that the claims are about.
    ///
    /// # Errors
    /// [`VerifyError::Hash`], or [`VerifyError::Module`] when it cannot be read.
    pub fn confirm(&self) -> Result<Digest, VerifyError> {
        confirm(&*self.source, &self.tokens)
    }

    /// Reads the whole module into memory and verifies it there.
    ///
    /// # Errors
    /// As [`crate::verify`], and [`VerifyError::Changed`] when the claims in the file are not those that
    /// the policy let pass.
    pub fn verified(&self) -> Result<VerifiedModule, VerifyError> {
        let mut bytes = Vec::new();
        let whole = 0..usize::try_from(self.size()).unwrap_or(usize::MAX);
        let read = self.source.piece(whole, &mut bytes);
        let bytes: Arc<[u8]> =
            read.map_err(|error| ModuleError::Read { offset: 0, kind: error.kind() })?.into();
        let module = authenticated(bytes)?;
        if module.claims() != self.claims() {
            return Err(VerifyError::Changed);
        }
        Ok(module)
    }
}

impl fmt::Debug for SignedModule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SignedModule")
            .field("size", &self.size())
            .field("claims", &self.claims)
            .finish_non_exhaustive()
    }
}

/// The tokens of a module, each signed by whom it names.
pub(crate) fn signatures(source: &dyn Source) -> Result<Vec<(TokenSection, Token)>, VerifyError> {
    let mut found = Vec::new();
    for section in scan(source)? {
        let token = read(source, &section)?;
        found.push((section, token));
    }
    for (section, token) in &found {
        if !token.is_authentic() {
            return Err(VerifyError::Signature { section: section.name });
        }
    }
    Ok(found)
}

fn read(source: &dyn Source, section: &TokenSection) -> Result<Token, VerifyError> {
    let failed = |source| VerifyError::Token { section: section.name, source };
    if section.data.len() > MAX_TOKEN_BYTES {
        return Err(failed(TokenError::TooLarge { bytes: section.data.len() }));
    }
    let mut buffer = Vec::new();
    let text = source
        .piece(section.data.clone(), &mut buffer)
        .map_err(|error| ModuleError::Read { offset: section.data.start, kind: error.kind() })?;
    Token::parse(text).map_err(failed)
}

pub(crate) fn hashes_named(found: &[(TokenSection, Token)]) -> Vec<(TokenSection, ModuleHash)> {
    found.iter().map(|(section, token)| (section.clone(), token.claims.hash)).collect()
}

/// Hashes a whole module, and compares with what its tokens name.
pub(crate) fn confirm(
    source: &dyn Source,
    tokens: &[(TokenSection, ModuleHash)],
) -> Result<Digest, VerifyError> {
    let sections: Vec<_> = tokens.iter().map(|(section, _)| section.clone()).collect();
    let (found, digest) = hashes(source, &sections)?;
    for ((section, named), found) in tokens.iter().zip(found) {
        if *named != found {
            return Err(VerifyError::Hash { section: section.name });
        }
    }
    Ok(digest)
}

/// What the tokens say together; `None` when there are none.
pub(crate) fn agreed(found: Vec<(TokenSection, Token)>) -> Result<Option<Claims>, VerifyError> {
    let mut claims = found.into_iter().map(|(_, token)| token.claims);
    let Some(first) = claims.next() else { return Ok(None) };
    for other in claims {
        agree(&first, &other)?;
    }
    if first.provider {
        return Err(VerifyError::NotAnActor);
    }
    Ok(Some(first))
}

/// Two tokens in one module say the same about everything that decides whether and how it runs.
fn agree(one: &Claims, other: &Claims) -> Result<(), VerifyError> {
    let checks = [
        ("iss", one.issuer == other.issuer),
        ("sub", one.subject == other.subject),
        ("jti", one.id == other.id),
        ("exp", one.expires == other.expires),
        ("nbf", one.not_before == other.not_before),
        ("caps", one.capabilities == other.capabilities),
        ("rev", one.revision == other.revision),
        ("prov", one.provider == other.provider),
    ];
    match checks.into_iter().find(|(_, equal)| !equal) {
        Some((claim, _)) => Err(VerifyError::Disagree { claim }),
        None => Ok(()),
    }
}
