//! The certificate that the node shows the API server: asked for with a bootstrap token, then
//! renewed with itself before it ends.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use kube::Client;
use rcgen::KeyPair;
use tracing::{info, warn};

use super::{
    IdentityError, Notice, NoticeSender,
    api::ApiSource,
    certificate::{CertificateError, Credential, new_key},
    cluster::{BootstrapSource, Cluster},
    csr::{NODES_GROUP, Request, RequestError, USER_PREFIX, signed},
    files::{read_if_there, remove_if_there, write_private},
};
use crate::backoff::{Backoff, random_fraction};

/// First wait after a request that could not be put.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest one. A bootstrap token is good for an hour: it must not run out while we wait.
const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// After this wait a person is told that somebody has to approve.
pub(super) const APPROVAL_HINT_AFTER: Duration = Duration::from_secs(3);
/// Longest sleep before the clock is looked at again: it may jump.
const CLOCK_LOOK: Duration = Duration::from_secs(5);
/// Part of a certificate's life after which it is renewed, and how far nodes spread.
const RENEW_AFTER: f64 = 0.7;
const RENEW_SPREAD: f64 = 0.2;

/// When a certificate is to be renewed: between 70 and 90 % of its life, at a moment of its own.
pub(super) fn renewal(credential: &Credential) -> SystemTime {
    credential.moment_at(RENEW_AFTER + RENEW_SPREAD * random_fraction())
}

/// Sleeps until the wall clock shows `moment`, also when it is set meanwhile.
pub(super) async fn until(moment: SystemTime) {
    while let Ok(left) = moment.duration_since(SystemTime::now()) {
        tokio::time::sleep(left.min(CLOCK_LOOK).max(Duration::from_millis(10))).await;
    }
}

/// A key on disk whose certificate is being waited for, so that a restart asks for the same.
#[derive(Debug, Clone)]
pub(super) struct PendingKey(pub(super) PathBuf);

impl PendingKey {
    /// The key that was kept, or a new one that now is.
    pub(super) fn get(&self) -> Result<KeyPair, CertificateError> {
        let file = |source| CertificateError::File { path: self.0.display().to_string(), source };
        if let Some(text) = read_if_there(&self.0).map_err(file)?
            && let Ok(key) = KeyPair::from_pem(&text)
        {
            return Ok(key);
        }
        let key = new_key()?;
        write_private(&self.0, key.serialize_pem().as_bytes()).map_err(file)?;
        Ok(key)
    }

    /// Forgets it: its certificate is there, or will never be.
    pub(super) fn forget(&self) {
        if let Err(error) = remove_if_there(&self.0) {
            warn!(path = %self.0.display(), error = &error as &dyn std::error::Error, "Key of a certificate request cannot be removed");
        }
    }
}

/// The node's client certificate and the way to its next one.
pub(super) struct ClientCertificate {
    pub(super) node_name: String,
    pub(super) cluster: Cluster,
    pub(super) bootstrap: Option<BootstrapSource>,
    pub(super) kubeconfig: PathBuf,
    pub(super) path: PathBuf,
    pub(super) pending: PendingKey,
    pub(super) notices: NoticeSender,
}

impl ClientCertificate {
    /// Whether a certificate is this node's and still good.
    pub(super) fn usable(&self, credential: &Credential) -> bool {
        let leaf = credential.leaf();
        leaf.common_name == format!("{USER_PREFIX}{}", self.node_name)
            && leaf.organizations == [NODES_GROUP]
            && !leaf.expired(SystemTime::now())
    }

    /// Gets the first certificate, however long that takes.
    ///
    /// # Errors
    /// [`IdentityError`] when there is nothing to ask with, or nowhere to write.
    pub(super) async fn bootstrap(&self) -> Result<Credential, IdentityError> {
        let Some(source) = &self.bootstrap else { return Err(IdentityError::NoCredentials) };
        info!(node = self.node_name, server = self.cluster.server(), from = %source, "Asking for the node's certificate");
        let mut retry = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
        loop {
            match source.client().await {
                Ok(client) => match self.ask(|| client.clone()).await {
                    Ok(credential) => return Ok(credential),
                    Err(error) => report(&error),
                },
                Err(error) => warn!(
                    error = &error as &dyn std::error::Error,
                    "Credentials for the first certificate cannot be used"
                ),
            }
            retry.wait().await;
        }
    }

    /// Renews the certificate for ever.
    pub(super) async fn keep(self, mut credential: Credential, api: super::Api, source: ApiSource) {
        loop {
            until(renewal(&credential)).await;
            let mut retry = Backoff::new(RETRY_FIRST, RETRY_LONGEST);
            credential = loop {
                match self.renewed(&credential, &api).await {
                    Ok(next) => break next,
                    Err(error) => {
                        warn!(
                            error = &error as &dyn std::error::Error,
                            expired = credential.leaf().expired(SystemTime::now()),
                            "Client certificate is not renewed yet"
                        );
                    }
                }
                retry.wait().await;
            };
            match self.cluster.client(&credential) {
                Ok(client) => source.replace(client),
                Err(error) => warn!(
                    error = &error as &dyn std::error::Error,
                    "Renewed client certificate cannot be used"
                ),
            }
        }
    }

    /// Asks for the next certificate with the present one; once that has run out, with what the
    /// node was bootstrapped with.
    async fn renewed(
        &self,
        credential: &Credential,
        api: &super::Api,
    ) -> Result<Credential, IdentityError> {
        if !credential.leaf().expired(SystemTime::now()) {
            return self.ask(|| api.client()).await;
        }
        let Some(source) = &self.bootstrap else { return Err(IdentityError::Expired) };
        let client = source.client().await?;
        self.ask(|| client.clone()).await
    }

    /// One request from its key to the file with the certificate.
    async fn ask(&self, client: impl Fn() -> Client) -> Result<Credential, IdentityError> {
        let key = self.pending.get()?;
        let request = Request::client(&self.node_name, &key)?;
        let answer = signed(client, &request);
        tokio::pin!(answer);
        let answer = tokio::select! {
            answer = &mut answer => answer,
            () = tokio::time::sleep(APPROVAL_HINT_AFTER) => {
                info!(request = request.name, "Certificate request waits; approve it with: kubectl certificate approve {}", request.name);
                answer.await
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
        let credential = match Credential::new(&chain, &key) {
            Ok(credential) if self.usable(&credential) => credential,
            Ok(credential) => {
                self.pending.forget();
                return Err(IdentityError::Foreign { name: credential.leaf().common_name.clone() });
            }
            Err(error) => {
                self.pending.forget();
                return Err(error.into());
            }
        };
        credential.save(&self.path)?;
        let user = format!("{USER_PREFIX}{}", self.node_name);
        self.cluster.write_kubeconfig(&self.kubeconfig, &user, &self.path)?;
        self.pending.forget();
        let until = chrono::DateTime::<chrono::Utc>::from(credential.leaf().not_after);
        info!(request = request.name, until = %until, "Client certificate issued");
        let _ = self.notices.send(Notice::normal(
            "ClientCertificateIssued",
            format!("client certificate good until {until}"),
        ));
        Ok(credential)
    }
}

/// Says why there is no certificate yet.
fn report(error: &IdentityError) {
    match error {
        IdentityError::Request(RequestError::Refused(_)) => warn!(
            error = error as &dyn std::error::Error,
            "Certificate request refused; the token may have run out (make another: graphlet node bootstrap), or its group may not make requests"
        ),
        _ => warn!(error = error as &dyn std::error::Error, "No certificate for the node yet"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_pending_key_is_the_same_until_it_is_forgotten() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pending = PendingKey(folder.path().join("client.next.key"));
        let text = || pending.get().expect("a key").serialize_pem();
        let first = text();
        assert_eq!(text(), first, "a restarted agent asks for the same key");
        pending.forget();
        let second = text();
        assert_ne!(second, first);
        std::fs::write(&pending.0, "half a k").expect("written");
        assert_ne!(text(), second, "what cannot be read is replaced");
    }

    #[test]
    fn renewals_fall_between_70_and_90_percent_of_life_and_not_on_one_moment() {
        let credential = Credential::self_signed("edge", &[]).expect("a certificate");
        let moments: Vec<_> = (0..32).map(|_| renewal(&credential)).collect();
        let (first, last) = (credential.moment_at(0.7), credential.moment_at(0.9));
        assert!(moments.iter().all(|moment| (first..=last).contains(moment)));
        assert!(moments.windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[tokio::test]
    async fn a_moment_in_the_past_is_not_waited_for() {
        tokio::time::timeout(Duration::from_secs(60), until(UNIX_EPOCH)).await.expect("at once");
    }
}
