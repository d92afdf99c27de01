//! The certificate that the node serves with: signed by the cluster once somebody approves, by
//! itself until then, and exchanged without touching open connections.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tracing::{info, warn};

use super::{
    Api, IdentityError, Notice, NoticeSender,
    certificate::{CertificateError, Credential},
    client::{APPROVAL_HINT_AFTER, PendingKey, renewal, until},
    csr::{Request, signed},
};
use crate::backoff::Backoff;

/// First wait after a request that could not be put.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest one; also how soon a denied request is made again.
const RETRY_LONGEST: Duration = Duration::from_secs(5 * 60);
/// How often a person is told again that a request waits.
const REMIND_EVERY: Duration = Duration::from_secs(60 * 60);

/// What the TLS listener shows now. New connections get the newest; open ones stay.
#[derive(Debug)]
pub struct ServingCertificate(RwLock<Arc<CertifiedKey>>);

impl ServingCertificate {
    pub(super) fn new(credential: &Credential) -> Result<Arc<Self>, CertificateError> {
        Ok(Arc::new(ServingCertificate(RwLock::new(credential.certified_key()?))))
    }

    fn replace(&self, credential: &Credential) -> Result<(), CertificateError> {
        let key = credential.certified_key()?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(())
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

/// Keeps the serving certificate.
pub(super) struct ServingKeeper {
    pub(super) node_name: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) path: PathBuf,
    pub(super) pending: PendingKey,
    pub(super) notices: NoticeSender,
}

impl ServingKeeper {
    /// The certificate to start with: the one kept on disk, while it is good for these addresses,
    /// else one signed by the node itself. True when the cluster signed it.
    pub(super) fn first(&self) -> Result<(Credential, bool), CertificateError> {
        match Credential::load(&self.path) {
            Ok(Some(kept)) if self.usable(&kept) => return Ok((kept, true)),
            Ok(_) => {}
            Err(error) => warn!(
                path = %self.path.display(),
                error = &error as &dyn std::error::Error,
                "Kept serving certificate cannot be used"
            ),
        }
        Ok((Credential::self_signed(&self.node_name, &self.addresses)?, false))
    }

    fn usable(&self, credential: &Credential) -> bool {
        let leaf = credential.leaf();
        leaf.covers(&self.node_name, &self.addresses) && !leaf.expired(SystemTime::now())
    }

    /// Renews the certificate for ever.
    pub(super) async fn keep(
        self,
        first: (Credential, bool),
        api: Api,
        shown: Arc<ServingCertificate>,
    ) {
        let (mut credential, mut by_cluster) = first;
        loop {
            if by_cluster {
                until(renewal(&credential)).await;
            }
            let mut retry = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
            loop {
                let asked = self.ask(&api);
                tokio::pin!(asked);
                let answer = tokio::select! {
                    answer = &mut asked => answer,
                    // Nobody approved in time: rather one signed by the node than one run out.
                    () = until(credential.leaf().not_after) => {
                        self.sign_self(&mut credential, &shown);
                        asked.await
                    }
                };
                match answer {
                    Ok(next) => {
                        credential = next;
                        by_cluster = true;
                        break;
                    }
                    Err(error) => warn!(
                        error = &error as &dyn std::error::Error,
                        "Serving certificate is not issued yet"
                    ),
                }
                if credential.leaf().expired(SystemTime::now()) {
                    self.sign_self(&mut credential, &shown);
                }
                retry.wait().await;
            }
            if let Err(error) = shown.replace(&credential) {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "Serving certificate cannot be used"
                );
            }
        }
    }

    fn sign_self(&self, credential: &mut Credential, shown: &ServingCertificate) {
        let next = Credential::self_signed(&self.node_name, &self.addresses)
            .and_then(|next| shown.replace(&next).map(|()| next));
        match next {
            Ok(next) => {
                *credential = next;
                warn!("Serving certificate has run out; the node serves with one it signed itself");
            }
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "Serving certificate cannot be made"
                );
            }
        }
    }

    /// One request from its key to the file with the certificate.
    async fn ask(&self, api: &Api) -> Result<Credential, IdentityError> {
        let key = self.pending.get()?;
        let request = Request::serving(&self.node_name, &self.addresses, &key)?;
        let answer = signed(|| api.client(), &request);
        tokio::pin!(answer);
        let mut remind = APPROVAL_HINT_AFTER;
        let answer = loop {
            tokio::select! {
                answer = &mut answer => break answer,
                () = tokio::time::sleep(remind) => {
                    remind = REMIND_EVERY;
                    self.say_it_waits(&request);
                }
            }
        };
        let chain = match answer {
            Ok(chain) => chain,
            Err(error) => {
                if error.needs_new_key() {
                    self.pending.forget();
                }
                return Err(error.into());
            }
        };
        let credential = Credential::new(&chain, &key).and_then(|credential| {
            credential.save(&self.path)?;
            Ok(credential)
        });
        self.pending.forget();
        let credential = credential?;
        let until = chrono::DateTime::<chrono::Utc>::from(credential.leaf().not_after);
        info!(request = request.name, until = %until, "Serving certificate issued");
        let _ = self.notices.send(Notice::normal(
            "ServingCertificateIssued",
            format!("serving certificate good until {until}"),
        ));
        Ok(credential)
    }

    fn say_it_waits(&self, request: &Request) {
        let command = format!("kubectl certificate approve {}", request.name);
        warn!(
            request = request.name,
            "Serving certificate waits for approval; until then `kubectl logs` may fail: {command}"
        );
        let _ = self.notices.send(Notice::warning(
            "ServingCertificatePending",
            format!("the serving certificate waits for approval: {command}"),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeper(folder: &std::path::Path, address: [u8; 4]) -> ServingKeeper {
        ServingKeeper {
            node_name: "edge".into(),
            addresses: vec![address.into()],
            path: folder.join("serving.pem"),
            pending: PendingKey(folder.join("serving.next.key")),
            notices: tokio::sync::mpsc::unbounded_channel().0,
        }
    }

    #[test]
    fn a_kept_certificate_is_used_only_for_the_addresses_it_names() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let here = keeper(folder.path(), [10, 0, 0, 1]);
        let (first, by_cluster) = here.first().expect("a certificate");
        assert!(!by_cluster, "nothing was kept yet");
        first.save(&here.path).expect("written");
        assert!(here.first().expect("a certificate").1);
        let moved = keeper(folder.path(), [10, 0, 0, 2]);
        let (second, by_cluster) = moved.first().expect("a certificate");
        assert!(!by_cluster, "the node has moved");
        assert!(second.leaf().covers("edge", &moved.addresses));
        std::fs::write(&here.path, "rubbish").expect("written");
        assert!(!here.first().expect("a certificate").1);
    }

    #[test]
    fn a_replaced_certificate_is_what_the_next_connection_sees() {
        let make = || Credential::self_signed("edge", &[]).expect("a certificate");
        let (first, second) = (make(), make());
        let shown = ServingCertificate::new(&first).expect("usable");
        let before = shown.current();
        shown.replace(&second).expect("usable");
        assert_ne!(before.cert, shown.current().cert);
        assert_eq!(
            before.cert,
            first.certified_key().expect("usable").cert,
            "open ones keep theirs"
        );
    }
}
