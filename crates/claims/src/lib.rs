//! Keys, signed claims and the only way to a verified module.
//!
//! A module carries its claims in itself: who signed it, which actor it is, what it may be
//! linked to, until when, and the hash of the rest of the file. [`sign`] writes them, [`verify`]
//! checks them against a [`Policy`] and makes the [`VerifiedModule`] without which the host runs
//! nothing. Of a large file [`open`] tells in a moment what its tokens allow, as a
//! [`SignedModule`] whose bytes are hashed later. There is no I/O, no clock and no randomness in here: files, the time now and entropy
//! come from the caller.
//!
//! ```
//! use claims::{IssuerKeyPair, Policy, Seed, Statement, Timestamp, sign, verify};
//! # let entropy = |byte| zeroize::Zeroizing::new([byte; 32]);
//! let issuer = IssuerKeyPair::from_seed(&Seed::issuer(entropy(1)))?;
//! let statement = Statement {
//!     subject: Seed::actor(entropy(2)).actor_key().expect("an actor's seed"),
//!     name: "digits".into(),
//!     version: None,
//!     revision: None,
//!     tags: vec![],
//!     capabilities: vec!["wascc:http_server".into()],
//!     issued_at: Timestamp(1_700_000_000),
//!     valid_for: None,
//!     not_before: None,
//! };
//! let module = sign(b"\0asm\x01\0\0\0", &issuer, &statement)?;
//!
//! let mut policy = Policy::at(Timestamp(1_700_000_001));
//! assert_eq!(verify(&module[..], &policy).unwrap_err().code(), "untrusted_issuer");
//! policy.trusted_issuers.insert(issuer.public());
//! assert!(verify(&module[..], &policy)?.may_use("wascc:http_server"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod keys;
mod module;
mod scan;
mod sign;
mod signed;
mod source;
mod time;
mod token;
mod verify;

pub use keys::{ActorKey, IssuerKey, IssuerKeyPair, KeyError, Seed};
pub use module::{
    Digest, HashError, JWT, MAX_MODULE_BYTES, ModuleError, ModuleHash, Section, Sections,
    WASMCLOUD_JWT, custom_section,
};
pub use sign::{SignError, Statement, minimal, sign};
pub use signed::{SignedModule, open};
pub use source::Source;
pub use time::Timestamp;
pub use token::{Claims, MAX_TOKEN_BYTES, TokenError};
pub use verify::{
    CLOCK_SKEW, EXPIRY_WARNING, HTTP_SERVER, LOGGING, Policy, UNSIGNED_CAPABILITIES,
    VerifiedModule, VerifyError, authentic_claims, recheck, verify,
};
