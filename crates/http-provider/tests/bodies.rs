//! Faults 7-9: bodies that are too large, too slow, or packed.
#![allow(clippy::unwrap_used, reason = "a test panics when it fails")]

mod common;

use std::time::{Duration, Instant};

use common::{Client, FakeActor, GET, once, put, serve, serve_with, until};

/// What this process holds in memory, in bytes.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn a_body_that_announces_too_much_is_refused_before_it_is_read() {
    let served = serve(FakeActor::echo()).await;
    for extra in ["", "Expect: 100-continue\r\n"] {
        let mut client = Client::connect(served.address).await;
        let request = format!(
            "PUT / HTTP/1.1\r\nHost: a\r\n{extra}Content-Length: {}\r\n\r\n",
            (16 << 20) + 1
        );
        // Not a byte of the body is sent, and no 100 comes.
        let answer = client.exchange(request).await;
        assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
        assert_eq!(answer.header("connection"), Some("close"));
        client.expect_end().await;
    }
}

#[tokio::test]
async fn a_client_that_sends_its_large_body_anyway_is_not_cut_off_before_it_reads_413() {
    let values = [("MAX_BODY_BYTES", "1000"), ("LINGER", "1m")];
    let served = serve_with(FakeActor::echo(), &values).await;
    let mut client = Client::connect(served.address).await;
    let head = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n";
    assert_eq!(client.exchange(head).await.code(), "body_too_large");
    for _ in 0..40 {
        client.send(vec![7; 100_000]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    client.expect_end().await;
}

#[tokio::test]
async fn a_client_that_never_stops_sending_is_cut_off_at_last() {
    let values = [("MAX_BODY_BYTES", "1000"), ("LINGER", "200ms")];
    let served = serve_with(FakeActor::echo(), &values).await;
    let mut client = Client::connect(served.address).await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n").await;
    let begin = Instant::now();
    while client.try_send(vec![7; 10_000]).await {
        assert!(begin.elapsed() < common::SOON, "still reading");
    }
}

#[tokio::test]
async fn a_chunked_body_over_the_cap_is_refused_midway_and_memory_stays_flat() {
    let served = serve(FakeActor::echo()).await;
    let mut client = Client::connect(served.address).await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = [&b"100000\r\n"[..], &vec![7; 1 << 20], b"\r\n"].concat();
    let before = resident_bytes();
    let mut most = 0;
    // 256 MiB, were they taken.
    for _ in 0..256 {
        if !client.try_send(&chunk).await {
            break;
        }
        most = most.max(resident_bytes());
    }
    assert_eq!(client.receive().await.code(), "body_too_large");
    // The cap, its growing vector's slack, and what other tests of this file hold meanwhile.
    assert!(most.saturating_sub(before) < 120 << 20, "{} bytes more", most - before);
    assert_eq!(once(served.address, GET).await.status, 200);
}

#[tokio::test]
async fn a_body_of_exactly_the_cap_is_served_either_way() {
    let served = serve_with(FakeActor::echo(), &[("MAX_BODY_BYTES", "1000")]).await;
    let body = vec![b'x'; 1000];
    assert_eq!(once(served.address, put("/", &body)).await.body.len(), 1000 + "PUT / ".len());
    for (size, status) in [(1000, 200), (1001, 413)] {
        let body = "x".repeat(size);
        let answer = once(
            served.address,
            format!("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n"),
        )
        .await;
        assert_eq!(answer.status, status, "chunked, {size} bytes");
    }
}

#[tokio::test]
async fn a_dripping_body_gets_408_while_others_are_served() {
    let values = [("BODY_WINDOW", "600ms"), ("BODY_BYTES_PER_SECOND", "1000")];
    let served = serve_with(FakeActor::echo(), &values).await;
    let mut slow = Client::connect(served.address).await;
    let begin = Instant::now();
    slow.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
    let (mut reader, mut writer) = slow.stream.split();
    let drip = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if tokio::io::AsyncWriteExt::write_all(&mut writer, b"x").await.is_err() {
                // Closed: for this test the same as being told.
                std::future::pending::<()>().await;
            }
            assert_eq!(once(served.address, put("/other", b"1")).await.text(), "PUT /other 1");
        }
    };
    let mut head = [0; 12];
    let told = tokio::io::AsyncReadExt::read_exact(&mut reader, &mut head);
    tokio::select! {
        told = told => { told.unwrap(); }
        () = drip => {}
        () = tokio::time::sleep(common::SOON) => panic!("still waiting"),
    }
    assert_eq!(&head, b"HTTP/1.1 408");
    assert!(begin.elapsed() >= Duration::from_millis(600), "{:?}", begin.elapsed());
    assert!(served.actor.seen.lock().unwrap().iter().all(|request| request.path == "/other"));
}

#[tokio::test]
async fn a_stalled_body_gets_408_as_json_and_a_closed_connection() {
    let values = [("BODY_WINDOW", "200ms"), ("BODY_BYTES_PER_SECOND", "1000")];
    let served = serve_with(FakeActor::echo(), &values).await;
    let mut client = Client::connect(served.address).await;
    let answer = client.exchange("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc").await;
    assert_eq!((answer.status, answer.code().as_str()), (408, "body_timeout"));
    client.expect_end().await;
}

#[tokio::test]
async fn packed_bodies_get_415_without_being_read() {
    let served = serve(FakeActor::echo()).await;
    for encoding in ["gzip", "br", "deflate", "zstd", "identity, gzip"] {
        let mut client = Client::connect(served.address).await;
        let answer = client
            .exchange(format!(
                "PUT / HTTP/1.1\r\nHost: a\r\nContent-Encoding: {encoding}\r\nContent-Length: 10000\r\n\r\n"
            ))
            .await;
        assert_eq!((answer.status, answer.code().as_str()), (415, "content_encoding"));
        assert_eq!(answer.header("accept-encoding"), Some("identity"));
        client.expect_end().await;
    }
    let plain =
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Encoding: identity\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(once(served.address, plain).await.status, 200);
}

#[tokio::test]
async fn chunks_that_are_none_get_400() {
    let served = serve(FakeActor::echo()).await;
    for chunks in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "-1\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n",
        "fffffffffffffffff\r\n",
    ] {
        let mut client = Client::connect(served.address).await;
        let answer = client
            .exchange(format!(
                "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
            ))
            .await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "malformed_body"), "{chunks:?}");
        client.expect_end().await;
    }
    assert!(served.actor.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_client_is_told_to_go_on_only_when_its_body_is_wanted() {
    let served = serve(FakeActor::echo()).await;
    let mut client = Client::connect(served.address).await;
    client
        .send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        .await;
    assert_eq!(client.receive().await.status, 100);
    assert_eq!(client.exchange("abc").await.text(), "PUT / abc");
    // The connection is as good as before.
    assert_eq!(client.exchange(put("/", b"next")).await.text(), "PUT / next");
}

#[tokio::test]
async fn a_body_cut_by_its_client_never_reaches_the_actor() {
    let served = serve(FakeActor::echo()).await;
    let mut client = Client::connect(served.address).await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc").await;
    drop(client);
    assert_eq!(once(served.address, GET).await.status, 200);
    assert_eq!(served.actor.seen.lock().unwrap().len(), 1, "only the GET");
}

#[tokio::test]
async fn bodies_of_all_clients_together_are_bounded() {
    let values = [("MAX_BUFFERED_BYTES", "65536")];
    let served = serve_with(FakeActor::echo(), &values).await;
    let mut first = Client::connect(served.address).await;
    first.send("PUT /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n").await;
    first.send(vec![b'x'; 49_999]).await;
    // Until the first body's share is taken, the second may still find room.
    let begin = Instant::now();
    loop {
        let answer = once(served.address, put("/2", &[b'y'; 40_000])).await;
        if answer.status == 503 {
            assert_eq!(answer.code(), "buffers_full");
            assert_eq!(answer.header("retry-after"), Some("1"));
            break;
        }
        assert!(begin.elapsed() < common::SOON);
    }
    assert_eq!(first.exchange("x").await.status, 200);
    assert_eq!(once(served.address, put("/3", &[b'y'; 40_000])).await.status, 200);
}

#[tokio::test]
async fn many_bodies_on_one_connection_keep_their_bounds() {
    let served = serve(FakeActor::echo()).await;
    let mut client = Client::connect(served.address).await;
    for size in [0, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 300_000] {
        let body: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
        let answer = client.exchange(put("/", &body)).await;
        assert_eq!(&answer.body["PUT / ".len()..], body, "{size} bytes");
    }
    until("all seen", || served.actor.seen.lock().unwrap().len() == 9).await;
}
