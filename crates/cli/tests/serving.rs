//! The embedded model, built and signed by the command and served by it, as clients meet it.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::io::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use support::{Client, Server, User, digits, get, pictures, put, request};

fn served() -> Option<(User, Server)> {
    let user = User::with_module(digits()?, "digits.wasm");
    let server = Server::start(&user, "digits.wasm --instances 2");
    Some((user, server))
}

#[test]
fn each_drawn_digit_is_answered_with_its_name_as_a_json_string() {
    let Some((_user, server)) = served() else { return };
    let mut client = Client::connect(server.address());
    for digit in 0..10 {
        let target = format!("/{digit}.png");
        let answer = client.exchange(request("PUT", &target, &[], &pictures::digit(digit)));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.text(), format!("\"{digit}\""));
        assert!(answer.header("x-request-id").is_some());
    }
    server.stop();
}

#[test]
fn an_instance_for_each_request_answers_as_those_that_are_kept_do() {
    let Some((user, kept)) = served() else { return };
    let fresh = Server::start(&user, "digits.wasm --instances 2 --isolation request");
    assert_eq!(fresh.event("Actor loaded")["isolation"], "request");
    assert_eq!(kept.event("Actor loaded")["isolation"], "pooled");
    let mut clients = [&kept, &fresh].map(|server| Client::connect(server.address()));
    for digit in 0..10 {
        let target = "/?top_k=10";
        let picture = pictures::digit(digit);
        let answers = clients.each_mut().map(|client| {
            let answer = client.exchange(request("PUT", target, &[], &picture));
            assert_eq!(answer.status, 200);
            answer.json()
        });
        assert_eq!(answers[0], answers[1], "the same scores, to the last digit");
    }
    // What a client gets wrong, and what the host says of itself.
    let answer = clients[1].exchange(request("PUT", "/", &[], b"no picture"));
    assert_eq!(answer.status, 415, "{}", answer.text());
    for server in [&kept, &fresh] {
        for phase in ["preprocess", "infer"] {
            let labels = [("phase", phase)];
            assert_eq!(server.metric("graphlet_inference_seconds_count", &labels), 10.0, "{phase}");
        }
    }
    // The broken picture is decoded, too.
    let decoded = [("phase", "decode")];
    assert_eq!(fresh.metric("graphlet_inference_seconds_count", &decoded), 11.0);
    kept.stop();
    fresh.stop();
}

#[test]
fn a_picture_may_come_in_chunks_and_by_any_path_and_type() {
    let Some((_user, server)) = served() else { return };
    let seven = pictures::digit(7);
    let mut chunked = b"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in seven.chunks(100) {
        write!(chunked, "{:x}\r\n", piece.len()).unwrap();
        chunked.extend([piece, b"\r\n"].concat());
    }
    chunked.extend(b"0\r\n\r\n");
    let answer = Client::connect(server.address()).exchange(chunked);
    assert_eq!(answer.label(), "7");
    assert_eq!(answer.header("connection"), Some("close"), "nothing may hide behind chunks");
    let mut client = Client::connect(server.address());
    for (method, target, kind) in [
        ("POST", "/", "application/x-www-form-urlencoded"),
        ("POST", "/", "text/html"),
        ("PUT", "/a/deep/path", "image/jpeg"),
    ] {
        let headers = [("Content-Type", kind)];
        let answer = client.exchange(request(method, target, &headers, &seven));
        assert_eq!(answer.label(), "7", "{method} {target} {kind}");
    }
    let form = [
        &b"--X\r\nContent-Disposition: form-data; name=\"data\"; filename=\"7.png\"\r\n\r\n"[..],
        &seven,
        b"\r\n--X--\r\n",
    ]
    .concat();
    let headers = [("Content-Type", "multipart/form-data; boundary=X")];
    assert_eq!(client.exchange(request("POST", "/", &headers, &form)).label(), "7");
}

#[test]
fn scores_come_best_first_and_add_up_to_one() {
    let Some((_user, server)) = served() else { return };
    let seven = pictures::digit(7);
    let all = put(server.address(), "/?top_k=10", &seven).json();
    let scores: Vec<f64> =
        all.as_array().unwrap().iter().map(|class| class["score"].as_f64().unwrap()).collect();
    assert_eq!(scores.len(), 10);
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{scores:?}");
    assert_eq!(all[0]["label"], "7");

    let three = put(server.address(), "/?top_k=3", &seven).json();
    assert_eq!(three.as_array().unwrap(), &all.as_array().unwrap()[..3]);
    let profile = [("Accept", "application/json;profile=scores")];
    let mut client = Client::connect(server.address());
    // The model.toml's top_k.
    assert_eq!(client.exchange(request("PUT", "/", &profile, &seven)).json(), three);
    let torchserve = client.exchange(request("POST", "/predictions/digits", &[], &seven)).json();
    assert_eq!(torchserve.as_object().unwrap().len(), 5);
    assert_eq!(torchserve["7"], all[0]["score"]);
}

#[test]
fn a_browser_gets_a_page_and_a_program_a_card() {
    let Some((user, server)) = served() else { return };
    let card = get(server.address(), "/").json();
    let report = user.inspect("digits.wasm");
    assert_eq!(card["model"], "digits");
    assert_eq!(card["digest"], report["digest"], "the digest is of the file that was verified");
    assert_eq!(card["labels"], json!(["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]));
    let mut client = Client::connect(server.address());
    let browser = "GET / HTTP/1.1\r\nHost: localhost:1\r\nAccept: text/html,*/*;q=0.8\r\n\r\n";
    let page = client.exchange(browser);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
    assert!(page.text().starts_with("<!doctype html>") || page.text().starts_with("<!DOCTYPE"));
    assert!(page.text().contains("curl -T cat.png http://localhost:1/"));
    // HEAD is GET without its body.
    client.send(browser.replace("GET", "HEAD"));
    let head = client.try_receive(true).unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), Some(page.body.len().to_string().as_str()));
    assert_eq!(client.exchange(browser).body, page.body, "HEAD brought a body");
}

#[test]
fn the_open_inference_protocol_takes_pictures_and_tensors() {
    let Some((_user, server)) = served() else { return };
    let mut client = Client::connect(server.address());
    let mut fetch =
        |target: &str| client.exchange(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).json();
    assert_eq!(fetch("/v2")["name"], "graphlet");
    assert_eq!(fetch("/v2/health/live")["live"], true);
    assert_eq!(fetch("/v2/health/ready")["ready"], true);
    assert_eq!(fetch("/v2/models/digits/ready")["ready"], true);
    let model = fetch("/v2/models/digits");
    assert_eq!(model["versions"], json!(["1.0.0"]));
    let tensor = model["inputs"].as_array().unwrap().iter().find(|i| i["datatype"] == "FP32");
    assert_eq!(tensor.unwrap()["shape"], json!([1, 1, 32, 32]));

    let infer = |inputs: Value| {
        let body = json!({"id": "a", "inputs": [inputs]}).to_string();
        put(server.address(), "/v2/models/digits/infer", body.as_bytes())
    };
    let output = |answer: &Value, name: &str| -> Value {
        let outputs = answer["outputs"].as_array().unwrap();
        outputs.iter().find(|output| output["name"] == name).unwrap()["data"].clone()
    };
    let by_picture = infer(json!({
        "name": "image", "datatype": "BYTES", "shape": [1],
        "data": [BASE64_STANDARD.encode(pictures::digit(7))],
    }))
    .json();
    assert_eq!(by_picture["id"], "a");
    assert_eq!(output(&by_picture, "label"), json!(["7"]));
    let scores = put(server.address(), "/?top_k=1", &pictures::digit(7)).json();
    assert_eq!(output(&by_picture, "scores")[7], scores[0]["score"]);

    // A white picture: (255 / 127.5 - 1) / 1 everywhere.
    let name = tensor.unwrap()["name"].clone();
    let white = vec![1.0; 32 * 32];
    let by_tensor = infer(json!({
        "name": name, "datatype": "FP32", "shape": [1, 1, 32, 32], "data": white,
    }))
    .json();
    let white = pictures::Grey { width: 32, height: 32, pixels: vec![255; 32 * 32] };
    let picture = put(server.address(), "/?top_k=10", &white.bmp()).json();
    for class in picture.as_array().unwrap() {
        let index: usize = class["label"].as_str().unwrap().parse().unwrap();
        assert_eq!(output(&by_tensor, "scores")[index], class["score"], "class {index}");
    }
    let wrong = infer(json!({"name": name, "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}));
    assert_eq!(wrong.error(), (400, "bad_tensor".into()));
}

#[test]
fn what_cannot_be_answered_has_a_status_and_a_stable_code() {
    let Some((_user, server)) = served() else { return };
    let seven = pictures::digit(7);
    let none: &[(&str, &str)] = &[];
    let form = &[("Content-Type", "multipart/form-data")][..];
    let packed = &[("Content-Encoding", "gzip")][..];
    let binary = &[("Inference-Header-Content-Length", "1")][..];
    for (method, target, headers, body, status, code) in [
        ("PUT", "/x", none, &b""[..], 400, "no_image"),
        ("PUT", "/x", none, b"<html></html>", 415, "not_an_image"),
        ("PUT", "/x", form, &seven, 400, "bad_multipart"),
        ("PUT", "/x", packed, &seven, 415, "content_encoding"),
        ("PUT", "/x?top_k=0", none, &seven, 400, "bad_query"),
        ("PUT", "/x?top_k=11", none, &seven, 400, "bad_query"),
        ("GET", "/cat.png", none, b"", 405, "method_not_allowed"),
        ("DELETE", "/", none, b"", 405, "method_not_allowed"),
        ("GET", "/predictions/digits", none, b"", 405, "method_not_allowed"),
        ("POST", "/v2", none, b"{}", 405, "method_not_allowed"),
        ("POST", "/predictions/cats", none, &seven, 404, "unknown_model"),
        ("GET", "/v2/models/cats", none, b"", 404, "unknown_model"),
        ("GET", "/v2/models/digits/versions/9.9", none, b"", 404, "unknown_model"),
        ("GET", "/v2/nothing", none, b"", 404, "not_found"),
        ("GET", "/v1/models/digits", none, b"", 404, "not_found"),
        ("POST", "/v2/models/digits/infer", none, b"{", 400, "bad_json"),
        ("POST", "/v2/models/digits/infer", binary, b"{}", 501, "not_yet"),
        ("POST", "/v1/models/digits:predict", none, b"{}", 501, "not_yet"),
    ] {
        let answer =
            Client::connect(server.address()).exchange(request(method, target, headers, body));
        assert_eq!(answer.error(), (status, code.to_owned()), "{method} {target}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{method} {target}");
        let counted = server.metric("graphlet_requests_total", &[("outcome", code)]);
        assert!(counted >= 1.0, "{code} is not counted");
    }
    assert_eq!(put(server.address(), "/", &seven).label(), "7");
    assert_eq!(server.metric("graphlet_traps_total", &[]), 0.0, "never a trap");
}

#[test]
fn a_body_over_the_limit_is_413_and_the_limit_is_a_flag() {
    let Some(built) = digits() else { return };
    let user = User::with_module(built, "digits.wasm");
    let server = Server::start(&user, "digits.wasm --instances 1 --max-body 1KiB");
    assert_eq!(put(server.address(), "/", &pictures::digit(7)).label(), "7");
    let long = put(server.address(), "/", &[0; 1025]);
    assert_eq!(long.error(), (413, "body_too_large".into()));
    let head = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n401\r\n";
    let mut client = Client::connect(server.address());
    let chunked = client.exchange([head.as_bytes(), &[0; 1025]].concat());
    assert_eq!(chunked.error(), (413, "body_too_large".into()));
}

#[test]
fn the_admin_port_tells_health_readiness_and_numbers() {
    let Some((_user, server)) = served() else { return };
    assert_eq!(server.admin("/healthz").status, 200);
    let ready = server.admin("/readyz").json();
    assert_eq!(ready["ready"], true);
    assert_eq!(ready["actors"][0]["model"], "digits");
    for _ in 0..3 {
        put(server.address(), "/", &pictures::digit(7));
    }
    let labels = [("model", "digits"), ("version", "1.0.0"), ("actor", "digits")];
    let outcome = [&labels[..], &[("outcome", "ok")]].concat();
    assert_eq!(server.metric("graphlet_requests_total", &outcome), 3.0);
    for phase in ["decode", "preprocess", "infer"] {
        let phase = [&labels[..], &[("phase", phase)]].concat();
        assert_eq!(server.metric("graphlet_inference_seconds_count", &phase), 3.0, "{phase:?}");
    }
    assert_eq!(server.metric("graphlet_instances", &labels), 2.0);
    assert!(server.metric("graphlet_instance_memory_bytes", &labels) > 1e6);
    assert_eq!(server.metric("graphlet_actor_unsigned", &labels), 0.0);
}

#[test]
fn a_log_in_json_has_times_as_numbers() {
    let Some(built) = digits() else { return };
    let user = User::with_module(built, "digits.wasm");
    let server = Server::start(&user, "digits.wasm --instances 1 --log info,host=debug");
    for (message, field) in [("Actor ready", "load_ms"), ("Instance begun", "instance_us")] {
        let event = server.event(message);
        assert!(event[field].is_u64(), "{event}");
    }
    server.stop();
}

#[test]
fn classify_answers_without_http() {
    let Some(built) = digits() else { return };
    let user = User::with_module(built, "digits.wasm");
    for digit in 0..10 {
        user.write(&format!("{digit}.png"), pictures::digit(digit));
    }
    assert_eq!(user.done("classify digits.wasm 7.png"), "7");
    let top = user.done("classify digits.wasm 7.png --top 3");
    assert_eq!(top.lines().count(), 3);
    assert!(top.lines().next().unwrap().ends_with("  7"), "{top}");
    assert_eq!(user.done("classify digits.wasm 7.png --top 10").lines().count(), 10);
    let words = ["--top 11: digits.wasm knows 10 classes", "hint: --top 10"];
    let stderr = user.refused("classify digits.wasm 7.png 4.png --top 11", 2, &words);
    assert!(!stderr.contains("top_k"), "{stderr}");
    user.write("page.png", "<html>");
    let run = user.run("classify digits.wasm 4.png page.png missing.png 2.png");
    assert_eq!(run.code, 1);
    assert_eq!(run.stdout, "4.png: 4\n2.png: 2\n", "the others are answered");
    for name in ["page.png", "missing.png"] {
        let lines: Vec<_> = run.stderr.lines().filter(|line| line.contains(name)).collect();
        assert_eq!(lines.len(), 1, "{}", run.stderr);
    }
    user.write("empty.png", "");
    user.refused("classify digits.wasm empty.png .", 1, &["the file is empty", "a folder"]);
    let run = user.run("classify digits.wasm --json 3.png page.png");
    let lines: Vec<Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(run.code, 1);
    assert_eq!(lines[0]["classes"][0]["label"], "3");
    assert!(lines[1]["error"].as_str().is_some(), "{}", run.stdout);
}
