//! What a further instance of a real model costs; alone in its process, for it looks at the whole
//! of it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{fs, thread, time::Instant};

use claims::{Policy, Timestamp, verify};
use host::{Host, LoadOptions};
use serde_json::Value;
use support::{SOON, User, mobilenet, shared};
use wire::{OP_HANDLE_REQUEST, Request, Response};

/// Memory of this process; what it shares with others counts by its part.
fn proportional_bytes() -> u64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// What the third instance added once it had answered, and the activations that the card tells.
fn measured() -> Option<(u64, u64)> {
    let built = mobilenet()?;
    let picture = fs::read(shared()?.join("images/zebra.jpg")).unwrap();
    let user = User::with_module(built, "mobilenet.wasm");
    let report: Value = user.inspect("mobilenet.wasm");
    let activations = report["plan"]["activations"].as_u64().unwrap();
    let mut policy = Policy::at(Timestamp(1_700_000_000));
    policy.trusted_issuers.insert(built.issuer.parse().unwrap());
    let module = verify(built.bytes(), &policy).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let host = Host::builder().cache_dir(cache.path()).build().unwrap();
    let (method, path) = ("PUT".to_owned(), "/".to_owned());
    let request = Request { method, path, body: picture, ..Request::default() };
    let message = wire::encode(&request).unwrap();
    let mut instances = Vec::new();
    let mut sizes = Vec::new();
    for _ in 0..3 {
        let mut instance = host.instance(&module, &LoadOptions::default()).unwrap();
        let deadline = Instant::now() + SOON;
        let reply = instance.call(OP_HANDLE_REQUEST, message.clone(), deadline).unwrap();
        let response: Response = wire::decode(&reply.body).unwrap();
        assert_eq!(response.body, b"\"zebra\"");
        instances.push(instance);
        sizes.push(proportional_bytes());
    }
    eprintln!("after each instance: {sizes:?} bytes");
    Some((sizes[2] - sizes[1], activations))
}

#[test]
fn a_third_instance_costs_its_activations_and_no_weights() {
    // Guests want a stack of their own size below them.
    let worker = thread::Builder::new().stack_size(8 << 20).spawn(measured).unwrap();
    let Some((third, activations)) = worker.join().unwrap() else { return };
    eprintln!("a third instance: {} KiB, of which activations {}", third >> 10, activations >> 10);
    // The weights are 14 MB; the message, the stack and what was loaded and written fit into 1 MiB.
    assert!(third <= activations + (1 << 20), "{third} bytes for {activations} of activations");
}
