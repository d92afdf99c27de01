//! Verification: the only way from bytes to a module that may run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use crate::{
    ActorKey, Claims, Digest, IssuerKey, ModuleError, ModuleHash, Timestamp, TokenError,
    signed::{agreed, confirm, hashes_named, signatures},
};

/// The capability of answering HTTP requests.
pub const HTTP_SERVER: &str = "wascc:http_server";
/// The capability of writing log lines.
pub const LOGGING: &str = "wascc:logging";
/// What an unsigned module gets when a flag lets it in: enough to answer, nothing to reach out.
pub const UNSIGNED_CAPABILITIES: [&str; 2] = [HTTP_SERVER, LOGGING];
/// How far two clocks may be apart.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// How long before the end of its claims a module is worth a warning: time to sign and roll out.
pub const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// What a module must satisfy to run here, now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The time now.
    pub now: Timestamp,
    /// Who may sign.
    pub trusted_issuers: BTreeSet<IssuerKey>,
    /// How far the signer's clock may be from ours.
    pub skew: Duration,
    /// Refuse claims that never expire.
    pub require_exp: bool,
    /// Actors that may not run any more.
    pub revoked_subjects: BTreeSet<ActorKey>,
    /// Statements (`jti`) that do not hold any more.
    pub revoked_tokens: BTreeSet<String>,
    /// The least revision per actor; an actor in this list without a revision is refused.
    pub minimum_revisions: BTreeMap<ActorKey, i32>,
    /// Capabilities that a module may claim; `None` for any. Claiming another one refuses the
    /// module.
    pub allowed_capabilities: Option<BTreeSet<String>>,
    /// Let modules run that carry no token at all, with [`UNSIGNED_CAPABILITIES`] only. A token
    /// that is there must hold all the same.
    pub dangerously_allow_unsigned: bool,
}

impl Policy {
    /// Trusts nobody; an allowance of [`CLOCK_SKEW`], nothing revoked, any capability.
    pub fn at(now: Timestamp) -> Self {
        Policy {
            now,
            trusted_issuers: BTreeSet::new(),
            skew: CLOCK_SKEW,
            require_exp: false,
            revoked_subjects: BTreeSet::new(),
            revoked_tokens: BTreeSet::new(),
            minimum_revisions: BTreeMap::new(),
            allowed_capabilities: None,
            dangerously_allow_unsigned: false,
        }
    }

    /// The parts that can change while a module runs.
    fn check(&self, claims: &Claims) -> Result<(), VerifyError> {
        if !self.trusted_issuers.contains(&claims.issuer) {
            return Err(VerifyError::UntrustedIssuer { issuer: claims.issuer });
        }
        if self.revoked_subjects.contains(&claims.subject) {
            return Err(VerifyError::RevokedSubject { subject: claims.subject });
        }
        if self.revoked_tokens.contains(&claims.id) {
            return Err(VerifyError::RevokedToken { id: claims.id.clone() });
        }
        if let Some(&minimum) = self.minimum_revisions.get(&claims.subject)
            && claims.revision.is_none_or(|revision| revision < minimum)
        {
            return Err(VerifyError::Revision { found: claims.revision, minimum });
        }
        if let Some(allowed) = &self.allowed_capabilities
            && let Some(other) = claims.capabilities.iter().find(|name| !allowed.contains(*name))
        {
            return Err(VerifyError::Capability { capability: other.clone() });
        }
        match claims.expires {
            None if self.require_exp => return Err(VerifyError::NoExpiry),
            // `exp` is the first second at which the token is no longer good (RFC 7519, 4.1.4).
            Some(expires) if self.now >= expires.later(self.skew) => {
                return Err(VerifyError::Expired { expires, now: self.now });
            }
            _ => {}
        }
        match claims.not_before {
            Some(not_before) if self.now.later(self.skew) < not_before => {
                Err(VerifyError::NotYetValid { not_before, now: self.now })
            }
            _ => Ok(()),
        }
    }
}

/// Why a module may not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// No token in the module.
    #[error("the module is not signed")]
    Unsigned,
    /// The file is no core module with tokens in their places.
    #[error("the module cannot be verified")]
    Module(#[from] ModuleError),
    /// A token cannot be read.
    #[error("the token in section `{section}` is not acceptable")]
    Token {
        /// Which section holds it.
        section: &'static str,
        /// What is wrong with it.
        #[source]
        source: TokenError,
    },
    /// The token was altered, or not signed by whom it names.
    #[error("the token in section `{section}` was not signed by the issuer that it names")]
    Signature {
        /// Which section holds it.
        section: &'static str,
    },
    /// The module was altered, or the token belongs to another one.
    #[error("the token in section `{section}` is about another module: the hash differs")]
    Hash {
        /// Which section holds it.
        section: &'static str,
    },
    /// The two tokens contradict each other.
    #[error("the module's two tokens disagree about `{claim}`")]
    Disagree {
        /// In which claim.
        claim: &'static str,
    },
    /// The file is not what it was a moment ago.
    #[error("the module's file changed while it was read")]
    Changed,
    /// The claims are those of a capability provider.
    #[error("the claims are those of a capability provider, not of an actor")]
    NotAnActor,
    /// Nobody here trusts this issuer.
    #[error("the issuer {issuer} is not trusted here")]
    UntrustedIssuer {
        /// Who signed.
        issuer: IssuerKey,
    },
    /// The actor was revoked.
    #[error("the actor {subject} was revoked")]
    RevokedSubject {
        /// Which actor.
        subject: ActorKey,
    },
    /// The statement was revoked.
    #[error("the token {id:?} was revoked")]
    RevokedToken {
        /// Its `jti`.
        id: String,
    },
    /// An older release than the policy accepts.
    #[error("the module's revision is {}, at least {minimum} is required", or_none(.found))]
    Revision {
        /// What the claims say.
        found: Option<i32>,
        /// What the policy requires.
        minimum: i32,
    },
    /// A capability that the policy does not allow.
    #[error("the module claims the capability {capability:?}, which is not allowed here")]
    Capability {
        /// Which one.
        capability: String,
    },
    /// The policy requires an expiry.
    #[error("the claims never expire, and an expiry is required here")]
    NoExpiry,
    /// Too late.
    #[error("the claims expired {} ago (exp {expires})", Ago(now.since(*.expires)))]
    Expired {
        /// When they expired.
        expires: Timestamp,
        /// When that was noticed.
        now: Timestamp,
    },
    /// Too early.
    #[error("the claims hold only in {} (nbf {not_before})", Ago(not_before.since(*.now)))]
    NotYetValid {
        /// When they begin to hold.
        not_before: Timestamp,
        /// When that was noticed.
        now: Timestamp,
    },
}

impl VerifyError {
    /// A stable word for logs, metrics and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            VerifyError::Unsigned => "unsigned",
            VerifyError::Module(ModuleError::TooLarge { .. }) => "module_too_large",
            VerifyError::Module(ModuleError::NotWasm) => "not_wasm",
            VerifyError::Module(ModuleError::Component) => "component",
            VerifyError::Module(ModuleError::Section { .. }) => "malformed_section",
            VerifyError::Module(ModuleError::Place { .. }) => "token_misplaced",
            VerifyError::Module(ModuleError::Twice { .. }) => "token_duplicated",
            VerifyError::Module(ModuleError::Read { .. }) => "unreadable",
            VerifyError::Changed => "changed",
            VerifyError::Token { source: TokenError::Algorithm { .. }, .. } => "token_algorithm",
            VerifyError::Token { .. } => "token_malformed",
            VerifyError::Signature { .. } => "signature_mismatch",
            VerifyError::Hash { .. } => "hash_mismatch",
            VerifyError::Disagree { .. } => "tokens_disagree",
            VerifyError::NotAnActor => "not_an_actor",
            VerifyError::UntrustedIssuer { .. } => "untrusted_issuer",
            VerifyError::RevokedSubject { .. } => "revoked_subject",
            VerifyError::RevokedToken { .. } => "revoked_token",
            VerifyError::Revision { .. } => "revision_too_low",
            VerifyError::Capability { .. } => "capability_not_allowed",
            VerifyError::NoExpiry => "no_expiry",
            VerifyError::Expired { .. } => "expired",
            VerifyError::NotYetValid { .. } => "not_yet_valid",
        }
    }
}

/// A module that satisfied a policy; only [`verify`] and
/// [`SignedModule::verified`](crate::SignedModule::verified) make one.
#[derive(Clone)]
pub struct VerifiedModule {
    bytes: Arc<[u8]>,
    digest: Digest,
    code_hash: ModuleHash,
    claims: Option<Claims>,
}

/// Checks a module against a policy.
///
/// In this order: the file's shape, both tokens' form, their signatures, their hashes, that they
/// agree, then the policy. A module without any token is refused unless
/// [`Policy::dangerously_allow_unsigned`] is set; tokens that are there must always hold.
///
/// # Errors
/// The first [`VerifyError`] in that order.
pub fn verify(bytes: impl Into<Arc<[u8]>>, policy: &Policy) -> Result<VerifiedModule, VerifyError> {
    let module = authenticated(bytes.into())?;
    module.recheck(policy)?;
    Ok(module)
}

/// The claims of a module whose tokens hold, whoever issued them and whenever; for showing them
/// and for deciding on trust, never for running it.
///
/// # Errors
/// [`VerifyError::Unsigned`] and whatever else is wrong with file and tokens; nothing that
/// depends on a policy.
pub fn authentic_claims(bytes: &[u8]) -> Result<Claims, VerifyError> {
    let found = signatures(&bytes)?;
    confirm(&bytes, &hashes_named(&found))?;
    agreed(found)?.ok_or(VerifyError::Unsigned)
}

/// Looks again at the claims of a module that was verified before, of which nothing else is kept:
/// see [`VerifiedModule::recheck`]. `None` stands for an unsigned module.
///
/// # Errors
/// [`VerifyError`]; the module should get no more traffic.
pub fn recheck(claims: Option<&Claims>, policy: &Policy) -> Result<(), VerifyError> {
    match claims {
        Some(claims) => policy.check(claims),
        None if policy.dangerously_allow_unsigned => Ok(()),
        None => Err(VerifyError::Unsigned),
    }
}

impl VerifiedModule {
    /// The file, tokens included.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Digest of the whole file.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// SHA-256 of the module without its tokens, which is all of it that code is made of: the
    /// digest of an unsigned module, and the hash that the first token speaks of.
    pub fn code_hash(&self) -> ModuleHash {
        self.code_hash
    }

    /// The claims; `None` for an unsigned module that a flag let in.
    pub fn claims(&self) -> Option<&Claims> {
        self.claims.as_ref()
    }

    /// Whether it runs without a signature, because a flag let it in.
    pub fn is_unsigned(&self) -> bool {
        self.claims.is_none()
    }

    /// The capabilities that may be linked to it.
    pub fn capabilities(&self) -> Vec<&str> {
        match &self.claims {
            Some(claims) => claims.capabilities.iter().map(String::as_str).collect(),
            None => UNSIGNED_CAPABILITIES.to_vec(),
        }
    }

    /// Whether `capability` may be linked to it.
    pub fn may_use(&self, capability: &str) -> bool {
        self.capabilities().contains(&capability)
    }

    /// Looks again at everything that can change while the module runs: time, trust,
    /// revocations, revisions, allowed capabilities.
    ///
    /// # Errors
    /// [`VerifyError`]; the module should get no more traffic.
    pub fn recheck(&self, policy: &Policy) -> Result<(), VerifyError> {
        recheck(self.claims(), policy)
    }

    /// How long the claims hold from `now` on, without any allowance for clocks; zero when they
    /// have expired, `None` when they never do.
    pub fn expires_in(&self, now: Timestamp) -> Option<Duration> {
        Some(self.claims.as_ref()?.expires?.since(now))
    }

    /// Whether the claims expire within [`EXPIRY_WARNING`] of `now`.
    pub fn expires_soon(&self, now: Timestamp) -> bool {
        self.expires_in(now).is_some_and(|left| left <= EXPIRY_WARNING)
    }
}

impl fmt::Debug for VerifiedModule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("VerifiedModule")
            .field("bytes", &self.bytes.len())
            .field("digest", &self.digest)
            .field("claims", &self.claims)
            .finish()
    }
}

/// A module in memory of which everything holds that does not depend on a policy.
pub(crate) fn authenticated(bytes: Arc<[u8]>) -> Result<VerifiedModule, VerifyError> {
    let source = &*bytes;
    let found = signatures(&source)?;
    let tokens = hashes_named(&found);
    let digest = confirm(&source, &tokens)?;
    let claims = agreed(found)?;
    let code_hash = tokens.first().map_or(ModuleHash(digest.0), |(_, hash)| *hash);
    Ok(VerifiedModule { bytes, digest, code_hash, claims })
}

fn or_none(revision: &Option<i32>) -> String {
    revision.map_or_else(|| "not given".into(), |revision| revision.to_string())
}

/// A duration as a person says it, in its largest unit.
struct Ago(Duration);

impl fmt::Display for Ago {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (count, unit) = match seconds {
            0..120 => (seconds, "s"),
            120..7200 => (seconds / 60, "min"),
            7200..172_800 => (seconds / 3600, "h"),
            _ => (seconds / 86_400, "days"),
        };
        write!(out, "{count} {unit}")
    }
}
