//! Names of modules in registries, and digests.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use oci_client::Reference;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

/// SHA-256 of a file, written `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Digest(Sha256::digest(bytes).into())
    }

    /// What a hasher has seen.
    pub(crate) fn finish(hasher: Sha256) -> Self {
        Digest(hasher.finalize().into())
    }

    /// The 64 digits without the algorithm, as a file name.
    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }
}

impl From<claims::Digest> for Digest {
    fn from(digest: claims::Digest) -> Self {
        Digest(*digest.as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&format!("sha256:{}", self.hex()))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// A text is no digest that is understood here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `sha256:` and 64 lower-case hexadecimal digits")]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text.strip_prefix("sha256:").ok_or(DigestError)?;
        let bytes = HEXLOWER.decode(hex.as_bytes()).map_err(|_| DigestError)?;
        Ok(Digest(bytes.try_into().map_err(|_| DigestError)?))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Which of a repository's modules.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Version {
    /// A name that can be moved.
    Tag(String),
    /// A manifest's digest, which cannot.
    Digest(Digest),
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Tag(tag) => out.pad(tag),
            Version::Digest(digest) => fmt::Display::fmt(digest, out),
        }
    }
}

/// The name of a module in a registry: `HOST[:PORT]/REPOSITORY[:TAG][@sha256:…]`.
///
/// Read as Kubernetes reads image names: without a host it is `docker.io`, without a tag
/// `latest`, and a digest decides over a tag beside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModuleRef {
    host: String,
    repository: String,
    version: Version,
}

/// A text is no name of a module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no module: {reason}")]
pub struct ReferenceError {
    /// What was read; shortened when it is long.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl ModuleRef {
    /// The registry's host with its port, as written; `docker.io` when there was none.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path within the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Tag or digest.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Host and repository.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// The same repository's manifest of that digest: `HOST/REPOSITORY@sha256:…`.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        ModuleRef { version: Version::Digest(digest), ..self.clone() }
    }

    /// As `oci-client` writes it.
    pub(crate) fn to_oci(&self) -> Reference {
        let (host, repository) = (self.host.clone(), self.repository.clone());
        match &self.version {
            Version::Tag(tag) => Reference::with_tag(host, repository, tag.clone()),
            Version::Digest(digest) => Reference::with_digest(host, repository, digest.to_string()),
        }
    }
}

impl FromStr for ModuleRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let error = |reason: String| ReferenceError { text: shortened(text), reason };
        // Twice what the longest host, path, tag and digest would fill.
        if text.len() > MAX_REFERENCE_BYTES {
            return Err(error(format!("it has {} bytes", text.len())));
        }
        let parsed = Reference::try_from(text).map_err(|found| error(found.to_string()))?;
        let version = match (parsed.digest(), parsed.tag()) {
            (Some(digest), _) => Version::Digest(
                digest.parse().map_err(|found: DigestError| error(found.to_string()))?,
            ),
            (None, Some(tag)) => Version::Tag(tag.to_owned()),
            (None, None) => return Err(error("neither tag nor digest".into())),
        };
        Ok(ModuleRef {
            host: parsed.registry().to_ascii_lowercase(),
            repository: parsed.repository().to_owned(),
            version,
        })
    }
}

impl fmt::Display for ModuleRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = match self.version {
            Version::Tag(_) => ':',
            Version::Digest(_) => '@',
        };
        out.pad(&format!("{}/{}{separator}{}", self.host, self.repository, self.version))
    }
}

const MAX_REFERENCE_BYTES: usize = 1536;

/// A text from outside as part of a message: one short line without control characters.
pub(crate) fn shortened(text: &str) -> String {
    const LONGEST: usize = 200;
    let text = text.trim();
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(LONGEST).map(clean).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_read_as_kubernetes_reads_them() {
        let pinned = format!("localhost:5000/a/b@sha256:{HEX}");
        let both = format!("localhost:5000/a/b:v1@sha256:{HEX}");
        for (text, expected) in [
            ("digits", "docker.io/library/digits:latest"),
            ("user/digits:v1", "docker.io/user/digits:v1"),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
            ("localhost:5000/graphlet/digits:v1", "localhost:5000/graphlet/digits:v1"),
            ("LOCALHOST:5000/x", "localhost:5000/x:latest"),
            (&pinned, &pinned),
            (&both, &pinned),
        ] {
            assert_eq!(text.parse::<ModuleRef>().unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_a_reason() {
        let upper = format!("a/b@sha256:{}", HEX.to_uppercase());
        let sha512 = format!("a/b@sha512:{HEX}{HEX}");
        let long = "a".repeat(5000);
        for text in [
            "",
            " ",
            "UPPER/Case",
            "a//b",
            "a:b:c",
            "a@sha256:12",
            &upper,
            &sha512,
            &long,
            "http://host/a",
            "host/a b",
            "host/../a",
            "host/a\n",
            "-host/a",
            "host/a:",
        ] {
            let error = text.parse::<ModuleRef>().unwrap_err();
            assert!(!error.reason.is_empty(), "{text}");
            assert!(error.to_string().len() < 400, "{error}");
        }
    }

    #[test]
    fn digests_are_read_and_written_alike() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), format!("sha256:{HEX}"));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(Digest::from(claims::Digest::of(b"")), digest);
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        for wrong in ["", "sha256:", "sha512:00", HEX, &format!("sha256:{HEX}0")] {
            assert_eq!(wrong.parse::<Digest>(), Err(DigestError), "{wrong}");
        }
    }
}
