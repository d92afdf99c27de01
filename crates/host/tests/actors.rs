//! An actor's life: start, requests, queue, expiry, stop.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::*;
use host::{
    Host, LoadOptions, StartError,
    provider::{ActorService, ActorState, CallError},
};

fn options(instances: usize, queue_depth: usize) -> LoadOptions {
    LoadOptions { instances, queue_depth, ..LoadOptions::default() }
}

/// Polls for a condition that other threads bring about.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < LONG, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn an_actor_answers_and_its_phases_are_stamped() {
    // Marks `decode`, marks `infer`, waits in the gate, marks `done`.
    let mark = |at: u32, len: usize| {
        format!(
            "(drop (call $host_call (i32.const 2048) (i32.const 7) (i32.const 2304) (i32.const 14)
               (i32.const 2560) (i32.const 4) (i32.const {at}) (i32.const {len})))"
        )
    };
    let data = r#"(data (i32.const 2048) "default") (data (i32.const 2304) "graphlet:phase")
        (data (i32.const 2560) "Mark") (data (i32.const 2600) "decode")
        (data (i32.const 2610) "infer") (data (i32.const 2620) "done")
        (data (i32.const 2700) "test:gate") (data (i32.const 2720) "Wait")"#;
    let wait =
        "(drop (call $host_call (i32.const 2048) (i32.const 7) (i32.const 2700) (i32.const 9)
        (i32.const 2720) (i32.const 4) (i32.const 65536) (local.get $msg)))";
    let body = [mark(2600, 6), mark(2610, 5), wait.into(), mark(2620, 4), ECHO.into()].concat();
    let gate = Arc::new(Gate::default());
    let host = Host::builder().provider(gate.clone()).build().unwrap();
    let actor = load(&host, &guest_with(data, &body), &options(1, 4));
    host.link(&actor, &link("default")).await.unwrap();
    let begin = Instant::now();
    let running = {
        let actor = Arc::clone(&actor);
        tokio::spawn(async move { call(&actor, "Call", b"hello", LONG).await })
    };
    gate.wait_inside(1).await;
    let inside = Instant::now();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let held = inside.elapsed();
    gate.open();
    let reply = running.await.unwrap().unwrap();
    assert_eq!(reply.body, b"hello");
    let names: Vec<_> = reply.phases.iter().map(|phase| phase.0.as_str()).collect();
    assert_eq!(names, ["decode", "infer"]);
    let (decode, infer) = (reply.phases[0].1, reply.phases[1].1);
    assert!(decode <= inside - begin && infer >= held, "{decode:?}, {infer:?}, held {held:?}");
    assert!(decode + infer < begin.elapsed(), "{decode:?}, {infer:?}");
    let status = actor.status();
    assert_eq!(status.state, ActorState::Running);
    assert_eq!(status.instance_memory_bytes, [32 << 16]);
    assert_eq!(actor.identity().name, "guest");
    assert!(actor.identity().subject.starts_with('M') && !status.unsigned);
}

#[tokio::test]
async fn replies_never_cross() {
    let host = host();
    let actor = load(&host, &guest(ECHO), &options(3, 1000));
    let calls: Vec<_> = (0..300u32)
        .map(|client| {
            let actor = Arc::clone(&actor);
            tokio::spawn(async move {
                let message = client.to_le_bytes().repeat(100 + client as usize);
                let reply = call(&actor, "Call", &message, LONG).await.unwrap();
                assert!(reply.body == message, "client {client}");
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
}

#[tokio::test]
async fn a_full_queue_refuses_and_a_caller_that_leaves_gives_its_place_back() {
    let (_host, gate, actor) = gated(&options(1, 2)).await;
    let spawn = || {
        let actor = Arc::clone(&actor);
        tokio::spawn(async move { call(&actor, "Call", b"x", LONG).await })
    };
    let running = spawn();
    gate.wait_inside(1).await;
    let waiting = [spawn(), spawn()];
    eventually("two wait", || actor.status().queue_depth == 2).await;
    let error = call(&actor, "Call", b"x", LONG).await.unwrap_err();
    assert_eq!(error, CallError::QueueFull { waiting: 2 });
    assert_eq!((actor.status().busy_instances, actor.status().idle_instances), (1, 0));
    waiting[0].abort();
    eventually("one wait", || actor.status().queue_depth == 1).await;
    let another = spawn();
    eventually("two wait again", || actor.status().queue_depth == 2).await;
    gate.open();
    running.await.unwrap().unwrap();
    another.await.unwrap().unwrap();
    let [left, stayed] = waiting;
    assert!(left.await.unwrap_err().is_cancelled());
    stayed.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_actor_without_a_queue_takes_what_its_instances_can_take_at_once() {
    let (_host, gate, actor) = gated(&options(2, 0)).await;
    eventually("both idle", || actor.status().idle_instances == 2).await;
    let spawn = || {
        let actor = Arc::clone(&actor);
        tokio::spawn(async move { call(&actor, "Call", b"x", LONG).await })
    };
    let running = [spawn(), spawn()];
    gate.wait_inside(2).await;
    let error = call(&actor, "Call", b"x", LONG).await.unwrap_err();
    assert_eq!(error, CallError::QueueFull { waiting: 0 });
    gate.open();
    for call in running {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_deadline_counts_from_the_queue() {
    let (_host, gate, actor) = gated(&options(1, 8)).await;
    let running = {
        let actor = Arc::clone(&actor);
        tokio::spawn(async move { call(&actor, "Call", b"x", LONG).await })
    };
    gate.wait_inside(1).await;
    let (begin, limit) = (Instant::now(), Duration::from_millis(50));
    assert_eq!(call(&actor, "Call", b"x", limit).await.unwrap_err(), CallError::Deadline);
    let took = begin.elapsed();
    // How soon after a deadline a guest is stopped is measured by the engine's tests.
    assert!(took >= limit && took < LONG, "{took:?}");
    assert_eq!(actor.status().queue_depth, 0);
    gate.open();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn no_caller_gets_more_time_than_the_actor_allows() {
    let host = host();
    let options = LoadOptions { call_time: Duration::from_millis(50), ..options(1, 8) };
    let actor = load(&host, &echo_or("", "(loop br 0)"), &options);
    let begin = Instant::now();
    assert_eq!(call(&actor, "Bad", b"", LONG).await.unwrap_err(), CallError::Deadline);
    assert!(begin.elapsed() < LONG);
}

#[tokio::test]
async fn a_message_longer_than_its_limit_never_reaches_the_guest() {
    let host = host();
    let options = LoadOptions { request_bytes: 1000, ..options(1, 8) };
    let actor = load(&host, &guest(ECHO), &options);
    assert_eq!(call(&actor, "Call", &[7; 1000], LONG).await.unwrap().body.len(), 1000);
    let error = call(&actor, "Call", &[7; 1001], LONG).await.unwrap_err();
    assert!(matches!(&error, CallError::Guest(text) if text.contains("1001")), "{error}");
}

#[tokio::test]
async fn a_message_that_does_not_fit_into_the_guests_memory_traps() {
    // The guest has 2 MiB and takes the message at 64 KiB without asking for more.
    let host = host();
    let actor = load(&host, &guest(ECHO), &options(1, 8));
    let error = call(&actor, "Call", &vec![7; 2 << 20], LONG).await.unwrap_err();
    assert_eq!(error, CallError::Trap { reason: "bad_pointer" });
    assert_eq!(call(&actor, "Call", b"next", LONG).await.unwrap().body, b"next");
}

#[tokio::test]
async fn a_message_nobody_waits_for_any_more_is_not_carried_out() {
    let (_host, gate, actor) = gated(&options(1, 8)).await;
    let running = {
        let actor = Arc::clone(&actor);
        tokio::spawn(async move { call(&actor, "Call", b"x", LONG).await })
    };
    gate.wait_inside(1).await;
    let left = {
        let actor = Arc::clone(&actor);
        tokio::spawn(async move { call(&actor, "Call", b"x", LONG).await })
    };
    eventually("one waits", || actor.status().queue_depth == 1).await;
    left.abort();
    eventually("none waits", || actor.status().queue_depth == 0).await;
    gate.open();
    running.await.unwrap().unwrap();
    eventually("idle", || actor.status().idle_instances == 1).await;
}

#[tokio::test]
async fn what_runs_is_finished_when_the_host_stops_and_what_comes_later_is_refused() {
    let (host, gate, actor) = gated(&options(1, 8)).await;
    let spawn = || {
        let actor = Arc::clone(&actor);
        tokio::spawn(async move { call(&actor, "Call", b"x", LONG).await })
    };
    let (running, waiting) = (spawn(), spawn());
    gate.wait_inside(1).await;
    eventually("one waits", || actor.status().queue_depth == 1).await;
    let stopping = tokio::spawn({
        let host = host.clone();
        async move { host.stop(LONG).await }
    });
    eventually("stopping", || actor.status().state == ActorState::Stopping).await;
    assert_eq!(call(&actor, "Call", b"x", LONG).await.unwrap_err(), CallError::Stopping);
    gate.open();
    running.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    stopping.await.unwrap();
    let status = actor.status();
    assert_eq!(
        (status.idle_instances, status.busy_instances, status.starting_instances),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn stopping_takes_no_longer_than_its_grace() {
    let (host, gate, actor) = gated(&options(1, 8)).await;
    let spawn = || {
        let actor = Arc::clone(&actor);
        tokio::spawn(async move { call(&actor, "Call", b"x", LONG).await })
    };
    let (running, waiting) = (spawn(), spawn());
    gate.wait_inside(1).await;
    eventually("one waits", || actor.status().queue_depth == 1).await;
    let begin = Instant::now();
    host.stop(Duration::from_millis(50)).await;
    assert!(begin.elapsed() < LONG, "{:?}", begin.elapsed());
    assert_eq!(waiting.await.unwrap().unwrap_err(), CallError::Stopping);
    gate.open();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_actor_whose_claims_no_longer_hold_gets_no_traffic_until_they_do() {
    let trusted = Arc::new(AtomicBool::new(true));
    let (source, rechecks) = (Arc::clone(&trusted), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&rechecks);
    let host = Host::builder()
        .policy(Box::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut policy = policy();
            if !source.load(Ordering::SeqCst) {
                policy.trusted_issuers.clear();
            }
            Ok(policy)
        }))
        .recheck_interval(Duration::from_millis(5))
        .build()
        .unwrap();
    let actor = load(&host, &guest(ECHO), &options(1, 8));
    eventually("looked at thrice", || rechecks.load(Ordering::SeqCst) > 2).await;
    call(&actor, "Call", b"x", LONG).await.unwrap();
    trusted.store(false, Ordering::SeqCst);
    eventually("refused", || actor.status().state == ActorState::Refused).await;
    match call(&actor, "Call", b"x", LONG).await {
        Err(CallError::Refused(reason)) => assert!(reason.contains("issuer"), "{reason}"),
        other => panic!("{other:?}"),
    }
    trusted.store(true, Ordering::SeqCst);
    eventually("running", || actor.status().state == ActorState::Running).await;
    call(&actor, "Call", b"x", LONG).await.unwrap();
    host.stop(LONG).await;
    let seen = rechecks.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(rechecks.load(Ordering::SeqCst) <= seen + 1, "still looking at claims after the end");
}

#[tokio::test]
async fn claims_that_expire_while_the_actor_runs_stop_its_traffic() {
    // The policy's clock cannot be moved from outside, so the claims have ended: within the skew
    // for a moment more, then beyond it. A machine that does not get to ask within that moment is
    // given a longer one.
    for moment in [2, 10, 50] {
        let mut statement = statement(&[]);
        let end = now().0 + moment - claims::CLOCK_SKEW.as_secs();
        statement.issued_at = claims::Timestamp(end - 3600);
        statement.valid_for = Some(Duration::from_secs(3600));
        let host = Host::builder()
            .policy(Box::new(|| Ok(policy())))
            .recheck_interval(Duration::from_millis(20))
            .build()
            .unwrap();
        let actor = host.load(signed(&guest(ECHO), &statement), &options(1, 8)).unwrap();
        let answered = call(&actor, "Call", b"x", LONG).await;
        let expires_in = actor.status().claims_expire_in;
        if now().0 >= end + claims::CLOCK_SKEW.as_secs() {
            continue;
        }
        answered.unwrap();
        assert_eq!(expires_in, Some(Duration::ZERO));
        eventually("refused", || actor.status().state == ActorState::Refused).await;
        assert!(matches!(call(&actor, "Call", b"x", LONG).await, Err(CallError::Refused(_))));
        return;
    }
    panic!("an answer takes 50 s");
}

#[tokio::test]
async fn an_actor_that_cannot_start_says_why_and_lets_requests_run_into_their_deadline() {
    let failing = r#"(module
        (import "wapc" "__guest_error" (func $error (param i32 i32)))
        (memory (export "memory") 1) (data (i32.const 0) "no model here")
        (func (export "__guest_call") (param i32 i32) (result i32)
          (call $error (i32.const 0) (i32.const 13)) i32.const 0))"#;
    let trapping = r#"(module (memory (export "memory") 1) (func $s unreachable) (start $s)
        (func (export "__guest_call") (param i32 i32) (result i32) i32.const 1))"#;
    let endless = r#"(module (memory (export "memory") 1) (func (export "wapc_init") (loop br 0))
        (func (export "__guest_call") (param i32 i32) (result i32) i32.const 1))"#;
    let large = r#"(module (memory (export "memory") 60000)
        (func (export "__guest_call") (param i32 i32) (result i32) i32.const 1))"#;
    for (text, expected) in [
        (failing, "no model here"),
        (trapping, "trapped"),
        (endless, "deadline"),
        (large, "memory"),
    ] {
        // Short only for the one that needs all of it: the others end by themselves.
        let start_time = if text == endless { Duration::from_millis(100) } else { LONG };
        let options = LoadOptions { start_time, ..options(1, 8) };
        let host = host();
        let actor = host.load(signed(text, &statement(&[])), &options).unwrap();
        match actor.wait_ready(LONG) {
            Err(StartError::Failed { reason, .. }) => {
                assert!(reason.contains(expected), "{expected}: {reason}");
            }
            // A pod that is too small ends as OOMKilled for this, and for nothing else.
            Err(StartError::OutOfMemory { .. }) => assert_eq!(expected, "memory"),
            other => panic!("{expected}: {other:?}"),
        }
        assert_eq!(actor.status().state, ActorState::Starting);
        let limit = Duration::from_millis(20);
        assert_eq!(call(&actor, "Call", b"", limit).await.unwrap_err(), CallError::Deadline);
        let begin = Instant::now();
        host.stop(LONG).await;
        assert!(begin.elapsed() < LONG, "{expected}: {:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn the_beginning_runs_once_and_in_order() {
    // Each step appends its letter; the call answers with all of them.
    let text = r#"(module
        (import "wapc" "__guest_request" (func $request (param i32 i32)))
        (import "wapc" "__guest_response" (func $response (param i32 i32)))
        (memory (export "memory") 1) (global $at (mut i32) (i32.const 0))
        (func $add (param i32)
          (i32.store8 (global.get $at) (local.get 0))
          (global.set $at (i32.add (global.get $at) (i32.const 1))))
        (func $s (call $add (i32.const 115))) (start $s)
        (func (export "wapc_init") (call $add (i32.const 119)))
        (func (export "_initialize") (call $add (i32.const 105)))
        (func (export "_start") (call $add (i32.const 95)))
        (func (export "__guest_call") (param i32 i32) (result i32)
          (call $request (i32.const 1000) (i32.const 2000))
          (call $add (i32.load8_u (i32.const 1000)))
          (call $response (i32.const 0) (global.get $at)) i32.const 1))"#;
    let host = host();
    let options = LoadOptions { warm_up: Some(("Warm".into(), vec![])), ..options(1, 8) };
    let actor = load(&host, text, &options);
    assert_eq!(call(&actor, "Call", b"", LONG).await.unwrap().body, b"s_iwHWC");
}

#[test]
fn a_host_that_is_dropped_takes_its_threads_with_it() {
    const ALONE: &str = "GRAPHLET_TEST_ALONE";
    const NAME: &str = "a_host_that_is_dropped_takes_its_threads_with_it";
    // In a process of its own: other tests of this one start and end threads as well.
    if std::env::var_os(ALONE).is_none() {
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let ran = alone.args(["--exact", NAME, "--nocapture"]).env(ALONE, "1").output().unwrap();
        let text = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let build = || {
        let host = Host::builder().policy(Box::new(|| Ok(policy()))).build().unwrap();
        let actor = load(&host, &guest(ECHO), &options(2, 8));
        (host, actor)
    };
    let with_one = {
        let _one = build();
        threads()
    };
    for _ in 0..20 {
        drop(build());
    }
    // Fewer than with one: it had some, and twenty have left none.
    let begin = Instant::now();
    while threads() >= with_one {
        assert!(begin.elapsed() < LONG, "{with_one} threads with one, {} now", threads());
        std::thread::sleep(Duration::from_millis(5));
    }
}
