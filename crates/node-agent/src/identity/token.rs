//! Bootstrap tokens: `graphlet node bootstrap` makes one that is good for an hour, and a
//! kubeconfig that carries it to a new node.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use chrono::{DateTime, SecondsFormat, Utc};
use k8s_openapi::api::{core::v1::Secret, rbac::v1::ClusterRoleBinding};
use kube::{
    Api,
    api::{ListParams, ObjectMeta, PostParams},
};

use super::{api, cluster::Cluster, cluster::ClusterError};

/// Namespace where the API server looks for tokens.
const NAMESPACE: &str = "kube-system";
/// The cluster role that lets a token's group ask for certificates.
const BOOTSTRAPPER: &str = "system:node-bootstrapper";

/// A token could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The admin's kubeconfig.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// No kubeconfig anywhere.
    #[error("there is no admin's kubeconfig")]
    NoKubeconfig(#[source] Box<kube::config::KubeconfigError>),
    /// No randomness.
    #[error("the system gives no random bytes")]
    Entropy,
    /// The Secret was not created.
    #[error("the token's Secret cannot be created in kube-system")]
    Create(#[source] Box<kube::Error>),
}

/// What kind of token.
#[derive(Debug, Clone)]
pub struct TokenOptions {
    /// The admin's kubeconfig; `None` looks where kubectl does.
    pub kubeconfig: Option<PathBuf>,
    /// Group that the token puts its bearer in; starts with `system:bootstrappers:`.
    pub group: String,
    /// How long it is good.
    pub lifetime: Duration,
    /// The API server's URL as the node reaches it; `None` takes the admin's.
    pub server: Option<String>,
}

/// A kubeconfig for one new node.
pub struct BootstrapKubeconfig {
    /// The file's text. It holds the token: for files of mode 0600 and the terminal only.
    pub text: String,
    /// Name of the Secret, without which the token is nothing.
    pub secret_name: String,
    /// When the token ends.
    pub expires: DateTime<Utc>,
    /// False when no binding lets the group ask for certificates; `None` when that cannot be seen.
    pub group_may_ask: Option<bool>,
}

/// Makes a token in the cluster and a kubeconfig with it.
///
/// # Errors
/// [`TokenError`].
pub async fn bootstrap_kubeconfig(
    options: &TokenOptions,
) -> Result<BootstrapKubeconfig, TokenError> {
    let (cluster, config) = Cluster::of_admin(options.kubeconfig.as_deref()).await?;
    let client = api::client(config).map_err(|source| ClusterError::Client {
        what: "the admin's kubeconfig".into(),
        source: Box::new(source),
    })?;
    let (id, secret) = (random_text(6)?, random_text(16)?);
    let expires = Utc::now() + options.lifetime;
    let secret_name = format!("bootstrap-token-{id}");
    Api::<Secret>::namespaced(client.clone(), NAMESPACE)
        .create(
            &PostParams::default(),
            &token_secret(&secret_name, &id, &secret, &options.group, expires),
        )
        .await
        .map_err(|source| TokenError::Create(Box::new(source)))?;
    let server = options.server.clone().unwrap_or_else(|| cluster.server());
    let token = format!("{id}.{secret}");
    Ok(BootstrapKubeconfig {
        text: cluster.kubeconfig("node-bootstrap", &[("token", &token)], &server),
        secret_name,
        expires,
        group_may_ask: group_may_ask(client, &options.group).await,
    })
}

fn token_secret(name: &str, id: &str, secret: &str, group: &str, expires: DateTime<Utc>) -> Secret {
    let data = [
        ("token-id", id),
        ("token-secret", secret),
        ("expiration", &expires.to_rfc3339_opts(SecondsFormat::Secs, true)),
        ("usage-bootstrap-authentication", "true"),
        ("usage-bootstrap-signing", "true"),
        ("auth-extra-groups", group),
        ("description", "made by `graphlet node bootstrap` for one new node"),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some(NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        type_: Some("bootstrap.kubernetes.io/token".into()),
        string_data: Some(
            data.into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect::<BTreeMap<_, _>>(),
        ),
        ..Secret::default()
    }
}

/// Whether some binding gives the group what it needs; a help for the person, not a check.
async fn group_may_ask(client: kube::Client, group: &str) -> Option<bool> {
    let bindings =
        Api::<ClusterRoleBinding>::all(client).list(&ListParams::default()).await.ok()?;
    // Tokens put their bearer into `system:bootstrappers` as well.
    let named = |name: &str| name == group || name == "system:bootstrappers";
    Some(bindings.iter().any(|binding| {
        binding.role_ref.name == BOOTSTRAPPER
            && binding
                .subjects
                .iter()
                .flatten()
                .any(|subject| subject.kind == "Group" && named(&subject.name))
    }))
}

/// Random lower-case letters and digits, all equally likely.
fn random_text(length: usize) -> Result<String, TokenError> {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|_| TokenError::Entropy)?;
        // 252 = 7 * 36: larger bytes would make some letters likelier.
        let letters = bytes.iter().filter(|byte| **byte < 252);
        for byte in letters.take(length - text.len()) {
            text.push(char::from(LETTERS[usize::from(byte % 36)]));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_the_form_that_the_api_server_reads() {
        let id = random_text(6).expect("random");
        let secret = random_text(16).expect("random");
        assert_ne!(secret, random_text(16).expect("random"));
        for (text, length) in [(&id, 6), (&secret, 16)] {
            assert_eq!(text.len(), length);
            assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
        }
        let expires = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let object =
            token_secret("bootstrap-token-x", &id, &secret, "system:bootstrappers:nodes", expires);
        assert_eq!(object.type_.as_deref(), Some("bootstrap.kubernetes.io/token"));
        let data = object.string_data.expect("data");
        assert_eq!(data["expiration"], "2027-01-15T08:00:00Z");
        assert_eq!(data["token-secret"], secret);
        assert_eq!(data["auth-extra-groups"], "system:bootstrappers:nodes");
        assert_eq!(data["usage-bootstrap-authentication"], "true");
    }
}
