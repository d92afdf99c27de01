//! `graphlet push`, `pull` and `node` as people type them, with a real registry.
#![cfg(feature = "kubernetes")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{
    fs::{self, Permissions},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use support::{User, free_address, tiny_module, until};

/// Debian's `docker-registry`; dropped, it is gone.
struct Registry {
    process: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Registry {
    /// A registry, for one user and password when there are some.
    fn start(login: Option<(&str, &str)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        // YAML is what it reads, and JSON is YAML.
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": folder.path().join("data")}},
            "http": {"addr": address.to_string()},
        });
        if let Some((user, password)) = login {
            let path = folder.path().join("htpasswd");
            fs::write(&path, format!("{user}:{}\n", bcrypt::hash(password, 4).unwrap())).unwrap();
            config["auth"] = json!({"htpasswd": {"realm": "tests", "path": path}});
        }
        let path = folder.path().join("config.json");
        fs::write(&path, config.to_string()).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("docker-registry cannot be started ({error}): run `make setup-dev`")
            });
        let mut registry = Registry { process, address, _folder: folder };
        until("the registry answers", || {
            let ended = registry.process.try_wait().unwrap();
            assert!(ended.is_none(), "docker-registry ended: {ended:?}");
            TcpStream::connect(address).ok()
        });
        registry
    }

    fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A user with a signed module `m.wasm` and an unsigned one, `bare.wasm`.
fn user() -> User {
    let user = User::new();
    user.write("bare.wasm", tiny_module(&[], None));
    user.done("sign bare.wasm -o m.wasm");
    user
}

#[test]
fn what_was_pushed_is_pulled_by_the_digest_that_was_printed() {
    let (registry, user) = (Registry::start(None), user());
    for format in ["cncf", "krustlet"] {
        let name = registry.name(&format!("models/tiny:{format}"));
        let push = format!("push m.wasm {name} --format {format}");
        let pushed = user.run(&push);
        assert_eq!(pushed.code, 0, "{}", pushed.stderr);
        assert!(pushed.stderr.contains("graphlet keys trust A"), "{}", pushed.stderr);
        let pinned = pushed.stdout.trim_end();
        assert!(pinned.starts_with(&registry.name("models/tiny@sha256:")), "{pinned}");
        assert_eq!(user.done(&push), pinned, "the same again");
        for reference in [pinned, &name] {
            let pulled = user.run(&format!("pull {reference} -o back.wasm"));
            assert_eq!((pulled.code, pulled.stdout.trim_end()), (0, pinned), "{}", pulled.stderr);
            assert_eq!(user.read("back.wasm"), user.read("m.wasm"));
            assert!(pulled.stderr.contains("next: graphlet verify back.wasm"), "{}", pulled.stderr);
        }
    }
    user.done("verify back.wasm");
    assert_eq!(user.run(&format!("push -q m.wasm {}", registry.name("q:v1"))).stderr, "");
    // Somebody else gets the module, and is told what it takes to run it.
    let stranger = User::new();
    let pulled = stranger.run(&format!("pull {} -o m.wasm", registry.name("q:v1")));
    assert_eq!(pulled.code, 0, "{}", pulled.stderr);
    assert!(pulled.stderr.contains("is not trusted here"), "{}", pulled.stderr);
    assert!(pulled.stderr.contains("hint: graphlet keys trust A"), "{}", pulled.stderr);
    stranger.refused("verify m.wasm", 1, &["untrusted_issuer"]);
}

#[test]
fn a_time_in_the_artifact_is_the_one_that_was_asked_for() {
    let (registry, user) = (Registry::start(None), user());
    let push = format!("push m.wasm {}", registry.name("tiny:v1"));
    let at = |time: &str| user.run_with(&push, &[("SOURCE_DATE_EPOCH", time)]);
    let (first, second) = (at("1700000000"), at("1700000001"));
    assert_eq!((first.code, second.code), (0, 0), "{}", first.stderr);
    assert_ne!(first.stdout, second.stdout);
    assert_eq!(first.stdout, at("1700000000").stdout);
    let wrong = at("yesterday");
    assert_eq!((wrong.code, wrong.stdout.as_str()), (2, ""), "{}", wrong.stderr);
}

#[test]
fn mistakes_and_faults_are_told_with_what_helps() {
    let (registry, user) = (Registry::start(None), user());
    user.write("page.wasm", "<html></html>");
    user.write("no.pem", "nothing");
    let name = registry.name("tiny:v1");
    let nobody = free_address();
    for (line, code, words) in [
        (format!("push page.wasm {name}"), 1, &["no WebAssembly module", "hint: "][..]),
        (format!("push absent.wasm {name}"), 1, &["absent.wasm"]),
        ("push m.wasm Not/A/Name".into(), 2, &["names no module", "hint: names look like"]),
        (format!("push m.wasm {name}@sha256:{}", "0".repeat(64)), 2, &["needs a tag"]),
        (format!("push m.wasm {nobody}/a:v1"), 1, &["is a registry running at"]),
        (format!("push m.wasm {name} --registry-ca no.pem"), 2, &["no.pem"]),
        (format!("push m.wasm {name} --format oci"), 2, &["cncf"]),
        (format!("pull {name} -o x.wasm"), 1, &["cannot pull", "hint: check the repository"]),
        (format!("pull {nobody}/a:v1 -o x.wasm"), 1, &["Connection refused", "is a registry"]),
        (format!("pull {name} -o none/x.wasm"), 2, &["there is no folder none"]),
        (format!("pull {name}"), 2, &["--output"]),
        (format!("pull {name} -o x.wasm --registry-mirror x"), 2, &["HOST=URL"]),
    ] {
        user.refused(&line, code, words);
    }
    assert!(!user.files().contains(&"x.wasm".to_owned()));
    let run = user.run(&format!("push bare.wasm {name}"));
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("warning: bare.wasm is not signed"), "{}", run.stderr);
    assert!(run.stderr.contains("hint: graphlet sign bare.wasm"), "{}", run.stderr);
}

#[test]
fn dockers_logins_open_registries() {
    let registry = Registry::start(Some(("alice", "open sesame")));
    let user = user();
    let name = registry.name("private/tiny:v1");
    user.refused(&format!("push m.wasm {name}"), 1, &["to anonymous", "hint: docker login"]);
    let login = |password: &str| {
        let auth = STANDARD.encode(format!("alice:{password}"));
        let config = json!({"auths": {registry.address.to_string(): {"auth": auth}}});
        fs::create_dir_all(user.file("docker")).unwrap();
        user.write("docker/config.json", config.to_string());
    };
    let docker = user.file("docker");
    let with = |line: &str| user.run_with(line, &[("DOCKER_CONFIG", docker.to_str().unwrap())]);
    login("wrong");
    let run = with(&format!("push m.wasm {name}"));
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("to alice"), "{}", run.stderr);
    login("open sesame");
    for line in [format!("push m.wasm {name}"), format!("pull {name} -o back.wasm")] {
        let run = with(&line);
        assert_eq!(run.code, 0, "{line}: {}", run.stderr);
    }
    // A mirror has its own login.
    let mirror = format!(
        "pull models.invalid/private/tiny:v1 -o again.wasm --registry-mirror models.invalid=http://{}",
        registry.address
    );
    let run = with(&mirror);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(user.read("again.wasm"), user.read("m.wasm"));
    user.write("docker/config.json", "{\"credHelpers\": {\"models.invalid\": \"none-such\"}}");
    let run = with("pull models.invalid/a:v1 -o x.wasm");
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("docker-credential-none-such"), "{}", run.stderr);
}

#[test]
fn node_becomes_the_agent_beside_the_command() {
    let user = User::new();
    // The real folder of the command may hold an agent: this one is empty so far.
    let graphlet = user.file("graphlet");
    let real = env!("CARGO_BIN_EXE_graphlet");
    // By another process: one that this one starts meanwhile would inherit the open file, and a
    // file that is open for writing cannot be executed.
    let copied = Command::new("cp").arg(real).arg(&graphlet).status().unwrap();
    assert!(copied.success());
    let command = |line: &str| {
        let mut command = Command::new(&graphlet);
        command.args(line.split_whitespace()).env_clear().stdin(Stdio::null());
        command
    };
    let words = ["graphlet-node is neither beside", "hint: cargo build --release -p node-agent"];
    user.refuses(command("node --help"), 1, &words);
    let script = user.write("script", "#!/bin/sh\necho \"$@\"\nexit 7\n");
    let agent = user.file("graphlet-node");
    let copied = Command::new("cp").arg(script).arg(&agent).status().unwrap();
    assert!(copied.success());
    user.refuses(command("node"), 1, &["cannot start"]);
    fs::set_permissions(agent, Permissions::from_mode(0o755)).unwrap();
    let run = user.finish(command("node --help bootstrap -v"));
    assert_eq!((run.code, run.stdout.as_str()), (7, "--help bootstrap -v\n"), "{}", run.stderr);
}
