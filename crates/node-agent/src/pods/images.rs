//! The cache of modules behind the seam: fetched, verified, classified.

use std::{collections::HashMap, path::Path};

use claims::Claims;
use registry::{Credentials, Digest, ErrorKind, Progress, PullError, Store};
use tokio::sync::Mutex;
use tracing::warn;

use super::{
    kind,
    seams::{Asking, DockerConfig, Image, ImageError, ImageRequest, Images, Later, PullPolicy},
};
use crate::runtime::ModuleKind;

/// How many modules' claims are remembered; then all are forgotten and read again.
const REMEMBERED: usize = 1024;

/// The node's cache of modules.
pub(crate) struct StoreImages {
    store: Store,
    /// What is known of modules by the digest of their file. One module is read at a time: twenty
    /// pods of one large model would otherwise need the memory of twenty.
    known: Mutex<HashMap<Digest, Known>>,
}

/// What a module says of itself, and proves.
#[derive(Debug, Clone)]
struct Known {
    claims: Claims,
    kind: Option<ModuleKind>,
}

impl StoreImages {
    /// Modules out of `store`.
    pub(crate) fn new(store: Store) -> Self {
        StoreImages { store, known: Mutex::default() }
    }

    /// Reads a module, unless its digest is known.
    async fn known(&self, digest: Digest, path: &Path) -> Result<Known, ImageError> {
        let mut all = self.known.lock().await;
        if let Some(known) = all.get(&digest) {
            return Ok(known.clone());
        }
        let path = path.to_owned();
        let read = tokio::task::spawn_blocking(move || read(digest, &path)).await;
        let known = read.map_err(|error| ImageError::Unusable(error.to_string()))??;
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(digest, known.clone());
        Ok(known)
    }
}

impl Images for StoreImages {
    fn fetch(&self, request: ImageRequest, asking: Asking) -> Later<'_, Result<Image, ImageError>> {
        Box::pin(async move {
            let ImageRequest { reference, policy, credentials, trust } = request;
            let credentials = login(&credentials);
            let progress = move |_: Progress| asking();
            let policy = store_policy(policy);
            let pulled = self.store.pull(&reference, policy, &credentials, &progress).await;
            let pulled = pulled.map_err(|error| image_error(&error))?;
            let known = self.known(pulled.digest, &pulled.path).await?;
            let kind = accept(&known, &trust)?;
            Ok(Image {
                path: pulled.path,
                digest: pulled.digest.to_string(),
                image_id: pulled.reference.to_string(),
                size: pulled.size,
                kind,
                was_present: pulled.was_here,
            })
        })
    }

    fn image_id<'a>(&'a self, reference: &'a str, digest: &'a str) -> Later<'a, Option<String>> {
        Box::pin(async move {
            let anonymous = Credentials::anonymous();
            let policy = registry::PullPolicy::Never;
            let found = self.store.pull(reference, policy, &anonymous, &|_| {}).await.ok()?;
            (found.digest.to_string() == digest).then(|| found.reference.to_string())
        })
    }

    fn collect_garbage(&self, digests: Vec<String>, budget: u64) -> Later<'_, ()> {
        Box::pin(async move {
            let store = self.store.clone();
            let in_use: Vec<Digest> =
                digests.iter().filter_map(|digest| digest.parse().ok()).collect();
            let task = move || store.collect_garbage(&in_use, budget);
            match tokio::task::spawn_blocking(task).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => warn!(%error, "Unused modules were not removed"),
                Err(error) => warn!(%error, "Unused modules were not removed"),
            }
        })
    }
}

fn store_policy(policy: PullPolicy) -> registry::PullPolicy {
    match policy {
        PullPolicy::Always => registry::PullPolicy::Always,
        PullPolicy::IfNotPresent => registry::PullPolicy::IfNotPresent,
        PullPolicy::Never => registry::PullPolicy::Never,
    }
}

/// All pull secrets together, in the pod's order. One that cannot be read is left out: the pull
/// then says that it was not allowed.
fn login(configs: &[DockerConfig]) -> Credentials {
    let mut credentials = Credentials::anonymous();
    for config in configs {
        let read = match config {
            DockerConfig::Json(json) => Credentials::from_docker_config(json),
            DockerConfig::Legacy(json) => Credentials::from_dockercfg(json),
        };
        match read {
            Ok(read) => credentials.merge(read),
            Err(error) => warn!(%error, "A pull secret cannot be read"),
        }
    }
    credentials
}

fn image_error(error: &PullError) -> ImageError {
    match error.kind() {
        ErrorKind::InvalidName => ImageError::InvalidName(error.to_string()),
        ErrorKind::NeverPull => ImageError::NeverPull,
        _ => ImageError::Pull(chain(error)),
    }
}

/// An error with its causes, as one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Reads a module, checks that its claims are authentic, and looks what it is.
fn read(digest: Digest, path: &Path) -> Result<Known, ImageError> {
    let bytes = std::fs::read(path)
        .map_err(|error| ImageError::Unusable(format!("{}: {error}", path.display())))?;
    let found = claims::Digest::of(&bytes).to_string();
    if found != digest.to_string() {
        // Only root writes that file: the disk is at fault.
        return Err(ImageError::Unusable(format!("the file should be {digest} but is {found}")));
    }
    let claims = claims::authentic_claims(&bytes).map_err(|error| untrusted(&error))?;
    Ok(Known { claims, kind: kind::of_module(&bytes) })
}

/// Whether such a module may run under this policy; looked at each time, because time, trust and
/// revocations change. Together with [`read`] this is `claims::verify`, which the pod's process
/// calls once more before it runs the module.
fn accept(known: &Known, trust: &claims::Policy) -> Result<ModuleKind, ImageError> {
    claims::recheck(Some(&known.claims), trust).map_err(|error| untrusted(&error))?;
    let kind = known.kind.ok_or_else(|| {
        ImageError::Unusable(
            "it exports neither __guest_call (an actor) nor _start (a WASI command)".into(),
        )
    })?;
    let may_serve = known.claims.capabilities.iter().any(|name| name == claims::HTTP_SERVER);
    if kind == ModuleKind::Actor && !may_serve {
        let message = format!("its claims do not allow {}", claims::HTTP_SERVER);
        return Err(ImageError::Untrusted(message));
    }
    Ok(kind)
}

fn untrusted(error: &claims::VerifyError) -> ImageError {
    ImageError::Untrusted(chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use claims::{IssuerKeyPair, Policy, Seed, Statement, Timestamp};
    use std::io::Write;
    use zeroize::Zeroizing;

    fn issuer(byte: u8) -> IssuerKeyPair {
        IssuerKeyPair::from_seed(&Seed::issuer(Zeroizing::new([byte; 32]))).expect("a seed")
    }

    fn signed(text: &str, capabilities: &[&str]) -> Vec<u8> {
        let statement = Statement {
            subject: Seed::actor(Zeroizing::new([9; 32])).actor_key().expect("an actor's seed"),
            name: "m".into(),
            version: None,
            revision: None,
            tags: vec![],
            capabilities: capabilities.iter().map(|name| (*name).into()).collect(),
            issued_at: Timestamp(1_700_000_000),
            valid_for: None,
            not_before: None,
        };
        let module = wat::parse_str(text).expect("a module");
        claims::sign(&module, &issuer(1), &statement).expect("signed")
    }

    fn verdict(bytes: &[u8], trusted: u8) -> Result<ModuleKind, ImageError> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(bytes).expect("written");
        let mut policy = Policy::at(Timestamp(1_700_000_001));
        policy.trusted_issuers.insert(issuer(trusted).public());
        accept(&read(Digest::of(bytes), file.path())?, &policy)
    }

    const ACTOR: &str = r#"(module (func (export "__guest_call")))"#;
    const COMMAND: &str = r#"(module (func (export "_start")))"#;

    #[test]
    fn only_modules_whose_claims_hold_are_let_through() {
        let http = [claims::HTTP_SERVER];
        assert_eq!(verdict(&signed(ACTOR, &http), 1), Ok(ModuleKind::Actor));
        assert_eq!(verdict(&signed(COMMAND, &[]), 1), Ok(ModuleKind::Command));
        let untrusted = |bytes: &[u8], trusted| match verdict(bytes, trusted) {
            Err(ImageError::Untrusted(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(untrusted(&signed(ACTOR, &http), 2).contains("issuer"));
        assert!(untrusted(&wat::parse_str(ACTOR).expect("a module"), 1).contains("signed"));
        assert!(untrusted(&signed(ACTOR, &[]), 1).contains(claims::HTTP_SERVER));
        let mut tampered = signed(ACTOR, &http);
        tampered[10] ^= 1;
        untrusted(&tampered, 1);
    }

    #[test]
    fn a_file_that_is_not_what_its_digest_says_does_not_run() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(&signed(ACTOR, &[claims::HTTP_SERVER])).expect("written");
        let read = read(Digest::of(b"another"), file.path());
        assert!(matches!(read, Err(ImageError::Unusable(_))), "{read:?}");
    }

    #[test]
    fn a_signed_module_that_is_neither_actor_nor_command_does_not_run() {
        let verdict = verdict(&signed("(module)", &[]), 1);
        assert!(matches!(verdict, Err(ImageError::Unusable(_))), "{verdict:?}");
    }

    #[tokio::test]
    async fn a_name_that_is_none_and_a_module_that_may_not_be_pulled_are_told_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), registry::StoreOptions::default()).expect("a store");
        let images = StoreImages::new(store);
        let fetch = |reference: &str| {
            let request = ImageRequest {
                reference: reference.into(),
                policy: PullPolicy::Never,
                credentials: vec![DockerConfig::Json(b"not json".to_vec())],
                trust: Policy::at(Timestamp(0)),
            };
            images.fetch(request, Box::new(|| panic!("no registry is asked")))
        };
        let invalid = fetch("localhost:5000/UPPER case").await;
        assert!(matches!(invalid, Err(ImageError::InvalidName(_))), "{invalid:?}");
        assert_eq!(fetch("localhost:5000/m:v1").await, Err(ImageError::NeverPull));
    }
}
