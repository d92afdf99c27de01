//! `graphlet tune` on the embedded model, and what `graphlet build` makes of its log. Times are
//! never asserted: what is chosen with which times is tested with a clock that is not one.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{fs, process::Command};

use builder::EngineId;
use model_spec::SimdLevel;
use serde_json::{Value, json};

use support::{User, digits, pictures, root};

const BUILD: &str = "build model.toml -o out.wasm --quiet";
const ENGINE: [(&str, &str); 2] = [("wasmtime", "48"), ("simd", "relaxed")];

/// A user with a copy of the digits model's sources, when builds are possible here.
fn user() -> Option<User> {
    digits()?;
    let user = User::new();
    for name in ["model.toml", "labels.txt", "digits.onnx"] {
        user.write(name, fs::read(root().join("models/digits").join(name)).unwrap());
    }
    Some(user)
}

/// Runs a line that builds, which must be carried out, and gives its stderr.
#[track_caller]
fn done(user: &User, line: &str) -> String {
    let mut command = user.building(line);
    command.env("SOURCE_DATE_EPOCH", support::EPOCH);
    let run = user.finish(command);
    assert_eq!(run.code, 0, "{line}: {}", run.stderr);
    run.stderr
}

fn log(user: &User, name: &str) -> Value {
    serde_json::from_slice(&user.read(name)).unwrap()
}

/// The first layer that can be computed in several ways, its default, and another variant of it.
fn something_to_choose(user: &User) -> (String, String, String) {
    // Nothing is timed within a millisecond, but what there is to time is written down.
    let stderr = done(user, "tune model.toml -o plan.json --time 1ms");
    assert!(stderr.contains("out of time") && stderr.contains("run the command again"), "{stderr}");
    let plan = log(user, "plan.json");
    let layers = plan["engines"][0]["layers"].as_object().unwrap();
    let convolution = |(name, _): &(&String, &Value)| name.starts_with("conv2d");
    let (layer, entry) = layers.iter().find(convolution).unwrap();
    assert_eq!(entry["choice"], entry["default"]);
    assert_eq!(entry["tried"], json!({}));
    let default = entry["default"].as_str().unwrap();
    let other = if default == "direct" { "winograd" } else { "direct" };
    (layer.clone(), default.to_owned(), other.to_owned())
}

/// A log with one choice, by this program's engine but for `changes`.
fn chosen(layer: &str, default: &str, choice: &str, changes: &[(&str, Value)]) -> String {
    let engine = EngineId::current(SimdLevel::Relaxed, "any");
    let mut engine = serde_json::to_value(engine).unwrap();
    for (key, value) in changes {
        engine[*key] = value.clone();
    }
    let layers = json!({layer: {"choice": choice, "default": default, "tried": {}}});
    json!({"format": 1, "engines": [{"engine": engine, "layers": layers}]}).to_string()
}

/// The kernels of a built module, in the order in which they run.
fn kernels(user: &User) -> Vec<Value> {
    user.write("7.png", pictures::digit(7));
    let profile = user.done("profile out.wasm 7.png --repeat 1 --json");
    let profile: Value = serde_json::from_str(&profile).unwrap();
    let layers = profile["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["kernels"].clone()).collect()
}

#[test]
fn a_log_decides_what_is_linked_and_only_where_it_was_measured_with_this_engine() {
    let Some(user) = user() else { return };
    done(&user, BUILD);
    let (plain, before) = (user.read("out.wasm"), kernels(&user));
    let (layer, default, other) = something_to_choose(&user);

    user.write("tuning.json", chosen(&layer, &default, &other, &[]));
    let stderr = done(&user, BUILD);
    assert_eq!(stderr, "", "--quiet: the log is used and the module signed without a word");
    let (tuned, after) = (user.read("out.wasm"), kernels(&user));
    assert!(tuned != plain, "the module is the same");
    assert_eq!(before.len(), after.len());
    let differing = before.iter().zip(&after).filter(|(before, after)| before != after);
    assert_eq!(differing.count(), 1, "{before:?} {after:?}");
    assert_eq!(user.done("classify out.wasm 7.png"), "7");
    done(&user, BUILD);
    assert!(user.read("out.wasm") == tuned, "the same log gave other bytes");

    // However many layers one reason concerns, it is said once, with what to do.
    let mut many: Value = serde_json::from_slice(&user.read("tuning.json")).unwrap();
    many["engines"][0]["engine"]["simd"] = "none".into();
    let layers = many["engines"][0]["layers"].as_object_mut().unwrap();
    let layer_again = layers[&layer].clone();
    layers.insert("conv2d of no model".to_owned(), layer_again);
    user.write("tuning.json", many.to_string());
    let stderr = done(&user, BUILD);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for words in ["2 layers", "this build is `relaxed`", "`graphlet tune model.toml`"] {
        assert!(stderr.contains(words), "{words}: {stderr}");
    }

    let none = "conv2d of no model";
    for (log, words) in [
        (chosen(&layer, &default, &other, &[("wasmtime", "47".into())]), "wasmtime 47"),
        (chosen(&layer, &default, &other, &[("kernels", 999.into())]), "generation 999"),
        (chosen(&layer, &default, &other, &[("simd", "avx".into())]), "`avx`"),
        (chosen(&layer, &default, &other, &[("simd", "none".into())]), "this build is `relaxed`"),
        (chosen(&layer, &default, "fourier", &[]), "no such variant"),
        (chosen(none, &default, &other, &[]), "no such layer"),
    ] {
        user.write("tuning.json", &log);
        let stderr = done(&user, BUILD);
        let name = if log.contains(none) { none } else { &layer };
        assert!(stderr.contains(words) && stderr.contains(name), "{words}: {stderr}");
        assert_eq!(stderr.matches("warning: ").count(), 1, "{stderr}");
        assert!(user.read("out.wasm") == plain, "{words}: it was used");
    }
}

#[test]
fn a_log_that_cannot_be_used_is_a_mistake_with_a_hint() {
    let Some(user) = user() else { return };
    let toml = String::from_utf8(user.read("model.toml")).unwrap();
    let line = toml.lines().count() + 2;
    let named = format!("{toml}[compile]\ntuning = \"mine.json\"\n");
    user.write("model.toml", &named);
    let absent = ["mine.json", "the tuning log is not there", "hint: `graphlet tune` writes"];
    for command in [BUILD, "check model.toml"] {
        user.refuses(user.building(command), 2, &absent);
    }
    // Together with another mistake it has its line.
    user.write("model.toml", named.replace("top_k = 3", "top_k = 0"));
    let at = format!("line {line}: `compile.tuning`");
    user.refuses(user.building(BUILD), 2, &["2 mistakes", &at, "not there"]);

    user.write("model.toml", toml);
    for (log, words) in [
        ("{", "malformed tuning log"),
        (r#"{"format": 1, "engines": [], "extra": 1}"#, "unknown field `extra`"),
        (r#"{"format": 7, "machines": []}"#, "format 7"),
    ] {
        user.write("tuning.json", log);
        let words = ["tuning.json", words, "hint: remove"];
        user.refuses(user.building(BUILD), 2, &words);
        user.refuses(user.building("tune model.toml"), 2, &words);
        assert_eq!(user.read("tuning.json"), log.as_bytes(), "it was written over");
    }
    fs::remove_file(user.file("tuning.json")).unwrap();
    user.write("empty.toml", b"");
    user.refuses(user.building("tune empty.toml"), 2, &["empty.toml"]);
    user.refuses(user.building("tune model.toml -o nowhere/log.json"), 2, &["nowhere"]);
}

#[test]
fn every_variant_is_timed_once_and_the_log_goes_on_where_it_ended() {
    let Some(user) = user() else { return };
    let first = done(&user, "tune model.toml --rounds 2");
    assert!(
        first.contains("0 variants are known") && first.contains("wrote tuning.json"),
        "{first}"
    );
    let text = user.read("tuning.json");
    let part = &log(&user, "tuning.json")["engines"][0];
    for (key, value) in ENGINE {
        assert_eq!(part["engine"][key], value);
    }
    let layers = part["layers"].as_object().unwrap();
    assert!(!layers.is_empty());
    for (name, layer) in layers {
        let tried = layer["tried"].as_object().unwrap();
        assert!(!tried.is_empty(), "{name}");
        let choice = layer["choice"].as_str().unwrap();
        assert!(choice == layer["default"] || tried.contains_key(choice), "{name}: {layer}");
        assert!(tried.values().all(|trial| trial["rounds"] == 2), "{name}: {layer}");
    }

    let second = done(&user, "tune model.toml --rounds 2");
    assert!(second.contains("0 are left, in 0 builds"), "{second}");
    assert_eq!(user.read("tuning.json"), text, "what is measured stays as it is");

    // One variant is forgotten: it alone is timed again.
    let mut shorter = log(&user, "tuning.json");
    let layers = shorter["engines"][0]["layers"].as_object_mut().unwrap();
    let (name, layer) = layers.iter_mut().next().unwrap();
    let name = name.clone();
    let tried = layer["tried"].as_object_mut().unwrap();
    let gone = tried.keys().next().unwrap().clone();
    tried.remove(&gone);
    user.write("tuning.json", shorter.to_string());
    let third = done(&user, "tune model.toml --rounds 2");
    assert!(third.contains("1 are left, in 1 builds"), "{third}");
    let again = log(&user, "tuning.json");
    assert!(again["engines"][0]["layers"][&name]["tried"].get(&gone).is_some(), "{again}");
    let built = done(&user, BUILD);
    assert!(!built.contains("warning"), "the log is good for a build: {built}");
}

#[test]
fn ctrl_c_keeps_what_is_measured() {
    let Some(user) = user() else { return };
    let mut command = user.building("tune model.toml --rounds 100000");
    let script = "\"$@\" 2>err & pid=$!; \
                  until grep -q 'build 1' err; do sleep 0.05; done; \
                  kill -INT $pid; wait $pid";
    // Jobs in the background of a script would ignore the signal.
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("set -m; {script}"), "sh"]).arg(command.get_program());
    shell.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.current_dir(user.file("")).stdin(std::process::Stdio::null());
    command = shell;
    let run = user.finish(command);
    let stderr = String::from_utf8(user.read("err")).unwrap();
    assert_eq!(run.code, 1, "{stderr}");
    assert!(stderr.contains("interrupted: ") && stderr.contains("to go on"), "{stderr}");
    let part = &log(&user, "tuning.json")["engines"][0];
    assert!(!part["layers"].as_object().unwrap().is_empty(), "{part}");
    let files = user.files();
    assert!(files.iter().all(|name| !name.starts_with(".tmp")), "half-written: {files:?}");
}
