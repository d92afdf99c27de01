//! Who we are to a registry: docker's configuration files, as users and Kubernetes write them.

use std::{collections::BTreeMap, fmt};

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use data_encoding::HEXLOWER;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::options::split_port;

/// Credentials for any number of registries; empty means anonymous everywhere.
#[derive(Clone, Default)]
pub struct Credentials {
    entries: Vec<Entry>,
}

/// What opens one registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    /// User and password, for the registry or for the realm it names.
    Basic { user: String, password: Zeroizing<String> },
    /// A refresh token, exchanged at the realm (`identitytoken`).
    Identity { user: String, token: Zeroizing<String> },
    /// A token for the registry itself (`registrytoken`).
    Bearer { token: Zeroizing<String> },
}

#[derive(Clone)]
struct Entry {
    pattern: Pattern,
    login: Login,
}

/// A docker configuration cannot be used. Says nothing of what is secret in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// Not the JSON that docker writes.
    #[error("not a docker configuration: {reason}")]
    Malformed {
        /// Where, and what was expected; no part of the text itself.
        reason: String,
    },
    /// An entry's `auth` is not `base64(user:password)`.
    #[error("the entry for `{registry}` has an `auth` that is not base64 of USER:PASSWORD")]
    Auth {
        /// Whose entry.
        registry: String,
    },
    /// A credential helper would be needed.
    #[error("{registry} needs the credential helper docker-credential-{helper}: {reason}")]
    Helper {
        /// Which registry.
        registry: String,
        /// Its name.
        helper: String,
        /// Why it does not serve.
        reason: String,
    },
}

impl Credentials {
    /// No credentials.
    pub fn anonymous() -> Self {
        Credentials::default()
    }

    /// A user and a password for one registry.
    pub fn basic(registry: &str, user: &str, password: &str) -> Self {
        let login =
            Login::Basic { user: user.into(), password: Zeroizing::new(password.to_owned()) };
        Credentials { entries: vec![Entry { pattern: Pattern::new(registry), login }] }
    }

    /// From `config.json` of docker or podman, or a Secret of type
    /// `kubernetes.io/dockerconfigjson`. Helpers that it names are not run.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn from_docker_config(json: &[u8]) -> Result<Self, CredentialsError> {
        Self::from_auths(parse::<DockerConfig>(json)?.auths)
    }

    /// From the older `.dockercfg`, or a Secret of type `kubernetes.io/dockercfg`.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn from_dockercfg(json: &[u8]) -> Result<Self, CredentialsError> {
        Self::from_auths(parse(json)?)
    }

    fn from_auths(auths: BTreeMap<String, AuthEntry>) -> Result<Self, CredentialsError> {
        let mut entries = Vec::new();
        for (registry, entry) in auths {
            // Docker leaves empty entries where a helper keeps the secret.
            if let Some(login) = entry.login(&registry)? {
                entries.push(Entry { pattern: Pattern::new(&registry), login });
            }
        }
        Ok(Credentials { entries })
    }

    /// Adds another set; where both fit equally well, the earlier one is tried first.
    pub fn merge(&mut self, other: Credentials) {
        self.entries.extend(other.entries);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A login that is tried before all others of its registry.
    pub(crate) fn put_first(&mut self, registry: &str, login: Login) {
        self.entries.insert(0, Entry { pattern: Pattern::new(registry), login });
    }

    /// Those that fit a repository, the closest first.
    pub(crate) fn for_repository(&self, host: &str, repository: &str) -> Vec<Login> {
        let mut found: Vec<_> =
            self.entries.iter().filter(|entry| entry.pattern.fits(host, repository)).collect();
        found.sort_by_key(|entry| std::cmp::Reverse(entry.pattern.closeness()));
        let mut logins: Vec<Login> = Vec::new();
        for entry in found {
            if !logins.contains(&entry.login) {
                logins.push(entry.login.clone());
            }
        }
        logins
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.entries.iter().map(|entry| &entry.pattern)).finish()
    }
}

impl Login {
    /// How a message names it.
    pub(crate) fn who(&self) -> &str {
        match self {
            Login::Basic { user, .. } | Login::Identity { user, .. } if !user.is_empty() => user,
            _ => "this token",
        }
    }

    /// Tells logins apart without keeping them: a hash with the store's salt.
    pub(crate) fn fingerprint(&self, salt: &[u8]) -> String {
        let (tag, user, secret) = match self {
            Login::Basic { user, password } => ("basic", user.as_str(), password),
            Login::Identity { user, token } => ("identity", user.as_str(), token),
            Login::Bearer { token } => ("bearer", "", token),
        };
        let mut hasher = Sha256::new();
        for part in [salt, tag.as_bytes(), user.as_bytes(), secret.as_bytes()] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        HEXLOWER.encode(&hasher.finalize())
    }
}

/// Which repositories an entry is for: host (with `*` within a label), port and leading path, as
/// the kubelet reads them.
#[derive(Clone, PartialEq, Eq)]
struct Pattern {
    host: String,
    port: Option<u16>,
    path: String,
}

impl Pattern {
    fn new(key: &str) -> Self {
        let key = key.trim();
        let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        // `https://index.docker.io/v1/` is what docker writes for its hub.
        let path = match path.trim_end_matches('/') {
            "v1" | "v2" => "",
            path => path,
        };
        let (host, port) = split_port(host);
        Pattern { host: canonical(host), port, path: path.to_owned() }
    }

    fn fits(&self, host: &str, repository: &str) -> bool {
        let (name, port) = split_port(host);
        let name = canonical(name);
        let mut wanted = self.host.split('.');
        let mut labels = name.split('.');
        let labels_fit = loop {
            match (wanted.next(), labels.next()) {
                (None, None) => break true,
                (Some(pattern), Some(label)) if glob(pattern, label) => {}
                _ => break false,
            }
        };
        let path_fits = self.path.is_empty()
            || repository
                .strip_prefix(&self.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        labels_fit && self.port == port && path_fits
    }

    /// Longer paths first, then hosts without a star.
    fn closeness(&self) -> (usize, bool) {
        (self.path.len(), !self.host.contains('*'))
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.host)?;
        self.port.map_or(Ok(()), |port| write!(out, ":{port}"))?;
        if self.path.is_empty() { Ok(()) } else { write!(out, "/{}", self.path) }
    }
}

/// Docker's hub has several names.
fn canonical(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".into(),
        _ => host,
    }
}

/// `*` stands for any characters of one label.
fn glob(pattern: &str, label: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = label.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// What of docker's configuration concerns logins.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DockerConfig {
    auths: BTreeMap<String, AuthEntry>,
    pub(crate) cred_helpers: BTreeMap<String, String>,
    pub(crate) creds_store: Option<String>,
}

impl DockerConfig {
    /// Whether there is an entry for a registry, filled or not.
    pub(crate) fn mentions(&self, registry: &str) -> bool {
        self.auths.keys().any(|key| Pattern::new(key).fits(registry, ""))
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthEntry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl AuthEntry {
    fn login(self, registry: &str) -> Result<Option<Login>, CredentialsError> {
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (mut user, mut password) = (filled(self.username), filled(self.password));
        if let Some(auth) = filled(self.auth) {
            let wrong = || CredentialsError::Auth { registry: registry.to_owned() };
            let bytes = Zeroizing::new(BASE64.decode(auth.trim()).map_err(|_| wrong())?);
            let text = std::str::from_utf8(&bytes).map_err(|_| wrong())?;
            let (name, secret) = text.split_once(':').ok_or_else(wrong)?;
            user.get_or_insert_with(|| name.to_owned());
            // Docker pads the password with NUL bytes here and there.
            password.get_or_insert_with(|| secret.trim_end_matches('\0').to_owned());
        }
        if let Some(token) = filled(self.registrytoken) {
            return Ok(Some(Login::Bearer { token: token.into() }));
        }
        if let Some(token) = filled(self.identitytoken) {
            let user = user.unwrap_or_default();
            return Ok(Some(Login::Identity { user, token: token.into() }));
        }
        Ok(user.map(|user| Login::Basic { user, password: password.unwrap_or_default().into() }))
    }
}

pub(crate) fn parse<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, CredentialsError> {
    serde_json::from_slice(json).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        let what = match error.classify() {
            serde_json::error::Category::Eof => "it ends too early",
            serde_json::error::Category::Syntax => "it is no JSON",
            _ => "another type is expected",
        };
        CredentialsError::Malformed { reason: format!("{what} ({place})") }
    })
}

/// Docker writes padding, others leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    fn users(credentials: &Credentials, host: &str, repository: &str) -> Vec<String> {
        let logins = credentials.for_repository(host, repository);
        logins.iter().map(|login| login.who().to_owned()).collect()
    }

    #[test]
    fn every_way_of_writing_a_login_is_read() {
        // `dXNlcjpwYTpzcw==` is user:pa:ss.
        let json = br#"{"auths":{
            "a.example":{"auth":"dXNlcjpwYTpzcw=="},
            "b.example:5000":{"username":"bob","password":"x"},
            "https://index.docker.io/v1/":{"auth":"dXNlcjpwYTpzcw"},
            "c.example":{"identitytoken":"t","username":"carol"},
            "d.example":{"registrytoken":"t"},
            "helped.example":{}
        },"HttpHeaders":{}}"#;
        let credentials = Credentials::from_docker_config(json).unwrap();
        let password = Zeroizing::new("pa:ss".to_owned());
        let expected = Login::Basic { user: "user".into(), password };
        assert!(credentials.for_repository("a.example", "x") == [expected.clone()]);
        assert!(credentials.for_repository("docker.io", "library/x") == [expected]);
        assert_eq!(users(&credentials, "b.example:5000", "x"), ["bob"]);
        assert_eq!(users(&credentials, "b.example", "x"), [""; 0]);
        assert_eq!(users(&credentials, "c.example", "x"), ["carol"]);
        assert_eq!(users(&credentials, "d.example", "x"), ["this token"]);
        assert_eq!(users(&credentials, "helped.example", "x"), [""; 0]);
        let old = br#"{"a.example":{"auth":"dXNlcjpwYTpzcw==","email":"a@b"}}"#;
        assert_eq!(users(&Credentials::from_dockercfg(old).unwrap(), "a.example", "x"), ["user"]);
    }

    #[test]
    fn entries_fit_as_the_kubelet_reads_them() {
        for (key, host, repository, fits) in [
            ("*.kubernetes.io", "abc.kubernetes.io", "x", true),
            ("*.kubernetes.io", "kubernetes.io", "x", false),
            ("*.*.kubernetes.io", "a.b.kubernetes.io", "x", true),
            ("*.kubernetes.io", "a.b.kubernetes.io", "x", false),
            ("prefix.*.io", "prefix.kubernetes.io", "x", true),
            ("*-good.kubernetes.io", "prefix-good.kubernetes.io", "x", true),
            ("a.example/path", "a.example", "path/x", true),
            ("a.example/path", "a.example", "pathological/x", false),
            ("a.example/path", "a.example", "x", false),
            ("a.example:80", "a.example", "x", false),
            ("https://a.example:80/v2/", "a.example:80", "x", true),
            ("A.Example", "a.example", "x", true),
            ("*", "localhost", "x", true),
            ("a*a", "a", "x", false),
        ] {
            let credentials = Credentials::basic(key, "u", "p");
            assert_eq!(!users(&credentials, host, repository).is_empty(), fits, "{key} {host}");
        }
    }

    #[test]
    fn the_closest_entry_comes_first_and_the_others_follow() {
        let mut credentials = Credentials::basic("*.example", "any", "p");
        for (key, user) in [("a.example", "host"), ("a.example/team", "team"), ("a.example", "b")] {
            credentials.merge(Credentials::basic(key, user, "p"));
        }
        credentials.merge(Credentials::basic("a.example", "host", "p"));
        assert_eq!(users(&credentials, "a.example", "team/x"), ["team", "host", "b", "any"]);
        assert_eq!(users(&credentials, "a.example", "x"), ["host", "b", "any"]);
    }

    #[test]
    fn what_is_malformed_is_refused_and_no_secret_is_repeated() {
        for json in [
            "",
            "3",
            "{\"auths\":3}",
            "{\"auths\":{\"a\":{\"auth\":\"SECRET%\"}}}",
            "{\"auths\":{\"a\":{\"auth\":\"U0VDUkVU\"}}}",
            "{\"auths\":{\"a\":{\"auth\":\"SECRET\"",
            "{\"auths\":{\"a\":\"SECRET\"}}",
        ] {
            let error = Credentials::from_docker_config(json.as_bytes()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("SECRET"), "{error}");
        }
        let shown = format!("{:?}", Credentials::basic("a.example/b", "u", "SECRET"));
        assert_eq!(shown, "[a.example/b]");
    }

    #[test]
    fn fingerprints_tell_logins_apart() {
        let login = |user: &str, password: &str| {
            Credentials::basic("a", user, password).for_repository("a", "x")[0].clone()
        };
        let print = login("ab", "c").fingerprint(b"salt");
        assert_eq!(print, login("ab", "c").fingerprint(b"salt"));
        for other in [login("a", "bc"), login("ab", "d")] {
            assert_ne!(print, other.fingerprint(b"salt"));
        }
        assert_ne!(print, login("ab", "c").fingerprint(b"pepper"));
    }
}
