//! Certificate signing requests (certificates.k8s.io/v1): made, and waited for until they are
//! signed or refused.

use std::{future::Future, net::IpAddr, time::Duration};

use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use rcgen::{KeyPair, PublicKeyData as _};
use sha2::{Digest as _, Sha256};
use tracing::debug;

use super::certificate::{CertificateError, request_params};
use crate::backoff::Backoff;

/// Between two looks at a request that waits for its approval.
const LOOK_FIRST: Duration = Duration::from_millis(100);
/// Approval by hand takes minutes or days: 1,000 waiting nodes then make 200 requests a second
/// at most, and a certificate of 90 s is still renewed in time.
const LOOK_LONGEST: Duration = Duration::from_secs(5);
/// One call to the API server.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Group of every node.
pub(super) const NODES_GROUP: &str = "system:nodes";
/// What precedes the node's name in its user name.
pub(super) const USER_PREFIX: &str = "system:node:";

/// Who is to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signer {
    /// The certificate that the node shows the API server.
    Client,
    /// The certificate that the node serves with.
    Serving,
}

impl Signer {
    fn name(self) -> &'static str {
        match self {
            Signer::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Signer::Serving => "kubernetes.io/kubelet-serving",
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Signer::Client => "client auth",
            Signer::Serving => "server auth",
        }
    }

    fn object_prefix(self) -> &'static str {
        match self {
            Signer::Client => "node-csr-",
            Signer::Serving => "node-serving-",
        }
    }
}

/// A request as it is put to the API server. Its name follows from its key, so that a restarted
/// agent that kept the key finds the request it made before.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) name: String,
    signer: Signer,
    pem: String,
}

impl Request {
    /// Asks for the node's client certificate: O system:nodes, CN system:node:NAME, no
    /// alternative names.
    pub(super) fn client(node_name: &str, key: &KeyPair) -> Result<Self, CertificateError> {
        Self::new(Signer::Client, node_name, "", &[], key)
    }

    /// Asks for the node's serving certificate, under its name and addresses.
    pub(super) fn serving(
        node_name: &str,
        addresses: &[IpAddr],
        key: &KeyPair,
    ) -> Result<Self, CertificateError> {
        Self::new(Signer::Serving, node_name, node_name, addresses, key)
    }

    fn new(
        signer: Signer,
        node_name: &str,
        dns_name: &str,
        addresses: &[IpAddr],
        key: &KeyPair,
    ) -> Result<Self, CertificateError> {
        let user = format!("{USER_PREFIX}{node_name}");
        let params = request_params(&[NODES_GROUP], &user, dns_name, addresses)?;
        let pem = params
            .serialize_request(key)
            .and_then(|request| request.pem())
            .map_err(|error| CertificateError::Key(error.to_string()))?;
        let mut hash = Sha256::new();
        hash.update(key.subject_public_key_info());
        for address in addresses {
            hash.update(address.to_string());
        }
        let hash: String = hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Request { name: format!("{}{hash}", signer.object_prefix()), signer, pem })
    }

    fn object(&self) -> CertificateSigningRequest {
        CertificateSigningRequest {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(self.pem.clone().into_bytes()),
                signer_name: self.signer.name().into(),
                usages: Some(vec!["digital signature".into(), self.signer.usage().into()]),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        }
    }
}

/// A request was not signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The API server cannot be asked with these credentials, or the request is not allowed.
    #[error("the API server refused the certificate request")]
    Refused(#[source] Box<kube::Error>),
    /// The API server could not be reached, or failed.
    #[error("the API server could not take the certificate request")]
    Unreachable(#[source] Box<kube::Error>),
    /// The API server did not answer in time.
    #[error("the API server did not answer the certificate request")]
    NoAnswer,
    /// Somebody said no.
    #[error("certificate request {name} was denied: {message}")]
    Denied {
        /// Its name.
        name: String,
        /// What they said.
        message: String,
    },
    /// The signer could not sign.
    #[error("certificate request {name} failed: {message}")]
    Failed {
        /// Its name.
        name: String,
        /// What it said.
        message: String,
    },
    /// The request is gone: unanswered ones are removed after a day.
    #[error("certificate request {name} is gone")]
    Gone {
        /// Its name.
        name: String,
    },
}

impl RequestError {
    /// Whether asking again with the same key is of no use.
    pub(super) fn needs_new_key(&self) -> bool {
        matches!(
            self,
            RequestError::Denied { .. } | RequestError::Failed { .. } | RequestError::Gone { .. }
        )
    }
}

/// Puts a request to the API server and waits, for days if need be, until it is signed. Returns
/// the certificate chain as PEM.
///
/// `client` is asked again before each call, as the certificate it holds may be renewed meanwhile.
/// An API server that goes away while a request waits is waited for.
pub(super) async fn signed(
    client: impl Fn() -> Client,
    request: &Request,
) -> Result<String, RequestError> {
    let requests = || Api::<CertificateSigningRequest>::all(client());
    let object = request.object();
    let params = PostParams::default();
    match in_time(requests().create(&params, &object)).await {
        Ok(_) => {}
        // A restarted agent kept its key, and its request is still there.
        Err(RequestError::Refused(error)) if is_code(&error, 409) => {}
        Err(error) => return Err(error),
    }
    let mut look = Backoff::new(LOOK_FIRST, LOOK_LONGEST);
    loop {
        match in_time(requests().get(&request.name)).await {
            Ok(object) => {
                if let Some(outcome) = outcome(&request.name, &object) {
                    return outcome;
                }
            }
            Err(RequestError::Refused(error)) if is_code(&error, 404) => {
                return Err(RequestError::Gone { name: request.name.clone() });
            }
            Err(error @ RequestError::Refused(_)) => return Err(error),
            Err(error) => debug!(
                request = request.name,
                error = &error as &dyn std::error::Error,
                "Certificate request cannot be looked at now"
            ),
        }
        look.wait().await;
    }
}

/// What became of a request; `None` while it waits.
fn outcome(name: &str, object: &CertificateSigningRequest) -> Option<Result<String, RequestError>> {
    let status = object.status.as_ref()?;
    for condition in status.conditions.iter().flatten() {
        let name = name.to_owned();
        let message = || condition.message.clone().unwrap_or_default();
        match condition.type_.as_str() {
            "Denied" => return Some(Err(RequestError::Denied { name, message: message() })),
            "Failed" => return Some(Err(RequestError::Failed { name, message: message() })),
            _ => {}
        }
    }
    let certificate = &status.certificate.as_ref()?.0;
    (!certificate.is_empty()).then(|| Ok(String::from_utf8_lossy(certificate).into_owned()))
}

/// Runs one call with a time limit and sorts its errors.
async fn in_time<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, RequestError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            let client_fault = matches!(&error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429);
            Err(if client_fault {
                RequestError::Refused(Box::new(error))
            } else {
                RequestError::Unreachable(Box::new(error))
            })
        }
        Err(_) => Err(RequestError::NoAnswer),
    }
}

fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::certificates::v1::{
        CertificateSigningRequestCondition, CertificateSigningRequestStatus,
    };
    use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer as _};

    use super::{super::certificate::new_key, *};

    fn parse(request: &Request) -> (String, usize) {
        let (_, pem) = x509_parser::pem::parse_x509_pem(request.pem.as_bytes()).expect("PEM");
        let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).expect("a request");
        let names = parsed.requested_extensions().map_or(0, Iterator::count);
        (parsed.certification_request_info.subject.to_string(), names)
    }

    #[test]
    fn a_client_request_has_the_subject_kubernetes_wants_and_no_alternative_names() {
        let key = new_key().expect("a key");
        let request = Request::client("edge-wasm", &key).expect("a request");
        assert_eq!(parse(&request), ("O=system:nodes, CN=system:node:edge-wasm".into(), 0));
        let spec = request.object().spec;
        assert_eq!(spec.signer_name, "kubernetes.io/kube-apiserver-client-kubelet");
        assert_eq!(spec.usages.expect("usages"), ["digital signature", "client auth"]);
    }

    #[test]
    fn a_serving_request_carries_its_names_and_says_so_in_its_usages() {
        let key = new_key().expect("a key");
        let addresses = [IpAddr::from([10, 1, 2, 3])];
        let request = Request::serving("edge-wasm", &addresses, &key).expect("a request");
        assert_eq!(parse(&request), ("O=system:nodes, CN=system:node:edge-wasm".into(), 1));
        let spec = request.object().spec;
        assert_eq!(spec.signer_name, "kubernetes.io/kubelet-serving");
        assert_eq!(spec.usages.expect("usages"), ["digital signature", "server auth"]);
    }

    #[test]
    fn the_same_key_asks_under_the_same_name_and_another_under_another() {
        let (key, other) = (new_key().expect("a key"), new_key().expect("a key"));
        let name = |key| Request::client("edge-wasm", key).expect("a request").name;
        assert_eq!(name(&key), name(&key));
        assert_ne!(name(&key), name(&other));
        let serving = |last| {
            let addresses = [IpAddr::from([10, 1, 2, last])];
            Request::serving("edge-wasm", &addresses, &key).expect("a request").name
        };
        assert_ne!(serving(3), serving(4), "a new address is a new request");
    }

    #[test]
    fn a_request_waits_until_it_is_signed_denied_or_failed() {
        let with = |conditions: &[&str], certificate: &str| CertificateSigningRequest {
            status: Some(CertificateSigningRequestStatus {
                certificate: Some(ByteString(certificate.into())),
                conditions: Some(
                    conditions
                        .iter()
                        .map(|kind| CertificateSigningRequestCondition {
                            type_: (*kind).into(),
                            message: Some("because".into()),
                            ..CertificateSigningRequestCondition::default()
                        })
                        .collect(),
                ),
            }),
            ..CertificateSigningRequest::default()
        };
        assert!(outcome("x", &CertificateSigningRequest::default()).is_none());
        assert!(outcome("x", &with(&[], "")).is_none());
        assert!(outcome("x", &with(&["Approved"], "")).is_none(), "approved, not signed yet");
        assert_eq!(
            outcome("x", &with(&["Approved"], "PEM")).expect("done").expect("signed"),
            "PEM"
        );
        for kind in ["Denied", "Failed"] {
            let error = outcome("x", &with(&[kind], "")).expect("done").expect_err("refused");
            assert!(error.needs_new_key() && error.to_string().contains("because"), "{error}");
        }
    }
}
