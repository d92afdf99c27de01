//! The trust file: whose modules may run here, and which of theirs may not.
//!
//! Whoever can write this file decides what runs, so it is read only from a place that nobody
//! but its owner can write, and written whole, one writer at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, Metadata},
    io::{ErrorKind, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use claims::{
    ActorKey, IssuerKey, ModuleError, Policy, Timestamp, VerifiedModule, VerifyError, verify,
};
use serde::{Deserialize, Serialize};

use crate::{
    exit::Usage,
    files::{create_private_dir, parent, write_private},
    paths::config_dir,
};

/// What `trust.toml` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrustFile {
    /// Refuse claims that never expire.
    #[serde(skip_serializing_if = "is_false")]
    pub require_expiry: bool,
    /// Capabilities that modules may claim; without this line any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_capabilities: Option<BTreeSet<String>>,
    /// What was good once.
    #[serde(skip_serializing_if = "Revoked::is_empty")]
    pub revoked: Revoked,
    /// The least revision per actor.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub minimum_revisions: BTreeMap<ActorKey, i32>,
    /// Who may sign.
    #[serde(rename = "issuer", skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<TrustedIssuer>,
}

/// An issuer that is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedIssuer {
    /// The public key.
    pub key: IssuerKey,
    /// What people here call it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// Actors and tokens that may not run any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Revoked {
    /// Actor keys (`sub`).
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub subjects: BTreeSet<ActorKey>,
    /// Token ids (`jti`).
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub tokens: BTreeSet<String>,
}

impl Revoked {
    fn is_empty(&self) -> bool {
        self.subjects.is_empty() && self.tokens.is_empty()
    }
}

/// What can be revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// An actor, in all of its releases (`sub`).
    Actor(ActorKey),
    /// One signature (`jti`).
    Token(String),
}

impl Revocation {
    /// Reads an actor's key or a token's id, as `graphlet inspect` shows them.
    ///
    /// # Errors
    /// [`Usage`] for an empty or unprintable text, and for what looks like a key but is no
    /// actor's: a mistyped key taken for a token would revoke nothing. The text is not repeated,
    /// as it may be a seed.
    pub fn parse(text: &str) -> Result<Self, Usage> {
        match text.parse() {
            Ok(actor) => Ok(Self::Actor(actor)),
            Err(error) if looks_like_key(text) => {
                Err(Usage::new(format!("this is no actor's key: {error}")).hint(
                    "revoke takes an actor's key (M…) or a token's id, both in `graphlet inspect \
                     MODULE`; an issuer (A…) loses its trust by `graphlet keys untrust`",
                ))
            }
            Err(_) if text.is_empty() || text.len() > MAX_TOKEN_ID_BYTES => {
                Err(Usage::new(format!("a token's id has 1 to {MAX_TOKEN_ID_BYTES} bytes")))
            }
            Err(_) if text.chars().any(|c| c.is_control() || c.is_whitespace()) => {
                Err(Usage::new("a token's id has no spaces and no control characters"))
            }
            Err(_) => Ok(Self::Token(text.to_owned())),
        }
    }
}

/// A key has 56 characters of base32, a seed 58; one that was mistyped may have others.
fn looks_like_key(text: &str) -> bool {
    (48..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn is_false(value: &bool) -> bool {
    !value
}

impl TrustFile {
    /// Reads the user's trust file; one that is not there trusts nobody.
    ///
    /// # Errors
    /// As [`TrustFile::load_from`].
    pub fn load() -> Result<Self> {
        Self::load_from(&path()?)
    }

    /// Reads a trust file; one that is not there trusts nobody.
    ///
    /// # Errors
    /// [`Usage`] when others could have written it, or when it cannot be understood.
    pub fn load_from(path: &Path) -> Result<Self> {
        let context = || format!("cannot read {}", path.display());
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(context),
        };
        // Of the open file, not of the name: that could be exchanged in between.
        only_ours_to_write(path, &file.metadata().with_context(context)?)?;
        let folder = parent(path);
        only_ours_to_write(folder, &folder.metadata().with_context(context)?)?;
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(context)?;
        toml::from_str(&text)
            .map_err(|error| Usage::new(format!("{}: {error}", path.display())).into())
    }

    /// The policy that this file asks for. A module that nobody signed, or that somebody unknown
    /// signed, does not satisfy it.
    pub fn policy(&self, now: Timestamp) -> Policy {
        Policy {
            trusted_issuers: self.issuers.iter().map(|issuer| issuer.key).collect(),
            require_exp: self.require_expiry,
            revoked_subjects: self.revoked.subjects.clone(),
            revoked_tokens: self.revoked.tokens.clone(),
            minimum_revisions: self.minimum_revisions.clone(),
            allowed_capabilities: self.allowed_capabilities.clone(),
            ..Policy::at(now)
        }
    }

    /// Adds an issuer; returns whether it was new. A name, when given, replaces the old one.
    pub fn trust(&mut self, key: IssuerKey, name: &str) -> bool {
        match self.issuers.iter_mut().find(|issuer| issuer.key == key) {
            Some(issuer) => {
                if !name.is_empty() {
                    issuer.name = name.to_owned();
                }
                false
            }
            None => {
                self.issuers.push(TrustedIssuer { key, name: name.to_owned() });
                true
            }
        }
    }

    /// Takes an issuer away; returns whether it was there.
    pub fn untrust(&mut self, key: IssuerKey) -> bool {
        let before = self.issuers.len();
        self.issuers.retain(|issuer| issuer.key != key);
        self.issuers.len() < before
    }

    /// Lets an actor or a token run no more; returns whether that is new.
    pub fn revoke(&mut self, what: &Revocation) -> bool {
        match what {
            Revocation::Actor(subject) => self.revoked.subjects.insert(*subject),
            Revocation::Token(id) => self.revoked.tokens.insert(id.clone()),
        }
    }

    /// Takes a revocation back; returns whether it was there.
    pub fn unrevoke(&mut self, what: &Revocation) -> bool {
        match what {
            Revocation::Actor(subject) => self.revoked.subjects.remove(subject),
            Revocation::Token(id) => self.revoked.tokens.remove(id),
        }
    }

    /// What people here call this issuer, when it is trusted.
    pub fn issuer_name(&self, key: IssuerKey) -> Option<&str> {
        let issuer = self.issuers.iter().find(|issuer| issuer.key == key)?;
        Some(&issuer.name)
    }
}

/// The user's trust file.
///
/// # Errors
/// [`Usage`] when there is no configuration folder.
pub fn path() -> Result<PathBuf> {
    Ok(config_dir()?.join("trust.toml"))
}

/// Changes the user's trust file.
///
/// # Errors
/// As [`TrustFile::load_from`], or when it cannot be written.
pub fn update<T>(change: impl FnOnce(&mut TrustFile) -> T) -> Result<T> {
    let path = path()?;
    let folder = parent(&path);
    create_private_dir(folder)?;
    // A lock of its own, as the file itself is replaced.
    let lock = folder.join(".trust.lock");
    let lock = File::create(&lock)
        .and_then(|file| file.lock().map(|()| file))
        .with_context(|| format!("cannot lock {}", lock.display()))?;
    let mut trust = TrustFile::load_from(&path)?;
    let before = trust.clone();
    let result = change(&mut trust);
    if trust != before {
        let text = toml::to_string(&trust).context("cannot write the trust file")?;
        write_private(&path, format!("{FILE_HEAD}{text}").as_bytes())?;
    }
    drop(lock);
    Ok(result)
}

/// A module was refused; says what would help.
#[derive(Debug, thiserror::Error)]
#[error("{} is refused ({})", .path.display(), .source.code())]
pub struct Refused {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    pub source: VerifyError,
}

impl Refused {
    /// The one command that would help.
    pub fn hint(&self) -> String {
        hint(&self.source, &self.path)
    }
}

/// Verifies a module file's contents.
///
/// # Errors
/// [`Refused`], whose hint belongs below the message.
pub fn verify_module(
    path: &Path,
    bytes: impl Into<Arc<[u8]>>,
    policy: &Policy,
) -> Result<VerifiedModule, Refused> {
    verify(bytes, policy).map_err(|source| Refused { path: path.to_owned(), source })
}

/// The one command that would make the module acceptable, or bring one that is.
pub fn hint(error: &VerifyError, module: &Path) -> String {
    let module = shell_word(&module.display().to_string());
    match error {
        VerifyError::Unsigned => format!("graphlet sign {module} -o {module}"),
        VerifyError::UntrustedIssuer { issuer } => format!("graphlet keys trust {issuer}"),
        VerifyError::Expired { .. } | VerifyError::NoExpiry => {
            format!("graphlet sign {module} -o {module} --expires 90d   (if it is yours)")
        }
        VerifyError::NotYetValid { .. } => "date   (is this machine's clock right?)".into(),
        VerifyError::RevokedSubject { .. } | VerifyError::RevokedToken { .. } => {
            "graphlet keys list   (shows what was revoked here)".into()
        }
        VerifyError::Revision { minimum, .. } => {
            format!("graphlet sign {module} -o {module} --revision {minimum}   (if it is yours)")
        }
        VerifyError::Capability { .. } => {
            "graphlet keys list   (shows the capabilities that are allowed here)".into()
        }
        VerifyError::Module(ModuleError::Component) => {
            format!("wasmtime serve {module}   (docs/component.md: how it is trusted)")
        }
        VerifyError::Module(ModuleError::NotWasm | ModuleError::TooLarge { .. }) => {
            "graphlet build model.toml -o model.wasm   (makes a module that can be signed)".into()
        }
        _ => format!(
            "graphlet inspect {module}   (then fetch or build it again: it is not what was signed)"
        ),
    }
}

/// A path as the shell takes it.
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Refuses what somebody else could have written.
fn only_ours_to_write(path: &Path, metadata: &Metadata) -> Result<()> {
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    let shown = path.display();
    if mode & 0o022 != 0 {
        return Err(Usage::new(format!("{shown} can be written by others (mode {mode:04o})"))
            .hint(format!("chmod go-w {}", shell_word(&shown.to_string())))
            .into());
    }
    ours(path, owner)
}

/// Refuses what belongs to neither this user nor root.
pub fn ours(path: &Path, owner: u32) -> Result<()> {
    let me = rustix::process::geteuid().as_raw();
    if owner == me || owner == 0 {
        return Ok(());
    }
    let shown = path.display();
    Err(Usage::new(format!("{shown} belongs to user {owner}, neither to you ({me}) nor to root"))
        .hint(format!("sudo chown {me} {}", shell_word(&shown.to_string())))
        .into())
}

// Longer ids are in no token that `claims` reads.
const MAX_TOKEN_ID_BYTES: usize = 256;

const FILE_HEAD: &str = "\
# Whose modules may run here. Written by `graphlet keys`, which keeps no comments but this one.
# [revoked] subjects = [\"M…\"], tokens = [\"jti\"]; [minimum_revisions] \"M…\" = 3

";

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
    };

    use super::*;

    const ISSUER: &str = "ACODERUVFFAWZQDSS6SBIACUA5O6SXF7HJ3YTYXBALHZP3P7R4BUO4J2";

    fn actor() -> ActorKey {
        let entropy = zeroize::Zeroizing::new([8; 32]);
        claims::Seed::actor(entropy).actor_key().unwrap()
    }

    fn full() -> TrustFile {
        let mut trust = TrustFile {
            require_expiry: true,
            allowed_capabilities: Some(["wascc:logging".to_owned()].into()),
            revoked: Revoked { subjects: [actor()].into(), tokens: ["T".to_owned()].into() },
            minimum_revisions: [(actor(), 3)].into(),
            issuers: Vec::new(),
        };
        assert!(trust.trust(ISSUER.parse().unwrap(), "a \"friend\""));
        trust
    }

    #[test]
    fn what_is_written_is_read_and_becomes_the_policy() {
        let text = toml::to_string(&full()).unwrap();
        assert_eq!(toml::from_str::<TrustFile>(&text).unwrap(), full());
        assert_eq!(toml::from_str::<TrustFile>(FILE_HEAD).unwrap(), TrustFile::default());
        let policy = full().policy(Timestamp(7));
        assert_eq!(policy.now, Timestamp(7));
        assert!(policy.trusted_issuers.contains(&ISSUER.parse().unwrap()));
        assert!(policy.require_exp);
        assert!(policy.revoked_subjects.contains(&actor()));
        assert!(policy.revoked_tokens.contains("T"));
        assert_eq!(policy.minimum_revisions[&actor()], 3);
        assert!(policy.allowed_capabilities.unwrap().contains("wascc:logging"));
        assert!(!policy.dangerously_allow_unsigned, "never by a file");
    }

    #[test]
    fn an_actor_or_a_token_is_revoked_and_a_mistyped_key_is_neither() {
        let key = actor().to_string();
        assert_eq!(Revocation::parse(&key).unwrap(), Revocation::Actor(actor()));
        let id = "7YQ2M3FZ5OJWX4TBNCDLKEHUAG";
        assert_eq!(Revocation::parse(id).unwrap(), Revocation::Token(id.to_owned()));
        let seed = claims::Seed::actor(zeroize::Zeroizing::new([8; 32])).to_text();
        let lost = &key[1..];
        let lower = key.to_lowercase();
        for text in [ISSUER, lost, &lower, &seed, "", "a b", "a\nb", &"x".repeat(257)] {
            let error = Revocation::parse(text).unwrap_err().to_string();
            assert!(text.len() < 4 || !error.contains(text), "{error}");
        }
        let mut trust = TrustFile::default();
        for what in [Revocation::Actor(actor()), Revocation::Token(id.to_owned())] {
            assert!(trust.revoke(&what));
            assert!(!trust.revoke(&what), "twice is once");
        }
        let policy = trust.policy(Timestamp(7));
        assert!(policy.revoked_subjects.contains(&actor()));
        assert!(policy.revoked_tokens.contains(id));
        assert!(trust.unrevoke(&Revocation::Actor(actor())));
        assert!(!trust.unrevoke(&Revocation::Actor(actor())));
        assert_eq!(trust.revoked.tokens.len(), 1);
    }

    #[test]
    fn a_misspelt_line_is_an_error_and_revokes_nothing_silently() {
        for text in ["[revokd]\n", "[revoked]\nsubject = []\n", "[[issuer]]\nkey = \"A\"\n"] {
            assert!(toml::from_str::<TrustFile>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_or_folder_that_others_can_write_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trust.toml");
        assert_eq!(TrustFile::load_from(&path).unwrap(), TrustFile::default());
        fs::write(&path, toml::to_string(&full()).unwrap()).unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        };
        for (file_mode, folder_mode, good) in [
            (0o600, 0o700, true),
            (0o644, 0o755, true),
            (0o620, 0o700, false),
            (0o602, 0o700, false),
            (0o600, 0o770, false),
            (0o600, 0o777, false),
        ] {
            mode(&path, file_mode);
            mode(folder.path(), folder_mode);
            let loaded = TrustFile::load_from(&path);
            assert_eq!(loaded.is_ok(), good, "{file_mode:o} in {folder_mode:o}");
            if let Err(error) = loaded {
                let usage = error.downcast::<Usage>().unwrap();
                assert!(usage.hint_text().unwrap().starts_with("chmod go-w "));
            }
        }
    }

    #[test]
    fn what_belongs_to_a_stranger_is_refused() {
        let me = rustix::process::geteuid().as_raw();
        assert!(ours(Path::new("f"), me).is_ok());
        assert!(ours(Path::new("f"), 0).is_ok());
        assert!(ours(Path::new("f"), me + 1000).is_err());
    }

    #[test]
    fn trusting_twice_changes_the_name_only() {
        let mut trust = full();
        let key = ISSUER.parse().unwrap();
        assert!(!trust.trust(key, ""));
        assert_eq!(trust.issuer_name(key), Some("a \"friend\""));
        assert!(!trust.trust(key, "other"));
        assert_eq!(trust.issuer_name(key), Some("other"));
        assert!(trust.untrust(key));
        assert!(!trust.untrust(key));
    }

    #[test]
    fn hints_can_be_pasted_into_a_shell() {
        let path = Path::new("it's a module.wasm");
        assert_eq!(
            hint(&VerifyError::Unsigned, path),
            r"graphlet sign 'it'\''s a module.wasm' -o 'it'\''s a module.wasm'"
        );
        let error = VerifyError::UntrustedIssuer { issuer: ISSUER.parse().unwrap() };
        assert_eq!(hint(&error, path), format!("graphlet keys trust {ISSUER}"));
    }
}
