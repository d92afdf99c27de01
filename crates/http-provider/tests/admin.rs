//! The admin port: health, readiness, and metrics that a strict reader accepts.
#![allow(clippy::unwrap_used, reason = "a test panics when it fails")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};

use common::{Client, FakeActor, GET, SOON, once, put, serve, until, until_no_connection};
use host::provider::{ActorState, CapabilityProvider};
use http_provider::{DEFAULT_ADMIN_ADDRESS, HttpProvider, Limits};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// One series: its name, its labels, its value.
type Sample = (String, BTreeMap<String, String>, f64);

/// Reads OpenMetrics text as strictly as its specification, and panics on what it forbids.
fn parse(text: &str) -> Vec<Sample> {
    let mut types = BTreeMap::new();
    let mut samples: Vec<Sample> = Vec::new();
    let mut seen = BTreeSet::new();
    let body = text.strip_suffix("# EOF\n").expect("ends with # EOF");
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (keyword, name) = (words.next().unwrap(), words.next().unwrap());
            let rest = words.next().unwrap();
            match keyword {
                "TYPE" => {
                    assert!(
                        types.insert(name.to_owned(), rest.to_owned()).is_none(),
                        "{name} twice"
                    );
                }
                "UNIT" => assert!(name.ends_with(&format!("_{rest}")), "unit {rest} of {name}"),
                "HELP" => assert!(!rest.is_empty()),
                other => panic!("keyword {other}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(seen.insert(series.to_owned()), "series twice: {series}");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, parse_labels(labels.strip_suffix('}').unwrap())),
            None => (series, BTreeMap::new()),
        };
        let suffixes = ["_total", "_bucket", "_sum", "_count", "_info", ""];
        let family = suffixes
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|family| types.contains_key(*family))
            .unwrap_or_else(|| panic!("{name} has no TYPE"));
        match types[family].as_str() {
            "counter" => assert!(name.ends_with("_total"), "{name}"),
            "gauge" => assert_eq!(name, family),
            "info" => assert!(name.ends_with("_info") && value == "1"),
            "histogram" => assert!(name != family),
            other => panic!("type {other}"),
        }
        samples.push((name.to_owned(), labels, value.parse().unwrap()));
    }
    samples
}

fn parse_labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").unwrap();
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next().expect("label value ends") {
                (_, '\\') => value.push(match characters.next().unwrap().1 {
                    'n' => '\n',
                    other @ ('"' | '\\') => other,
                    other => panic!("escape {other}"),
                }),
                (at, '"') => break at,
                (_, other) => value.push(other),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "label {name} twice");
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    labels
}

/// The value of the one series with this name and these labels.
fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let found: Vec<_> = samples
        .iter()
        .filter(|(n, l, _)| {
            n == name && labels.iter().all(|&(k, v)| l.get(k).is_some_and(|have| have == v))
        })
        .collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
    found[0].2
}

#[test]
fn the_admin_port_is_for_this_machine() {
    assert!(DEFAULT_ADMIN_ADDRESS.ip().is_loopback());
}

#[tokio::test]
async fn readiness_follows_the_actors() {
    let provider = HttpProvider::new(Limits::default());
    let admin = provider.open_admin("127.0.0.1:0".parse().unwrap()).unwrap();
    assert_eq!(once(admin, get("/healthz")).await.status, 200);
    assert_eq!(once(admin, get("/readyz")).await.status, 503, "no actor yet");
    let actors = [Arc::new(FakeActor::echo()), Arc::new(FakeActor::echo())];
    for actor in &actors {
        actor.status.lock().unwrap().state = ActorState::Starting;
        provider.link(actor.clone(), &common::link("127.0.0.1:0", &[])).await.unwrap();
    }
    for (states, status) in [
        ([ActorState::Starting, ActorState::Starting], 503),
        ([ActorState::Running, ActorState::Starting], 503),
        ([ActorState::Running, ActorState::Running], 200),
        ([ActorState::Running, ActorState::Refused], 503),
        ([ActorState::Stopping, ActorState::Running], 503),
    ] {
        for (actor, state) in actors.iter().zip(states) {
            actor.status.lock().unwrap().state = state;
        }
        let answer = once(admin, get("/readyz")).await;
        assert_eq!(answer.status, status, "{states:?}");
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["ready"], status == 200);
        assert_eq!(body["actors"].as_array().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_stopping_process_is_alive_and_not_ready() {
    let served = serve(FakeActor::echo()).await;
    let admin = served.provider.open_admin("127.0.0.1:0".parse().unwrap()).unwrap();
    assert_eq!(once(admin, get("/readyz")).await.status, 200);
    let taken = served.actor.instances.try_acquire_many(64).unwrap();
    let mut running = Client::connect(served.address).await;
    running.send(GET).await;
    until("one waits", || served.actor.waiting.load(Ordering::SeqCst) == 1).await;
    tokio::join!(served.provider.stop(SOON), async {
        assert_eq!(once(admin, get("/readyz")).await.status, 503);
        assert_eq!(once(admin, get("/healthz")).await.status, 200);
        drop(taken);
        assert_eq!(running.receive().await.status, 200);
    });
    assert!(tokio::net::TcpStream::connect(admin).await.is_err(), "the admin port is closed last");
}

#[tokio::test]
async fn other_paths_and_methods_have_their_answers() {
    let provider = HttpProvider::new(Limits::default());
    let admin = provider.open_admin("127.0.0.1:0".parse().unwrap()).unwrap();
    assert_eq!(once(admin, get("/")).await.code(), "not_found");
    let answer = once(admin, put("/metrics", b"x")).await;
    assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"));
    assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    assert_eq!(once(admin, "GET / HTTP/1.1\n\n").await.code(), "malformed_request");
}

#[tokio::test]
async fn every_metric_of_the_contract_is_there_and_the_text_is_strict() {
    let mut actor = FakeActor::new(|request| {
        let mut response = common::ok("x");
        if request.path == "/named" {
            response.header.insert(wire::OUTCOME_HEADER.into(), "classified".into());
        } else if request.path == "/strange" {
            response.header.insert(wire::OUTCOME_HEADER.into(), "Not A Code".into());
        }
        Ok(response)
    });
    // Claims are verified, not tasteful: labels must survive any text.
    actor.identity.name = "a \"quoted\" \\ name\nof two lines".into();
    let name = actor.identity.name.clone();
    let served = serve(actor).await;
    let admin = served.provider.open_admin("127.0.0.1:0".parse().unwrap()).unwrap();
    once(served.address, GET).await;
    once(served.address, put("/named", b"x")).await;
    once(served.address, put("/strange", b"x")).await;
    once(served.address, "BREW / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    once(served.address, "GET / HTTP/1.1\r\n\r\n").await;

    let answer = once(admin, get("/metrics")).await;
    let content_type = answer.header("content-type").unwrap();
    assert!(content_type.starts_with("application/openmetrics-text; version=1.0.0"));
    let samples = parse(&answer.text());
    let who = [("model", "digits"), ("version", "1.0.0"), ("actor", name.as_str())];
    let value = |metric: &str, labels: &[(&str, &str)]| {
        value(&samples, metric, &[&who[..], labels].concat())
    };
    let requests = |outcome: &str| value("graphlet_requests_total", &[("outcome", outcome)]);
    assert_eq!(requests("ok"), 2.0);
    assert_eq!(requests("classified"), 1.0);
    assert_eq!(requests("other"), 1.0);
    assert_eq!(requests("malformed_request"), 1.0);
    let http = |method: &str, status: &str| {
        let labels = [("http_request_method", method), ("http_response_status_code", status)];
        value("http_server_request_duration_seconds_count", &labels)
    };
    assert_eq!(http("PUT", "200"), 2.0);
    assert_eq!(http("GET", "400"), 1.0);
    assert_eq!(http("_OTHER", "200"), 1.0);
    let put_200 = [("http_request_method", "PUT"), ("le", "0.075")];
    value("http_server_request_duration_seconds_bucket", &put_200);
    let phase = |name: &str| value("graphlet_inference_seconds_count", &[("phase", name)]);
    assert_eq!((phase("decode"), phase("infer")), (4.0, 4.0));
    assert!(!answer.text().contains("invented"), "a guest made a series up");
    assert_eq!(value("graphlet_queue_wait_seconds_count", &[]), 4.0);
    assert_eq!(value("graphlet_queue_depth", &[]), 3.0);
    for (state, count) in [("idle", 2.0), ("busy", 1.0), ("starting", 0.0)] {
        assert_eq!(value("graphlet_instances", &[("state", state)]), count);
    }
    assert_eq!(value("graphlet_instance_memory_bytes", &[("instance", "1")]), 131_072.0);
    assert_eq!(value("graphlet_traps_total", &[("reason", "deadline")]), 4.0);
    assert_eq!(value("graphlet_claims_expiry_seconds", &[]), 86_400.0);
    assert_eq!(value("graphlet_actor_unsigned", &[]), 0.0);
    assert_eq!(value("graphlet_ready", &[]), 1.0);
    assert_eq!(value("graphlet_actor_info", &[("subject", "MFAKE"), ("issuer", "AFAKE")]), 1.0);
    self::value(&samples, "graphlet_build_info", &[("version", env!("CARGO_PKG_VERSION"))]);

    served.actor.status.lock().unwrap().unsigned = true;
    served.actor.status.lock().unwrap().claims_expire_in = None;
    let samples = parse(&once(admin, get("/metrics")).await.text());
    assert_eq!(self::value(&samples, "graphlet_actor_unsigned", &who), 1.0);
    assert!(samples.iter().all(|(metric, ..)| metric != "graphlet_claims_expiry_seconds"));
}

#[tokio::test]
async fn one_actor_on_two_ports_and_two_of_one_name_make_each_series_once() {
    let provider = HttpProvider::new(Limits::default());
    let admin = provider.open_admin("127.0.0.1:0".parse().unwrap()).unwrap();
    let same = Arc::new(FakeActor::echo());
    let twin = Arc::new(FakeActor::echo());
    for actor in [&same, &same, &twin] {
        provider.link(actor.clone(), &common::link("127.0.0.1:0", &[])).await.unwrap();
    }
    let samples = parse(&once(admin, get("/metrics")).await.text());
    assert_eq!(value(&samples, "graphlet_queue_depth", &[]), 6.0, "three of each");
    assert_eq!(value(&samples, "graphlet_instance_memory_bytes", &[("instance", "3")]), 131_072.0);
}

#[tokio::test]
async fn a_guest_cannot_invent_outcomes_without_bound() {
    let served = serve(FakeActor::new(|request| {
        let mut response = common::ok("");
        let outcome = request.path.trim_start_matches('/').to_owned();
        response.header.insert(wire::OUTCOME_HEADER.into(), outcome);
        Ok(response)
    }))
    .await;
    let admin = served.provider.open_admin("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut client = Client::connect(served.address).await;
    for i in 0..200 {
        client.exchange(put(&format!("/made_up_{i}"), b"")).await;
    }
    let samples = parse(&once(admin, get("/metrics")).await.text());
    let series = samples.iter().filter(|(name, ..)| name == "graphlet_requests_total").count();
    assert_eq!(series, 65);
    assert_eq!(value(&samples, "graphlet_requests_total", &[("outcome", "other")]), 136.0);
}

#[tokio::test]
async fn a_client_that_left_is_counted_as_such() {
    let served = serve(FakeActor::echo()).await;
    let admin = served.provider.open_admin("127.0.0.1:0".parse().unwrap()).unwrap();
    let taken = served.actor.instances.try_acquire_many(64).unwrap();
    let mut client = Client::connect(served.address).await;
    client.send(GET).await;
    until("one waits", || served.actor.waiting.load(Ordering::SeqCst) == 1).await;
    drop(client);
    until("its place is free", || served.actor.waiting.load(Ordering::SeqCst) == 0).await;
    drop(taken);
    until_no_connection(admin).await;
    let samples = parse(&once(admin, get("/metrics")).await.text());
    assert_eq!(value(&samples, "graphlet_requests_total", &[("outcome", "client_left")]), 1.0);
}
