//! Fault 12 and the way of answers: bursts, errors, headers, HEAD, request ids.
#![allow(clippy::unwrap_used, reason = "a test panics when it fails")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{Client, FakeActor, GET, once, put, serve, serve_with};
use host::provider::{CallError, CapabilityProvider};
use http_provider::{HttpProvider, Limits};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_over_the_queue_gets_503_and_no_answer_is_swapped() {
    let mut actor = FakeActor::new(|request| Ok(common::ok(request.body.clone())));
    actor.takes = Duration::from_millis(20);
    actor.instances = tokio::sync::Semaphore::new(4);
    actor.max_queue = 16;
    let served = serve(actor).await;
    let address = served.address;
    let clients: Vec<_> = (0..100_u32)
        .map(|number| {
            tokio::spawn(async move {
                // Its own "image": no two are alike in any byte of their pattern.
                let image: Vec<u8> =
                    (0..2000).flat_map(|i| (number * 4001 + i).to_le_bytes()).collect();
                let mut client = Client::connect(address).await;
                let (mut served, mut refused) = (0, 0);
                for _ in 0..5 {
                    let answer = client.exchange(put(&format!("/{number}"), &image)).await;
                    match answer.status {
                        200 => {
                            assert!(answer.body == image, "client {number} got another's answer");
                            served += 1;
                        }
                        503 => {
                            assert_eq!(answer.code(), "queue_full");
                            assert_eq!(answer.header("retry-after"), Some("1"));
                            refused += 1;
                        }
                        other => panic!("status {other}"),
                    }
                }
                (served, refused)
            })
        })
        .collect();
    let (mut served_count, mut refused_count) = (0, 0);
    for client in clients {
        let (served, refused) = client.await.unwrap();
        served_count += served;
        refused_count += refused;
    }
    assert!(served_count >= 20 && refused_count > 0, "{served_count} served, {refused_count} not");
    assert_eq!(once(address, put("/", b"after")).await.text(), "after");
}

#[tokio::test]
async fn each_failure_of_an_actor_has_its_answer() {
    let actor = FakeActor::new(|request| {
        Err(match request.path.as_str() {
            "/trap" => CallError::Trap { reason: "unreachable" },
            "/memory" => CallError::OutOfMemory,
            "/guest" => CallError::Guest("inner details".into()),
            "/refused" => CallError::Refused("inner details".into()),
            "/deadline" => CallError::Deadline,
            _ => return Ok(common::ok("fine")),
        })
    });
    let served = serve(actor).await;
    let mut client = Client::connect(served.address).await;
    for (path, status, code) in [
        ("/trap", 500, "actor_trap"),
        ("/memory", 503, "actor_out_of_memory"),
        ("/guest", 500, "actor_error"),
        ("/refused", 503, "actor_refused"),
        ("/deadline", 504, "deadline"),
    ] {
        let answer = client.exchange(put(path, b"body")).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        assert!(!answer.text().contains("inner details"), "{}", answer.text());
        assert_eq!(answer.header("retry-after").is_some(), status == 503);
        // The connection, like the actor, is as good as before.
        assert_eq!(client.exchange(GET).await.text(), "fine");
    }
}

#[tokio::test]
async fn a_reply_that_http_cannot_carry_is_repaired_or_502() {
    let actor = FakeActor::new(|request| {
        let mut response = common::ok("body");
        match request.path.as_str() {
            "/status" => response.status_code = 100,
            "/none" => response.status_code = 204,
            _ => {
                for (name, value) in [
                    ("x-good", "1"),
                    ("x-split", "a\r\nset-cookie: b"),
                    ("x-latin", "\u{e9}"),
                    ("bad name", "a"),
                    ("Content-Length", "9999"),
                    ("transfer-encoding", "chunked"),
                    ("server", "other"),
                    (wire::OUTCOME_HEADER, "classified"),
                ] {
                    response.header.insert(name.into(), value.into());
                }
            }
        }
        Ok(response)
    });
    let served = serve(actor).await;
    let mut client = Client::connect(served.address).await;
    let answer = client.exchange(GET).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "body"));
    assert_eq!(answer.header("x-good"), Some("1"));
    assert_eq!(answer.header("server"), Some("graphlet"));
    for name in
        ["x-split", "set-cookie", "x-latin", "bad name", "transfer-encoding", wire::OUTCOME_HEADER]
    {
        assert_eq!(answer.header(name), None, "{name}");
    }
    let answer = client.exchange(put("/status", b"")).await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "bad_reply"));
    assert_eq!(client.exchange(put("/none", b"")).await.status, 204);
    assert_eq!(client.exchange(GET).await.text(), "body", "in step after a 204");
}

#[tokio::test]
async fn head_gets_the_head_of_get() {
    let served = serve(FakeActor::echo()).await;
    let mut client = Client::connect(served.address).await;
    client.send("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.try_receive(true).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-length"), Some("GET /x ".len().to_string().as_str()));
    assert_eq!(client.exchange(GET).await.text(), "GET / ", "in step after a HEAD");
    assert_eq!(served.actor.seen.lock().unwrap()[0].method, "GET");
}

#[tokio::test]
async fn a_sane_request_id_comes_back_and_reaches_the_actor() {
    let served = serve(FakeActor::echo()).await;
    let with = |id: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\n\r\n");
    let answer = once(served.address, with("abc-123")).await;
    assert_eq!(answer.header("x-request-id"), Some("abc-123"));
    let answer = once(served.address, with("a\"b c")).await;
    let made = answer.header("x-request-id").unwrap().to_owned();
    assert!(made.len() == 32 && made.bytes().all(|b| b.is_ascii_hexdigit()), "{made}");
    let seen = served.actor.seen.lock().unwrap();
    assert_eq!(seen[0].header["x-request-id"], "abc-123");
    assert_eq!(seen[1].header["x-request-id"], made);
}

#[tokio::test]
async fn the_actor_is_told_its_own_digest_whatever_a_client_says() {
    let served = serve(FakeActor::echo()).await;
    once(served.address, "GET / HTTP/1.1\r\nHost: a\r\nX-Graphlet-Digest: sha256:ff\r\n\r\n").await;
    let seen = served.actor.seen.lock().unwrap();
    assert_eq!(seen[0].header[wire::DIGEST_HEADER], "sha256:00");
}

#[tokio::test]
async fn the_request_arrives_as_the_contract_says() {
    let served = serve(FakeActor::echo()).await;
    once(
        served.address,
        "POST http://a/cat%20.png?top_k=5&x=%20 HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\nContent-Length: 3\r\n\r\n\0\u{ff}",
    )
    .await;
    let seen = served.actor.seen.lock().unwrap();
    assert_eq!(seen[0].method, "POST");
    assert_eq!(
        (seen[0].path.as_str(), seen[0].query_string.as_str()),
        ("/cat%20.png", "top_k=5&x=%20")
    );
    assert_eq!(seen[0].header["accept"], "text/html");
    assert_eq!(seen[0].body, "\0\u{ff}".as_bytes());
}

#[tokio::test]
async fn http_1_0_clients_are_served_too() {
    let served = serve(FakeActor::echo()).await;
    let mut client = Client::connect(served.address).await;
    assert_eq!(client.exchange("GET / HTTP/1.0\r\n\r\n").await.text(), "GET / ");
    client.expect_end().await;
}

#[tokio::test]
async fn several_actors_answer_on_several_ports() {
    let provider = HttpProvider::new(Limits::default());
    for name in ["one", "two"] {
        let actor = FakeActor::new(move |_| Ok(common::ok(name)));
        provider.link(Arc::new(actor), &common::link("127.0.0.1:0", &[])).await.unwrap();
    }
    let bound = provider.bound();
    assert_eq!(once(bound[0].address, GET).await.text(), "one");
    assert_eq!(once(bound[1].address, GET).await.text(), "two");
    assert_eq!(bound[0].subject, "MFAKE");
}

#[tokio::test]
async fn a_link_with_a_bad_value_binds_nothing() {
    let provider = HttpProvider::new(Limits::default());
    for values in [&[("MAX_BODY_BYTES", "lots")][..], &[("MAX_BODY", "1")]] {
        let link = common::link("127.0.0.1:0", values);
        let error = provider.link(Arc::new(FakeActor::echo()), &link).await.unwrap_err();
        assert!(error.to_string().contains(values[0].0), "{error}");
    }
    assert!(provider.bound().is_empty());
    let served = serve_with(FakeActor::echo(), &[("MAX_BODY_BYTES", "1")]).await;
    assert_eq!(served.provider.capability(), "wascc:http_server");
    assert!(served.provider.handle(&served.actor.identity, "Anything", b"").is_err());
}
