//! Registries as a client sees them: what a reference means, and the module behind it.

use std::io::SeekFrom;

use reqwest::{Response, StatusCode, header::CONTENT_RANGE};
use sha2::{Digest as _, Sha256};
use tokio::{
    fs::File,
    io::{AsyncSeekExt as _, AsyncWriteExt as _},
};

use crate::{
    artifact::{self, Layer, Manifest},
    credentials::{Credentials, Login},
    error::{PullError, RegistryError},
    options::RegistryOptions,
    reference::{Digest, ModuleRef, Version},
    session::{Action, Endpoint, Session},
    transport::{self, Transport},
};

/// The way to registries; clones share connections.
#[derive(Clone)]
pub struct Registry {
    pub(crate) transport: Transport,
}

/// What a reference means, and the conversation in which that was learnt.
pub(crate) struct Resolved {
    pub(crate) session: Session,
    pub(crate) manifest_digest: Digest,
    pub(crate) layer: Layer,
    reference: String,
}

impl Registry {
    /// A way to registries. Nothing is opened yet.
    pub fn new(options: RegistryOptions) -> Self {
        Registry { transport: Transport::new(options) }
    }

    /// Asks what a reference means: mirrors first, then the registry itself, with each login
    /// that fits.
    pub(crate) async fn resolve(
        &self,
        reference: &ModuleRef,
        credentials: &Credentials,
    ) -> Result<Resolved, PullError> {
        for mirror in &self.transport.options().mirrors {
            if mirror.host != reference.host() {
                continue;
            }
            match self.resolve_at(Endpoint::mirror(mirror), reference, credentials).await {
                Ok(resolved) => return Ok(resolved),
                Err(error) => {
                    tracing::warn!(
                        mirror = %mirror.url, %reference, error = %chain(&error),
                        "Mirror does not serve, asking the registry itself"
                    );
                }
            }
        }
        let endpoint = Endpoint::registry(&self.transport, reference.host())?;
        self.resolve_at(endpoint, reference, credentials).await
    }

    async fn resolve_at(
        &self,
        endpoint: Endpoint,
        reference: &ModuleRef,
        credentials: &Credentials,
    ) -> Result<Resolved, PullError> {
        let repository = reference.repository();
        let mut logins = credentials.for_repository(&endpoint.host, repository).into_iter();
        let mut login: Option<Login> = logins.next();
        loop {
            let session =
                Session::new(&self.transport, endpoint.clone(), repository, login, Action::Pull);
            match resolve_with(session, reference).await {
                Err(PullError::Registry(error @ RegistryError::Unauthorized { .. })) => {
                    login = match logins.next() {
                        Some(next) => Some(next),
                        None => return Err(error.into()),
                    };
                }
                other => return other,
            }
        }
    }
}

async fn resolve_with(mut session: Session, reference: &ModuleRef) -> Result<Resolved, PullError> {
    let shown = reference.to_string();
    let mut version = reference.version().clone();
    let mut manifest_digest = None;
    // A manifest, or an index that leads to one.
    for _ in 0..2 {
        let (bytes, digest) = fetch_manifest(&mut session, &version, &shown).await?;
        // An index is what the reference names; what it leads to may not be moved under it.
        let named = *manifest_digest.get_or_insert(digest);
        let wrong = |found| PullError::WrongMediaType { reference: shown.clone(), found };
        match artifact::read(&bytes).map_err(wrong)? {
            Manifest::Module(layer) => {
                return Ok(Resolved { session, manifest_digest: named, layer, reference: shown });
            }
            Manifest::Index(digest) => version = Version::Digest(digest),
        }
    }
    let found = "an index of an index".into();
    Err(PullError::WrongMediaType { reference: shown, found })
}

async fn fetch_manifest(
    session: &mut Session,
    version: &Version,
    shown: &str,
) -> Result<(bytes::Bytes, Digest), PullError> {
    let response = session.manifest(&version.to_string()).await?;
    if transport::is_html(&response) {
        return Err(session.not_a_registry("a web page".into()).into());
    }
    let claimed = response.headers().get(CONTENT_DIGEST).cloned();
    let host = session.endpoint.host.clone();
    let bytes =
        transport::read(session.transport(), &host, response, "manifest", MANIFEST_BYTES).await?;
    let found = Digest::of(&bytes);
    let expected = match version {
        Version::Digest(digest) => Some(*digest),
        Version::Tag(_) => claimed.and_then(|digest| digest.to_str().ok()?.parse().ok()),
    };
    match expected {
        Some(expected) if expected != found => Err(PullError::WrongDigest {
            what: "manifest",
            reference: shown.to_owned(),
            expected,
            found,
        }),
        _ => Ok((bytes, found)),
    }
}

impl Resolved {
    /// Fetches the module into an empty file, going on where a broken connection stopped. What
    /// stands in the file afterwards has the size and the digest of the manifest.
    pub(crate) async fn download(
        &mut self,
        file: &mut File,
        progress: impl Fn(u64),
    ) -> Result<(), PullError> {
        let mut received = Received { file, hasher: Sha256::new(), bytes: 0 };
        let options = self.session.transport().options();
        let (attempts, first_pause) = (options.attempts, options.pause);
        let (mut failures, mut pause) = (0, first_pause);
        while received.bytes < self.layer.size {
            let before = received.bytes;
            let outcome = self.receive(&mut received, &progress).await;
            let error = match outcome {
                Ok(()) if received.bytes == self.layer.size => break,
                Ok(()) => self.wrong_size(received.bytes),
                Err(error) => error,
            };
            if received.bytes > before {
                (failures, pause) = (0, first_pause);
            }
            failures += 1;
            let broken = match &error {
                PullError::WrongSize { found, expected, .. } => found < expected,
                PullError::Registry(error) => {
                    error.is_transient() || matches!(error, RegistryError::Timeout { .. })
                }
                _ => false,
            };
            // Without progress the registry gives no more than this; with it, the deadline of
            // the pull bounds what a drip of bytes can do.
            if !broken || failures >= attempts {
                return Err(error);
            }
            tracing::debug!(
                reference = %self.reference, received = received.bytes, error = %chain(&error),
                "Going on with a broken download"
            );
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2);
        }
        received.file.flush().await.map_err(PullError::storage("a partial download"))?;
        let found = Digest::finish(received.hasher);
        if found == self.layer.digest {
            return Ok(());
        }
        Err(PullError::WrongDigest {
            what: "module",
            reference: self.reference.clone(),
            expected: self.layer.digest,
            found,
        })
    }

    /// One request's worth of bytes.
    async fn receive(
        &mut self,
        received: &mut Received<'_>,
        progress: &impl Fn(u64),
    ) -> Result<(), PullError> {
        let digest = self.layer.digest.to_string();
        let mut response = self.session.blob(&digest, received.bytes).await?;
        if received.bytes > 0 && !goes_on_at(&response, received.bytes) {
            received.start_again().await?;
        }
        let host = self.session.endpoint.host.clone();
        loop {
            let chunk = response.chunk().await;
            let chunk = chunk.map_err(|error| self.session.transport().error(&host, &error))?;
            let Some(chunk) = chunk else { return Ok(()) };
            let total = received.bytes + chunk.len() as u64;
            if total > self.layer.size {
                return Err(self.wrong_size(total));
            }
            received.add(&chunk).await?;
            progress(received.bytes);
        }
    }

    fn wrong_size(&self, found: u64) -> PullError {
        let reference = self.reference.clone();
        PullError::WrongSize { reference, expected: self.layer.size, found }
    }
}

/// The part of a module that is here.
struct Received<'a> {
    file: &'a mut File,
    hasher: Sha256,
    bytes: u64,
}

impl Received<'_> {
    async fn add(&mut self, chunk: &[u8]) -> Result<(), PullError> {
        self.file.write_all(chunk).await.map_err(PullError::storage("a partial download"))?;
        self.hasher.update(chunk);
        self.bytes += chunk.len() as u64;
        Ok(())
    }

    async fn start_again(&mut self) -> Result<(), PullError> {
        let rewound = async {
            self.file.flush().await?;
            self.file.seek(SeekFrom::Start(0)).await?;
            self.file.set_len(0).await
        };
        rewound.await.map_err(PullError::storage("a partial download"))?;
        (self.hasher, self.bytes) = (Sha256::new(), 0);
        Ok(())
    }
}

/// Whether an answer begins where we asked it to.
fn goes_on_at(response: &Response, offset: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

/// An error with its causes, for a log line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// The header that names a manifest's digest.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// The distribution specification's advice for manifests.
const MANIFEST_BYTES: u64 = 4 << 20;
