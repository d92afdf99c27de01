//! `graphlet build`, `init` and `check` on real files and on bad ones: named errors, exit codes,
//! and nothing half-written.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, symlink},
    process::Command,
};

use serde_json::Value;

use support::{User, digits, mobilenet, pictures, root, shared};

/// A user with a copy of the digits model's sources, when builds are possible here.
fn user() -> Option<User> {
    digits()?;
    let user = User::new();
    for name in ["model.toml", "labels.txt", "digits.onnx"] {
        user.write(name, fs::read(root().join("models/digits").join(name)).unwrap());
    }
    Some(user)
}

/// Changes a file of the user's.
fn edit(user: &User, name: &str, changes: &[(&str, &str)]) {
    let mut text = String::from_utf8(user.read(name)).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{name} has no {from}");
        text = text.replace(from, to);
    }
    user.write(name, text);
}

const BUILD: &str = "build model.toml -o out.wasm --quiet";

#[test]
fn the_same_input_gives_the_same_bytes() {
    let Some(built) = digits() else { return };
    let user = user().unwrap();
    user.write("tuning.json", fs::read(root().join("models/digits/tuning.json")).unwrap());
    // The same keys: they are part of the input.
    let mut copy = Command::new("cp");
    copy.arg("-rp").arg(&built.config).arg(user.file("config"));
    assert!(copy.status().unwrap().success());
    let mut command = user.building(BUILD);
    command
        .env("SOURCE_DATE_EPOCH", support::EPOCH)
        .env("TZ", "Asia/Tokyo")
        .env("PYTHONHASHSEED", "7");
    let run = user.finish(command);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(user.read("out.wasm") == built.bytes(), "another folder and time zone, other bytes");
    let digest = user.inspect("out.wasm")["digest"].clone();
    assert_eq!(run.stdout.trim(), digest.as_str().unwrap());
    let root = root();
    let path = root.to_str().unwrap().as_bytes();
    let found = built.bytes().windows(path.len()).any(|window| window == path);
    assert!(!found, "a path of this machine is in the module");
}

#[test]
fn a_built_module_tells_everything_about_itself() {
    let Some(built) = digits() else { return };
    let user = User::with_module(built, "digits.wasm");
    let report = user.inspect("digits.wasm");
    assert_eq!(report["verdict"]["verified"], true);
    assert_eq!(report["claims"]["issued_at"], 1_700_000_000);
    assert_eq!(report["claims"]["capabilities"].as_array().unwrap().len(), 2);
    assert_eq!(report["model"]["spec"]["model"]["name"], "digits");
    assert_eq!(report["model"]["labels"], 10);
    let plan = |part: &str| report["plan"][part].as_u64().unwrap();
    assert_eq!(plan("weights"), report["model"]["sizes"]["params"]);
    assert_eq!(plan("activations"), report["model"]["sizes"]["activations"]);
    assert!(plan("activations_peak") > 0 && plan("activations_peak") <= plan("activations"));
    assert_eq!(plan("stack"), 1 << 20);
    // The model is loaded: activations and all.
    assert!(plan("start") > plan("stack") + plan("activations") + plan("weights"));
    assert_eq!(plan("instance"), plan("start") - plan("weights") - plan("state"));
    let text = report.to_string();
    assert!(text.contains("__guest_call") && text.contains("__host_call"), "{text}");
    assert!(!text.contains("wasi"), "an actor imports waPC and nothing else: {text}");
    let shown = user.done("inspect digits.wasm");
    assert!(shown.contains("digits") && shown.contains("relaxed"), "{shown}");
    assert!(shown.contains("bytes  weights, shared by all instances"), "{shown}");
}

#[test]
fn a_wasi_program_is_no_actor_and_run_says_so() {
    let Some(user) = user() else { return };
    let run = user.finish(user.building("build model.toml -o classify.wasm --quiet --as wasi"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let report = user.inspect("classify.wasm").to_string();
    assert!(report.contains("_start") && report.contains("wasi_snapshot_preview1"), "{report}");
    let refusal = "cannot run classify.wasm: the module imports what this host does not give";
    let names = "wasi_snapshot_preview1.fd_read";
    for line in
        ["run classify.wasm --admin off --listen 127.0.0.1:0", "classify classify.wasm 7.png"]
    {
        let stderr = user.refused(line, 1, &[refusal, names]);
        assert_eq!(stderr.matches("error: ").count(), 1, "{stderr}");
    }
}

#[test]
fn every_mistake_in_a_model_toml_is_reported_with_its_line() {
    let Some(user) = user() else { return };
    edit(
        &user,
        "model.toml",
        &[
            ("resize = \"exact\"", "resize = \"stretch\""),
            ("name = \"logits\"", "nme = \"logits\""),
            ("top_k = 3", "top_k = 0"),
        ],
    );
    let words = ["3 mistakes", "line 16", "`stretch`", "line 24", "`name`", "line 27", "top_k"];
    for line in [BUILD, "check model.toml"] {
        user.refuses(user.building(line), 2, &words);
    }
    assert_eq!(user.files(), ["digits.onnx", "labels.txt", "model.toml"]);
    // What the ONNX file and the labels contradict comes in the same round, in the file's order.
    edit(&user, "model.toml", &[("shape = [1, 1, 32, 32]", "shape = [1, 1, 28, 28]")]);
    edit(&user, "model.toml", &[("nme = \"logits\"", "name = \"logits\"")]);
    user.write("labels.txt", "zero\none\n");
    let together = [
        "4 mistakes",
        "`input.shape`: the graph's input is [1, 1, 32, 32]",
        "`stretch`",
        "the file has 2 labels, output `logits` has 10 classes",
        "top_k",
    ];
    for line in [BUILD, "check model.toml"] {
        let stderr = user.refuses(user.building(line), 2, &together);
        let at: Vec<usize> = together.iter().map(|words| stderr.find(words).unwrap()).collect();
        assert!(at.is_sorted(), "{stderr}");
    }
    fs::remove_file(user.file("labels.txt")).unwrap();
    fs::remove_file(user.file("digits.onnx")).unwrap();
    let gone = ["4 mistakes", "digits.onnx is not there", "labels.txt is not there", "hint: "];
    user.refuses(user.building(BUILD), 2, &gone);
    edit(&user, "model.toml", &[("[model]", "[model")]);
    user.refuses(user.building(BUILD), 2, &["line 3"]);
}

#[test]
fn a_model_toml_that_does_not_fit_its_onnx_file_is_refused() {
    let Some(user) = user() else { return };
    edit(
        &user,
        "model.toml",
        &[
            ("shape = [1, 1, 32, 32]", "shape = [1, 1, 28, 28]"),
            ("name = \"logits\"", "name = \"scores\""),
        ],
    );
    user.write("labels.txt", "zero\none\n");
    let words = ["mistakes", "input.shape", "32", "output.name", "`scores`"];
    user.refuses(user.building(BUILD), 2, &words);
    let spec = fs::read(root().join("models/digits/model.toml")).unwrap();
    user.write("model.toml", spec);
    user.refuses(user.building(BUILD), 2, &["line 26", "2 labels", "10 classes"]);
    fs::remove_file(user.file("labels.txt")).unwrap();
    user.refuses(user.building(BUILD), 1, &["labels.txt is not there", "hint: "]);
    assert_eq!(user.files(), ["digits.onnx", "model.toml"]);
}

#[test]
fn an_onnx_file_that_is_none_is_named_and_leaves_nothing_behind() {
    let Some(user) = user() else { return };
    let onnx = user.read("digits.onnx");
    let before = user.files();
    user.write("out.wasm", "an older module");
    for (content, word) in [
        (&b""[..], "empty"),
        (&onnx[..onnx.len() / 2], "not an ONNX model or was cut short"),
        (b"<html>404</html>", "not an ONNX model"),
        (&[0xff; 1000], "not an ONNX model"),
    ] {
        user.write("digits.onnx", content);
        for line in [BUILD, "check model.toml", "init digits.onnx -o new.toml"] {
            let stderr = user.refuses(user.building(line), 1, &["digits.onnx", word]);
            assert!(!stderr.contains("Traceback"), "{stderr}");
        }
    }
    fs::remove_file(user.file("digits.onnx")).unwrap();
    let words = ["digits.onnx is not there", "model.toml names it", "hint: "];
    user.refuses(user.building(BUILD), 1, &words);
    user.write("digits.onnx", onnx);
    assert_eq!(user.read("out.wasm"), b"an older module");
    fs::remove_file(user.file("out.wasm")).unwrap();
    assert_eq!(user.files(), before);
    assert!(!user.file("config").exists(), "no key is made for nothing");
}

#[test]
fn an_output_that_cannot_be_written_leaves_nothing_and_breaks_no_device() {
    let Some(user) = user() else { return };
    let before = user.files();
    // Through a link, so that no mistake can cost a machine its device.
    symlink("/dev/full", user.file("full")).unwrap();
    let full = user.file("full");
    for line in ["build model.toml --quiet -o full", "init digits.onnx --force -o full"] {
        let run = user.finish(user.building(line));
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{line}");
        assert!(run.stderr.contains("cannot write full: No space left"), "{}", run.stderr);
        assert!(fs::metadata(&full).unwrap().file_type().is_char_device() && full.is_symlink());
    }
    fs::remove_file(full).unwrap();
    for (output, code) in [("no/such/folder.wasm", 2), ("config", 2), ("/proc/out.wasm", 1)] {
        let run = user.finish(user.building(&format!("build model.toml --quiet -o {output}")));
        assert_eq!((run.code, run.stdout.as_str()), (code, ""), "{output}");
        assert!(run.stderr.contains(&format!("cannot write {output}")), "{}", run.stderr);
    }
    assert_eq!(user.files(), before);
    // A full disk where the compiler works; /proc takes no files at all.
    let mut command = user.building(BUILD);
    command.env("TMPDIR", "/proc");
    user.refuses(command, 1, &["cannot write"]);
    assert_eq!(user.files(), before);
}

/// A command under which no file grows beyond so many kilobytes: to the one who writes, a full
/// disk, and nobody has to mount one.
fn on_a_small_disk(inner: &Command, kilobytes: usize) -> Command {
    // dash counts blocks of 512 bytes. A signal would be the answer if it were not ignored.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", kilobytes * 2);
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(inner.get_program()).args(inner.get_args());
    command.current_dir(inner.get_current_dir().unwrap()).env_clear();
    command.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command
}

#[test]
fn a_disk_that_fills_up_leaves_no_part_of_a_module() {
    let Some(user) = user() else { return };
    user.write("module.wasm", digits().unwrap().bytes());
    fs::create_dir(user.file("tmp")).unwrap();
    let before = user.files();
    // The artifacts do not fit, the linked module does not fit, the signed file does not fit.
    for (line, kilobytes) in [(BUILD, 64), (BUILD, 1000), ("sign module.wasm -o out.wasm", 1000)] {
        let mut command = user.building(line);
        command.env("TMPDIR", user.file("tmp"));
        let run = user.finish(on_a_small_disk(&command, kilobytes));
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{line}: {}", run.stderr);
        assert!(run.stderr.contains("error: "), "{line}: {}", run.stderr);
        assert!(run.stderr.contains("too large"), "{line}: {}", run.stderr);
        assert!(!run.stderr.contains("Traceback"), "{line}: {}", run.stderr);
        assert_eq!(user.files(), before, "{line}");
        let left: Vec<_> = fs::read_dir(user.file("tmp")).unwrap().collect();
        assert!(left.is_empty(), "{line}: {left:?}");
    }
}

#[test]
fn what_init_writes_passes_check() {
    let Some(user) = user() else { return };
    fs::remove_file(user.file("model.toml")).unwrap();
    let done = |line: &str| {
        let run = user.finish(user.building(line));
        assert_eq!(run.code, 0, "{line}: {}", run.stderr);
        run.stdout
    };
    done("init digits.onnx");
    let checked = done("check model.toml");
    for words in ["3.7 million", "Conv 3", "unsupported   none", "slow loops    none"] {
        assert!(checked.contains(words), "{words:?} is not in {checked}");
    }
    let report: Value = serde_json::from_str(&done("check model.toml --json")).unwrap();
    assert_eq!(report["check"]["operators"]["Conv"], 3);
    assert_eq!(report["check"]["fallbacks"], serde_json::json!([]));
    user.refuses(user.building("init digits.onnx"), 2, &["is there already", "hint: --force"]);
    let printed = done("init digits.onnx -o - --preset keras");
    assert!(printed.contains("[preprocess]") && printed.contains("keras"), "{printed}");
    let line = "init digits.onnx -o - --preset nobody";
    user.refuses(user.building(line), 2, &["nobody"]);
    assert_eq!(user.files(), ["digits.onnx", "labels.txt", "model.toml"]);
}

#[test]
fn check_compares_pictures_with_onnxruntime() {
    let Some(user) = user() else { return };
    fs::create_dir(user.file("pictures")).unwrap();
    for digit in [3, 7] {
        user.write(&format!("pictures/{digit}.png"), pictures::digit(digit));
    }
    let run = user.finish(user.building("check model.toml --images pictures --json"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["comparison"]["same_label"], 2);
    assert_eq!(report["comparison"]["top1"], 2);
    assert!(report["comparison"]["largest_difference"].as_f64().unwrap() < 1e-3);
}

#[test]
fn a_model_of_the_users_own_is_built_and_names_a_cat() {
    let (Some(built), Some(shared)) = (mobilenet(), shared()) else { return };
    let user = User::with_module(built, "mobilenet.wasm");
    user.write("cat.png", fs::read(shared.join("images/cat.png")).unwrap());
    assert_eq!(user.done("classify mobilenet.wasm cat.png"), "tabby, tabby cat");
    let report = user.inspect("mobilenet.wasm");
    assert_eq!(report["model"]["labels"], 1000);
    assert!(report["bytes"].as_u64().unwrap() < 17_000_000, "weights are in it once");
}
