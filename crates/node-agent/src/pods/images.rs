//! The cache of modules behind the seam: fetched, verified, classified.

use std::path::Path;

use registry::{Credentials, Digest, ErrorKind, Progress, PullError, Store};
use tracing::warn;

use super::{
    kind,
    seams::{Asking, DockerConfig, Image, ImageError, ImageRequest, Images, Later, PullPolicy},
};
use crate::runtime::ModuleKind;

/// The node's cache of modules.
pub(crate) struct StoreImages(pub(crate) Store);

impl Images for StoreImages {
    fn fetch(&self, request: ImageRequest, asking: Asking) -> Later<'_, Result<Image, ImageError>> {
        Box::pin(async move {
            let ImageRequest { reference, policy, credentials, trust } = request;
            let credentials = login(&credentials);
            let progress = move |_: Progress| asking();
            let pulled =
                self.0.pull(&reference, store_policy(policy), &credentials, &progress).await;
            let pulled = pulled.map_err(|error| image_error(&error))?;
            let path = pulled.path.clone();
            let verified = tokio::task::spawn_blocking(move || verify(&path, &trust)).await;
            let (digest, kind) =
                verified.map_err(|error| ImageError::Unusable(error.to_string()))??;
            if digest != pulled.digest.to_string() {
                // Only root writes that file: the disk is at fault.
                let message = format!("the file should be {} but is {digest}", pulled.digest);
                return Err(ImageError::Unusable(message));
            }
            Ok(Image {
                path: pulled.path,
                digest,
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
            let found = self.0.pull(reference, policy, &anonymous, &|_| {}).await.ok()?;
            (found.digest.to_string() == digest).then(|| found.reference.to_string())
        })
    }

    fn collect_garbage(&self, digests: Vec<String>, budget: u64) -> Later<'_, ()> {
        Box::pin(async move {
            let store = self.0.clone();
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

/// Reads a module, verifies its claims and looks what it is.
fn verify(path: &Path, trust: &claims::Policy) -> Result<(String, ModuleKind), ImageError> {
    let bytes = std::fs::read(path)
        .map_err(|error| ImageError::Unusable(format!("{}: {error}", path.display())))?;
    let module =
        claims::verify(bytes, trust).map_err(|error| ImageError::Untrusted(chain(&error)))?;
    let kind = kind::of_module(module.bytes()).ok_or_else(|| {
        ImageError::Unusable(
            "it exports neither __guest_call (an actor) nor _start (a WASI command)".into(),
        )
    })?;
    if kind == ModuleKind::Actor && !module.may_use(claims::HTTP_SERVER) {
        let message = format!("its claims do not allow {}", claims::HTTP_SERVER);
        return Err(ImageError::Untrusted(message));
    }
    Ok((module.digest().to_string(), kind))
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
        let (digest, kind) = verify(file.path(), &policy)?;
        assert_eq!(digest, claims::Digest::of(bytes).to_string());
        Ok(kind)
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
    fn a_signed_module_that_is_neither_actor_nor_command_does_not_run() {
        let verdict = verdict(&signed("(module)", &[]), 1);
        assert!(matches!(verdict, Err(ImageError::Unusable(_))), "{verdict:?}");
    }

    #[tokio::test]
    async fn a_name_that_is_none_and_a_module_that_may_not_be_pulled_are_told_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), registry::StoreOptions::default()).expect("a store");
        let images = StoreImages(store);
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
