//! Faults 6, 10 and 13, and the graceful stop: connections that are slow, many, or leave.
#![allow(clippy::unwrap_used, reason = "a test panics when it fails")]

mod common;

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use common::{
    Client, FakeActor, GET, SOON, once, put, serve, serve_with, until, until_no_connection,
};
use host::provider::CapabilityProvider;

#[tokio::test]
async fn a_slow_header_is_closed_by_its_deadline() {
    let served = serve_with(FakeActor::echo(), &[("HEADER_TIMEOUT", "300ms")]).await;
    let mut client = Client::connect(served.address).await;
    let begin = Instant::now();
    // A byte now and then does not buy more time.
    client.send("GET / HT").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    client.try_send("TP/1.1\r\nHost: ").await;
    let answer = client.receive().await;
    assert_eq!((answer.status, answer.code().as_str()), (408, "header_timeout"));
    client.expect_end().await;
    assert!(begin.elapsed() >= Duration::from_millis(290), "{:?}", begin.elapsed());
    assert_eq!(once(served.address, GET).await.status, 200);
}

#[tokio::test]
async fn a_slow_second_header_is_closed_by_its_deadline_too() {
    let values = [("HEADER_TIMEOUT", "300ms"), ("IDLE_TIMEOUT", "1m")];
    let served = serve_with(FakeActor::echo(), &values).await;
    let mut client = Client::connect_with(served.address, [GET, "GE"].concat()).await;
    assert_eq!(client.receive().await.status, 200);
    assert_eq!(client.receive().await.code(), "header_timeout");
    client.expect_end().await;
    let mut client = Client::connect_with(served.address, GET).await;
    assert_eq!(client.receive().await.status, 200);
    client.send("G").await;
    assert_eq!(client.receive().await.code(), "header_timeout");
    client.expect_end().await;
}

#[tokio::test]
async fn a_silent_connection_is_closed_without_a_word() {
    let values = [("HEADER_TIMEOUT", "100ms"), ("IDLE_TIMEOUT", "1m")];
    let served = serve_with(FakeActor::echo(), &values).await;
    Client::connect(served.address).await.expect_end().await;
}

#[tokio::test]
async fn an_idle_connection_outlives_the_header_deadline_and_ends_at_its_own() {
    let values = [("HEADER_TIMEOUT", "100ms"), ("IDLE_TIMEOUT", "600ms")];
    let served = serve_with(FakeActor::echo(), &values).await;
    let mut client = Client::connect_with(served.address, GET).await;
    let begin = Instant::now();
    assert_eq!(client.receive().await.status, 200);
    client.expect_end().await;
    assert!(begin.elapsed() >= Duration::from_millis(500), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_long_call_is_no_idle_connection() {
    let values = [("HEADER_TIMEOUT", "50ms"), ("IDLE_TIMEOUT", "50ms")];
    let actor = FakeActor { takes: Duration::from_millis(400), ..FakeActor::echo() };
    let served = serve_with(actor, &values).await;
    let mut client = Client::connect_with(served.address, GET).await;
    assert_eq!(client.receive().await.status, 200);
}

#[tokio::test]
async fn a_call_past_its_deadline_gets_504_and_the_connection_lives_on() {
    let served = serve_with(FakeActor::echo(), &[("CALL_TIMEOUT", "100ms")]).await;
    let taken = served.actor.instances.try_acquire_many(64).unwrap();
    let mut client = Client::connect(served.address).await;
    let answer = client.exchange(GET).await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "deadline"));
    drop(taken);
    assert_eq!(client.exchange(GET).await.status, 200);
}

#[tokio::test]
async fn a_thousand_idle_connections_leave_room_for_work() {
    let served = serve(FakeActor::echo()).await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(Client::connect(served.address).await);
    }
    let mut client = Client::connect(served.address).await;
    for _ in 0..3 {
        assert_eq!(client.exchange(GET).await.status, 200);
    }
    // And each of them can still speak.
    assert_eq!(idle[0].exchange(GET).await.status, 200);
    assert_eq!(idle[999].exchange(GET).await.status, 200);
}

/// How many files are open for connections to this port: not the process's, in which other tests
/// have theirs, and not what the system has accepted by itself, which has no file yet.
fn server_files(port: u16) -> usize {
    const LISTENING: &str = "0A";
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_server = lines.filter(|fields| {
        let (local, state, inode) = (fields[1], fields[3], fields[9]);
        local.ends_with(&format!(":{port:04X}")) && state != LISTENING && inode != "0"
    });
    of_server.count()
}

#[tokio::test]
async fn connections_over_the_cap_are_refused_cleanly_and_the_files_stay_bounded() {
    // Where connections are scarce, idle ones have as long as a head.
    let values = [("MAX_CONNECTIONS", "20"), ("LINGER", "1m"), ("HEADER_TIMEOUT", "10m")];
    let served = serve_with(FakeActor::echo(), &values).await;
    let open = || server_files(served.address.port());
    let mut kept = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect(served.address).await;
        assert_eq!(client.exchange(GET).await.status, 200);
        kept.push(client);
    }
    for _ in 0..5 {
        let mut refused = Client::connect(served.address).await;
        refused.try_send(put("/", b"body")).await;
        let answer = refused.receive().await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "too_many_connections"));
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.header("connection"), Some("close"));
        refused.expect_end().await;
    }
    // Far more at once than may wait for their refusal: at most 64 are told, the others closed.
    assert!(open() >= 20, "{} files for 20 connections", open());
    let mut flood = Vec::new();
    for _ in 0..300 {
        flood.push(Client::connect(served.address).await);
    }
    let mut told = 0;
    for client in &mut flood {
        told += usize::from(client.try_receive(false).await.is_some());
    }
    assert!((1..=64).contains(&told), "{told} of 300 were told");
    assert!(open() <= 20 + 64, "{} files", open());
    drop(flood);
    // A place that is given back can be taken.
    drop(kept.pop());
    let begin = Instant::now();
    loop {
        let mut client = Client::connect(served.address).await;
        client.try_send(GET).await;
        if client.try_receive(false).await.is_some_and(|answer| answer.status == 200) {
            break;
        }
        assert!(begin.elapsed() < SOON, "no place came back");
    }
    assert_eq!(kept[0].exchange(GET).await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_queue_or_midway_frees_its_place() {
    let actor = FakeActor { takes: Duration::from_secs(3600), ..FakeActor::echo() };
    let served = serve_with(actor, &[("CALL_TIMEOUT", "10m")]).await;
    let actor = &served.actor;
    let taken = actor.instances.try_acquire_many(63).unwrap();
    let mut inside = Client::connect(served.address).await;
    inside.send(put("/inside", b"body")).await;
    until("one call inside", || actor.inside.load(Ordering::SeqCst) == 1).await;
    let mut queued = Client::connect(served.address).await;
    queued.send(put("/queued", b"body")).await;
    until("one call waiting", || actor.waiting.load(Ordering::SeqCst) == 1).await;

    drop(queued);
    until("the place in the queue is free", || actor.waiting.load(Ordering::SeqCst) == 0).await;
    drop(inside);
    until("the instance is free", || actor.inside.load(Ordering::SeqCst) == 0).await;
    drop(taken);
}

#[tokio::test]
async fn a_stop_finishes_what_runs_and_takes_nothing_new() {
    let served = serve_with(FakeActor::echo(), &[("CALL_TIMEOUT", "10m")]).await;
    let taken = served.actor.instances.try_acquire_many(64).unwrap();
    let mut idle = Client::connect(served.address).await;
    let mut used = Client::connect(served.address).await;
    used.send("GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(used.receive().await.status, 400);
    let mut running = Vec::new();
    for i in 0..4 {
        let mut client = Client::connect(served.address).await;
        client.send(put(&format!("/{i}"), b"body")).await;
        running.push(client);
    }
    let actor = &served.actor;
    until("four calls wait", || actor.waiting.load(Ordering::SeqCst) == 4).await;

    let stopping = served.provider.stop(SOON);
    let clients = async {
        // Idle connections end at once, while others still run.
        idle.expect_end().await;
        let address = served.address;
        let begin = Instant::now();
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            assert!(begin.elapsed() < SOON, "still accepting");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(actor.waiting.load(Ordering::SeqCst), 4);
        drop(taken);
        for (i, client) in running.iter_mut().enumerate() {
            let answer = client.receive().await;
            assert_eq!(answer.text(), format!("PUT /{i} body"));
            assert_eq!(answer.header("connection"), Some("close"));
            client.expect_end().await;
        }
    };
    let begin = Instant::now();
    tokio::join!(stopping, clients);
    assert!(begin.elapsed() < SOON, "the stop waited for its whole grace");
    let link = common::link("127.0.0.1:0", &[]);
    served.provider.link(served.actor.clone(), &link).await.unwrap_err();
}

#[tokio::test]
async fn a_request_already_sent_when_the_stop_begins_is_answered() {
    use std::io::{Read, Write};
    let served = serve(FakeActor::echo()).await;
    let mut used = Client::connect(served.address).await;
    assert_eq!(used.exchange(GET).await.status, 200);
    // Blocking, on the only thread: the server accepts and reads none of this before its stop.
    let mut clients = Vec::new();
    for i in 0..20 {
        let mut client = std::net::TcpStream::connect(served.address).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        client.write_all(&put(&format!("/{i}"), b"body")).unwrap();
        clients.push(client);
    }
    assert_eq!(used.stream.try_write(&put("/used", b"body")).unwrap(), put("/used", b"body").len());
    served.provider.stop(SOON).await;
    assert_eq!(used.receive().await.text(), "PUT /used body");
    for (i, client) in clients.iter_mut().enumerate() {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert!(text.ends_with(&format!("PUT /{i} body")), "client {i}: {text:?}");
    }
}

#[tokio::test]
async fn what_outlasts_the_grace_is_cut_off() {
    let served = serve_with(FakeActor::echo(), &[("CALL_TIMEOUT", "10m")]).await;
    let _taken = served.actor.instances.try_acquire_many(64).unwrap();
    let mut client = Client::connect(served.address).await;
    client.send(GET).await;
    until("a call waits", || served.actor.waiting.load(Ordering::SeqCst) == 1).await;
    let begin = Instant::now();
    served.provider.stop(Duration::from_millis(100)).await;
    assert!(begin.elapsed() < SOON);
    until("its call is dropped", || served.actor.waiting.load(Ordering::SeqCst) == 0).await;
    client.expect_end().await;
}

#[tokio::test]
async fn a_port_in_use_is_an_error_and_a_freed_one_can_be_taken_again() {
    let served = serve(FakeActor::echo()).await;
    let mut client = Client::connect(served.address).await;
    assert_eq!(client.exchange(GET).await.status, 200);
    let link = common::link(&served.address.to_string(), &[]);
    let other = http_provider::HttpProvider::new(http_provider::Limits::default());
    let error = other.link(served.actor.clone(), &link).await.unwrap_err();
    assert!(error.to_string().contains(&served.address.to_string()), "{error}");
    assert!(other.bound().is_empty(), "nothing is left behind");
    served.provider.stop(SOON).await;
    other.link(served.actor.clone(), &link).await.unwrap();
    assert_eq!(once(served.address, GET).await.status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let body = vec![b'x'; 64 << 20];
    let actor = FakeActor::new(move |_| Ok(common::ok(body.clone())));
    let served = serve_with(actor, &[("SEND_TIMEOUT", "300ms")]).await;
    let admin = served.provider.open_admin("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut client = Client::connect(served.address).await;
    client.send(GET).await;
    until("answered", || served.actor.seen.lock().unwrap().len() == 1).await;
    // Nothing is read until the server has given it up; then it turns out to be cut.
    until_no_connection(admin).await;
    let mut read = 0;
    let mut space = vec![0; 1 << 20];
    while let Ok(Ok(count @ 1..)) =
        tokio::time::timeout(SOON, tokio::io::AsyncReadExt::read(&mut client.stream, &mut space))
            .await
    {
        read += count;
    }
    assert!(read < 64 << 20, "the whole answer was kept for it");
}

#[tokio::test]
async fn a_client_that_reads_its_answer_slowly_is_not_idle() {
    const BYTES: usize = 32 << 20;
    let actor = FakeActor::new(|_| Ok(common::ok(vec![b'x'; BYTES])));
    let served = serve_with(actor, &[("IDLE_TIMEOUT", "50ms")]).await;
    let mut client = Client::connect(served.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let mut read = 0;
    let mut space = vec![0; 128 << 10];
    loop {
        let next = tokio::io::AsyncReadExt::read(&mut client.stream, &mut space);
        let count = tokio::time::timeout(SOON, next).await.unwrap().unwrap();
        if count == 0 {
            break;
        }
        read += count;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(read > BYTES, "cut off after {read} bytes");
}

#[tokio::test]
async fn while_it_drains_each_answer_ends_its_connection_and_new_ones_are_served() {
    let served = serve_with(FakeActor::echo(), &[]).await;
    let mut kept = Client::connect(served.address).await;
    let answer = kept.exchange(GET).await;
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    served.provider.drain();
    for mut client in [kept, Client::connect(served.address).await] {
        let answer = client.exchange(GET).await;
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        client.expect_end().await;
    }
}

#[tokio::test]
async fn a_link_without_an_address_is_answered_on_every_inherited_socket() {
    let provider = http_provider::HttpProvider::new(http_provider::Limits::default());
    let sockets = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
    provider.inherit(sockets.into());
    let link = |values| host::provider::Link {
        capability: "wascc:http_server".into(),
        binding: "default".into(),
        values,
    };
    let none = std::collections::BTreeMap::new();
    provider.link(std::sync::Arc::new(FakeActor::echo()), &link(none.clone())).await.unwrap();
    for address in addresses {
        assert_eq!(once(address, GET).await.status, 200);
    }
    let bound: Vec<_> = provider.bound().into_iter().map(|bound| bound.address).collect();
    assert_eq!(bound, addresses);
    let second = provider.link(std::sync::Arc::new(FakeActor::echo()), &link(none)).await;
    second.expect_err("the sockets are taken");
}
