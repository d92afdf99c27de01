//! Who the node is: its client certificate and the one it serves with, from the first bootstrap
//! token to every renewal.

mod api;
mod certificate;
mod client;
mod cluster;
mod csr;
mod files;
mod serving;
mod token;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::mpsc;
use tracing::{info, warn};

pub use api::Api;
pub use certificate::{CertificateError, Credential, Leaf};
pub use cluster::{BootstrapSource, Cluster, ClusterError};
pub use csr::RequestError;
pub use serving::ServingCertificate;
pub use token::{TokenError, TokenOptions, bootstrap_kubeconfig};

pub use files::write_private;

pub(crate) use files::create_private_dir;

use client::{ClientCertificate, PendingKey};
use serving::ServingKeeper;

/// The node has no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Neither a kept certificate nor anything to ask for one with.
    #[error("there is no certificate for this node, and nothing to ask for one with")]
    NoCredentials,
    /// The certificate ran out, and there is nothing to ask for another with.
    #[error(
        "the node's certificate has run out, and there is no bootstrap kubeconfig to ask for another with"
    )]
    Expired,
    /// The signer signed something else.
    #[error("the certificate that was issued is for `{name}`")]
    Foreign {
        /// Its common name.
        name: String,
    },
    /// A folder could not be made.
    #[error("cannot make {path}")]
    Folder {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate, key or their file.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A kubeconfig.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A certificate request.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Something about the node's identity that people see as an event of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whether somebody has to do something.
    pub warning: bool,
    /// One word.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
}

impl Notice {
    pub(crate) fn normal(reason: &'static str, message: String) -> Self {
        Notice { warning: false, reason, message }
    }

    pub(crate) fn warning(reason: &'static str, message: String) -> Self {
        Notice { warning: true, reason, message }
    }
}

type NoticeSender = mpsc::UnboundedSender<Notice>;

/// Where the node's identity is kept and comes from.
#[derive(Debug, Clone)]
pub struct IdentityOptions {
    /// The node's name.
    pub node_name: String,
    /// Folder of keys and certificates.
    pub pki_dir: PathBuf,
    /// The node's kubeconfig: read when it is there, written by the bootstrap.
    pub kubeconfig: PathBuf,
    /// What to ask for the first certificate with.
    pub bootstrap: Option<BootstrapSource>,
}

/// A node's place in a cluster, found before it has a certificate.
pub struct Membership {
    options: IdentityOptions,
    cluster: Cluster,
    kept: Option<Credential>,
}

impl Membership {
    /// Reads which cluster the node belongs to, and the certificate it may have kept.
    ///
    /// A kept identity is for one cluster: when the bootstrap kubeconfig names another, the node
    /// joins that one.
    ///
    /// # Errors
    /// [`IdentityError`] when nothing names a cluster, or what does cannot be read.
    pub async fn find(options: IdentityOptions) -> Result<Self, IdentityError> {
        create_private_dir(&options.pki_dir).map_err(|source| IdentityError::Folder {
            path: options.pki_dir.display().to_string(),
            source,
        })?;
        let kept = cluster::load(&options.kubeconfig).await?;
        let named = match &options.bootstrap {
            Some(source) => match source.cluster().await {
                Ok(cluster) => Some(cluster),
                // The token's file may be gone once it has done its work.
                Err(error) if kept.is_some() => {
                    info!(
                        error = &error as &dyn std::error::Error,
                        "Bootstrap kubeconfig cannot be read; the kept identity is used"
                    );
                    None
                }
                Err(error) => return Err(error.into()),
            },
            None => None,
        };
        let (cluster, kept) = match (kept, named) {
            (Some((cluster, kept)), None) => (cluster, kept),
            (Some((cluster, kept)), Some(named)) if cluster.is(&named) => (cluster, kept),
            (Some((cluster, _)), Some(named)) => {
                warn!(
                    kept = cluster.server(),
                    named = named.server(),
                    "The kept identity is of another cluster; the node joins the one that the bootstrap kubeconfig names"
                );
                (named, None)
            }
            (None, Some(named)) => (named, None),
            (None, None) => return Err(IdentityError::NoCredentials),
        };
        Ok(Membership { options, cluster, kept })
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Gets the node's certificate, for as long as that takes, and starts to keep it and the
    /// serving certificate fresh. `addresses` are those under which the node serves; `notices`
    /// gets what people should see as events of the node.
    ///
    /// # Errors
    /// [`IdentityError`] when there is nothing to ask with.
    pub async fn join(
        self,
        addresses: Vec<IpAddr>,
        notices: mpsc::UnboundedSender<Notice>,
    ) -> Result<Identity, IdentityError> {
        let Membership { options, cluster, kept } = self;
        let in_pki = |name: &str| options.pki_dir.join(name);
        let client = ClientCertificate {
            node_name: options.node_name.clone(),
            cluster: cluster.clone(),
            bootstrap: options.bootstrap.clone(),
            kubeconfig: options.kubeconfig.clone(),
            path: in_pki("client.pem"),
            pending: PendingKey(in_pki("client.next.key")),
            notices: notices.clone(),
        };
        let credential = match newest(&client, kept, &in_pki("client.pem")) {
            Some(credential) => credential,
            None => client.bootstrap().await?,
        };
        let (source, api) = Api::new(&options.node_name, cluster.client(&credential)?);
        let keeper = ServingKeeper {
            node_name: options.node_name,
            addresses,
            path: in_pki("serving.pem"),
            pending: PendingKey(in_pki("serving.next.key")),
            notices,
        };
        let first = keeper.first()?;
        let serving = ServingCertificate::new(&first.0)?;
        tokio::spawn(client.keep(credential, api.clone(), source));
        tokio::spawn(keeper.keep(first, api.clone(), Arc::clone(&serving)));
        Ok(Identity { api, serving, cluster })
    }
}

/// The kept certificate that is good for longest: a kubeconfig that somebody else wrote holds the
/// first one, our own file the renewed one.
fn newest(
    client: &ClientCertificate,
    from_kubeconfig: Option<Credential>,
    file: &Path,
) -> Option<Credential> {
    // A file of another cluster stands beside no kubeconfig of this one.
    let from_file = from_kubeconfig.as_ref().and_then(|_| match Credential::load(file) {
        Ok(credential) => credential,
        Err(error) => {
            warn!(
                error = &error as &dyn std::error::Error,
                "Kept client certificate cannot be used"
            );
            None
        }
    });
    from_kubeconfig
        .into_iter()
        .chain(from_file)
        .filter(|credential| client.usable(credential))
        .max_by_key(|credential| credential.leaf().not_after)
}

/// A node with its certificates, which are kept fresh from here on.
#[derive(Debug)]
pub struct Identity {
    /// The way to the API server.
    pub api: Api,
    /// What the node serves with.
    pub serving: Arc<ServingCertificate>,
    /// The cluster it belongs to.
    pub cluster: Cluster,
}

/// What a listener shows for one certificate.
#[cfg(test)]
pub(crate) fn serving_certificate(
    credential: &Credential,
) -> Result<Arc<ServingCertificate>, CertificateError> {
    ServingCertificate::new(credential)
}
