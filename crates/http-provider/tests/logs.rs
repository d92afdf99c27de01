//! What the log says about requests.
#![allow(clippy::unwrap_used, reason = "a test panics when it fails")]

mod common;

use std::{
    io,
    sync::{Arc, Mutex},
};

use common::{FakeActor, GET, once, put, serve};
use host::provider::CallError;
use serde_json::Value;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The events about requests, oldest first.
    fn requests(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.filter(|event| event["fields"]["request.id"].is_string()).collect()
    }
}

#[tokio::test]
async fn every_request_is_one_event_with_its_id_and_no_secret() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing_subscriber::util::SubscriberInitExt::set_default(subscriber);
    let served = serve(FakeActor::new(|request| match request.path.as_str() {
        "/trap" => Err(CallError::Trap { reason: "unreachable" }),
        "/busy" => Err(CallError::QueueFull { waiting: 64 }),
        _ => Ok(common::ok("fine")),
    }))
    .await;
    let named = "PUT /cat.png?token=secret HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\n\
                 Authorization: secret\r\nContent-Length: 6\r\n\r\nsecret";
    once(served.address, named).await;
    let trapped = once(served.address, put("/trap", b"secret")).await;
    once(served.address, put("/busy", b"secret")).await;
    once(served.address, "GET / HTTP/1.1\r\n\r\n").await;
    once(served.address, GET).await;

    let events = log.requests();
    let summary: Vec<_> = events
        .iter()
        .map(|event| {
            let fields = &event["fields"];
            (
                event["level"].as_str().unwrap(),
                fields["message"].as_str().unwrap(),
                fields["http.response.status_code"].as_u64().unwrap(),
                fields["outcome"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("DEBUG", "Request answered", 200, "ok"),
        ("WARN", "Request failed", 500, "actor_trap"),
        ("DEBUG", "Request answered", 503, "queue_full"),
        ("DEBUG", "Request answered", 400, "malformed_request"),
        ("DEBUG", "Request answered", 200, "ok"),
    ];
    assert_eq!(summary, expected);
    let fields = &events[0]["fields"];
    assert_eq!(fields["request.id"], "mine");
    assert_eq!(fields["url.path"], "/cat.png");
    assert_eq!(fields["actor.name"], "fake");
    assert_eq!(fields["body_bytes"], 6);
    assert!(fields["duration_ms"].is_f64());
    assert_eq!(events[1]["fields"]["request.id"], trapped.header("x-request-id").unwrap());
    assert!(events[1]["fields"]["error"].as_str().unwrap().contains("unreachable"));
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("secret"), "{text}");
}
