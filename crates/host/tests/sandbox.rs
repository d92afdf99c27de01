//! Guests that loop, eat, dig, lie and pry: each is stopped, told apart and replaced.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::{Duration, Instant};

use common::*;
use host::{
    Host, LoadError, LoadOptions, ModuleError,
    provider::{ActorService, CallError},
};

fn options() -> LoadOptions {
    LoadOptions { memory_bytes: 8 << 20, ..LoadOptions::default() }
}

#[tokio::test]
async fn a_guest_that_traps_is_replaced_and_the_next_request_is_answered() {
    let grow = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    let dig = "(func $dig (result i32) (i32.add (call $dig) (i32.const 1)))";
    for (what, more, body, expected) in [
        ("loops", "", "(loop br 0)", CallError::Deadline),
        ("eats memory", "", grow, CallError::OutOfMemory),
        ("digs", dig, "(drop (call $dig))", CallError::Trap { reason: "stack_overflow" }),
        ("panics", "", "unreachable", CallError::Trap { reason: "unreachable" }),
        (
            "reads outside",
            "",
            "(drop (i32.load (i32.const -8)))",
            CallError::Trap { reason: "out_of_bounds" },
        ),
        (
            "answers too much",
            "",
            "(call $guest_response (i32.const 0) (i32.const 0x7fffffff))",
            CallError::Trap { reason: "message_too_large" },
        ),
        (
            "points outside",
            "",
            "(call $guest_response (i32.const 0x7fffffff) (i32.const 1))",
            CallError::Trap { reason: "bad_pointer" },
        ),
    ] {
        let host = host();
        let actor = load(&host, &echo_or(more, body), &options());
        // Short only for the one that needs all of it: the others end by themselves.
        let endless = expected == CallError::Deadline;
        let limit = if endless { Duration::from_millis(100) } else { LONG };
        for round in 1..=3 {
            let begin = Instant::now();
            let error = call(&actor, "Bad", b"x", limit).await.unwrap_err();
            let took = begin.elapsed();
            assert_eq!(error, expected, "{what}");
            assert!(took < LONG, "{what}: stopped after {took:?}");
            let reply = call(&actor, "Echo", b"still here", LONG).await.unwrap();
            assert_eq!(reply.body, b"still here", "{what}");
            let traps = actor.status().traps;
            assert_eq!(traps.values().sum::<u64>(), round, "{what}: {traps:?}");
        }
    }
}

#[tokio::test]
async fn a_table_grows_no_further_than_its_limit() {
    let text = echo_or(
        "(table 1 funcref)",
        "(if (i32.ne (table.grow (ref.null func) (i32.const 100000)) (i32.const -1))
           (then unreachable))",
    );
    let host = host();
    let actor = load(&host, &text, &options());
    call(&actor, "Bad", b"", LONG).await.unwrap();
}

#[tokio::test]
async fn a_guest_that_fails_politely_keeps_its_instance() {
    let text = echo_or(
        r#"(data (i32.const 3000) "no such \ff thing")"#,
        "(call $guest_error (i32.const 3000) (i32.const 15)) (return (i32.const 0))",
    );
    let host = host();
    let actor = load(&host, &text, &options());
    let error = call(&actor, "Bad", b"", LONG).await.unwrap_err();
    assert_eq!(error, CallError::Guest("no such \u{fffd} thing".into()));
    assert!(actor.status().traps.is_empty());
}

// Calls the import that the message names, with the eight numbers that follow.
const LIAR: &str = "
  (local.set $i (i32.const 65536))
  (local.set $n (i32.load (local.get $i)))
  (block (block (block (block (block (block (block
    (br_table 0 1 2 3 4 5 6 (local.get $n)))
    (call $guest_request (i32.load offset=4 (local.get $i)) (i32.load offset=8 (local.get $i)))
    (return (i32.const 1)))
    (call $guest_response (i32.load offset=4 (local.get $i)) (i32.load offset=8 (local.get $i)))
    (return (i32.const 1)))
    (call $guest_error (i32.load offset=4 (local.get $i)) (i32.load offset=8 (local.get $i)))
    (return (i32.const 0)))
    (call $console_log (i32.load offset=4 (local.get $i)) (i32.load offset=8 (local.get $i)))
    (return (i32.const 1)))
    (call $host_response (i32.load offset=4 (local.get $i)))
    (return (i32.const 1)))
    (call $host_error (i32.load offset=4 (local.get $i)))
    (return (i32.const 1)))
  (drop (call $host_call
    (i32.load offset=4 (local.get $i)) (i32.load offset=8 (local.get $i))
    (i32.load offset=12 (local.get $i)) (i32.load offset=16 (local.get $i))
    (i32.load offset=20 (local.get $i)) (i32.load offset=24 (local.get $i))
    (i32.load offset=28 (local.get $i)) (i32.load offset=32 (local.get $i))))";

#[test]
fn whatever_pointers_a_guest_gives_the_host_does_not_panic() {
    const MEMORY: u32 = 32 << 16;
    let interesting = [
        0,
        1,
        15,
        255,
        256,
        257,
        4096,
        65_536,
        MEMORY - 1,
        MEMORY,
        MEMORY + 1,
        MEMORY - 256,
        1 << 30,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_0000,
        0xffff_fffe,
        0xffff_ffff,
    ];
    let mut seed = 0x0123_4567_89ab_cdef_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 16) as u32
    };
    let host = host();
    let module = signed(&guest(LIAR), &statement(&["wascc:logging"]));
    let mut instance = host.instance(&module, &options()).unwrap();
    let (mut answered, mut trapped) = (0, 0);
    for _ in 0..1500 {
        let mut message = (random() % 7).to_le_bytes().to_vec();
        for _ in 0..8 {
            let value = match random() % 4 {
                0 => random(),
                1 => random() % 512,
                _ => interesting[random() as usize % interesting.len()],
            };
            message.extend_from_slice(&value.to_le_bytes());
        }
        match instance.call("Lie", message, Instant::now() + LONG) {
            Ok(_) | Err(CallError::Guest(_)) => answered += 1,
            Err(CallError::Trap { reason: "bad_pointer" | "message_too_large" }) => {
                trapped += 1;
                instance = host.instance(&module, &options()).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(answered > 100 && trapped > 300, "answered {answered}, trapped {trapped}");
}

#[tokio::test]
async fn malformed_payloads_are_answered_with_an_error() {
    let (data, call_logging) = host_call_to("default", "wascc:logging", "WriteLog");
    let text = guest_with(&data, &format!("{call_logging} {REPLY_WITH_HOSTS_ANSWER}"));
    let host = host();
    let actor = host.load(signed(&text, &statement(&["wascc:logging"])), &options()).unwrap();
    for payload in [&b""[..], b"\xc1", b"\xdf\xff\xff\xff\xff\xa1", b"\x82\xa5level", &[0x91; 5000]]
    {
        let error = call(&actor, "Log", payload, LONG).await.unwrap_err();
        assert!(matches!(error, CallError::Guest(_)), "{error}");
    }
    let good = wire::encode(&wire::WriteLog { level: 3, body: "hello".into() }).unwrap();
    call(&actor, "Log", &good, LONG).await.unwrap();
    assert!(actor.status().traps.is_empty());
}

#[tokio::test]
async fn a_guest_may_log_so_much_per_call_and_no_more() {
    let (data, log) = host_call_to("default", "wascc:logging", "WriteLog");
    // Logs a hundred times and answers with the number of lines that were taken.
    let body = format!(
        "(local.set $i (i32.const 100))
         (loop
           (local.set $n (i32.add (local.get $n) {log}))
           (br_if 0 (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
         (i32.store (i32.const 0) (local.get $n))
         (call $guest_response (i32.const 0) (i32.const 4))"
    );
    let host = host();
    let module = signed(&guest_with(&data, &body), &statement(&["wascc:logging"]));
    let actor = host.load(module, &options()).unwrap();
    let line = wire::encode(&wire::WriteLog { level: 5, body: "again".into() }).unwrap();
    for _ in 0..2 {
        let reply = call(&actor, "Log", &line, LONG).await.unwrap();
        assert_eq!(reply.body, host::limits::LOG_LINES.to_le_bytes());
    }
}

#[tokio::test]
async fn capabilities_work_only_when_claimed_and_linked() {
    let gate = std::sync::Arc::new(Gate::default());
    let host = Host::builder().provider(gate).build().unwrap();
    let (data, echo) = host_call_to("default", "test:gate", "Echo");
    let text = guest_with(&data, &format!("{echo} {REPLY_WITH_HOSTS_ANSWER}"));

    let unclaimed = host.load(signed(&text, &statement(&[])), &options()).unwrap();
    let error = host.link(&unclaimed, &link("default")).await.unwrap_err();
    assert!(error.to_string().contains("do not name `test:gate`"), "{error}");
    let error = call(&unclaimed, "Call", b"x", LONG).await.unwrap_err();
    assert!(error.to_string().contains("not among the claims"), "{error}");

    let claimed = host.load(signed(&text, &statement(&["test:gate"])), &options()).unwrap();
    let error = call(&claimed, "Call", b"x", LONG).await.unwrap_err();
    assert!(error.to_string().contains("is not linked"), "{error}");
    host.link(&claimed, &link("other")).await.unwrap();
    let error = call(&claimed, "Call", b"x", LONG).await.unwrap_err();
    assert!(error.to_string().contains("under the binding `default`"), "{error}");

    let mut refusing = link("default");
    refusing.values.insert("REFUSE".into(), "not today".into());
    host.link(&claimed, &refusing).await.unwrap_err();
    assert!(call(&claimed, "Call", b"x", LONG).await.is_err(), "a refused link was left behind");

    host.link(&claimed, &link("default")).await.unwrap();
    assert_eq!(call(&claimed, "Call", b"hello", LONG).await.unwrap().body, b"hello");
    let error = host.link(&claimed, &link("default")).await.unwrap_err();
    assert!(error.to_string().contains("already"), "{error}");
}

#[tokio::test]
async fn the_file_system_sockets_and_environment_do_not_exist_for_an_actor() {
    for namespace in
        ["wascc:keyvalue", "wascc:blobstore", "wascc:http_client", "", "wapc", "\u{fe}"]
    {
        let (data, ask) = host_call_to("default", namespace, "Get");
        let text = guest_with(&data, &format!("{ask} {REPLY_WITH_HOSTS_ANSWER}"));
        let host = host();
        let actor = load(&host, &text, &options());
        let error = call(&actor, "Call", b"x", LONG).await.unwrap_err();
        assert!(error.to_string().contains("not among the claims"), "{namespace}: {error}");
    }
}

#[test]
fn a_module_that_imports_anything_but_wapc_is_refused_with_all_names() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
        (import "env" "abort" (func)) (import "wapc" "__guest_request" (func (param i32 i32)))
        (import "wapc" "__console_log" (func (param i64))) (import "wapc" "__new" (func))
        (memory (export "memory") 1)
        (func (export "__guest_call") (param i32 i32) (result i32) i32.const 1))"#;
    match host().load(signed(text, &statement(&[])), &options()).err() {
        Some(LoadError::Module(ModuleError::Imports { names })) => assert_eq!(
            names,
            [
                "`wasi_snapshot_preview1.fd_write`",
                "`env.abort`",
                "`wapc.__console_log` with another type",
                "`wapc.__new`"
            ]
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_module_that_is_no_actor_is_refused() {
    for (text, expected) in [
        (r#"(module (memory (export "memory") 1))"#, "__guest_call"),
        (
            r#"(module (memory (export "memory") 1)
               (func (export "__guest_call") (param i32) (result i32) i32.const 1))"#,
            "__guest_call",
        ),
        (
            r#"(module (memory 1)
               (func (export "__guest_call") (param i32 i32) (result i32) i32.const 1))"#,
            "a memory `memory`",
        ),
        (r#"(module (import "env" "memory" (memory 1)))"#, "imports memory `env.memory`"),
    ] {
        let error = host().load(signed(text, &statement(&[])), &options()).err().unwrap();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
}

#[test]
fn no_tenant_sees_what_another_left_in_memory() {
    // The first tenant fills 4 MiB with a secret, the second looks for anything that is not zero
    // behind its own operation and message, over and over at the same addresses.
    let secret = guest(
        "(drop (memory.grow (i32.const 32)))
         (memory.fill (i32.const 0) (i32.const 0x5e) (i32.const 0x400000))
         unreachable",
    );
    let spy = guest(
        "(drop (memory.grow (i32.const 32)))
         (local.set $i (i32.const 65536))
         ;; Its own health request lies here.
         (memory.fill (local.get $i) (i32.const 0) (i32.const 64))
         (loop
           (if (i64.ne (i64.load (local.get $i)) (i64.const 0)) (then (return (i32.const 0))))
           (br_if 0 (i32.lt_u
             (local.tee $i (i32.add (local.get $i) (i32.const 8))) (i32.const 0x400000))))",
    );
    let host = host();
    let (secret, spy) =
        (signed(&secret, &statement(&[])), signed(&spy, &statement(&["wascc:logging"])));
    for _ in 0..30 {
        let mut first = host.instance(&secret, &options()).unwrap();
        let error = first.call("Fill", b"".to_vec(), Instant::now() + LONG).unwrap_err();
        assert_eq!(error, CallError::Trap { reason: "unreachable" });
        drop(first);
        let mut second = host.instance(&spy, &options()).unwrap();
        second.call("Spy", b"".to_vec(), Instant::now() + LONG).unwrap();
    }
}

#[test]
fn a_spent_instance_is_not_entered_again() {
    let module = signed(&echo_or("", "unreachable"), &statement(&[]));
    let mut instance = host().instance(&module, &options()).unwrap();
    let soon = || Instant::now() + LONG;
    assert!(instance.call("Bad", Vec::new(), soon()).is_err());
    let error = instance.call("Echo", Vec::new(), soon()).unwrap_err();
    assert_eq!(error, CallError::Trap { reason: "spent" });
}
