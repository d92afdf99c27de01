//! The finished component under `wasmtime-wasi-http`, as `wasmtime serve` runs it: a fresh instance
//! for each request, over HTTP on a loopback address.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![expect(clippy::print_stdout, reason = "what is skipped is told")]

mod server;

use std::{fs, path::Path};

use builder::GuestKind;
use component_program::MAX_BODY_BYTES;
use serde_json::{Value, json};
use server::{Answer, Server};

/// The server, or `None` when what builds the component is not set up.
fn server() -> Option<&'static Server> {
    match Server::get() {
        Ok(server) => Some(server),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

fn samples() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/digits/samples")
}

fn picture(name: &str) -> Vec<u8> {
    fs::read(samples().join(name)).unwrap()
}

#[track_caller]
fn assert_code(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.json()["code"], code, "{answer:?}");
    assert_eq!(answer.header["content-type"], "application/json");
}

#[test]
fn every_sample_gets_its_label() {
    let Some(server) = server() else { return };
    let mut seen = 0;
    for entry in fs::read_dir(samples()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_none_or(|extension| extension != "png") {
            continue;
        }
        for method in ["PUT", "POST"] {
            let target = format!("/{name}");
            let answer = server.send(method, &target, &[], &fs::read(&path).unwrap());
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            let label = path.file_stem().unwrap().to_str().unwrap();
            assert_eq!(answer.json(), json!(label), "{name}");
            assert_eq!(answer.header["cache-control"], "no-store");
            assert!(!answer.header.contains_key("x-graphlet-outcome"));
        }
        seen += 1;
    }
    assert!(seen > 0, "no pictures in {}", samples().display());
}

#[test]
fn queries_and_other_routes_are_the_actors() {
    let Some(server) = server() else { return };
    let seven = picture("7.png");
    let scores = server.send("PUT", "/?top_k=3", &[], &seven).json();
    assert_eq!(scores.as_array().unwrap().len(), 3);
    assert_eq!(scores[0]["label"], "7");
    assert!(scores[0]["score"].as_f64().unwrap() > 0.5, "{scores}");

    let by_name = server.send("POST", "/predictions/digits", &[], &seven).json();
    assert_eq!(by_name.as_object().unwrap().len(), 5);
    for path in ["/v2/health/live", "/v2/health/ready", "/v2/models/digits/ready"] {
        let answer = server.send("GET", path, &[], b"");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    let card = server.send("GET", "/", &[], b"").json();
    assert_eq!(card["model"], "digits");
    assert_eq!(card["usage"]["label"], format!("curl -T cat.png http://{}/", server.address()));
    assert_eq!(card["digest"], Value::Null);
    let claimed = server.send("GET", "/", &[("x-graphlet-digest", "sha256:0")], b"").json();
    assert_eq!(claimed["digest"], Value::Null, "a client cannot say which module this is");
    let page = server.send("GET", "/", &[("accept", "text/html")], b"");
    assert_eq!(page.header["content-type"], "text/html; charset=utf-8");
    assert_eq!(page.header["content-length"], page.body.len().to_string());
    assert!(page.body.len() > 4096, "longer than what is written at once");
}

#[test]
fn head_and_options_are_answered_without_a_body() {
    let Some(server) = server() else { return };
    let head = server.send("HEAD", "/", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0), "{head:?}");
    assert_eq!(head.header["content-type"], "application/json");
    let options = server.send("OPTIONS", "/x.png", &[], b"");
    assert_eq!((options.status, options.body.len()), (204, 0), "{options:?}");
    assert_eq!(options.header["allow"], "OPTIONS, POST, PUT");
}

#[test]
fn wrong_input_has_the_actors_codes() {
    let Some(server) = server() else { return };
    let seven = picture("7.png");
    let gzip = [("content-encoding", "gzip")];
    for (method, target, fields, body, status, code) in [
        ("PUT", "/x", &[][..], &b"no picture"[..], 415, "not_an_image"),
        ("POST", "/", &[], b"", 400, "no_image"),
        ("PUT", "/x.png", &[], &seven[..seven.len() / 2], 400, "broken_image"),
        ("PUT", "/x.png?top_k=0", &[], &seven, 400, "bad_query"),
        ("PUT", "/x.png", &gzip, &seven, 415, "content_encoding"),
        ("POST", "/v2/models/digits/infer", &[], b"{", 400, "bad_json"),
        ("DELETE", "/", &[], b"", 405, "method_not_allowed"),
        ("BREW", "/cat.png", &[], b"", 405, "method_not_allowed"),
        ("GET", "/v2/nothing", &[], b"", 404, "not_found"),
        ("POST", "/predictions/other", &[], &seven, 404, "unknown_model"),
    ] {
        assert_code(&server.send(method, target, fields, body), status, code);
    }
}

#[test]
fn a_large_body_is_read_and_one_beyond_the_limit_refused() {
    let Some(server) = server() else { return };
    // A picture may have anything behind its end.
    let mut body = picture("7.png");
    body.resize(MAX_BODY_BYTES, 0);
    assert_eq!(server.send("PUT", "/7.png", &[], &body).json(), "7");
    body.push(0);
    assert_code(&server.send("PUT", "/7.png", &[], &body), 413, "body_too_large");
    assert_code(&server.send_in_chunks("/7.png", &body), 413, "body_too_large");
}

#[test]
fn chunks_arrive_as_one_body_and_a_body_cut_short_is_no_picture() {
    let Some(server) = server() else { return };
    assert_eq!(server.send_in_chunks("/7.png", &picture("7.png")).json(), "7");
    let answer = server.send_cut_short("/7.png", &picture("7.png"));
    // The host may close the connection first.
    assert!(answer.is_none_or(|answer| answer.json()["code"] == "malformed_body"));
}

#[test]
fn the_component_imports_http_and_the_streams_it_needs_and_the_same_sources_give_the_same_bytes() {
    let Some(server) = server() else { return };
    let allowed = ["wasi:cli/stderr", "wasi:http/types", "wasi:io/"];
    for import in server.imports() {
        assert!(allowed.iter().any(|name| import.starts_with(name)), "{import}");
    }
    assert_eq!(server::build(GuestKind::Component).unwrap(), server.bytes());
}
