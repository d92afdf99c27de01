//! What people get wrong on the command line and in manifests, and what they are told: exit code
//! 2 for a mistake of theirs, 1 for what failed; one error, and a hint where one helps.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{fs, net::TcpListener};

use support::{Server, User, digits, free_address, pictures, put, root};

#[test]
fn wrong_usage_is_exit_code_2_and_help_is_0() {
    let user = User::new();
    for line in [
        "",
        "serve",
        "run",
        "run --no-such-flag",
        "run m.wasm --listen nowhere",
        "run m.wasm --listen 127.0.0.1",
        "run m.wasm --admin nowhere",
        "run m.wasm --instances 0",
        "run m.wasm --request-timeout 5",
        "run m.wasm --memory lots",
        "run m.wasm --log no=such=filter",
        "run m.wasm --manifest m.yaml",
        "classify m.wasm",
        "classify m.wasm a.png --top 0",
        "build model.toml",
        "build model.toml -o m.wasm --simd best",
        "check",
        "init",
        "keys",
    ] {
        let run = user.run(line);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{line}: {}", run.stderr);
        assert!(!run.stderr.is_empty(), "{line}");
    }
    for line in ["--help", "--version", "run --help", "help build", "keys trust --help"] {
        assert!(!user.done(line).is_empty(), "{line}");
    }
    assert!(user.files().is_empty());
}

#[test]
fn a_file_that_is_missing_or_no_module_is_exit_code_1() {
    let user = User::new();
    user.write("text.wasm", "hello\n");
    user.write("empty.wasm", "");
    user.write("component.wasm", b"\0asm\x0d\0\x01\0");
    for line in ["run NAME --listen 127.0.0.1:0 --admin off", "classify NAME 7.png"] {
        let line = |name: &str| line.replace("NAME", name);
        user.refused(&line("missing.wasm"), 1, &["cannot read missing.wasm", "No such file"]);
        user.refused(&line("text.wasm"), 1, &["text.wasm is refused (not_wasm)", "hint: "]);
        user.refused(&line("empty.wasm"), 1, &["empty.wasm is refused (not_wasm)"]);
        user.refused(&line("component.wasm"), 1, &["component.wasm is refused (component)"]);
    }
    // A signed module that is no actor.
    user.write("tiny.wasm", support::tiny_module(&[], None));
    user.done("sign tiny.wasm -o tiny.wasm");
    user.refused("run tiny.wasm --admin off", 1, &["cannot run tiny.wasm", "__host_call"]);
}

#[test]
fn a_taken_port_is_named_and_the_process_ends() {
    let user = User::with_scripted_guest("guest.wasm");
    let taken = TcpListener::bind(free_address()).unwrap();
    let address = taken.local_addr().unwrap();
    let line = format!("run guest.wasm --listen {address} --admin off");
    user.refused(&line, 1, &["the port is taken", "--listen", &address.to_string()]);
    let line = format!("run guest.wasm --listen 127.0.0.1:0 --admin {address}");
    user.refused(&line, 1, &["the admin port", "in use", &address.to_string()]);
    drop(taken);
    let server = Server::begin(&user, &format!("guest.wasm --listen {address}"));
    assert_eq!(server.address(), address);
    server.stop();
}

#[test]
fn memory_that_the_module_does_not_fit_into_ends_the_process_with_the_reason() {
    let user = User::with_scripted_guest("guest.wasm");
    let line = "run guest.wasm --listen 127.0.0.1:0 --admin off --memory 1MiB";
    user.refused(line, 1, &["cannot run guest.wasm", "did not start", "memory"]);
}

#[test]
fn logs_are_json_or_text_and_colours_are_for_terminals() {
    let user = User::with_scripted_guest("guest.wasm");
    let line = "run guest.wasm --listen 127.0.0.1:0 --admin off --memory 1MiB";
    let text = user.refused(line, 1, &["Actor loaded"]);
    assert!(!text.contains('\x1b'), "an escape sequence in a file: {text}");
    let json = user.refused(&format!("{line} --log-format json --log error"), 1, &[]);
    let (events, last): (Vec<_>, Vec<_>) = json.lines().partition(|line| line.starts_with('{'));
    assert!(!events.is_empty());
    for event in events {
        let event: serde_json::Value = serde_json::from_str(event).unwrap();
        assert_eq!(event["level"], "ERROR", "{event}");
    }
    assert!(last[0].starts_with("error: "), "{last:?}");
}

#[test]
fn the_manifest_of_the_repository_serves_the_digits() {
    let Some(built) = digits() else { return };
    let user = User::with_module(built, "digits.wasm");
    let mut command = user.command("run --manifest");
    command.arg(root().join("provider-config/digits.yaml"));
    command.env("GRAPHLET_DIGITS", user.file("digits.wasm")).env("LISTEN", "127.0.0.1:0");
    let server = Server::spawn(command);
    assert_eq!(put(server.address(), "/", &pictures::digit(7)).label(), "7");
    server.stop();
}

#[test]
fn several_actors_of_a_manifest_answer_on_their_own_ports() {
    let Some(built) = digits() else { return };
    let user = User::with_module(built, "digits.wasm");
    user.write("guest.wasm", support::scripted_guest());
    user.done("sign guest.wasm -o guest.wasm");
    user.write(
        "host.yaml",
        "actors: [digits.wasm, guest.wasm]
capabilities: ['wascc:http_server', 'wascc:logging']
bindings:
  - {actor: digits, capability: 'wascc:http_server', values: {LISTEN: '${ONE:127.0.0.1:0}'}}
  - {actor: guest.wasm, capability: 'wascc:http_server', values: {PORT: '${TWO}', MAX_BODY_BYTES: '9'}}
",
    );
    let mut command = user.command("run --manifest host.yaml --instances 1");
    command.env("TWO", "0");
    let server = Server::spawn(command);
    server.event("Ready");
    let mut guest = server.address_of("guest");
    assert!(guest.ip().is_unspecified(), "PORT listens everywhere: {guest}");
    guest.set_ip([127, 0, 0, 1].into());
    let digits = server.address_of("digits");
    assert_eq!(put(digits, "/", &pictures::digit(7)).label(), "7");
    assert_eq!(put(guest, "/", b"x").text(), "x");
    assert_eq!(put(guest, "/", &pictures::digit(7)).error().0, 413, "a limit of its own");
    assert_eq!(server.admin("/readyz").json()["actors"].as_array().unwrap().len(), 2);
    for actor in ["digits", "guest"] {
        assert_eq!(server.metric("graphlet_ready", &[("actor", actor)]), 1.0, "{actor}");
    }
    server.stop();
}

#[test]
fn mistakes_in_a_manifest_are_all_reported_and_are_exit_code_2() {
    let user = User::with_scripted_guest("guest.wasm");
    let binding = |rest: &str| {
        format!(
            "actors: [guest.wasm]\ncapabilities: ['wascc:http_server']\nbindings:\n  - {{{rest}}}\n"
        )
    };
    let http = "capability: 'wascc:http_server'";
    for (text, words) in [
        ("actors: [\n".to_owned(), &["malformed YAML"][..]),
        (
            "actor: [guest.wasm]\ncapabilities: ['wascc:keyvalue']\nbindings: 3\n".into(),
            &["actor", "wascc:keyvalue", "bindings"],
        ),
        (binding(&format!("actor: guest, {http}, values: {{PORT: '${{NOT_SET}}'}}")), &["NOT_SET"]),
        (binding(&format!("actor: other, {http}, values: {{PORT: '0'}}")), &["`other`", "guest"]),
        (binding(&format!("actor: guest, {http}, values: {{PRT: '0'}}")), &["PRT"]),
        (binding(&format!("actor: guest, {http}, values: {{PORT: 'http'}}")), &["PORT"]),
    ] {
        user.write("host.yaml", &text);
        user.refused("run --manifest host.yaml --admin off", 2, words);
    }
    user.refused("run --manifest missing.yaml --admin off", 1, &["missing.yaml", "No such file"]);
    // A capability that the claims do not name.
    user.write("quiet.wasm", support::scripted_guest());
    user.done("sign quiet.wasm -o guest.wasm --name guest --cap wascc:logging");
    user.write(
        "host.yaml",
        binding(&format!("actor: guest, {http}, values: {{LISTEN: '127.0.0.1:0'}}")),
    );
    let words = ["claims", "wascc:http_server"];
    user.refused("run --manifest host.yaml --admin off", 1, &words);
    fs::remove_file(user.file("guest.wasm")).unwrap();
    user.refused("run --manifest host.yaml --admin off", 1, &["guest.wasm", "No such file"]);
}

#[test]
fn a_reader_that_has_enough_is_no_error_to_be_told() {
    let user = User::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ran = user.command("keys list").stdout(writer).output().unwrap();
    assert_eq!((ran.status.code(), String::from_utf8_lossy(&ran.stderr).as_ref()), (Some(1), ""));
}

#[test]
fn messages_that_nobody_reads_stop_no_work() {
    let user = User::new();
    user.write("tiny.wasm", support::tiny_module(&[], None));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    // As `graphlet sign … 2>&1 | head -0` would; keys are made and told of, and so is who signs.
    let ran = user.command("sign tiny.wasm -o signed.wasm").stderr(writer).output().unwrap();
    assert_eq!(ran.status.code(), Some(0));
    user.done("verify signed.wasm");
}
