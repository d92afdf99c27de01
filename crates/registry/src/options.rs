//! How registries are reached: plain HTTP, certificate authorities, mirrors, patience.

use std::{collections::BTreeSet, net::IpAddr, str::FromStr, time::Duration};

use reqwest::Url;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// How registries are reached.
///
/// A registry on this machine (`localhost`, 127.0.0.0/8) is spoken to over plain HTTP, or TLS
/// when it wants that; every other one over TLS unless it is named in `plain_http`.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// `HOST[:PORT]` of registries without TLS.
    pub plain_http: BTreeSet<String>,
    /// Certificate authorities besides the system's.
    pub authorities: Vec<Authority>,
    /// Where to ask first.
    pub mirrors: Vec<Mirror>,
    /// Longest time to open a connection.
    pub connect_timeout: Duration,
    /// Longest silence.
    pub idle_timeout: Duration,
    /// How often one request is tried when the registry fails (5xx, a broken connection).
    pub attempts: u32,
    /// The pause before the second attempt; it doubles from one to the next.
    pub pause: Duration,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        RegistryOptions {
            plain_http: BTreeSet::new(),
            authorities: Vec::new(),
            mirrors: Vec::new(),
            // Three lost SYN packets.
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            // Rides over the restart of a registry behind a proxy: 0.3, 0.6 and 1.2 s.
            attempts: 4,
            pause: Duration::from_millis(300),
        }
    }
}

/// An option cannot be understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// No certificate authority.
    #[error("no certificate authority in PEM form: {reason}")]
    Certificate {
        /// What is wrong.
        reason: String,
    },
    /// No mirror.
    #[error("`{text}` is no mirror: {reason}")]
    Mirror {
        /// What was read.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Certificate authorities, of which there may be several in a file.
#[derive(Debug, Clone)]
pub struct Authority {
    certificates: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// The authorities in a PEM file.
    ///
    /// # Errors
    /// [`OptionError::Certificate`] when there is none, or one that cannot be read.
    pub fn from_pem(pem: &[u8]) -> Result<Self, OptionError> {
        let error = |reason: String| OptionError::Certificate { reason };
        let certificates = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|found| error(found.to_string()))?;
        if certificates.is_empty() {
            return Err(error("there is no certificate".into()));
        }
        let mut store = RootCertStore::empty();
        for certificate in &certificates {
            store.add(certificate.clone()).map_err(|found| error(found.to_string()))?;
        }
        Ok(Authority { certificates })
    }

    /// Each certificate as DER.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.certificates.iter().map(AsRef::as_ref)
    }
}

/// A registry that is asked before another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Whose modules it has.
    pub host: String,
    /// Where it is; `/v2/…` comes behind it.
    pub url: Url,
}

impl Mirror {
    /// `HOST[:PORT]` of the mirror itself, by which its credentials are found.
    pub fn address(&self) -> String {
        let name = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
    }
}

impl FromStr for Mirror {
    type Err = OptionError;

    /// Reads `HOST=URL`.
    fn from_str(text: &str) -> Result<Self, OptionError> {
        let error = |reason: &str| OptionError::Mirror { text: text.into(), reason: reason.into() };
        let (host, url) = text.split_once('=').ok_or_else(|| error("HOST=URL is wanted"))?;
        if host.is_empty() || host.contains('/') {
            return Err(error("the host before `=` has neither scheme nor path"));
        }
        let url: Url = url.parse().map_err(|_| error("what follows `=` is no URL"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(error("the URL begins with http:// or https://"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(error("the URL has neither user, password nor query"));
        }
        Ok(Mirror { host: host.to_ascii_lowercase(), url })
    }
}

/// `HOST:PORT` as two; the port is missing when it is the scheme's own.
pub(crate) fn split_port(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (host, None),
        },
        None => (host, None),
    }
}

/// Whether a host, with or without port, is this machine by its name alone.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = split_port(host).0.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_a_host_and_a_url() {
        let mirror: Mirror = "Docker.io=http://10.0.0.1:5000/hub".parse().unwrap();
        assert_eq!((mirror.host.as_str(), mirror.url.port()), ("docker.io", Some(5000)));
        for wrong in [
            "",
            "docker.io",
            "docker.io=",
            "docker.io=10.0.0.1:5000",
            "=http://a",
            "a/b=http://c",
            "a=ftp://b",
            "a=http://user@b",
            "a=http://:p@b",
            "a=http://b/?c",
            "a=file:///b",
        ] {
            assert!(wrong.parse::<Mirror>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for host in ["localhost", "LOCALHOST:5000", "127.0.0.1:5000", "127.8.8.8", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "128.0.0.1", "registry:5000", "[::2]", "127.0.0.1.nip.io"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn an_authority_is_a_certificate() {
        for wrong in [&b""[..], b"no", b"-----BEGIN CERTIFICATE-----\nAAAA\n"] {
            assert!(Authority::from_pem(wrong).is_err());
        }
    }
}
