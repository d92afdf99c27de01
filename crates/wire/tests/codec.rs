//! `wire` and the types of `wascc-actor` define one format twice: here each reads what the other
//! wrote, byte by byte.

use std::collections::{BTreeMap, HashMap};

use wascc_actor::prelude::{codec, deserialize, serialize};

// One field, because the codec's hash map has no order that bytes could agree on.
const FIELD: (&str, &str) = ("accept", "application/json;profile=scores");

fn ours() -> (wire::Request, wire::Response) {
    let header = BTreeMap::from([(FIELD.0.to_owned(), FIELD.1.to_owned())]);
    let request = wire::Request {
        method: "POST".into(),
        path: "/pr\u{e4}dictions/%20".into(),
        query_string: "top_k=5&x=%00".into(),
        header: header.clone(),
        body: (0..70_000).map(|i| (i % 251) as u8).collect(),
    };
    let response = wire::Response {
        status_code: 415,
        status: "Unsupported Media Type".into(),
        header,
        body: b"{\"error\":\"x\"}".to_vec(),
    };
    (request, response)
}

fn theirs() -> (codec::http::Request, codec::http::Response) {
    let (request, response) = ours();
    let header = HashMap::from([(FIELD.0.to_owned(), FIELD.1.to_owned())]);
    let theirs = codec::http::Request {
        method: request.method,
        path: request.path,
        query_string: request.query_string,
        header: header.clone(),
        body: request.body,
    };
    let status_code = response.status_code;
    let (status, body) = (response.status, response.body);
    (theirs, codec::http::Response { status_code, status, header, body })
}

#[test]
fn both_sides_write_the_same_bytes() {
    let (our_request, our_response) = ours();
    let (their_request, their_response) = theirs();
    assert_eq!(wire::encode(&our_request).unwrap(), serialize(their_request).unwrap());
    assert_eq!(wire::encode(&our_response).unwrap(), serialize(their_response).unwrap());

    let health = wire::encode(&wire::HealthRequest { placeholder: true }).unwrap();
    assert_eq!(health, serialize(codec::core::HealthRequest { placeholder: true }).unwrap());

    let log = wire::encode(&wire::WriteLog { level: 3, body: "hello".into() }).unwrap();
    let their_log = codec::logging::WriteLogRequest { level: 3, body: "hello".into() };
    assert_eq!(log, serialize(their_log).unwrap());

    let values = BTreeMap::from([("PORT".to_owned(), "8081".to_owned())]);
    let configuration = wire::CapabilityConfiguration { module: "MXYZ".into(), values };
    let their_configuration = codec::core::CapabilityConfiguration {
        module: "MXYZ".into(),
        values: HashMap::from([("PORT".to_owned(), "8081".to_owned())]),
    };
    assert_eq!(wire::encode(&configuration).unwrap(), serialize(their_configuration).unwrap());
}

#[test]
fn we_read_what_they_write() {
    let (our_request, our_response) = ours();
    let (their_request, their_response) = theirs();
    assert_eq!(
        wire::decode::<wire::Request>(&serialize(their_request).unwrap()).unwrap(),
        our_request
    );
    assert_eq!(
        wire::decode::<wire::Response>(&serialize(their_response).unwrap()).unwrap(),
        our_response
    );
    let log = codec::logging::WriteLogRequest { level: 1, body: "no".into() };
    let read: wire::WriteLog = wire::decode(&serialize(log).unwrap()).unwrap();
    assert_eq!(read, wire::WriteLog { level: 1, body: "no".into() });
}

#[test]
fn they_read_what_we_write() {
    let (our_request, our_response) = ours();
    let (their_request, their_response) = theirs();
    let read: codec::http::Request = deserialize(&wire::encode(&our_request).unwrap()).unwrap();
    assert_eq!(read, their_request);
    let read: codec::http::Response = deserialize(&wire::encode(&our_response).unwrap()).unwrap();
    assert_eq!(read, their_response);
    let health = wire::encode(&wire::HealthRequest::default()).unwrap();
    let read: codec::core::HealthRequest = deserialize(&health).unwrap();
    assert!(!read.placeholder);
}

#[test]
fn operations_have_the_codecs_names() {
    assert_eq!(wire::OP_HANDLE_REQUEST, codec::http::OP_HANDLE_REQUEST);
    assert_eq!(wire::OP_HEALTH_REQUEST, codec::core::OP_HEALTH_REQUEST);
    assert_eq!(wire::OP_BIND_ACTOR, codec::core::OP_BIND_ACTOR);
    assert_eq!(wire::OP_REMOVE_ACTOR, codec::core::OP_REMOVE_ACTOR);
    assert_eq!(wire::OP_PERFORM_LIVE_UPDATE, codec::core::OP_PERFORM_LIVE_UPDATE);
    assert_eq!(wire::OP_INITIALIZE, codec::core::OP_INITIALIZE);
    assert_eq!(wire::OP_IDENTIFY_CAPABILITY, codec::core::OP_IDENTIFY_CAPABILITY);
    assert_eq!(wire::OP_LOG, codec::logging::OP_LOG);
    assert_eq!(wire::CAPABILITY_LOGGING, wascc_actor::logger::CAPID_LOGGING);
}

// Bytes of the contract written out, so that an upgrade of both crates at once cannot drift.
#[test]
fn a_response_has_exactly_these_bytes() {
    let response = wire::Response {
        status_code: 200,
        status: "OK".into(),
        body: vec![1, 2],
        ..Default::default()
    };
    let expected =
        b"\x84\xaastatusCode\xcc\xc8\xa6status\xa2OK\xa6header\x80\xa4body\xc4\x02\x01\x02";
    assert_eq!(wire::encode(&response).unwrap(), expected);
}
