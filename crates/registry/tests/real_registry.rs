//! Modules pushed to and pulled from a real registry: anonymous, with passwords, over TLS, with
//! tokens, through mirrors.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol, Config, ImageLayer},
    manifest::{IMAGE_LAYER_GZIP_MEDIA_TYPE, OciManifest, WASM_LAYER_MEDIA_TYPE},
    secrets::RegistryAuth,
};
use registry::{
    Credentials, Digest, ErrorKind, Form, Progress, PullError, PullPolicy, PushError, PushOptions,
    Pushed, Registry, RegistryOptions, StoreOptions, Version,
};
use serde_json::json;

use support::{
    Access, Authority, Cache, Hostile, Real, Reply, TokenRealm, hasty, module, read, signed_module,
};

async fn push_as(
    registry: &Registry,
    bytes: &Bytes,
    name: &str,
    credentials: &Credentials,
) -> Result<Pushed, PushError> {
    registry.push(bytes.clone(), name, credentials, &PushOptions::default(), &|_, _| {}).await
}

async fn push(bytes: &Bytes, name: &str) -> Pushed {
    let registry = Registry::new(hasty());
    push_as(&registry, bytes, name, &Credentials::anonymous()).await.unwrap()
}

/// Another client, not ours.
fn foreign() -> Client {
    Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() })
}

#[tokio::test]
async fn a_module_comes_back_as_it_was_pushed_in_both_forms() {
    let registry = Real::anonymous();
    let client = Registry::new(hasty());
    // Larger than one chunk of anything on the way.
    let bytes = module(1, 6 << 20);
    for (form, tag) in [(Form::Cncf, "cncf"), (Form::Krustlet, "krustlet")] {
        let name = registry.name(&format!("models/digits:{tag}"));
        let options = PushOptions { form, title: Some("digits.wasm".into()), created: None };
        let last = AtomicU64::new(0);
        let progress = |done: u64, total: u64| {
            assert!(done <= total && total > 1000);
            assert!(last.swap(done, Ordering::Relaxed) <= done);
        };
        let anonymous = Credentials::anonymous();
        let push = || client.push(bytes.clone(), &name, &anonymous, &options, &progress);
        let pushed = push().await.unwrap();
        assert_eq!(last.swap(0, Ordering::Relaxed), bytes.len() as u64);
        assert_eq!((pushed.digest, pushed.was_there), (Digest::of(&bytes), form != Form::Cncf));
        let again = push().await.unwrap();
        assert_eq!((again.pinned, again.was_there), (pushed.pinned.clone(), true));

        let cache = Cache::new();
        let steps = Mutex::new(Vec::new());
        let pulled = cache
            .store
            .pull(&name, PullPolicy::Always, &anonymous, &|step| steps.lock().unwrap().push(step))
            .await
            .unwrap();
        assert_eq!(read(&pulled.path), bytes);
        assert_eq!(pulled.digest, Digest::of(&bytes));
        assert_eq!(pulled.size, bytes.len() as u64);
        assert_eq!(pulled.reference, pushed.pinned);
        assert_eq!(*pushed.pinned.version(), Version::Digest(pulled.manifest_digest));
        let steps = steps.into_inner().unwrap();
        assert_eq!(steps[0], Progress::Resolving);
        assert!(
            matches!(steps.last(), Some(Progress::Downloading { done, total })
            if done <= total && *total == pulled.size),
            "{steps:?}"
        );
        // By digest, from another cache.
        let other = Cache::new();
        let pinned = other.pull(&pushed.pinned.to_string()).await.unwrap();
        assert_eq!((pinned.digest, pinned.was_here), (pulled.digest, false));
        assert!(cache.pull(&name).await.unwrap().was_here);
    }
}

#[tokio::test]
async fn other_clients_read_what_we_push_and_we_read_theirs() {
    let registry = Real::anonymous();
    let (bytes, issuer, subject) = signed_module();
    let (client, anonymous) = (Registry::new(hasty()), Credentials::anonymous());
    for form in [Form::Cncf, Form::Krustlet] {
        let created = Some("2024-01-02T03:04:05Z".to_owned());
        let options = PushOptions { form, title: Some("d.wasm".into()), created };
        let name = registry.name("ours:v1");
        let pushed = client.push(bytes.clone(), &name, &anonymous, &options, &|_, _| {}).await;
        assert_eq!(pushed.unwrap().claims.unwrap().issuer.to_string(), issuer);
        let reference: Reference = name.parse().unwrap();
        let (layer, config) = match form {
            Form::Cncf => ("application/wasm", "application/vnd.wasm.config.v0+json"),
            Form::Krustlet => (
                "application/vnd.wasm.content.layer.v1+wasm",
                "application/vnd.wasm.config.v1+json",
            ),
        };
        let image =
            foreign().pull(&reference, &RegistryAuth::Anonymous, vec![layer]).await.unwrap();
        assert_eq!(image.layers[0].data, bytes);
        let manifest = image.manifest.unwrap();
        assert_eq!(manifest.config.media_type, config);
        let annotations = manifest.annotations.unwrap();
        for (key, value) in [
            ("org.opencontainers.image.title", "d.wasm"),
            ("org.opencontainers.image.created", "2024-01-02T03:04:05Z"),
            ("org.opencontainers.image.version", "1.2.3"),
            ("dev.graphlet.issuer", &issuer),
            ("dev.graphlet.subject", &subject),
        ] {
            assert_eq!(annotations[key], value, "{key}");
        }
    }

    let theirs: Reference = registry.name("theirs:v1").parse().unwrap();
    let layer = |kind: &str| ImageLayer::new(bytes.clone(), kind.to_owned(), None);
    let config = Config::new(Bytes::from_static(b"{}"), "application/x".into(), None);
    let push = async |kind: &str| {
        let layers = [layer(kind)];
        foreign()
            .push(&theirs, &layers, config.clone(), &RegistryAuth::Anonymous, None)
            .await
            .unwrap();
    };
    push(WASM_LAYER_MEDIA_TYPE).await;
    let cache = Cache::new();
    let pulled = cache.pull(&theirs.whole()).await.unwrap();
    assert_eq!(read(&pulled.path), bytes);

    // A container image is no module.
    push(IMAGE_LAYER_GZIP_MEDIA_TYPE).await;
    let cache = Cache::new();
    let error = cache.pull(&theirs.whole()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongMediaType);
    assert!(error.to_string().contains("a container image"), "{error}");
    cache.assert_empty();
}

#[tokio::test]
async fn an_index_leads_to_its_module() {
    let registry = Real::anonymous();
    let bytes = module(5, 5000);
    let pushed = push(&bytes, &registry.name("models/digits:wasm")).await;
    let Version::Digest(manifest) = pushed.pinned.version() else { panic!("not pinned") };
    let stored: Reference = pushed.pinned.to_string().parse().unwrap();
    let kinds = ["application/vnd.oci.image.manifest.v1+json"];
    let (text, _) =
        foreign().pull_manifest_raw(&stored, &RegistryAuth::Anonymous, &kinds).await.unwrap();
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{"mediaType": kinds[0], "digest": manifest.to_string(),
                       "size": text.len(), "platform": {"architecture": "wasm", "os": "wasip1"}}],
    });
    let index: OciManifest = serde_json::from_value(index).unwrap();
    let name = registry.name("models/digits:all");
    let reference: Reference = name.parse().unwrap();
    let client = foreign();
    client.store_auth_if_needed(reference.resolve_registry(), &RegistryAuth::Anonymous).await;
    client.push_manifest(&reference, &index).await.unwrap();
    let cache = Cache::new();
    let pulled = cache.pull(&name).await.unwrap();
    assert_eq!(read(&pulled.path), bytes);
    assert_ne!(pulled.manifest_digest, *manifest, "the index is what the tag names");
    let cache = Cache::new();
    let pinned = cache.pull(&pulled.reference.to_string()).await.unwrap();
    assert_eq!(pinned.reference, pulled.reference);
}

#[tokio::test]
async fn passwords_open_a_registry_and_nothing_else_does() {
    let access = Access::Password { user: "alice", password: "open sesame" };
    let registry = Real::start(&access, None);
    let (host, name) = (registry.host(), registry.name("private/digits:v1"));
    let bytes = module(2, 3000);
    let client = Registry::new(hasty());
    let right = Credentials::basic(&host, "alice", "open sesame");
    for (wrong, who) in [
        (Credentials::anonymous(), "anonymous"),
        (Credentials::basic(&host, "alice", "wrong"), "alice"),
        (Credentials::basic("other.example", "alice", "open sesame"), "anonymous"),
        (Credentials::basic(&format!("{host}/public"), "alice", "open sesame"), "anonymous"),
    ] {
        let error = push_as(&client, &bytes, &name, &wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
        assert!(error.to_string().contains(who), "{error}");
        assert!(!error.to_string().contains("sesame"), "{error}");
        assert!(error.hint().unwrap().contains("docker login"));
        let error = Cache::new().pull_as(&name, &wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    }
    push_as(&client, &bytes, &name, &right).await.unwrap();

    // As a Secret says it; and behind another one that does not fit any more.
    let auth = STANDARD.encode("alice:open sesame");
    let secret = json!({"auths": {&host: {"auth": auth}}}).to_string();
    let mut several = Credentials::basic(&host, "alice", "of yesterday");
    several.merge(Credentials::from_docker_config(secret.as_bytes()).unwrap());
    let cache = Cache::new();
    let pulled = cache.pull_as(&name, &several).await.unwrap();
    assert_eq!(read(&pulled.path), bytes);
    push_as(&client, &module(3, 100), &name, &several).await.unwrap();

    let absent = registry.name("private/absent:v1");
    let error = Cache::new().pull_as(&absent, &right).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn a_private_module_stays_with_those_who_may_pull_it() {
    let access = Access::Password { user: "alice", password: "secret" };
    let registry = Real::start(&access, None);
    let name = registry.name("private/digits:v1");
    let right = Credentials::basic(&registry.host(), "alice", "secret");
    push_as(&Registry::new(hasty()), &module(2, 3000), &name, &right).await.unwrap();
    let cache = Cache::new();
    cache.pull_as(&name, &right).await.unwrap();
    let pull = async |policy, credentials: &Credentials| {
        let pulled = cache.store.pull(&name, policy, credentials, &|_| {}).await;
        pulled.map(|pulled| pulled.was_here).map_err(|error| error.kind())
    };
    let nobody = Credentials::anonymous();
    assert_eq!(pull(PullPolicy::IfNotPresent, &nobody).await, Err(ErrorKind::Unauthorized));
    assert_eq!(pull(PullPolicy::Never, &nobody).await, Err(ErrorKind::NeverPull));
    drop(registry);
    assert_eq!(pull(PullPolicy::IfNotPresent, &right).await, Ok(true));
    assert_eq!(pull(PullPolicy::Never, &right).await, Ok(true));
    assert_eq!(pull(PullPolicy::Always, &right).await, Err(ErrorKind::Unreachable));
}

#[tokio::test]
async fn a_registry_with_tls_is_reached_with_its_authority_only() {
    let authority = Authority::new();
    let registry = Real::start(&Access::Anonymous, Some(&authority));
    let name = registry.name("models/digits:v1");
    let bytes = module(4, 200_000);
    let trusting = |authority: &Authority| {
        let authority = registry::Authority::from_pem(authority.pem().as_bytes()).unwrap();
        RegistryOptions { authorities: vec![authority], ..hasty() }
    };
    let nobody = Credentials::anonymous();
    for stranger in [hasty(), trusting(&Authority::new())] {
        let client = Registry::new(stranger.clone());
        let error = push_as(&client, &bytes, &name, &nobody).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        let error = Cache::reaching(stranger).pull(&name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
        assert!(error.hint().unwrap().contains("--registry-ca"), "{error}");
    }
    let options = trusting(&authority);
    push_as(&Registry::new(options.clone()), &bytes, &name, &nobody).await.unwrap();
    let cache = Cache::reaching(options.clone());
    assert_eq!(read(&cache.pull(&name).await.unwrap().path), bytes);

    // Named as plain, it is plain: the registry's own words tell what is wrong.
    let mut plain = options;
    plain.plain_http.insert(registry.host());
    let error = Cache::reaching(plain).pull(&name).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Registry);
    assert!(error.to_string().contains("HTTPS server"), "{error}");
}

#[tokio::test]
async fn tokens_come_from_the_realm_that_the_registry_names() {
    let realm = TokenRealm::start().await;
    let registry = Real::start(&Access::Token(&realm), None);
    let (host, name) = (registry.host(), registry.name("team/digits:v1"));
    let bytes = module(6, 300_000);
    let client = Registry::new(hasty());
    let login = |user: &str, password: &str| Credentials::basic(&host, user, password);
    let kind = |pushed: Result<Pushed, PushError>| pushed.map(drop).map_err(|error| error.kind());
    for refused in [Credentials::anonymous(), login("writer", "wrong"), login("reader", "open")] {
        let pushed = push_as(&client, &bytes, &name, &refused).await;
        assert_eq!(kind(pushed), Err(ErrorKind::Unauthorized), "{refused:?}");
    }
    push_as(&client, &bytes, &name, &login("writer", "open")).await.unwrap();

    let before = realm.requests();
    let cache = Cache::new();
    let pulled = cache.pull_as(&name, &login("reader", "open")).await.unwrap();
    assert_eq!(read(&pulled.path), bytes);
    assert_eq!(realm.requests() - before, 1, "one token serves manifest and module");
    for refused in [Credentials::anonymous(), login("reader", "wrong")] {
        let error = Cache::new().pull_as(&name, &refused).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    }
}

#[tokio::test]
async fn mirrors_are_asked_first_and_missed_by_nobody() {
    let (mirror, origin) = (Real::anonymous(), Real::anonymous());
    let (mirrored, original) = (module(7, 1000), module(8, 1000));
    push(&mirrored, &mirror.name("models/digits:v1")).await;
    push(&original, &origin.name("models/digits:v1")).await;
    push(&original, &origin.name("models/other:v1")).await;
    let reaching = |urls: &[String]| {
        let mirrors = urls.iter().map(|url| format!("{}={url}", origin.host()).parse().unwrap());
        Cache::reaching(RegistryOptions { mirrors: mirrors.collect(), ..hasty() })
    };
    let url = format!("http://{}", mirror.host());
    let dead = "http://127.0.0.1:1".to_owned();
    let digits = origin.name("models/digits:v1");
    let cache = reaching(&[dead.clone(), url.clone()]);
    let pulled = cache.pull(&digits).await.unwrap();
    assert_eq!(read(&pulled.path), mirrored);
    assert!(pulled.reference.to_string().starts_with(&origin.name("models/digits@sha256:")));
    // What the mirror does not have, and a mirror that is not there.
    let other = origin.name("models/other:v1");
    assert_eq!(read(&reaching(&[url]).pull(&other).await.unwrap().path), original);
    assert_eq!(read(&reaching(&[dead]).pull(&digits).await.unwrap().path), original);
}

#[tokio::test]
async fn a_mirror_stands_for_a_registry_that_cannot_be_reached_and_gets_its_own_login() {
    let access = Access::Password { user: "mirror", password: "m" };
    let mirror = Real::start(&access, None);
    let bytes = module(9, 1000);
    let login = Credentials::basic(&mirror.host(), "mirror", "m");
    let name = mirror.name("models/digits:v1");
    push_as(&Registry::new(hasty()), &bytes, &name, &login).await.unwrap();
    let mirrors = vec![format!("models.invalid=http://{}", mirror.host()).parse().unwrap()];
    let options = RegistryOptions { mirrors, attempts: 1, ..hasty() };
    let cache = Cache::reaching(options);
    let name = "models.invalid/models/digits:v1";
    assert_eq!(read(&cache.pull_as(name, &login).await.unwrap().path), bytes);
    let not_for_the_mirror = Credentials::basic("models.invalid", "mirror", "m");
    let error = cache.pull_as(name, &not_for_the_mirror).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
}

#[tokio::test]
async fn a_tag_is_resolved_once_and_again_only_when_asked_to() {
    let registry = Real::anonymous();
    let name = registry.name("models/digits:v1");
    let (old, new) = (module(10, 1000), module(11, 2000));
    let pinned = push(&old, &name).await.pinned.to_string();
    let cache = Cache::new();
    let pull = async |name: &str, policy| {
        let nobody = Credentials::anonymous();
        cache.store.pull(name, policy, &nobody, &|_| {}).await.map(|pulled| pulled.digest)
    };
    let (old_digest, new_digest) = (Digest::of(&old), Digest::of(&new));
    let kind = |result: Result<Digest, PullError>| result.unwrap_err().kind();
    assert_eq!(kind(pull(&name, PullPolicy::Never).await), ErrorKind::NeverPull);
    assert_eq!(pull(&name, PullPolicy::IfNotPresent).await.unwrap(), old_digest);
    push(&new, &name).await;
    assert_eq!(pull(&name, PullPolicy::IfNotPresent).await.unwrap(), old_digest);
    assert_eq!(pull(&name, PullPolicy::Never).await.unwrap(), old_digest);
    assert_eq!(pull(&name, PullPolicy::Always).await.unwrap(), new_digest);
    assert_eq!(pull(&name, PullPolicy::IfNotPresent).await.unwrap(), new_digest);
    assert_eq!(pull(&pinned, PullPolicy::Never).await.unwrap(), old_digest);
    assert_eq!(pull(&pinned, PullPolicy::Always).await.unwrap(), old_digest);
    // What was cleaned up is pulled anew.
    let options = StoreOptions { grace: std::time::Duration::ZERO, ..StoreOptions::default() };
    let again = registry::Store::open(cache.store.folder(), options).unwrap();
    assert_eq!(again.list().unwrap().len(), 2);
    assert_eq!(again.collect_garbage(&[new_digest], 0).unwrap().modules, 1);
    assert_eq!(kind(pull(&pinned, PullPolicy::Never).await), ErrorKind::NeverPull);
    assert_eq!(pull(&pinned, PullPolicy::IfNotPresent).await.unwrap(), old_digest);
}

#[tokio::test]
async fn what_is_no_module_is_not_pushed() {
    let registry = Hostile::start(|_, _| Reply::bytes(200, "")).await;
    let client = Registry::new(hasty());
    let nobody = Credentials::anonymous();
    let pinned = registry.name(&format!("a@{}", Digest::of(b"")));
    for (bytes, name, expected) in [
        (&b""[..], registry.name("a:v1"), ErrorKind::WrongMediaType),
        (b"#!/bin/sh\n", registry.name("a:v1"), ErrorKind::WrongMediaType),
        (b"\0asm\x0d\0\x01\0", registry.name("a:v1"), ErrorKind::WrongMediaType),
        (b"\0asm\x01\0\0\0\x00\xff", registry.name("a:v1"), ErrorKind::WrongMediaType),
        (b"\0asm\x01\0\0\0", pinned, ErrorKind::InvalidName),
        (b"\0asm\x01\0\0\0", "No Name".into(), ErrorKind::InvalidName),
    ] {
        let bytes = Bytes::from_static(bytes);
        let error = push_as(&client, &bytes, &name, &nobody).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
    }
    assert!(registry.requests().is_empty(), "nobody was bothered");
}

#[tokio::test]
async fn many_pulls_at_once_get_the_same_file() {
    let registry = Real::anonymous();
    let bytes = module(12, 2 << 20);
    let name = registry.name("models/digits:v1");
    push(&bytes, &name).await;
    let cache = Arc::new(Cache::new());
    let pulls: Vec<_> = (0..16)
        .map(|_| {
            let (cache, name) = (cache.clone(), name.clone());
            tokio::spawn(async move { cache.pull(&name).await.unwrap().path })
        })
        .collect();
    for pull in pulls {
        assert_eq!(read(&pull.await.unwrap()), bytes);
    }
    assert_eq!(cache.names("blobs").len(), 1);
    assert_eq!(cache.names("partial"), [""; 0]);
}
