//! Registries that fail, lie, stall or attack: what a pull makes of it, and that nothing half
//! done stays behind.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use registry::{
    Credentials, Digest, ErrorKind, PullPolicy, PushOptions, Registry, RegistryOptions,
    StoreOptions,
};
use serde_json::json;

use support::{Cache, Hostile, Reply, Request, free_address, hasty, module, read, until};

/// Where a request for a part wants to begin.
fn offset(request: &Request) -> Option<usize> {
    request.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// The rest of a module, as a registry sends it for a range.
fn part(bytes: &[u8], from: usize) -> Reply {
    let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
    Reply::bytes(206, &bytes[from..]).with("Content-Range", range)
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stopped() {
    let bytes = module(1, 100_000);
    let sent = bytes.clone();
    let registry = Hostile::with_module(Digest::of(&bytes), bytes.len(), move |request, _| {
        // 30,000 bytes at a time, then the line is cut.
        let from = offset(request).unwrap_or(0);
        let to = (from + 30_000).min(sent.len());
        let range = format!("bytes {from}-{}/{}", sent.len() - 1, sent.len());
        let status = if from == 0 { 200 } else { 206 };
        Reply::cut(status, &sent[from..to], sent.len() - from).with("Content-Range", range)
    })
    .await;
    let cache = Cache::new();
    let pulled = cache.pull(&registry.name("a:v1")).await.unwrap();
    assert_eq!(read(&pulled.path), bytes);
    let offsets: Vec<_> = registry.blob_requests().iter().map(offset).collect();
    assert_eq!(offsets, [None, Some(30_000), Some(60_000), Some(90_000)]);
}

#[tokio::test]
async fn a_registry_that_knows_no_ranges_begins_again() {
    let bytes = module(1, 100_000);
    for wrong_range in [false, true] {
        let sent = bytes.clone();
        let answer = move |request: &Request, before: usize| match (before, offset(request)) {
            (0, _) => Reply::cut(200, &sent[..40_000], sent.len()),
            // It says which part that is, and it is another one.
            (1, Some(_)) if wrong_range => part(&sent, 10),
            _ => Reply::bytes(200, sent.to_vec()),
        };
        let registry = Hostile::with_module(Digest::of(&bytes), bytes.len(), answer).await;
        let cache = Cache::new();
        let pulled = cache.pull(&registry.name("a:v1")).await.unwrap();
        assert_eq!(read(&pulled.path), bytes, "wrong range: {wrong_range}");
    }
}

#[tokio::test]
async fn a_truncated_module_is_not_used() {
    let bytes = module(1, 100_000);
    // With a length that was not kept, and with one that was.
    for cut in [true, false] {
        let sent = bytes.clone();
        let answer = move |request: &Request, _| match (offset(request), cut) {
            (None, true) => Reply::cut(200, &sent[..50_000], sent.len()),
            (None, false) => Reply::bytes(200, &sent[..50_000]),
            (Some(from), _) => Reply::bytes(206, "")
                .with("Content-Range", format!("bytes {from}-{from}/{}", sent.len())),
        };
        let registry = Hostile::with_module(Digest::of(&bytes), bytes.len(), answer).await;
        let cache = Cache::new();
        let error = cache.pull(&registry.name("a:v1")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Truncated, "{error}");
        assert!(error.to_string().contains("50000 came"), "{error}");
        cache.assert_empty();
    }
}

#[tokio::test]
async fn bytes_that_are_not_those_of_the_digest_are_not_used() {
    let (bytes, other) = (module(1, 1000), module(2, 1000));
    assert_eq!(bytes.len(), other.len());
    let registry = Hostile::with_module(Digest::of(&bytes), bytes.len(), move |_, _| {
        Reply::bytes(200, other.to_vec())
    })
    .await;
    let cache = Cache::new();
    let error = cache.pull(&registry.name("a:v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongDigest, "{error}");
    assert!(error.to_string().contains(&Digest::of(&bytes).to_string()), "{error}");
    assert_eq!(registry.blob_requests().len(), 1, "trying again would not help");
    cache.assert_empty();
}

#[tokio::test]
async fn a_manifest_that_is_not_the_pinned_one_is_not_used() {
    let bytes = module(1, 1000);
    let sent = bytes.clone();
    let registry = Hostile::with_module(Digest::of(&bytes), bytes.len(), move |_, _| {
        Reply::bytes(200, sent.to_vec())
    })
    .await;
    let cache = Cache::new();
    let name = registry.name(&format!("a@{}", Digest::of(b"another")));
    let error = cache.pull(&name).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongDigest, "{error}");
    cache.assert_empty();
    // Nor one of which the registry itself says another digest.
    let (digest, size) = (Digest::of(&bytes), bytes.len());
    let registry = Hostile::start(move |_, _| {
        let claimed = Digest::of(b"another").to_string();
        Reply::manifest(digest, size).with("Docker-Content-Digest", claimed)
    })
    .await;
    let error = cache.pull(&registry.name("a:v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongDigest, "{error}");
}

#[tokio::test]
async fn a_registry_that_fails_is_tried_again_a_few_times() {
    let bytes = module(1, 1000);
    let (digest, size) = (Digest::of(&bytes), bytes.len());
    for (failures, status) in [(3, 500), (3, 503), (3, 429), (4, 500), (4, 429)] {
        let sent = bytes.clone();
        let registry = Hostile::start(move |request, before| {
            if before < failures {
                let error = json!({"errors": [{"code": "UNKNOWN", "message": "out of order"}]});
                Reply::json(status, &error).with("Retry-After", "0")
            } else if request.is_blob() {
                Reply::bytes(200, sent.to_vec())
            } else {
                Reply::manifest(digest, size)
            }
        })
        .await;
        let cache = Cache::new();
        let pulled = cache.pull(&registry.name("a:v1")).await;
        if failures < hasty().attempts as usize {
            assert_eq!(pulled.unwrap().digest, digest, "{status}");
        } else {
            let error = pulled.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Registry);
            let text = format!("answers {status}: out of order");
            assert!(error.to_string().contains(&text), "{error}");
            assert_eq!(registry.requests().len(), failures);
            cache.assert_empty();
        }
    }
}

#[tokio::test]
async fn bodies_without_end_are_cut_off() {
    type Case = (&'static str, fn(&Request) -> Option<Reply>, ErrorKind);
    let cases: [Case; 5] = [
        ("manifest", |r| r.is_manifest().then(|| Reply::endless(200)), ErrorKind::TooLarge),
        ("blob", |r| r.is_blob().then(|| Reply::endless(200)), ErrorKind::TooLarge),
        ("error", |r| r.is_manifest().then(|| Reply::endless(404)), ErrorKind::NotFound),
        ("blob's error", |r| r.is_blob().then(|| Reply::endless(403)), ErrorKind::Unauthorized),
        (
            "token",
            |r| {
                let realm = format!("http://{}/token", r.header("host").unwrap());
                Some(match r.path.starts_with("/token") {
                    true => Reply::endless(200),
                    false => Reply::bytes(401, "")
                        .with("WWW-Authenticate", format!("Bearer realm=\"{realm}\"")),
                })
            },
            ErrorKind::TooLarge,
        ),
    ];
    let bytes = module(1, 1000);
    let (digest, size) = (Digest::of(&bytes), bytes.len());
    for (what, answer, expected) in cases {
        let registry = Hostile::start(move |request, _| {
            answer(request).unwrap_or_else(|| Reply::manifest(digest, size))
        })
        .await;
        let cache = Cache::new();
        let error = cache.pull(&registry.name("a:v1")).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{what}: {error}");
        cache.assert_empty();
        until("the connection is closed", || registry.connections() == 0).await;
    }
}

#[tokio::test]
async fn a_module_over_the_limit_is_not_even_asked_for() {
    let bytes = module(1, 1000);
    let (digest, size) = (Digest::of(&bytes), bytes.len());
    let sent = bytes.clone();
    let registry =
        Hostile::with_module(digest, size, move |_, _| Reply::bytes(200, sent.to_vec())).await;
    let limited = |max_module_bytes| {
        Cache::with(StoreOptions { max_module_bytes, ..StoreOptions::default() })
    };
    let error = limited(size as u64 - 1).pull(&registry.name("a:v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert!(registry.blob_requests().is_empty());
    limited(size as u64).pull(&registry.name("a:v1")).await.unwrap();
}

#[tokio::test]
async fn what_is_no_registry_is_told() {
    type Case = (fn() -> Reply, ErrorKind, &'static str);
    let cases: [Case; 9] = [
        (|| Reply::html(200), ErrorKind::NotARegistry, "a web page"),
        (|| Reply::html(404), ErrorKind::NotARegistry, "a web page (404)"),
        (|| Reply::html(502), ErrorKind::Registry, "answers 502"),
        (|| Reply::bytes(200, "hello"), ErrorKind::WrongMediaType, "its manifest is none"),
        (|| Reply::bytes(404, "404 page not found"), ErrorKind::NotFound, "page not found"),
        (|| Reply::bytes(418, "a teapot"), ErrorKind::Registry, "answers 418: a teapot"),
        (|| Reply::bytes(401, ""), ErrorKind::Unauthorized, "anonymous"),
        (
            || Reply::bytes(401, "").with("WWW-Authenticate", "Bearer realm=\"gopher://x\""),
            ErrorKind::NotARegistry,
            "token realm",
        ),
        (
            || Reply::bytes(401, "").with("WWW-Authenticate", "Negotiate, \"\", =,,"),
            ErrorKind::Unauthorized,
            "anonymous",
        ),
    ];
    for (reply, kind, text) in cases {
        let registry = Hostile::start(move |_, _| reply()).await;
        let cache = Cache::new();
        let error = cache.pull(&registry.name("models/a:v1")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error} has no {text}");
        assert!(error.to_string().contains(&registry.host()), "{error} names the registry");
        cache.assert_empty();
    }
}

#[tokio::test]
async fn redirects_may_lead_to_a_storage_and_not_in_circles() {
    let bytes = module(1, 1000);
    let sent = bytes.clone();
    let storage = Hostile::start(move |_, _| Reply::bytes(200, sent.to_vec())).await;
    let target = format!("http://{}/bucket/x?signature=y", storage.host());
    let (digest, size) = (Digest::of(&bytes), bytes.len());
    let registry = Hostile::start(move |request, _| match request.basic_auth() {
        None => Reply::bytes(401, "").with("WWW-Authenticate", "Basic realm=\"x\""),
        Some(_) if request.is_blob() => Reply::bytes(307, "").with("Location", &target),
        Some(_) => Reply::manifest(digest, size),
    })
    .await;
    let login = Credentials::basic(&registry.host(), "user", "password");
    let cache = Cache::new();
    let pulled = cache.pull_as(&registry.name("a:v1"), &login).await.unwrap();
    assert_eq!(read(&pulled.path), bytes);
    assert_eq!(storage.requests()[0].header("authorization"), None, "it is not for the storage");
    let first = &registry.requests()[0];
    assert_eq!(first.header("authorization"), None, "nor for who does not ask for it");

    let circle =
        Hostile::start(|request, _| Reply::bytes(302, "").with("Location", request.path.clone()))
            .await;
    let cache = Cache::new();
    let error = cache.pull(&circle.name("a:v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotARegistry, "{error}");
    assert!(error.to_string().contains("in circles"), "{error}");
    assert!(circle.requests().len() < 10);
}

#[tokio::test]
async fn silence_and_a_drip_of_bytes_end() {
    let bytes = module(1, 1000);
    let (digest, size) = (Digest::of(&bytes), bytes.len());
    let idle_timeout = Duration::from_millis(150);
    let options = RegistryOptions { idle_timeout, attempts: 2, ..hasty() };
    let silent = Hostile::start(|_, _| Reply::silence()).await;
    let cache = Cache::reaching(options);
    let error = cache.pull(&silent.name("a:v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");

    let stalling = Hostile::with_module(digest, size, |_, _| Reply::silence()).await;
    let error = cache.pull(&stalling.name("a:v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    cache.assert_empty();

    let sent = bytes.clone();
    // Never as slow as to be silent, and not done before the deadline.
    let drip = Hostile::with_module(digest, size, move |_, _| {
        Reply::drip(sent.to_vec(), Duration::from_millis(20))
    })
    .await;
    let deadline = Duration::from_secs(3);
    let registries = RegistryOptions { idle_timeout: deadline / 2, attempts: 1, ..hasty() };
    let cache = Cache::with(StoreOptions { deadline, registries, ..StoreOptions::default() });
    let begin = Instant::now();
    let error = cache.pull(&drip.name("a:v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(begin.elapsed() >= deadline);
    until("the download is given up", || cache.names("partial").is_empty()).await;
    cache.assert_empty();
}

#[tokio::test]
async fn a_dropped_pull_leaves_nothing_behind() {
    let bytes = module(1, 100_000);
    let sent = bytes.clone();
    let registry =
        Hostile::with_module(Digest::of(&bytes), bytes.len(), move |_, before| match before {
            0 => Reply::drip(sent.to_vec(), Duration::from_millis(20)),
            _ => Reply::bytes(200, sent.to_vec()),
        })
        .await;
    let cache = Arc::new(Cache::new());
    let name = registry.name("a:v1");
    let pull = tokio::spawn({
        let (cache, name) = (cache.clone(), name.clone());
        async move { cache.pull(&name).await.map(drop) }
    });
    until("the download runs", || registry.blob_requests().len() == 1).await;
    assert_eq!(cache.names("partial").len(), 1);
    pull.abort();
    until("the half file is gone", || cache.names("partial").is_empty()).await;
    until("the connection is closed", || registry.connections() == 0).await;
    cache.assert_empty();
    assert_eq!(read(&cache.pull(&name).await.unwrap().path), bytes);
}

#[tokio::test]
async fn concurrent_pulls_share_one_download_and_one_that_leaves_does_not_end_it() {
    let bytes = module(1, 400);
    let sent = bytes.clone();
    let registry = Hostile::with_module(Digest::of(&bytes), bytes.len(), move |_, _| {
        Reply::drip(sent.to_vec(), Duration::from_millis(2))
    })
    .await;
    let cache = Arc::new(Cache::new());
    let pulls: Vec<_> = (0..8)
        .map(|n| {
            let (cache, name) = (cache.clone(), registry.name(&format!("a:v{n}")));
            tokio::spawn(async move { cache.pull(&name).await.unwrap().path })
        })
        .collect();
    until("the download runs", || registry.blob_requests().len() == 1).await;
    until("all have asked", || registry.requests().len() == 9).await;
    pulls[0].abort();
    for pull in pulls.into_iter().skip(1) {
        assert_eq!(read(&pull.await.unwrap()), bytes);
    }
    assert_eq!(registry.blob_requests().len(), 1);
}

#[tokio::test]
async fn nothing_listening_is_told_at_once_with_a_hint() {
    let host = free_address().to_string();
    let slow = RegistryOptions { pause: Duration::from_secs(600), ..hasty() };
    let error = Cache::reaching(slow).pull(&format!("{host}/a:v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert_eq!(error.hint().unwrap(), format!("is a registry running at {host}?"));
    let hanging_up = Hostile::start(|_, _| Reply::hangup()).await;
    let error = Cache::new().pull(&hanging_up.name("a:v1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(hanging_up.requests().len() >= hasty().attempts as usize);
    let error = Cache::new().pull("registry.invalid/a:v1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
}

#[tokio::test]
async fn a_token_that_is_none_is_refused_without_harm() {
    for answer in [
        json!({"token": "a\nX-Injected: b"}),
        json!({"token": ""}),
        json!({"token": 3}),
        json!({}),
        json!([]),
    ] {
        let registry = Hostile::start(move |request, _| {
            let realm = format!("http://{}/token", request.header("host").unwrap());
            match request.path.starts_with("/token") {
                true => Reply::json(200, &answer),
                false => Reply::bytes(401, "")
                    .with("WWW-Authenticate", format!("Bearer realm=\"{realm}\"")),
            }
        })
        .await;
        let error = Cache::new().pull(&registry.name("a:v1")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotARegistry, "{error}");
    }
}

#[tokio::test]
async fn an_expired_token_is_exchanged_once() {
    let bytes = module(1, 1000);
    let sent = bytes.clone();
    let (digest, size) = (Digest::of(&bytes), bytes.len());
    let registry = Hostile::start(move |request, before| {
        let realm = format!("http://{}/token", request.header("host").unwrap());
        if request.path.starts_with("/token") {
            return Reply::json(200, &json!({"access_token": format!("token{before}")}));
        }
        // Every token serves one request only.
        let fresh = format!("Bearer token{}", before.saturating_sub(1));
        if request.header("authorization") != Some(&fresh) {
            let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
            return Reply::bytes(401, "").with("WWW-Authenticate", challenge);
        }
        match request.is_blob() {
            true => Reply::bytes(200, sent.to_vec()),
            false => Reply::manifest(digest, size),
        }
    })
    .await;
    let cache = Cache::new();
    let pulled = cache.pull(&registry.name("a:v1")).await.unwrap();
    assert_eq!(read(&pulled.path), bytes);
    assert_eq!(registry.requests().len(), 6);
}

#[tokio::test]
async fn a_registry_that_answers_uploads_with_nonsense_is_told() {
    let bytes: Bytes = module(1, 1000);
    type Case = (fn(&Request) -> Reply, ErrorKind);
    let cases: [Case; 6] = [
        (|_| Reply::bytes(202, "").with("Location", "no url"), ErrorKind::NotARegistry),
        (|_| Reply::bytes(202, ""), ErrorKind::NotARegistry),
        (|_| Reply::bytes(200, ""), ErrorKind::NotARegistry),
        (|_| Reply::bytes(500, "broken"), ErrorKind::Registry),
        (|_| Reply::bytes(413, "too much"), ErrorKind::Registry),
        (|_| Reply::hangup(), ErrorKind::Unreachable),
    ];
    for (upload, kind) in cases {
        let registry = Hostile::start(move |request, _| match request.method.as_str() {
            "HEAD" => Reply::bytes(404, ""),
            "GET" => Reply::json(200, &json!({})),
            _ => upload(request),
        })
        .await;
        let client = Registry::new(hasty());
        let (name, options) = (registry.name("a:v1"), PushOptions::default());
        let nobody = Credentials::anonymous();
        let pushed = client.push(bytes.clone(), &name, &nobody, &options, &|_, _| {}).await;
        let error = pushed.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[tokio::test]
async fn names_that_are_none_never_reach_a_registry() {
    let cache = Cache::new();
    for name in ["", "No Name", "a:b:c", "host/../../etc", "a@sha256:1"] {
        for policy in [PullPolicy::Always, PullPolicy::IfNotPresent, PullPolicy::Never] {
            let nobody = Credentials::anonymous();
            let error = cache.store.pull(name, policy, &nobody, &|_| {}).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidName, "{name}");
            assert!(error.hint().is_some());
        }
    }
}
