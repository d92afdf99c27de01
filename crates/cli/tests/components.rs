//! `graphlet build --as component`, and what the other commands say of a component.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

mod support;

use support::{User, digits, root};

#[test]
fn a_component_is_shown_for_what_it_is_and_no_command_takes_it_for_an_actor() {
    if digits().is_none() {
        return;
    }
    let user = User::new();
    for name in ["model.toml", "digits.onnx", "labels.txt"] {
        std::fs::copy(root().join("models/digits").join(name), user.file(name)).unwrap();
    }
    let run = user.finish(user.building("build model.toml --as component -o digits.wasm"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("trust it by its digest"), "{}", run.stderr);
    assert!(user.seeds().is_empty(), "no key is made where nothing is signed");

    let shown = user.inspect("digits.wasm");
    assert_eq!(shown["kind"], "component");
    assert_eq!(format!("{}\n", shown["digest"].as_str().unwrap()), run.stdout);
    assert_eq!(shown["verdict"]["code"], "component");
    assert_eq!(shown["model"]["spec"]["model"]["name"], "digits");
    assert_eq!(shown["exports"][0]["name"], "wasi:http/incoming-handler@0.2.12");
    assert_eq!(shown["simd"], "relaxed");
    assert!(shown["plan"]["weights"].as_u64().unwrap() > 300_000, "{shown}");
    let text = user.done("inspect digits.wasm");
    assert!(text.contains("kind       component"), "{text}");

    for line in ["verify digits.wasm", "classify digits.wasm digits.wasm", "sign digits.wasm -o s"]
    {
        let run = user.run(line);
        assert_ne!(run.code, 0, "{line}");
        assert!(run.stderr.contains("component"), "{line}: {}", run.stderr);
    }
}
