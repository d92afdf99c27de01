//! A fresh instance for each request: nothing is left of one, and nothing of the host's care for
//! instances is lost.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{sync::Arc, time::Duration};

use common::*;
use host::{
    Actor, Host, Isolation, LoadOptions,
    provider::{ActorService, ActorState, CallError},
};

/// Answers with how often it was called, as far as its global, its data, its untouched memory and
/// memory that it grew can tell: four bytes. `T` traps, `L` loops, `G` takes more than it may.
const COUNTER: &str = r#"
    (if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 84)) (then unreachable))
    (if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 76)) (then (loop (br 0))))
    (if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 71)) (then
        (if (i32.eq (memory.grow (i32.const 60000)) (i32.const -1)) (then unreachable))))
    (if (i32.eq (memory.size) (i32.const 32)) (then (drop (memory.grow (i32.const 8)))))
    (i32.store8 (i32.const 4096) (global.get $calls))
    (i32.store8 (i32.const 70000)
        (i32.add (i32.load8_u (i32.const 70000)) (i32.const 1)))
    (i32.store8 (i32.const 1500000)
        (i32.add (i32.load8_u (i32.const 1500000)) (i32.const 1)))
    (i32.store8 (i32.const 2600000)
        (i32.add (i32.load8_u (i32.const 2600000)) (i32.const 1)))
    (i32.store8 (i32.const 4097) (i32.load8_u (i32.const 70000)))
    (i32.store8 (i32.const 4098) (i32.load8_u (i32.const 1500000)))
    (i32.store8 (i32.const 4099) (i32.load8_u (i32.const 2600000)))
    (call $guest_response (i32.const 4096) (i32.const 4))"#;

fn counter() -> String {
    // Data on a page of its own, so that the memory has an image.
    guest_with(r#"(data (i32.const 70000) "\00") (data (i32.const 70001) "data")"#, COUNTER)
}

fn options(isolation: Isolation, instances: usize) -> LoadOptions {
    let warm_up = Some(("Warm".into(), vec![]));
    LoadOptions { isolation, instances, warm_up, ..LoadOptions::default() }
}

/// Hosts with memory kept for instances, and without.
fn hosts(instances: usize) -> [Host; 2] {
    let pooled = Host::builder().pool(instances, LoadOptions::default().memory_bytes);
    [pooled.build().unwrap(), host()]
}

async fn counts(actor: &Arc<Actor>, times: usize) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    for _ in 0..times {
        answers.push(call(actor, "Call", b"", LONG).await.unwrap().body);
    }
    answers
}

#[tokio::test]
async fn a_request_finds_nothing_of_the_one_before() {
    for host in hosts(1) {
        let actor = load(&host, &counter(), &options(Isolation::Request, 1));
        assert_eq!(counts(&actor, 20).await, vec![[1; 4]; 20], "pooled: {}", host.is_pooled());
        // The same guest does tell where instances are kept; the warm-up was the first call.
        let actor = load(&common::host(), &counter(), &options(Isolation::Pooled, 1));
        assert_eq!(counts(&actor, 3).await, [[2; 4], [3; 4], [4; 4]]);
    }
}

#[tokio::test]
async fn what_ends_a_request_does_not_hurt_the_next() {
    for host in hosts(1) {
        let actor = load(&host, &counter(), &options(Isolation::Request, 1));
        for round in 0..3 {
            let ended = call(&actor, "T", b"", LONG).await.unwrap_err();
            assert_eq!(ended, CallError::Trap { reason: "unreachable" });
            let ended = call(&actor, "L", b"", Duration::from_millis(30)).await.unwrap_err();
            assert_eq!(ended, CallError::Deadline);
            let ended = call(&actor, "G", b"", LONG).await.unwrap_err();
            assert_eq!(ended, CallError::OutOfMemory);
            assert_eq!(counts(&actor, 2).await, [[1; 4]; 2], "round {round}");
        }
        let status = actor.status();
        assert_eq!(status.state, ActorState::Running);
        for reason in ["unreachable", "deadline", "out_of_memory"] {
            assert_eq!(status.traps.get(reason), Some(&3), "{reason}: {:?}", status.traps);
        }
    }
}

#[tokio::test]
async fn many_at_once_each_have_their_own() {
    for host in hosts(3) {
        let options = LoadOptions { queue_depth: 1000, ..options(Isolation::Request, 3) };
        let actor = load(&host, &counter(), &options);
        let calls: Vec<_> = (0..300)
            .map(|_| {
                let actor = Arc::clone(&actor);
                tokio::spawn(async move { call(&actor, "Call", b"", LONG).await })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap().body, [1; 4]);
        }
        assert!(actor.status().traps.is_empty());
    }
}

#[tokio::test]
async fn without_a_queue_requests_one_after_the_other_are_all_answered() {
    for host in hosts(1) {
        let options = LoadOptions { queue_depth: 0, ..options(Isolation::Request, 1) };
        let actor = load(&host, &counter(), &options);
        assert_eq!(counts(&actor, 50).await, vec![[1; 4]; 50]);
    }
}

#[tokio::test]
async fn an_actor_that_stops_leaves_no_instance() {
    for host in hosts(2) {
        let actor = load(&host, &counter(), &options(Isolation::Request, 2));
        counts(&actor, 5).await;
        host.stop(LONG).await;
        let status = actor.status();
        let left = status.idle_instances + status.busy_instances + status.starting_instances;
        assert_eq!((status.state, left), (ActorState::Stopping, 0));
        assert_eq!(call(&actor, "Call", b"", LONG).await.unwrap_err(), CallError::Stopping);
    }
}

#[tokio::test]
async fn a_memory_is_told_as_the_request_left_it() {
    for host in hosts(1) {
        let actor = load(&host, &counter(), &options(Isolation::Request, 1));
        counts(&actor, 1).await;
        // 32 pages at the start, 40 after a request.
        let bytes = actor.status().instance_memory_bytes;
        assert!(bytes == [32 << 16] || bytes == [40 << 16], "{bytes:?}");
    }
}
