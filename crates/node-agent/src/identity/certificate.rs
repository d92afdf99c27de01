//! Certificates as this node uses them: what one says, whose key it fits, how long it is good.

use std::{
    io,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    PublicKeyData as _, SanType,
};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};

use super::files::{read_if_there, write_private};

/// A certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Not PEM, or PEM of something else.
    #[error("no certificate and key in PEM form: {0}")]
    Pem(String),
    /// Not an X.509 certificate.
    #[error("malformed certificate: {0}")]
    Malformed(String),
    /// Somebody else's certificate.
    #[error("the certificate does not belong to this key")]
    OtherKey,
    /// The key or a request could not be made.
    #[error("the key cannot be used: {0}")]
    Key(String),
    /// The file could not be read or written.
    #[error("cannot read or write {path}")]
    File {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a certificate says, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// CN of the subject.
    pub common_name: String,
    /// Every O of the subject, in order.
    pub organizations: Vec<String>,
    /// DNS names among the subject's alternative names.
    pub dns_names: Vec<String>,
    /// Addresses among them.
    pub addresses: Vec<IpAddr>,
    /// First moment of validity.
    pub not_before: SystemTime,
    /// Last moment of validity.
    pub not_after: SystemTime,
    /// SubjectPublicKeyInfo, DER.
    public_key: Vec<u8>,
}

impl Leaf {
    /// Reads a certificate.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`].
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let malformed =
            |text: &dyn std::fmt::Display| CertificateError::Malformed(text.to_string());
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der)
            .map_err(|error| malformed(&error))?;
        let text = |name: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            name.as_str().map(str::to_owned).map_err(|error| malformed(&error))
        };
        let subject = certificate.subject();
        let mut dns_names = Vec::new();
        let mut addresses = Vec::new();
        let names = certificate.subject_alternative_name().map_err(|error| malformed(&error))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
                _ => {}
            }
        }
        let validity = certificate.validity();
        Ok(Leaf {
            common_name: subject
                .iter_common_name()
                .next()
                .map(text)
                .transpose()?
                .unwrap_or_default(),
            organizations: subject.iter_organization().map(text).collect::<Result<_, _>>()?,
            dns_names,
            addresses,
            not_before: moment(validity.not_before.timestamp()),
            not_after: moment(validity.not_after.timestamp()),
            public_key: certificate.public_key().raw.to_vec(),
        })
    }

    /// Whether it is past its last moment.
    pub fn expired(&self, now: SystemTime) -> bool {
        now > self.not_after
    }

    /// Whether it names all of these.
    pub fn covers(&self, dns_name: &str, addresses: &[IpAddr]) -> bool {
        self.dns_names.iter().any(|name| name == dns_name)
            && addresses.iter().all(|address| self.addresses.contains(address))
    }
}

fn moment(seconds: i64) -> SystemTime {
    match u64::try_from(seconds) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds),
        Err(_) => UNIX_EPOCH,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// A certificate chain together with its key.
#[derive(Clone)]
pub struct Credential {
    chain_pem: String,
    key_pem: String,
    leaf: Leaf,
    received: SystemTime,
}

impl Credential {
    /// Joins what a signer returned with the key it was asked for.
    ///
    /// # Errors
    /// [`CertificateError`] when it is no certificate, or one for another key.
    pub fn new(chain_pem: &str, key: &KeyPair) -> Result<Self, CertificateError> {
        let first = CertificateDer::from_pem_slice(chain_pem.as_bytes())
            .map_err(|error| CertificateError::Pem(error.to_string()))?;
        let leaf = Leaf::parse(&first)?;
        if leaf.public_key != key.subject_public_key_info() {
            return Err(CertificateError::OtherKey);
        }
        Ok(Credential {
            chain_pem: chain_pem.to_owned(),
            key_pem: key.serialize_pem(),
            leaf,
            received: SystemTime::now(),
        })
    }

    /// Reads a file with both in it; `None` when it is not there.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn load(path: &Path) -> Result<Option<Self>, CertificateError> {
        let error = |source| file_error(path, source);
        let Some(text) = read_if_there(path).map_err(error)? else { return Ok(None) };
        let mut credential = Self::from_pem(&text, &text)?;
        credential.received = path
            .metadata()
            .and_then(|facts| facts.modified())
            .map_err(error)?
            .min(credential.received);
        Ok(Some(credential))
    }

    /// Reads certificates and a key from PEM texts, which may be one.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Self, CertificateError> {
        let pem = |error: rustls::pki_types::pem::Error| CertificateError::Pem(error.to_string());
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(pem)?;
        let key =
            KeyPair::try_from(&key).map_err(|error| CertificateError::Key(error.to_string()))?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(pem)?;
        let chain_pem: String = chain.iter().map(|der| certificate_pem(der)).collect();
        Self::new(&chain_pem, &key)
    }

    /// Writes both into one file that only its owner can read.
    ///
    /// # Errors
    /// [`CertificateError::File`].
    pub fn save(&self, path: &Path) -> Result<(), CertificateError> {
        write_private(path, format!("{}{}", self.chain_pem, self.key_pem).as_bytes())
            .map_err(|source| file_error(path, source))
    }

    /// What the certificate says.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// The moment when that part of the certificate's life here is over. Life begins when the
    /// node got it: signers set the first moment of validity minutes earlier, for clocks that are
    /// slow, and of a short-lived certificate that is most of it.
    pub(super) fn moment_at(&self, part_of_life: f64) -> SystemTime {
        let begin = self
            .received
            .clamp(self.leaf.not_before, self.leaf.not_after.max(self.leaf.not_before));
        let life = self.leaf.not_after.duration_since(begin).unwrap_or_default();
        begin + life.mul_f64(part_of_life.clamp(0.0, 1.0))
    }

    /// The chain, PEM.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The private key, PEM. It goes into files of mode 0600 and TLS configurations only.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The form that a TLS listener takes.
    ///
    /// # Errors
    /// [`CertificateError::Key`] when the key is of a kind that TLS here does not know.
    pub fn certified_key(&self) -> Result<Arc<CertifiedKey>, CertificateError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(self.chain_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| CertificateError::Pem(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|error| CertificateError::Pem(error.to_string()))?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key)
            .map_err(|error| CertificateError::Key(error.to_string()))?;
        Ok(Arc::new(CertifiedKey::new(chain, key)))
    }

    /// A certificate that the node signs itself, for as long as nobody else does.
    ///
    /// # Errors
    /// [`CertificateError::Key`].
    pub fn self_signed(name: &str, addresses: &[IpAddr]) -> Result<Self, CertificateError> {
        let key = new_key()?;
        let mut params = request_params(&[], name, name, addresses)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(60 * 60)).into();
        params.not_after = (now + Duration::from_secs(365 * 24 * 60 * 60)).into();
        let certificate =
            params.self_signed(&key).map_err(|error| CertificateError::Key(error.to_string()))?;
        Self::new(&certificate.pem(), &key)
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("leaf", &self.leaf).finish_non_exhaustive()
    }
}

/// A new key: ECDSA on P-256, as kubelets use.
///
/// # Errors
/// [`CertificateError::Key`] without entropy.
pub(super) fn new_key() -> Result<KeyPair, CertificateError> {
    KeyPair::generate().map_err(|error| CertificateError::Key(error.to_string()))
}

/// Subject and alternative names of a certificate or a request for one. Without a DNS name and
/// addresses there are no alternative names at all.
pub(super) fn request_params(
    organizations: &[&str],
    common_name: &str,
    dns_name: &str,
    addresses: &[IpAddr],
) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    for organization in organizations {
        name.push(DnType::OrganizationName, *organization);
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    if !dns_name.is_empty() {
        let dns_name = dns_name
            .try_into()
            .map_err(|error: rcgen::Error| CertificateError::Key(error.to_string()))?;
        params.subject_alt_names.push(SanType::DnsName(dns_name));
    }
    params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
    Ok(params)
}

/// One certificate as PEM.
pub(super) fn certificate_pem(der: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let encoded = STANDARD.encode(der);
    for line in encoded.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

fn file_error(path: &Path, source: io::Error) -> CertificateError {
    CertificateError::File { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge() -> Credential {
        Credential::self_signed("edge-wasm", &[IpAddr::from([10, 1, 2, 3])]).expect("a certificate")
    }

    #[test]
    fn a_self_signed_certificate_names_the_node_and_its_address() {
        let leaf = edge().leaf().clone();
        assert_eq!(leaf.common_name, "edge-wasm");
        assert!(leaf.covers("edge-wasm", &[IpAddr::from([10, 1, 2, 3])]));
        assert!(!leaf.covers("edge-wasm", &[IpAddr::from([10, 1, 2, 4])]));
        assert!(!leaf.covers("other", &[]));
        assert!(!leaf.expired(SystemTime::now()));
        assert!(leaf.expired(SystemTime::now() + Duration::from_secs(366 * 24 * 60 * 60)));
    }

    #[test]
    fn a_saved_credential_is_read_back_equal() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("serving.pem");
        assert!(Credential::load(&path).expect("nothing there").is_none());
        let credential = edge();
        credential.save(&path).expect("written");
        let again = Credential::load(&path).expect("readable").expect("there");
        assert_eq!(again.leaf(), credential.leaf());
        assert_eq!(again.chain_pem(), credential.chain_pem());
        assert_eq!(again.key_pem(), credential.key_pem());
        again.certified_key().expect("fit for TLS");
    }

    #[test]
    fn a_certificate_for_another_key_is_refused() {
        let error = Credential::new(edge().chain_pem(), &new_key().expect("a key"));
        assert!(matches!(error, Err(CertificateError::OtherKey)), "{error:?}");
    }

    #[test]
    fn half_a_file_is_an_error_and_not_a_credential() {
        let credential = edge();
        for text in
            ["", "-----BEGIN CERTIFICATE-----\n", credential.chain_pem(), credential.key_pem()]
        {
            assert!(Credential::from_pem(text, text).is_err(), "text: {text:?}");
        }
        assert!(Leaf::parse(b"no certificate").is_err());
    }

    #[test]
    fn part_of_a_life_is_measured_from_when_the_node_got_it() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let mut credential = edge();
        // Valid from five minutes before it was signed, for 90 s.
        (credential.leaf.not_before, credential.leaf.not_after) = (at(700), at(1090));
        credential.received = at(1000);
        assert_eq!(credential.moment_at(0.7), at(1063));
        assert_eq!(credential.moment_at(2.0), at(1090));
        credential.received = at(5);
        assert_eq!(credential.moment_at(0.0), at(700), "a clock that was wrong");
        credential.received = at(5000);
        assert_eq!(credential.moment_at(0.5), at(1090));
        credential.leaf.not_after = UNIX_EPOCH;
        assert_eq!(credential.moment_at(0.5), at(700), "a life that ends before it begins");
    }
}
