//! Which cluster: the API server's address and CA, and credentials in kubeconfig files.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube::{
    Client, Config,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};

use super::{
    api,
    certificate::{Credential, certificate_pem},
    files::write_private,
    token::TokenError,
};

/// A kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// Not a kubeconfig, or a part is missing.
    #[error("{path} is no usable kubeconfig")]
    Kubeconfig {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// The pod's ServiceAccount cannot be used.
    #[error("the ServiceAccount of this pod cannot be used")]
    InCluster(#[source] kube::config::InClusterError),
    /// It says not to check whom it talks to.
    #[error("{path} skips the check of the API server's certificate, which a node must not")]
    Insecure {
        /// Which file.
        path: String,
    },
    /// Certificates or keys in it cannot be used.
    #[error("{what} cannot be used to reach the API server")]
    Client {
        /// Which credentials.
        what: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The file could not be written.
    #[error("cannot write {path}")]
    Write {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The cluster a node belongs to: how to reach its API server and how to know it.
#[derive(Debug, Clone)]
pub struct Cluster {
    config: Config,
}

impl Cluster {
    /// The cluster that an admin's kubeconfig names, where kubectl would find one, and the way in
    /// with the admin's credentials.
    pub(super) async fn of_admin(path: Option<&Path>) -> Result<(Self, Config), TokenError> {
        let config = match path {
            Some(path) => read_kubeconfig(path).await?,
            None => Config::from_kubeconfig(&KubeConfigOptions::default())
                .await
                .map_err(|source| TokenError::NoKubeconfig(Box::new(source)))?,
        };
        Ok((Cluster { config: config.clone() }, config))
    }

    /// The API server's URL.
    pub fn server(&self) -> String {
        self.config.cluster_url.to_string()
    }

    /// Host and port of the API server.
    pub fn host_and_port(&self) -> (String, u16) {
        let url = &self.config.cluster_url;
        let default = if url.scheme_str() == Some("http") { 80 } else { 443 };
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        (host.to_owned(), url.port_u16().unwrap_or(default))
    }

    /// The cluster's CA certificates, DER. Client certificates they signed are believed.
    pub fn ca_certificates(&self) -> &[Vec<u8>] {
        self.config.root_cert.as_deref().unwrap_or_default()
    }

    /// The CA certificates as PEM.
    pub(super) fn ca_pem(&self) -> String {
        self.ca_certificates().iter().map(|der| certificate_pem(der)).collect()
    }

    /// Whether both mean the same API server and believe the same CA.
    pub(super) fn is(&self, other: &Cluster) -> bool {
        self.config.cluster_url == other.config.cluster_url
            && self.config.root_cert == other.config.root_cert
    }

    /// A client with the node's certificate.
    pub(super) fn client(&self, credential: &Credential) -> Result<Client, ClusterError> {
        let mut config = self.config.clone();
        config.auth_info = AuthInfo {
            client_certificate_data: Some(STANDARD.encode(credential.chain_pem())),
            client_key_data: Some(STANDARD.encode(credential.key_pem()).into()),
            ..AuthInfo::default()
        };
        api::client(config).map_err(|source| ClusterError::Client {
            what: "the node's certificate".into(),
            source: Box::new(source),
        })
    }

    /// The kubeconfig that names this cluster and takes the certificate from `credential`, a file
    /// that is exchanged at each renewal.
    pub(super) fn write_kubeconfig(
        &self,
        path: &Path,
        user: &str,
        credential: &Path,
    ) -> Result<(), ClusterError> {
        let credential = credential.display().to_string();
        let text = self.kubeconfig(
            user,
            &[("client-certificate", &credential), ("client-key", &credential)],
            &self.server(),
        );
        write_private(path, text.as_bytes())
            .map_err(|source| ClusterError::Write { path: path.display().to_string(), source })
    }

    /// A kubeconfig text. Values are written as JSON strings, which YAML reads as they are.
    pub(super) fn kubeconfig(
        &self,
        user: &str,
        credentials: &[(&str, &str)],
        server: &str,
    ) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut text = format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: cluster\n  cluster:\n    server: {}\n",
            quoted(server)
        );
        if !self.ca_certificates().is_empty() {
            let ca = STANDARD.encode(self.ca_pem());
            text.push_str(&format!("    certificate-authority-data: {ca}\n"));
        }
        if let Some(name) = &self.config.tls_server_name {
            text.push_str(&format!("    tls-server-name: {}\n", quoted(name)));
        }
        text.push_str(&format!("users:\n- name: {}\n  user:\n", quoted(user)));
        for (name, value) in credentials {
            text.push_str(&format!("    {name}: {}\n", quoted(value)));
        }
        text.push_str(&format!(
            "contexts:\n- name: context\n  context:\n    cluster: cluster\n    user: {}\ncurrent-context: context\n",
            quoted(user)
        ));
        text
    }
}

/// Where the right to ask for a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootstrapSource {
    /// A kubeconfig with a bootstrap token, or any other credentials that may ask.
    Kubeconfig(PathBuf),
    /// The ServiceAccount of the pod that the agent runs in.
    ServiceAccount,
}

impl BootstrapSource {
    /// The cluster it names. Read again at each use, as a new token may stand there.
    pub(super) async fn cluster(&self) -> Result<Cluster, ClusterError> {
        self.config().await.map(|config| Cluster { config })
    }

    /// A client with its credentials.
    pub(super) async fn client(&self) -> Result<Client, ClusterError> {
        let config = self.config().await?;
        api::client(config).map_err(|source| ClusterError::Client {
            what: self.to_string(),
            source: Box::new(source),
        })
    }

    async fn config(&self) -> Result<Config, ClusterError> {
        match self {
            BootstrapSource::Kubeconfig(path) => read_kubeconfig(path).await,
            BootstrapSource::ServiceAccount => {
                let mut config = Config::incluster().map_err(ClusterError::InCluster)?;
                // The node keeps the CA with its kubeconfig, which outlives this pod.
                config.root_cert_file = None;
                Ok(config)
            }
        }
    }
}

impl fmt::Display for BootstrapSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootstrapSource::Kubeconfig(path) => write!(f, "{}", path.display()),
            BootstrapSource::ServiceAccount => f.write_str("the pod's ServiceAccount"),
        }
    }
}

/// A kubeconfig that is there already: its cluster, and its client certificate if it has one.
pub(super) async fn load(
    path: &Path,
) -> Result<Option<(Cluster, Option<Credential>)>, ClusterError> {
    if !path.exists() {
        return Ok(None);
    }
    let config = read_kubeconfig(path).await?;
    // Its serialised form, as the key itself is not shown by its type.
    let auth = serde_json::to_value(&config.auth_info).unwrap_or_default();
    let pem = |data: &str, file: &str| {
        let bytes = match (auth[data].as_str(), auth[file].as_str()) {
            (Some(data), _) => STANDARD.decode(data).ok()?,
            (None, Some(file)) => std::fs::read(file).ok()?,
            (None, None) => return None,
        };
        String::from_utf8(bytes).ok()
    };
    let chain = pem("client-certificate-data", "client-certificate");
    let key = pem("client-key-data", "client-key");
    // What cannot be read is as good as absent: a new one is asked for.
    let credential =
        chain.zip(key).and_then(|(chain, key)| Credential::from_pem(&chain, &key).ok());
    Ok(Some((Cluster { config }, credential)))
}

async fn read_kubeconfig(path: &Path) -> Result<Config, ClusterError> {
    let error = |source| ClusterError::Kubeconfig {
        path: path.display().to_string(),
        source: Box::new(source),
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(error)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(error)?;
    if config.accept_invalid_certs {
        return Err(ClusterError::Insecure { path: path.display().to_string() });
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn cluster(folder: &Path, text: &str) -> Result<Cluster, ClusterError> {
        let path = folder.join("kubeconfig");
        std::fs::write(&path, text).expect("written");
        BootstrapSource::Kubeconfig(path).cluster().await
    }

    fn text(server: &str, more: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: {server}\n{more}\
             users:\n- name: u\n  user:\n    token: secret\n\
             contexts:\n- name: x\n  context: {{cluster: c, user: u}}\ncurrent-context: x\n"
        )
    }

    #[tokio::test]
    async fn the_address_of_the_api_server_is_found_in_every_spelling() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (server, host, port) in [
            ("https://10.0.0.1:6443", "10.0.0.1", 6443),
            ("https://api.example", "api.example", 443),
            ("https://[fd00::1]:6443", "fd00::1", 6443),
        ] {
            let cluster = cluster(folder.path(), &text(server, "")).await.expect("a cluster");
            assert_eq!(cluster.host_and_port(), (host.to_owned(), port));
        }
    }

    #[tokio::test]
    async fn a_kubeconfig_that_skips_the_check_of_the_server_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let text = text("https://10.0.0.1", "    insecure-skip-tls-verify: true\n");
        let error = cluster(folder.path(), &text).await.expect_err("refused");
        assert!(matches!(error, ClusterError::Insecure { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_written_kubeconfig_is_read_back_with_cluster_and_certificate() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let credential = Credential::self_signed("edge", &[]).expect("a certificate");
        let ca = STANDARD.encode(credential.chain_pem());
        let more = format!("    certificate-authority-data: {ca}\n");
        let cluster =
            cluster(folder.path(), &text("https://10.0.0.1:6443", &more)).await.expect("a cluster");
        let (path, pem) = (folder.path().join("node.kubeconfig"), folder.path().join("client.pem"));
        credential.save(&pem).expect("written");
        cluster.write_kubeconfig(&path, "system:node:edge", &pem).expect("written");
        let (again, kept) = load(&path).await.expect("readable").expect("there");
        assert!(again.is(&cluster));
        assert_eq!(kept.expect("a certificate").leaf(), credential.leaf());
        std::fs::remove_file(&pem).expect("removed");
        let (_, kept) = load(&path).await.expect("readable").expect("there");
        assert!(kept.is_none(), "without the file there is no certificate, and no error");
        assert!(load(&folder.path().join("none")).await.expect("nothing there").is_none());
    }
}
