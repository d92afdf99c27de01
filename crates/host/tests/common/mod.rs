//! Guests as text, signed; and a provider whose answers the test holds back.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use claims::{IssuerKeyPair, Policy, Seed, Statement, Timestamp, VerifiedModule, sign, verify};
use host::{
    Actor, Host, LoadOptions,
    provider::{
        ActorHandle, ActorIdentity, ActorService, BoxFuture, CallError, CapabilityProvider, Link,
        ProviderError, Reply,
    },
};
use zeroize::Zeroizing;

/// The waPC imports and a `__guest_call` that is well and else runs `body`: the operation lies at
/// 1024, the message at 65,536, their lengths are `$op` and `$msg`.
pub fn guest(body: &str) -> String {
    guest_with("", body)
}

pub fn guest_with(more: &str, body: &str) -> String {
    format!(
        r#"(module
  (import "wapc" "__guest_request" (func $guest_request (param i32 i32)))
  (import "wapc" "__guest_response" (func $guest_response (param i32 i32)))
  (import "wapc" "__guest_error" (func $guest_error (param i32 i32)))
  (import "wapc" "__host_call" (func $host_call
    (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wapc" "__host_response_len" (func $host_response_len (result i32)))
  (import "wapc" "__host_response" (func $host_response (param i32)))
  (import "wapc" "__host_error_len" (func $host_error_len (result i32)))
  (import "wapc" "__host_error" (func $host_error (param i32)))
  (import "wapc" "__console_log" (func $console_log (param i32 i32)))
  (memory (export "memory") 32)
  (global $calls (mut i32) (i32.const 0))
  {more}
  (func (export "__guest_call") (param $op i32) (param $msg i32) (result i32)
    (local $i i32) (local $n i32)
    (call $guest_request (i32.const 1024) (i32.const 65536))
    ;; HealthRequest is the only operation of 13 letters here.
    (if (i32.eq (local.get $op) (i32.const 13)) (then (return (i32.const 1))))
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    {body}
    i32.const 1)
)"#
    )
}

/// Answers with its message.
pub const ECHO: &str = "(call $guest_response (i32.const 65536) (local.get $msg))";

/// Echoes, but does `other` for the operation `B`.
pub fn echo_or(more: &str, other: &str) -> String {
    guest_with(
        more,
        &format!(
            r#"(if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 66)) (then {other}))
            {ECHO}"#
        ),
    )
}

/// Data segments with the three names of a host call, the payload being the message.
pub fn host_call_to(binding: &str, namespace: &str, operation: &str) -> (String, String) {
    let data = format!(
        r#"(data (i32.const 2048) "{binding}") (data (i32.const 2304) "{namespace}")
           (data (i32.const 2560) "{operation}")"#
    );
    let call = format!(
        "(call $host_call (i32.const 2048) (i32.const {}) (i32.const 2304) (i32.const {}) \
         (i32.const 2560) (i32.const {}) (i32.const 65536) (local.get $msg))",
        binding.len(),
        namespace.len(),
        operation.len()
    );
    (data, call)
}

/// Answers with what the host answered, or with its error.
pub const REPLY_WITH_HOSTS_ANSWER: &str = "
  (if (then
    (call $host_response (i32.const 131072))
    (call $guest_response (i32.const 131072) (call $host_response_len)))
  (else
    (call $host_error (i32.const 131072))
    (call $guest_error (i32.const 131072) (call $host_error_len))
    (return (i32.const 0))))";

pub fn issuer() -> IssuerKeyPair {
    IssuerKeyPair::from_seed(&Seed::issuer(Zeroizing::new([1; 32]))).unwrap()
}

pub fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

pub fn policy() -> Policy {
    let mut policy = Policy::at(now());
    policy.trusted_issuers.insert(issuer().public());
    policy
}

pub fn statement(capabilities: &[&str]) -> Statement {
    Statement {
        subject: Seed::actor(Zeroizing::new([2; 32])).actor_key().unwrap(),
        name: "guest".into(),
        version: Some("1".into()),
        revision: Some(1),
        tags: vec![],
        capabilities: capabilities.iter().map(|&name| name.into()).collect(),
        issued_at: now(),
        valid_for: None,
        not_before: None,
    }
}

pub fn signed(text: &str, statement: &Statement) -> VerifiedModule {
    let wasm = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"));
    let module = sign(&wasm, &issuer(), statement).unwrap();
    verify(module, &policy()).unwrap()
}

pub fn host() -> Host {
    Host::builder().build().unwrap()
}

pub fn load(host: &Host, text: &str, options: &LoadOptions) -> Arc<Actor> {
    let actor = host.load(signed(text, &statement(&["test:gate"])), options).unwrap();
    actor.wait_ready(Duration::from_secs(30)).unwrap();
    actor
}

pub async fn call(
    actor: &Actor,
    operation: &str,
    message: &[u8],
    limit: Duration,
) -> Result<Reply, CallError> {
    actor.call(operation, message.to_vec(), Instant::now() + limit).await
}

pub const LONG: Duration = Duration::from_secs(30);

/// Capability `test:gate`: operation `Wait` blocks until the test opens the gate, anything else
/// answers with the payload.
#[derive(Default)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    inside: usize,
    open: bool,
}

impl Gate {
    pub fn open(&self) {
        self.state.lock().unwrap().open = true;
        self.changed.notify_all();
    }

    /// Waits until `count` guests stand in the gate.
    pub async fn wait_inside(&self, count: usize) {
        let begin = Instant::now();
        while self.state.lock().unwrap().inside < count {
            assert!(begin.elapsed() < LONG, "no {count} guests came");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl CapabilityProvider for Gate {
    fn capability(&self) -> &'static str {
        "test:gate"
    }

    fn link<'a>(
        &'a self,
        _actor: ActorHandle,
        link: &'a Link,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        Box::pin(async {
            match link.values.get("REFUSE") {
                Some(reason) => {
                    Err(ProviderError::Value { key: "REFUSE".into(), reason: reason.clone() })
                }
                None => Ok(()),
            }
        })
    }

    fn handle(
        &self,
        _actor: &ActorIdentity,
        operation: &str,
        message: &[u8],
    ) -> Result<Vec<u8>, ProviderError> {
        match operation {
            "Wait" => {
                let mut state = self.state.lock().unwrap();
                state.inside += 1;
                self.changed.notify_all();
                while !state.open {
                    state = self.changed.wait(state).unwrap();
                }
                state.inside -= 1;
            }
            "Echo" => {}
            other => return Err(ProviderError::UnknownOperation(other.into())),
        }
        Ok(message.to_vec())
    }

    fn stop(&self, _grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

pub fn link(binding: &str) -> Link {
    Link { capability: "test:gate".into(), binding: binding.into(), values: Default::default() }
}

/// A host with a gate, and an actor that passes through it on every call.
pub async fn gated(options: &LoadOptions) -> (Host, Arc<Gate>, Arc<Actor>) {
    let gate = Arc::new(Gate::default());
    let host = Host::builder().provider(gate.clone()).build().unwrap();
    let (data, call) = host_call_to("default", "test:gate", "Wait");
    let actor =
        load(&host, &guest_with(&data, &format!("{call} {REPLY_WITH_HOSTS_ANSWER}")), options);
    host.link(&actor, &link("default")).await.unwrap();
    (host, gate, actor)
}
