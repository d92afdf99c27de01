//! Faults 1-5, 11 and 14: bytes that are not a good request.
#![allow(clippy::unwrap_used, reason = "a test panics when it fails")]

mod common;

use common::{Client, FakeActor, GET, once, put, serve, serve_with};

#[tokio::test]
async fn a_request_hidden_behind_two_framings_is_never_served() {
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    for framing in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 0\r\n",
    ] {
        let served = serve(FakeActor::echo()).await;
        let mut client = Client::connect(served.address).await;
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n0\r\n\r\n{hidden}");
        let answer = client.exchange(request).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "malformed_request"));
        assert_eq!(answer.header("connection"), Some("close"));
        client.expect_end().await;
        assert!(served.actor.seen.lock().unwrap().is_empty(), "framing: {framing:?}");
    }
}

#[tokio::test]
async fn what_follows_a_chunked_body_is_never_served() {
    let served = serve(FakeActor::echo()).await;
    let mut client = Client::connect(served.address).await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
    let answer = client.exchange([request, hidden].concat()).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "POST / abcde"));
    assert_eq!(answer.header("connection"), Some("close"));
    client.expect_end().await;
    assert_eq!(served.actor.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn malformed_requests_get_400_as_json_and_a_closed_connection() {
    let served = serve(FakeActor::echo()).await;
    for request in [
        // 2: lengths, encodings, white space, NUL.
        &b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"[..],
        b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd",
        b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length : 4\r\n\r\nabcd",
        b"GET / HTTP/1.1\r\nHost: a\r\nx: a\0b\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        // 3: Host.
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
        // 4: bare line feeds.
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\nGET / HTTP/1.1\r\n\r\n",
        // 14: bytes no header may hold; and things that are no HTTP at all.
        b"GET / HTTP/1.1\r\nHost: a\r\nx: \x01\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        let mut client = Client::connect(served.address).await;
        let answer = client.exchange(request).await;
        let text = String::from_utf8_lossy(request);
        assert_eq!((answer.status, answer.code().as_str()), (400, "malformed_request"), "{text:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{text:?}");
        assert!(answer.header("x-request-id").is_some(), "{text:?}");
        client.expect_end().await;
    }
    assert!(served.actor.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_malformed_request_behind_a_good_one_does_not_harm_it() {
    let served = serve(FakeActor::echo()).await;
    let mut client = Client::connect(served.address).await;
    client.send([&put("/good", b"body")[..], b"GET / HTTP/1.1\n\n"].concat()).await;
    let answer = client.receive().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "PUT /good body"));
    assert_eq!(client.receive().await.code(), "malformed_request");
    client.expect_end().await;
}

#[tokio::test]
async fn line_feeds_in_bodies_are_nobodys_business() {
    let served = serve(FakeActor::echo()).await;
    let mut client = Client::connect(served.address).await;
    for _ in 0..3 {
        let answer = client.exchange(put("/", b"\n\nGET / HTTP/1.1\n\n\0\r")).await;
        assert_eq!(answer.text(), "PUT / \n\nGET / HTTP/1.1\n\n\0\r");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_however_they_are_cut() {
    let served = serve(FakeActor::echo()).await;
    let requests =
        [&put("/1", b"one")[..], b"\r\n", GET.as_bytes(), &put("/2", b""), &put("/3", b"three")]
            .concat();
    for size in [1, 2, 3, 7, 50, requests.len()] {
        let mut client = Client::connect(served.address).await;
        for piece in requests.chunks(size) {
            client.send(piece).await;
        }
        for expected in ["PUT /1 one", "GET / ", "PUT /2 ", "PUT /3 three"] {
            assert_eq!(client.receive().await.text(), expected, "pieces of {size}");
        }
    }
}

#[tokio::test]
async fn a_head_over_the_limit_gets_431() {
    let served = serve(FakeActor::echo()).await;
    let many = "x: y\r\n".repeat(64);
    let long = format!("x: {}\r\n", "y".repeat(16 * 1024));
    for extra in [many, long] {
        let mut client = Client::connect(served.address).await;
        let answer = client.exchange(format!("GET / HTTP/1.1\r\nHost: a\r\n{extra}\r\n")).await;
        assert_eq!((answer.status, answer.code().as_str()), (431, "header_too_large"));
        client.expect_end().await;
    }
    let most = "x: y\r\n".repeat(63);
    let answer = once(served.address, format!("GET / HTTP/1.1\r\nHost: a\r\n{most}\r\n")).await;
    assert_eq!(answer.status, 200, "64 fields are allowed");
    let head = "GET / HTTP/1.1\r\nHost: a\r\nx: \r\n\r\n";
    let value = "y".repeat(16 * 1024 - head.len());
    let answer = once(served.address, head.replace("x: ", &format!("x: {value}"))).await;
    assert_eq!(answer.status, 200, "16 KiB are allowed");
}

#[tokio::test]
async fn a_head_without_end_is_refused_at_the_limit_and_not_kept() {
    let served = serve_with(FakeActor::echo(), &[("MAX_HEADER_BYTES", "4096")]).await;
    let mut client = Client::connect(served.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nx: ").await;
    client.try_send("y".repeat(1 << 20)).await;
    assert_eq!(client.receive().await.code(), "header_too_large");
    client.expect_end().await;
}

#[tokio::test]
async fn http2_is_turned_away_whatever_follows_its_preface() {
    let served = serve(FakeActor::echo()).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    // Rapid reset: HEADERS and RST_STREAM for stream after stream; empty DATA; CONTINUATION.
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    let mut flood = Vec::new();
    for stream in (1..2_000_u32).step_by(2) {
        for (kind, payload) in
            [(1_u8, &b"\x82"[..]), (3, b"\0\0\0\x08"), (0, b""), (9, b"\x40\x01a\x01b")]
        {
            flood.extend_from_slice(&[0, 0, payload.len() as u8, kind, 0]);
            flood.extend_from_slice(&stream.to_be_bytes());
            flood.extend_from_slice(payload);
        }
    }
    let mut client = Client::connect(served.address).await;
    client.send([&preface[..], settings].concat()).await;
    client.try_send(&flood).await;
    let answer = client.receive().await;
    assert_eq!((answer.status, answer.code().as_str()), (505, "http_version"));
    client.expect_end().await;
    assert_eq!(once(served.address, GET).await.status, 200);
}

#[tokio::test]
async fn header_values_that_are_not_ascii_reach_the_actor_and_harm_nobody() {
    let served = serve(FakeActor::echo()).await;
    let mut request =
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Utf8: \xc3\xa9\r\nX-Latin: \xe9\xff\r\n".to_vec();
    request.extend_from_slice(b"Accept: a\r\nAccept: b\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n");
    assert_eq!(once(served.address, request).await.status, 200);
    let seen = served.actor.seen.lock().unwrap();
    let header = |name: &str| seen[0].header.get(name).map(String::as_str);
    assert_eq!(header("x-utf8"), Some("\u{e9}"));
    assert_eq!(header("x-latin"), Some("\u{e9}\u{ff}"));
    assert_eq!(header("accept"), Some("a, b"));
    assert_eq!((header("connection"), header("x-hop")), (None, None));
}

#[tokio::test]
async fn connect_and_upgrades_open_no_tunnel() {
    let served =
        serve(FakeActor::new(|_| Ok(wire::Response { status_code: 101, ..common::ok("") }))).await;
    let answer = once(served.address, "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"));
    assert!(answer.header("allow").is_some());
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = once(served.address, upgrade).await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "bad_reply"));
}
