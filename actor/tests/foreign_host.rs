//! A finished module under a waPC host that is not ours: the crates `wapc` and
//! `wasmtime-provider`.
//!
//! The module is the embedded model's, or the one that `GRAPHLET_TEST_MODULE` names; then
//! `GRAPHLET_TEST_IMAGES` may name a folder of images that are called by their labels (`7.png`).

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![expect(clippy::print_stdout, reason = "what is skipped is told")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
};

use builder::{BuildError, BuildOptions, GuestKind, Home, Silent};
use serde_json::Value;
use wapc::WapcHost;
use wasmtime_provider::WasmtimeEngineProviderBuilder;
use wire::{HealthRequest, Request, Response, WriteLog};

type Calls = Arc<Mutex<Vec<(String, String, Vec<u8>)>>>;

struct Host {
    host: WapcHost,
    /// Namespace, operation and payload of every call the actor made.
    calls: Calls,
}

/// The module under test; an error text when what builds it is not set up.
fn module() -> &'static Result<Vec<u8>, String> {
    static MODULE: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    MODULE.get_or_init(|| {
        if let Some(path) = env::var_os("GRAPHLET_TEST_MODULE") {
            return Ok(fs::read(path).unwrap());
        }
        let cache = env::var_os("GRAPHLET_CACHE_DIR").map(PathBuf::from).unwrap_or_else(|| {
            let home = || PathBuf::from(env::var_os("HOME").unwrap()).join(".cache");
            env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("graphlet")
        });
        let home = Home::find(cache).unwrap();
        let options = BuildOptions {
            spec: home.root().join("models/digits/model.toml"),
            kind: GuestKind::Actor,
            simd: None,
            artifacts: None,
        };
        match builder::build(&home, &options, &mut Silent) {
            Ok(built) => Ok(built.module),
            Err(error @ (BuildError::NoPython { .. } | BuildError::NoGuestToolchain { .. })) => {
                Err(error.to_string())
            }
            Err(error) => panic!("the embedded model does not build: {error:?}"),
        }
    })
}

impl Host {
    /// `None`, having said why, when there is no module to run.
    fn new() -> Option<Host> {
        let module = match module() {
            Ok(module) => module,
            Err(reason) => {
                println!("skipped: {reason}");
                return None;
            }
        };
        let engine = WasmtimeEngineProviderBuilder::new().module_bytes(module).build().unwrap();
        let calls = Calls::default();
        let recorded = Arc::clone(&calls);
        // Refuses everything, as a host does that has no such capability.
        let host = WapcHost::new(
            Box::new(engine),
            Some(Box::new(move |_, binding, namespace, operation, payload| {
                assert_eq!(binding, "default");
                let call = (namespace.to_owned(), operation.to_owned(), payload.to_vec());
                recorded.lock().unwrap().push(call);
                Err("nothing of the kind here".into())
            })),
        );
        Some(Host { host: host.unwrap(), calls })
    }

    fn send(&self, method: &str, target: &str, header: &[(&str, &str)], body: &[u8]) -> Response {
        let (path, query_string) = target.split_once('?').unwrap_or((target, ""));
        let request = Request {
            method: method.into(),
            path: path.into(),
            query_string: query_string.into(),
            header: header.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect(),
            body: body.to_vec(),
        };
        let message = wire::encode(&request).unwrap();
        wire::decode(&self.host.call(wire::OP_HANDLE_REQUEST, &message).unwrap()).unwrap()
    }

    fn phases(&self) -> Vec<String> {
        let calls = std::mem::take(&mut *self.calls.lock().unwrap());
        calls
            .into_iter()
            .filter(|(namespace, ..)| namespace == wire::PHASE_NAMESPACE)
            .map(|(_, operation, payload)| {
                assert_eq!(operation, wire::OP_MARK);
                String::from_utf8(payload).unwrap()
            })
            .collect()
    }
}

fn json(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap()
}

/// A plain 24-bit bitmap of one colour.
fn bitmap(side: u32, colour: [u8; 3]) -> Vec<u8> {
    let row = (side * 3).next_multiple_of(4);
    let mut file = b"BM".to_vec();
    for word in [54 + row * side, 0, 54, 40, side, side, 1 | 24 << 16, 0, row * side, 0, 0, 0, 0] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    for _ in 0..side {
        let start = file.len();
        (0..side).for_each(|_| file.extend_from_slice(&colour));
        file.resize(start + row as usize, 0);
    }
    file
}

/// Images by their labels.
fn samples(model: &str) -> BTreeMap<String, Vec<u8>> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(model).join("samples");
    let folder = env::var_os("GRAPHLET_TEST_IMAGES").map_or(own, PathBuf::from);
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| {
            let label = path.file_stem().unwrap().to_string_lossy().into_owned();
            (label, fs::read(&path).unwrap())
        })
        .collect()
}

#[test]
fn the_actor_serves_every_route_under_a_foreign_host() {
    let Some(host) = Host::new() else { return };
    let health = wire::encode(&HealthRequest { placeholder: true }).unwrap();
    host.host.call(wire::OP_HEALTH_REQUEST, &health).expect("the model loads");

    let card = json(&host.send("GET", "/", &[], b""));
    let model = card["model"].as_str().unwrap().to_owned();
    let labels: Vec<String> = serde_json::from_value(card["labels"].clone()).unwrap();
    assert!(!labels.is_empty());
    assert_eq!(card["digest"], Value::Null, "a foreign host tells no digest");
    let page = host.send("GET", "/", &[("accept", "text/html")], b"");
    assert!(page.header["content-type"].starts_with("text/html"));
    assert!(host.phases().is_empty(), "a card is no inference");

    let image = bitmap(32, [200, 30, 90]);
    let label: String =
        serde_json::from_slice(&host.send("PUT", "/x.bmp", &[], &image).body).unwrap();
    assert!(labels.contains(&label), "{label}");
    assert_eq!(host.phases(), ["decode", "preprocess", "infer", "done"]);

    let top = host.send("POST", "/?top_k=2", &[], &image);
    let ranked = json(&top);
    assert_eq!(ranked[0]["label"], label);
    assert!(ranked[0]["score"].as_f64() >= ranked[1]["score"].as_f64());

    let served = json(&host.send("POST", &format!("/predictions/{model}"), &[], &image));
    assert!(served.get(&label).is_some(), "{served}");

    let metadata = json(&host.send("GET", &format!("/v2/models/{model}"), &[], b""));
    let input = &metadata["inputs"][1];
    let count: u64 =
        input["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product();
    let tensor = serde_json::json!({"inputs": [{
        "name": input["name"], "datatype": "FP32", "shape": input["shape"], "data": vec![0.5; count as usize],
    }]});
    let infer = format!("/v2/models/{model}/infer");
    let answer = host.send("POST", &infer, &[], tensor.to_string().as_bytes());
    assert_eq!(answer.status_code, 200, "{}", answer.body.escape_ascii());
    let scores = json(&answer)["outputs"][1]["data"].clone();
    assert_eq!(scores.as_array().unwrap().len(), labels.len());
}

#[test]
fn bad_requests_are_answered_and_leave_the_next_one_right() {
    let Some(host) = Host::new() else { return };
    let (red, white) = (bitmap(40, [0, 0, 255]), bitmap(24, [255, 255, 255]));
    let scores = |image: &[u8]| json(&host.send("PUT", "/?top_k=3", &[], image));
    let (of_red, of_white) = (scores(&red), scores(&white));
    for (body, status) in
        [(&b"<html>"[..], 415), (b"", 400), (&red[..60], 400), (b"\x89PNG\r\n\x1a\n", 400)]
    {
        let answer = host.send("PUT", "/x", &[], body);
        assert_eq!(answer.status_code, status, "{}", body.escape_ascii());
        assert!(json(&answer)["error"].is_string() && json(&answer)["code"].is_string());
        assert_eq!(scores(&red), of_red);
        assert_eq!(scores(&white), of_white);
    }
    assert_eq!(host.send("DELETE", "/", &[], b"").status_code, 405);
    assert_eq!(host.send("POST", "/v2/nothing", &[], &red).status_code, 404);
}

#[test]
fn malformed_messages_are_errors_and_not_traps() {
    let Some(host) = Host::new() else { return };
    // The second claims a method of four gigabytes.
    for message in [&b""[..], b"\x84\xa6method\xdb\xff\xff\xff\xff", b"\xc1", b"\x80", &[0x91; 64]]
    {
        let error = host.host.call(wire::OP_HANDLE_REQUEST, message).unwrap_err().to_string();
        assert!(error.contains("malformed message"), "{error}");
    }
    let error = host.host.call("Nonsense", b"").unwrap_err().to_string();
    assert!(error.contains("not one this actor handles"), "{error}");
    assert_eq!(host.send("GET", "/v2/health/ready", &[], b"").status_code, 200);
    for (namespace, operation, payload) in host.calls.lock().unwrap().iter() {
        if namespace == wire::CAPABILITY_LOGGING {
            assert_eq!(operation, wire::OP_LOG);
            assert!(wire::decode::<WriteLog>(payload).is_ok());
        }
    }
}

#[test]
fn images_get_their_labels() {
    let Some(host) = Host::new() else { return };
    let card = json(&host.send("GET", "/", &[], b""));
    let samples = samples(card["model"].as_str().unwrap());
    if samples.is_empty() {
        println!("skipped: no sample images of {}", card["model"]);
    }
    for (expected, image) in samples {
        assert_eq!(json(&host.send("PUT", "/", &[], &image)), *expected, "image {expected}");
    }
}
