//! `graphlet build --as graph` and `graphlet graph`: pictures and tensors through a WASM graph,
//! trust, and what is wrong told by name.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

mod support;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use support::{User, digits, root, shared};

/// A user with the graph of a model's folder as `graph.wasm`; `None`, having said why, when
/// builds are not possible here.
fn user(files: &[(PathBuf, &str)], build: &str) -> Option<User> {
    digits()?;
    let user = User::new();
    for (folder, name) in files {
        std::os::unix::fs::symlink(folder.join(name), user.file(name)).unwrap();
    }
    let run = user.finish(user.building(&format!("build {build} --as graph -o graph.wasm -q")));
    assert_eq!(run.code, 0, "{}", run.stderr);
    Some(user)
}

fn digits_user(build: &str) -> Option<User> {
    let folder = root().join("models/digits");
    let files = ["model.toml", "digits.onnx", "labels.txt"].map(|name| (folder.clone(), name));
    user(&files, build)
}

fn samples() -> PathBuf {
    root().join("models/digits/samples")
}

/// Python with NumPy and onnxruntime; says so when it is not set up.
fn python() -> Option<PathBuf> {
    let cache = env::var_os("GRAPHLET_CACHE_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let home = || PathBuf::from(env::var_os("HOME").unwrap()).join(".cache");
        env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("graphlet")
    });
    let python = cache.join("python-dev/bin/python");
    let there = python.is_file();
    if !there {
        println!("skipped: no development environment at {}", python.display());
    }
    there.then_some(python)
}

fn script(python: &Path, user: &User, code: &str) {
    let run = Command::new(python).args(["-c", code]).current_dir(user.file(".")).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

#[test]
fn a_picture_gets_its_three_lines() {
    let Some(user) = digits_user("model.toml") else { return };
    for digit in ["0", "7"] {
        let picture = samples().join(format!("{digit}.png"));
        for labels in ["", "-l labels.txt"] {
            let line = format!("graph run -g graph.wasm -i {} {labels}", picture.display());
            let run = user.run(&line);
            assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{line}");
            let lines: Vec<_> = run.stdout.lines().collect();
            assert!(lines[0].starts_with("original image dimensions: ("), "{}", run.stdout);
            assert_eq!(lines[2], format!("input image belongs to the class `{digit}`"));
            assert_eq!(lines.len(), 3);
        }
    }
    let broken = user.write("broken.png", b"<html>");
    let run = user.run(&format!("graph run -g graph.wasm -i {}", broken.display()));
    assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{}", run.stderr);
    user.write("few.txt", "one\ntwo\n");
    let picture = samples().join("1.png");
    let run = user.run(&format!("graph run -g graph.wasm -i {} -l few.txt", picture.display()));
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("2 labels, but"), "{}", run.stderr);
}

#[test]
fn the_cat_is_a_tabby() {
    let Some(shared) = shared() else { return };
    let models = shared.join("models");
    let spec = root().join("models/mobilenet_v2");
    let files = [
        (spec, "model.toml"),
        (models.clone(), "mobilenet_v2.onnx"),
        (models, "imagenet_labels.txt"),
    ];
    let Some(user) = user(&files, "model.toml") else { return };
    let cat = shared.join("images/cat.png");
    let line = format!("graph run -g graph.wasm -i {} -l imagenet_labels.txt", cat.display());
    let run = user.run(&line);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (
            0,
            "original image dimensions: (256, 256)\n\
             resized image dimensions: (224, 224)\n\
             input image belongs to the class `tabby, tabby cat`\n"
        ),
        "{}",
        run.stderr
    );
}

#[test]
fn tensors_go_in_and_come_out_as_numpy_has_them() {
    let Some(python) = python() else { return };
    let Some(user) = digits_user("digits.onnx") else { return };
    script(
        &python,
        &user,
        "import numpy as np, onnxruntime as ort\n\
         s = ort.InferenceSession('digits.onnx')\n\
         i = s.get_inputs()[0]\n\
         shape = [e if isinstance(e, int) else 1 for e in i.shape]\n\
         x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)\n\
         np.save('plain.npy', x)\n\
         np.save('turned.npy', np.asfortranarray(x))\n\
         np.save('big.npy', x.astype('>f4'))\n\
         np.save('double.npy', x.astype(np.float64))\n\
         np.savez_compressed('named.npz', **{i.name: x})\n\
         np.savez('none.npz')\n\
         np.savez('expected.npz', **dict(zip([o.name for o in s.get_outputs()], s.run(None, {i.name: x}))))",
    );
    let name = {
        let run = user.run("graph inspect graph.wasm --json");
        let about: Value = serde_json::from_str(&run.stdout).unwrap();
        about["inputs"][0]["name"].as_str().unwrap().to_owned()
    };
    let named = format!("{name}=plain.npy");
    for inputs in ["plain.npy", "turned.npy", "big.npy", "named.npz", &named] {
        let run = user.run(&format!("graph run -g graph.wasm --inputs {inputs} --outputs out.npz"));
        assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{inputs}: {}", run.stderr);
        script(
            &python,
            &user,
            "import numpy as np\n\
             a, b = np.load('out.npz'), np.load('expected.npz')\n\
             assert sorted(a.files) == sorted(b.files), (a.files, b.files)\n\
             for n in b.files:\n\
             \x20   assert a[n].dtype == b[n].dtype and a[n].shape == b[n].shape\n\
             \x20   np.testing.assert_allclose(a[n], b[n], atol=1e-5)",
        );
    }
    let run = user.run("graph run -g graph.wasm --inputs plain.npy --outputs out.npy");
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run = user.run("graph run -g graph.wasm --inputs plain.npy");
    assert!(run.stdout.contains(": float32 "), "{}", run.stdout);

    for (inputs, code, expected) in [
        ("double.npy", 2, "float32, not float64"),
        ("plain.npy plain.npy", 2, "2 files for 1 inputs"),
        ("other=plain.npy", 2, "no input `other`"),
        (&format!("{named} {named}"), 2, "two files for the input"),
        ("none.npz", 2, "no file for the input"),
        ("graph.wasm", 1, "not a NumPy array file"),
        ("missing.npy", 1, "missing.npy"),
        ("out.npz", 2, "no input"),
    ] {
        let run = user.run(&format!("graph run -g graph.wasm --inputs {inputs}"));
        assert_eq!(run.code, code, "{inputs}: {}", run.stderr);
        assert!(run.stderr.contains(expected), "{inputs}: {}", run.stderr);
    }
    // An ONNX file says nothing about pictures.
    let picture = samples().join("1.png");
    let run = user.run(&format!("graph run -g graph.wasm -i {}", picture.display()));
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("how a picture becomes its input"), "{}", run.stderr);
}

#[test]
fn a_graph_that_nobody_trusted_has_signed_is_not_run_but_told_about() {
    let Some(user) = digits_user("model.toml") else { return };
    let picture = samples().join("3.png").display().to_string();
    let stranger = User::new();
    fs::copy(user.file("graph.wasm"), stranger.file("graph.wasm")).unwrap();
    let run = stranger.run(&format!("graph run -g graph.wasm -i {picture}"));
    assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{}", run.stderr);
    assert!(run.stderr.contains("is refused (untrusted_issuer)"), "{}", run.stderr);
    assert!(run.stderr.contains("hint: graphlet keys trust"), "{}", run.stderr);

    let run = stranger.run("graph inspect graph.wasm");
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("10 labels") && run.stdout.contains("float32"), "{}", run.stdout);

    let actor = digits().unwrap();
    stranger.write("actor.wasm", actor.bytes());
    let run = stranger.run("graph inspect actor.wasm");
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("is no WASM graph"), "{}", run.stderr);
    stranger.done(&format!("keys trust {}", actor.issuer));
    let run = stranger.run(&format!("graph run -g actor.wasm -i {picture}"));
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("not a WASM graph: it imports `wapc."), "{}", run.stderr);
    assert!(run.stderr.contains("hint: graphlet inspect"), "{}", run.stderr);
}

#[test]
fn a_line_of_json_tells_the_class_and_how_long_it_took() {
    let Some(user) = digits_user("model.toml") else { return };
    let picture = samples().join("7.png").display().to_string();
    let line = format!("graph run -g graph.wasm -i {picture} --json --repeat 3 --memory 64MiB");
    let run = user.run(&line);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let told: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(told["label"], "7");
    assert_eq!(told["outputs"][0]["dtype"], "float32");
    assert_eq!(told["outputs"][0]["shape"].as_array().unwrap().last().unwrap(), 10);
    for phase in ["load", "run"] {
        assert!(told["milliseconds"][phase].as_f64().unwrap() > 0.0, "{}", run.stdout);
    }
    assert!(told["memory_bytes"].as_u64().unwrap() <= 64 << 20, "{}", run.stdout);

    let run = user.run(&format!("graph run -g graph.wasm -i {picture} --repeat 2"));
    assert_eq!((run.code, run.stdout.lines().count()), (0, 3), "{}", run.stderr);
    assert!(run.stderr.starts_with("run ") && run.stderr.ends_with(" ms\n"), "{}", run.stderr);
    // The graph's weights alone are more.
    let run = user.run(&format!("graph run -g graph.wasm -i {picture} --memory 64KiB"));
    assert_eq!((run.code, run.stdout.as_str()), (1, ""));
    assert!(run.stderr.contains("memory"), "{}", run.stderr);
}

#[test]
fn a_graph_that_is_too_large_to_be_signed_runs_when_that_is_allowed() {
    let Some(user) = digits_user("model.toml --unsigned") else { return };
    let picture = samples().join("4.png").display().to_string();
    let line = format!("graph run -g graph.wasm -i {picture}");
    let run = user.run(&line);
    assert_eq!((run.code, run.stdout.as_str()), (1, ""));
    assert!(run.stderr.contains("is refused (unsigned)"), "{}", run.stderr);
    let allowed = format!("{line} --dangerously-allow-unsigned");
    assert!(user.run(&allowed).stdout.ends_with("class `4`\n"));

    // A custom section is a part of the file and nothing to the engine.
    let mut large = user.read("graph.wasm");
    large.push(0);
    let bytes = claims::MAX_MODULE_BYTES as u32;
    // LEB128: seven bits a byte, the lowest first.
    large.extend((0..5).map(|at| (bytes >> (7 * at) & 0x7f) as u8 | if at < 4 { 0x80 } else { 0 }));
    large.extend([1, b'x']);
    large.resize(large.len() + bytes as usize - 2, 0);
    user.write("graph.wasm", &large);
    let run = user.run(&line);
    assert_eq!((run.code, run.stdout.as_str()), (1, ""));
    assert!(run.stderr.contains("is refused (module_too_large)"), "{}", run.stderr);
    let run = user.run(&allowed);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.ends_with("class `4`\n"), "{}", run.stdout);
    let shown = user.done("graph inspect graph.wasm");
    assert!(shown.contains("pictures yes, 10 labels"), "{shown}");
    let shown = user.done("inspect graph.wasm");
    for expected in ["refused (module_too_large)", "claims     none", "custom \"graphlet.graph\""] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let run = user.run(&format!("{allowed} --memory 256MiB"));
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("hint: --memory"), "{}", run.stderr);
}

#[test]
fn build_takes_an_onnx_file_for_graphs_alone() {
    if digits().is_none() {
        return;
    }
    let user = User::new();
    let onnx = root().join("models/digits/digits.onnx");
    let onnx = onnx.display();
    for (line, expected) in [
        (format!("build {onnx} -o x.wasm"), "--as graph"),
        (format!("build {onnx} --as graph -o x.wasm --shape x=1 --shape x=2"), "twice"),
        (format!("build {onnx} --as graph -o x.wasm --shape x"), "INPUT=EXTENTS"),
        (format!("build {onnx} --as graph -o x.wasm --shape x=1,a"), "invalid digit"),
        ("build model.toml --as graph -o x.wasm --shape x=1".to_owned(), "input.shape"),
        ("build model.toml -o x.wasm --unsigned".to_owned(), "--unsigned is for"),
        (format!("build {onnx} --as graph -o x.wasm --unsigned --tag a"), "leaves out"),
    ] {
        let run = user.finish(user.building(&line));
        assert_eq!(run.code, 2, "{line}: {}", run.stderr);
        assert!(run.stderr.contains(expected), "{line}: {}", run.stderr);
    }
    let run = user.finish(user.building(&format!("build {onnx} --as graph -o x.wasm --shape z=1")));
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("no input `z`"), "{}", run.stderr);
    assert_eq!(user.files(), [] as [&str; 0]);
}
