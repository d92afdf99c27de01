//! TLS of the kubelet's port: the serving certificate of the moment, and client certificates of
//! the cluster's CA for those who have one.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::CertificateDer,
    server::{ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio_rustls::TlsAcceptor;

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A CA certificate cannot be used.
    #[error("a CA certificate for clients cannot be used")]
    Authority(#[source] rustls::Error),
    /// The verifier of client certificates.
    #[error("client certificates cannot be verified")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// The rest.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// What turns connections into TLS ones. Clients without a certificate come through: they may
/// have a token.
pub(super) fn acceptor(
    serving: Arc<dyn ResolvesServerCert>,
    client_cas: &[Vec<u8>],
) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ClientCertVerifier> = if client_cas.is_empty() {
        WebPkiClientVerifier::no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for ca in client_cas {
            roots.add(CertificateDer::from(ca.as_slice())).map_err(TlsError::Authority)?;
        }
        WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(TlsError::Verifier)?
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(serving);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would carry its client certificate past the next renewal of the CA.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
