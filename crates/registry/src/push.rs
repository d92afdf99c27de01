//! Modules on their way to a registry.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use claims::{Claims, Sections};
use futures_util::stream;
use oci_client::{
    Client,
    client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    errors::{OciDistributionError, OciErrorCode},
    manifest::OCI_IMAGE_MEDIA_TYPE,
};
use reqwest::header::HeaderValue;
use tokio::sync::watch;

use crate::{
    artifact::{self, About, Form, Layer},
    client::Registry,
    credentials::{Credentials, Login},
    error::{PushError, RegistryError},
    options::Authority,
    reference::{Digest, ModuleRef, Version, shortened},
    session::{Action, Endpoint, Session},
    transport,
};

/// How a module is pushed.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// As which artifact.
    pub form: Form,
    /// The file's name, for tools that write modules to files.
    pub title: Option<String>,
    /// When it was made, RFC 3339. Without it pushes of one module are the same for ever.
    pub created: Option<String>,
}

/// What was pushed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Pushed {
    /// The tag that names it now.
    pub tag: ModuleRef,
    /// The reference that cannot be moved: what to write into a manifest.
    pub pinned: ModuleRef,
    /// Of the module file.
    pub digest: Digest,
    /// Who signed it and for which actor, as its token says; `None` for an unsigned module.
    pub claims: Option<Claims>,
    /// Whether the registry had the module already.
    pub was_there: bool,
}

impl Registry {
    /// Pushes a module. `progress` gets the bytes sent and their total.
    ///
    /// # Errors
    /// [`PushError`]; nothing gets a tag then.
    pub async fn push(
        &self,
        module: Bytes,
        reference: &str,
        credentials: &Credentials,
        options: &PushOptions,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Pushed, PushError> {
        let reference: ModuleRef = reference.parse()?;
        if let Version::Digest(_) = reference.version() {
            return Err(PushError::Pinned { reference: reference.to_string() });
        }
        for section in Sections::of(&module).map_err(PushError::NotAModule)? {
            section.map_err(PushError::NotAModule)?;
        }
        let claims = claims::authentic_claims(&module).ok();
        let layer = Layer { digest: Digest::of(&module), size: module.len() as u64 };
        let about = About {
            title: options.title.clone(),
            created: options.created.clone(),
            annotations: claims.as_ref().map(annotations).unwrap_or_default(),
        };
        let artifact = artifact::write(options.form, &layer, &about).map_err(|error| {
            let found = format!("cannot write the manifest: {error}");
            RegistryError::NotARegistry { host: reference.host().to_owned(), found }
        })?;
        let manifest_digest = Digest::of(&artifact.manifest);

        let upload = Upload::open(self, &reference, credentials).await?;
        let was_there = upload.blob(module, layer.digest, progress).await?;
        let config_digest = Digest::of(&artifact.config);
        upload.blob(artifact.config.into(), config_digest, &|_, _| {}).await?;
        upload.manifest(artifact.manifest.into(), manifest_digest).await?;
        let pinned = reference.pinned(manifest_digest);
        Ok(Pushed { tag: reference, pinned, digest: layer.digest, claims, was_there })
    }
}

fn annotations(claims: &Claims) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([
        ("dev.graphlet.issuer".to_owned(), claims.issuer.to_string()),
        ("dev.graphlet.subject".to_owned(), claims.subject.to_string()),
    ]);
    if let Some(version) = &claims.version {
        annotations.insert("org.opencontainers.image.version".into(), version.clone());
    }
    annotations
}

/// `oci-client`, logged in for one repository.
struct Upload {
    registry: Registry,
    client: Client,
    session: Session,
    reference: ModuleRef,
}

impl Upload {
    /// Tries the logins that fit; with none, anonymously.
    async fn open(
        registry: &Registry,
        reference: &ModuleRef,
        credentials: &Credentials,
    ) -> Result<Self, RegistryError> {
        let transport = &registry.transport;
        let (host, repository) = (reference.host(), reference.repository());
        let mut logins = credentials.for_repository(host, repository).into_iter();
        let mut login: Option<Login> = logins.next();
        loop {
            let endpoint = Endpoint::registry(transport, host)?;
            let mut session = Session::new(transport, endpoint, repository, login, Action::Push);
            match session.authenticate().await {
                Ok(auth) => {
                    let client = oci_client(registry, &session)?;
                    let registry_name = reference.to_oci();
                    client.store_auth_if_needed(registry_name.resolve_registry(), &auth).await;
                    let (registry, reference) = (registry.clone(), reference.clone());
                    return Ok(Upload { registry, client, session, reference });
                }
                Err(error @ RegistryError::Unauthorized { .. }) => {
                    login = match logins.next() {
                        Some(next) => Some(next),
                        None => return Err(error),
                    };
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Uploads a blob unless it is there; returns whether it was.
    async fn blob(
        &self,
        bytes: Bytes,
        digest: Digest,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<bool, RegistryError> {
        let (total, digest) = (bytes.len() as u64, digest.to_string());
        let there = {
            let digest = digest.clone();
            self.call(move |client, image| {
                let digest = digest.clone();
                async move { client.blob_exists(&image, &digest).await }
            })
        };
        if there.await? {
            progress(total, total);
            return Ok(true);
        }
        let (sent, mut seen) = watch::channel(0);
        let sent = Arc::new(sent);
        let upload = self.call(move |client, image| {
            let (bytes, digest, sent) = (bytes.clone(), digest.clone(), sent.clone());
            async move {
                let chunks = stream::unfold((bytes, 0), move |(mut rest, done)| {
                    let sent = sent.clone();
                    async move {
                        if rest.is_empty() {
                            return None;
                        }
                        let chunk = rest.split_to(CHUNK_BYTES.min(rest.len()));
                        let done = done + chunk.len() as u64;
                        sent.send_replace(done);
                        Some((Ok(chunk), (rest, done)))
                    }
                });
                client.push_blob_stream(&image, chunks, &digest, Some(total)).await
            }
        });
        let mut upload = std::pin::pin!(upload);
        loop {
            tokio::select! {
                biased;
                done = &mut upload => {
                    done?;
                    progress(total, total);
                    return Ok(false);
                }
                Ok(()) = seen.changed() => progress(*seen.borrow_and_update(), total),
            }
        }
    }

    async fn manifest(&self, bytes: Bytes, digest: Digest) -> Result<(), PushError> {
        let location = self
            .call(move |client, image| {
                let bytes = bytes.clone();
                async move {
                    let kind = HeaderValue::from_static(OCI_IMAGE_MEDIA_TYPE);
                    client.push_manifest_raw(&image, bytes, kind).await
                }
            })
            .await?;
        // Registries name what they have stored by its digest.
        match location.rsplit('/').next().filter(|name| name.starts_with("sha256:")) {
            Some(found) if found != digest.to_string() => Err(PushError::WrongDigest {
                host: self.reference.host().to_owned(),
                expected: digest,
                found: shortened(found),
            }),
            _ => Ok(()),
        }
    }

    /// One operation, tried again when the registry fails. It runs as a task of its own:
    /// `oci-client` panics on some malformed answers, and that must stay there.
    async fn call<T, F>(
        &self,
        operation: impl Fn(Client, oci_client::Reference) -> F,
    ) -> Result<T, RegistryError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, OciDistributionError>> + Send + 'static,
    {
        let options = self.registry.transport.options();
        let (mut pause, mut attempt) = (options.pause, 0);
        loop {
            attempt += 1;
            let task = tokio::spawn(operation(self.client.clone(), self.reference.to_oci()));
            let mut task = AbortOnDrop(task);
            let error = match (&mut task.0).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => self.error(error),
                Err(_) => self.session.not_a_registry("a malformed answer to an upload".into()),
            };
            if attempt >= options.attempts || !error.is_transient() {
                return Err(error);
            }
            tracing::debug!(reference = %self.reference, attempt, %error, "Trying again");
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2);
        }
    }

    fn error(&self, error: OciDistributionError) -> RegistryError {
        let host = &self.session.endpoint.host;
        let wanted = format!("repository {}", self.reference.repository());
        let found = match error {
            OciDistributionError::RequestError(error) => {
                match error.status().map(|status| status.as_u16()) {
                    Some(status) => transport::classify(host, status, false, b""),
                    None => self.registry.transport.error(host, &error),
                }
            }
            OciDistributionError::UnauthorizedError { .. } => {
                transport::classify(host, 401, false, b"")
            }
            OciDistributionError::AuthenticationFailure(message) => {
                transport::classify(host, 401, false, message.as_bytes())
            }
            OciDistributionError::ServerError { code, message, .. } => {
                let html = message.trim_start().starts_with('<');
                transport::classify(host, code, html, message.as_bytes())
            }
            OciDistributionError::RegistryError { envelope, .. } => {
                let status = match envelope.errors.first().map(|error| &error.code) {
                    Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => 401,
                    Some(
                        OciErrorCode::NameUnknown
                        | OciErrorCode::ManifestUnknown
                        | OciErrorCode::BlobUnknown
                        | OciErrorCode::NotFound,
                    ) => 404,
                    Some(OciErrorCode::Toomanyrequests) => 429,
                    _ => 400,
                };
                let body = serde_json::to_vec(&envelope).unwrap_or_default();
                transport::classify(host, status, false, &body)
            }
            other => self.session.not_a_registry(shortened(&other.to_string())),
        };
        self.session.complete(found, &wanted)
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `oci-client` with our options, for the scheme that the session found.
fn oci_client(registry: &Registry, session: &Session) -> Result<Client, RegistryError> {
    // It makes a client with the system's certificates in any case, and panics when there are
    // none; ours says so.
    let client_error = |source| RegistryError::Client { source };
    reqwest::Client::builder().build().map_err(|error| client_error(Arc::new(error)))?;
    let options = registry.transport.options();
    let config = ClientConfig {
        protocol: match session.endpoint.is_plain() {
            true => ClientProtocol::Http,
            false => ClientProtocol::Https,
        },
        use_monolithic_push: true,
        extra_root_certificates: options
            .authorities
            .iter()
            .flat_map(Authority::certificates)
            .map(|der| Certificate { encoding: CertificateEncoding::Der, data: der.to_vec() })
            .collect(),
        read_timeout: Some(options.idle_timeout),
        connect_timeout: Some(options.connect_timeout),
        user_agent: transport::USER_AGENT,
        ..ClientConfig::default()
    };
    Client::try_from(config).map_err(|error| client_error(Arc::new(error)))
}

/// How finely progress shows.
const CHUNK_BYTES: usize = 64 << 10;
