//! Many clients, clients that leave, guests that do not come back, and the end of the process
//! while all that goes on.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use support::{
    Client, SOON, Server, User, Work, digits, mobilenet, pictures, put, request, shared, until,
};

/// A request of a scripted guest on a connection of its own, not waited for.
fn begin(address: SocketAddr, work: Work) -> Client {
    let mut client = Client::connect(address);
    client.send(request("PUT", "/", &[], &work.body()));
    client
}

#[track_caller]
fn still_answers(address: SocketAddr) {
    assert_eq!(put(address, "/", b"x").text(), "x");
}

#[test]
fn a_burst_over_the_queue_gets_its_own_digit_or_503_and_never_anothers() {
    let Some(built) = digits() else { return };
    let user = User::with_module(built, "digits.wasm");
    let server = Server::start(&user, "digits.wasm --instances 2 --queue 4");
    let address = server.address();
    let (answered, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let begin = Instant::now();
    // Ten clients per digit, each again and again until both kinds of answer were seen often.
    thread::scope(|scope| {
        for client in 0..40 {
            let (answered, refused) = (&answered, &refused);
            scope.spawn(move || {
                let (own, picture) = ((client % 10).to_string(), pictures::digit(client % 10));
                let mut connection = Client::connect(address);
                for round in 0.. {
                    let enough = answered.load(Ordering::Relaxed) >= 1000
                        && refused.load(Ordering::Relaxed) >= 100;
                    if round >= 5 && (enough || begin.elapsed() > SOON) {
                        break;
                    }
                    let answer = connection.exchange(request("PUT", "/", &[], &picture));
                    if answer.status == 200 {
                        assert_eq!(answer.label(), own, "client {client}, round {round}");
                        answered.fetch_add(1, Ordering::Relaxed);
                    } else {
                        assert_eq!(answer.error(), (503, "queue_full".into()));
                        assert!(answer.header("retry-after").is_some());
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let (answered, refused) = (answered.into_inner(), refused.into_inner());
    assert!(answered >= 1000 && refused >= 100, "{answered} answered, {refused} refused");
    let counted = |outcome| server.metric("graphlet_requests_total", &[("outcome", outcome)]);
    assert_eq!(counted("ok"), answered as f64);
    assert_eq!(counted("queue_full"), refused as f64);
    server.stop();
}

#[test]
fn different_photographs_at_once_keep_their_labels() {
    let (Some(built), Some(shared)) = (mobilenet(), shared()) else { return };
    let user = User::with_module(built, "mobilenet.wasm");
    let photographs: Vec<_> = [
        ("airliner.jpg", "airliner"),
        ("banana.jpg", "banana"),
        ("cat.png", "tabby, tabby cat"),
        ("daisy.jpg", "daisy"),
        ("espresso.jpg", "espresso"),
        ("goldfish.jpg", "goldfish, Carassius auratus"),
        ("school_bus.jpg", "school bus"),
        ("zebra.jpg", "zebra"),
    ]
    .into_iter()
    .map(|(name, label)| (std::fs::read(shared.join("images").join(name)).unwrap(), label))
    .collect();
    let server = Server::start(&user, "mobilenet.wasm --instances 2");
    let address = server.address();
    thread::scope(|scope| {
        for client in 0..4 {
            let photographs = &photographs;
            scope.spawn(move || {
                let mut connection = Client::connect(address);
                // Each client in an order of its own.
                for step in 0..photographs.len() {
                    let index = (client * 3 + step * (2 * client + 1)) % photographs.len();
                    let (picture, label) = &photographs[index];
                    let answer = connection.exchange(request("PUT", "/", &[], picture));
                    assert_eq!(answer.label(), *label);
                }
            });
        }
    });
    server.stop();
}

#[test]
fn a_client_that_leaves_frees_its_place_in_the_queue_and_harms_nobody() {
    let user = User::with_scripted_guest("guest.wasm");
    let server = Server::start(&user, "guest.wasm --instances 1 --queue 1 --request-timeout 10m");
    let address = server.address();
    let busy = begin(address, Work::Long);
    server.until_instances("busy", 1);
    let waiting = begin(address, Work::Long);
    let waits = || server.metric("graphlet_queue_depth", &[]);
    until("a place in the queue taken", || (waits() == 1.0).then_some(()));
    drop(waiting);
    until("the place freed", || (waits() == 0.0).then_some(()));
    // In the middle of its work, too.
    drop(busy);
    still_answers(address);
    let left = || server.metric("graphlet_requests_total", &[("outcome", "client_left")]);
    until("both counted", || (left() == 2.0).then_some(()));
    server.stop();
}

#[test]
fn clients_that_leave_mid_inference_leave_the_model_right() {
    let Some(built) = digits() else { return };
    let user = User::with_module(built, "digits.wasm");
    let server = Server::start(&user, "digits.wasm --instances 1 --queue 8");
    let address = server.address();
    for round in 0..100 {
        let mut client = Client::connect(address);
        client.send(request("PUT", "/", &[], &pictures::digit(round % 10)));
    }
    until("an answer", || {
        let answer = put(address, "/", &pictures::digit(4));
        (answer.status != 503).then(|| assert_eq!(answer.label(), "4"))
    });
    // Some of them may arrive only now.
    until("an empty queue", || (server.metric("graphlet_queue_depth", &[]) == 0.0).then_some(()));
    server.until_instances("idle", 1);
    assert_eq!(server.metric("graphlet_traps_total", &[]), 0.0);
}

#[test]
fn a_guest_that_never_comes_back_is_stopped_and_the_next_request_is_right() {
    let user = User::with_scripted_guest("guest.wasm");
    let server = Server::start(&user, "guest.wasm --instances 1 --request-timeout 400ms");
    let address = server.address();
    for round in 1..=2 {
        let sent = Instant::now();
        let answer = put(address, "/", &Work::Endless.body());
        let took = sent.elapsed();
        assert_eq!(answer.error(), (504, "deadline".into()));
        // How soon after it, engine's tests measure; without the deadline there is no answer.
        assert!(took >= Duration::from_millis(400), "too early: {took:?}");
        still_answers(address);
        let traps = server.metric("graphlet_traps_total", &[("reason", "deadline")]);
        assert_eq!(traps, f64::from(round));
    }
    server.stop();
}

#[test]
fn a_guest_that_traps_fails_one_request_and_the_reason_is_counted_and_logged() {
    let user = User::with_scripted_guest("guest.wasm");
    let server = Server::start(&user, "guest.wasm --instances 1 --memory 8MiB");
    let address = server.address();
    for (work, status, code, reason) in [
        (Work::Trap, 500, "actor_trap", "unreachable"),
        (Work::Hog, 503, "actor_out_of_memory", "out_of_memory"),
        (Work::Recurse, 500, "actor_trap", "stack_overflow"),
    ] {
        let answer = put(address, "/", &work.body());
        assert_eq!(answer.error(), (status, code.to_owned()), "{work:?}");
        still_answers(address);
        assert_eq!(server.metric("graphlet_traps_total", &[("reason", reason)]), 1.0);
        server.event_where(reason, |event| {
            event["reason"] == reason && event["actor.name"] == "guest"
        });
        let failed = server.event_where(code, |event| event["outcome"] == code);
        assert!(failed["request.id"].is_string(), "{failed}");
    }
    server.stop();
}

#[test]
fn what_runs_when_sigterm_comes_is_finished_and_nothing_new_begins() {
    let user = User::with_scripted_guest("guest.wasm");
    let server = Server::start(&user, "guest.wasm --instances 1 --request-timeout 10m --grace 10m");
    let address = server.address();
    let mut running = begin(address, Work::Long);
    server.until_instances("busy", 1);
    let mut waiting = begin(address, Work::Long);
    until("a place in the queue", || {
        (server.metric("graphlet_queue_depth", &[]) == 1.0).then_some(())
    });
    server.signal(Signal::TERM);
    let begun = server.event("Stopping: running requests are finished");
    assert_eq!(begun["signal"], "SIGTERM");
    until("a closed port", || TcpStream::connect(address).is_err().then_some(()));
    for client in [&mut running, &mut waiting] {
        let answer = client.receive();
        assert_eq!((answer.status, answer.text()), (200, "L"));
        assert_eq!(client.rest(), b"", "the connection ends after its answer");
    }
    assert_eq!(server.ends(), (0, String::new()));
}

#[test]
fn a_stop_under_load_cuts_no_answer() {
    let Some(built) = digits() else { return };
    let user = User::with_module(built, "digits.wasm");
    let server = Server::start(&user, "digits.wasm --instances 2");
    let address = server.address();
    let (answered, stopping) = (AtomicUsize::new(0), AtomicBool::new(false));
    let server = thread::scope(|scope| {
        for client in 0..8 {
            let (answered, stopping) = (&answered, &stopping);
            scope.spawn(move || {
                let (own, picture) = ((client % 10).to_string(), pictures::digit(client % 10));
                // A connection may be closed between two requests, never within an answer.
                while let Ok(mut connection) = Client::try_connect(address) {
                    loop {
                        use std::io::Write as _;
                        let sent = connection.stream.write_all(&request("PUT", "/", &[], &picture));
                        let answer = sent.ok().and_then(|()| connection.try_receive(false));
                        let Some(answer) = answer else { break };
                        if answer.status == 200 {
                            assert_eq!(answer.label(), own);
                            answered.fetch_add(1, Ordering::Relaxed);
                        } else {
                            assert_eq!(answer.error(), (503, "stopping".into()));
                        }
                        if answer.header("connection") == Some("close") {
                            break;
                        }
                    }
                    assert!(stopping.load(Ordering::SeqCst), "closed without a reason");
                }
            });
        }
        until("some answers", || (answered.load(Ordering::Relaxed) > 100).then_some(()));
        stopping.store(true, Ordering::SeqCst);
        server.signal(Signal::TERM);
        server
    });
    assert_eq!(server.ends(), (0, String::new()));
}

#[test]
fn a_second_signal_and_the_end_of_grace_do_not_wait_for_a_guest_that_hangs() {
    for (grace, again) in [("10m", true), ("300ms", false)] {
        let user = User::with_scripted_guest("guest.wasm");
        let arguments = format!("guest.wasm --instances 1 --request-timeout 10m --grace {grace}");
        let server = Server::start(&user, &arguments);
        let _hanging = begin(server.address(), Work::Endless);
        server.until_instances("busy", 1);
        server.signal(Signal::INT);
        server.event("Stopping: running requests are finished");
        if again {
            server.signal(Signal::INT);
        }
        // Long before its request or the longer grace would end.
        assert_eq!(server.ends().0, 0);
    }
}

#[test]
fn ctrl_c_works_while_a_model_loads() {
    let user = User::new();
    // Its beginning never ends.
    user.write("slow.wasm", support::scripted_guest_with("(loop $again (br $again))"));
    user.done("sign slow.wasm -o slow.wasm");
    let line = "slow.wasm --instances 1 --listen 127.0.0.1:0 --grace 10m";
    let server = Server::begin(&user, line);
    server.event("Actor linked");
    assert_eq!(server.admin("/readyz").status, 503, "not ready before the model is loaded");
    let begun = Instant::now();
    server.signal(Signal::INT);
    assert_eq!(server.ends(), (0, String::new()));
    // Loading alone may take a minute.
    assert!(begun.elapsed() < Duration::from_secs(40), "took {:?}", begun.elapsed());
}
