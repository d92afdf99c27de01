//! `graphlet keys`, `sign`, `verify` and `inspect`, each as a process of its own with a
//! configuration folder of its own.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use serde_json::{Value, json};

use support::{User, tiny_module};

/// A user with a module that nobody has signed.
fn user() -> User {
    let user = User::new();
    user.write("model.wasm", tiny_module(&[], None));
    user
}

fn flip(path: &Path, needle: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(needle.len()).position(|part| part == needle).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_new_key_is_private_and_trusted_and_not_written_over() {
    let user = user();
    let issuer = user.done("keys new --name team");
    assert!(issuer.starts_with('A') && issuer.len() == 56, "{issuer}");
    assert_eq!(user.mode("config"), 0o700);
    assert_eq!(user.mode("config/keys"), 0o700);
    assert_eq!(user.mode("config/keys/team.nk"), 0o600);
    assert_eq!(user.mode("config/trust.toml"), 0o600);
    let list = user.done("keys list");
    assert_eq!(list.matches(&issuer).count(), 2, "{list}");
    let before = user.seeds();
    user.refused("keys new --name team", 2, &["is there already", "hint: "]);
    assert_eq!(user.seeds(), before);
    user.refused("keys new --name ../team", 2, &["cannot name a key file"]);

    let quiet = user.done("keys new --name quiet --no-trust");
    let list = user.done("keys list");
    assert_eq!(list.matches(&quiet).count(), 1, "{list}");
    assert!(list.contains("(not trusted here)"), "{list}");
}

#[test]
fn the_first_signature_makes_a_development_issuer_that_is_trusted() {
    let user = user();
    user.refused("verify model.wasm", 1, &["(unsigned)", "hint: graphlet sign model.wasm"]);
    let digest = user.done("sign model.wasm -o signed.wasm");
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{digest}");
    let verified = user.done("verify signed.wasm");
    assert!(verified.contains(&digest) && verified.contains("wascc:http_server"), "{verified}");
    assert_eq!(user.mode("config/keys/issuer.nk"), 0o600);
    assert_eq!(user.mode("config/keys/actors/model.nk"), 0o600);
    // A second one is not made, and the actor keeps its name.
    let claims = user.inspect("signed.wasm")["claims"].clone();
    user.done("sign model.wasm -o again.wasm");
    let again = user.inspect("again.wasm")["claims"].clone();
    assert_eq!(claims["issuer"], again["issuer"]);
    assert_eq!(claims["subject"], again["subject"]);
}

#[test]
fn the_command_that_a_refusal_names_helps() {
    let (author, user) = (user(), user());
    author.done("sign model.wasm -o signed.wasm --name lenses");
    fs::copy(author.file("signed.wasm"), user.file("signed.wasm")).unwrap();
    let stderr = user.refused("verify signed.wasm", 1, &["(untrusted_issuer)", "hint: graphlet "]);
    let hint = stderr.lines().find_map(|line| line.strip_prefix("hint: graphlet ")).unwrap();
    user.done(hint);
    user.done("verify signed.wasm");
    let issuer = hint.split(' ').next_back().unwrap();
    user.done(&format!("keys untrust {issuer}"));
    user.refused("verify signed.wasm", 1, &["(untrusted_issuer)"]);
    user.refused(&format!("keys untrust {issuer}"), 2, &["was not trusted"]);
    // The same by the module.
    assert_eq!(user.done("keys trust --module signed.wasm --name author"), issuer);
    user.done("verify signed.wasm");
    assert!(user.done("keys list").contains("author"));

    let stderr = user.refused("verify model.wasm", 1, &["(unsigned)"]);
    let hint = stderr.lines().find_map(|line| line.strip_prefix("hint: graphlet ")).unwrap();
    user.done(hint);
    user.done("verify model.wasm");
}

#[test]
fn what_is_revoked_is_refused_until_that_is_taken_back() {
    let user = user();
    user.done("sign model.wasm -o signed.wasm");
    user.done("sign model.wasm -o later.wasm --revision 2");
    let claims = user.inspect("signed.wasm")["claims"].clone();
    let (actor, token) = (claims["subject"].as_str().unwrap(), claims["id"].as_str().unwrap());
    for (by_name, by_module, list, code, later) in [
        (token, "--module signed.wasm", format!("revoked token  {token}"), "revoked_token", true),
        (
            actor,
            "--module signed.wasm --actor",
            format!("revoked actor  {actor}"),
            "revoked_subject",
            false,
        ),
    ] {
        for (how, back) in [(by_name, by_module), (by_module, by_name)] {
            user.done(&format!("keys revoke {how}"));
            user.done(&format!("keys revoke {back}"));
            user.refused("verify signed.wasm", 1, &[&format!("({code})"), "hint: graphlet keys"]);
            assert_eq!(user.inspect("signed.wasm")["verdict"]["code"], code);
            assert_eq!(user.run("verify later.wasm").code == 0, later, "{how}");
            assert_eq!(user.done("keys list").matches(&list).count(), 1);
            let trust: Value = serde_json::from_str(&user.done("keys list --json")).unwrap();
            let kind = if by_name == token { "tokens" } else { "subjects" };
            assert_eq!(trust["revoked"], json!({ kind: [by_name] }));
            assert_eq!(trust["issuer"][0]["key"], claims["issuer"]);
            user.done(&format!("keys unrevoke {back}"));
            user.done("verify signed.wasm");
            assert!(!user.done("keys list").contains("revoked"));
            user.refused(&format!("keys unrevoke {how}"), 2, &["was not revoked", "hint: "]);
        }
    }
    assert_eq!(user.mode("config/trust.toml"), 0o600);

    let trust = user.read("config/trust.toml");
    let issuer = claims["issuer"].as_str().unwrap();
    user.refused(&format!("keys revoke {issuer}"), 2, &["no actor's key", "keys untrust"]);
    user.refused(&format!("keys revoke {}", &actor[..55]), 2, &["no actor's key"]);
    let seeds = user.seeds();
    for seed in &seeds {
        let stderr = user.refused(&format!("keys revoke {seed}"), 2, &["no actor's key"]);
        assert!(!stderr.contains(seed), "a seed was shown");
    }
    user.refused("keys revoke", 2, &[]);
    user.refused("keys revoke --actor", 2, &[]);
    user.refused("keys revoke --module model.wasm", 1, &["(unsigned)"]);
    assert_eq!(user.read("config/trust.toml"), trust);
}

#[test]
fn an_altered_module_is_refused_and_cannot_bring_trust() {
    let user = user();
    user.done("sign model.wasm -o signed.wasm");
    flip(&user.file("signed.wasm"), b"run");
    user.refused("verify signed.wasm", 1, &["(hash_mismatch)", "hint: graphlet inspect"]);
    let trust = fs::read(user.file("config/trust.toml")).unwrap();
    user.refused("keys trust --module signed.wasm", 1, &["(hash_mismatch)"]);
    user.refused("keys trust --module model.wasm", 1, &["(unsigned)"]);
    user.refused("keys trust M", 2, &[]);
    user.refused("keys trust", 2, &[]);
    user.refused("keys trust model.wasm", 2, &["a file", "--module MODULE"]);
    assert_eq!(fs::read(user.file("config/trust.toml")).unwrap(), trust);
    let report = user.inspect("signed.wasm");
    assert_eq!(report["verdict"]["code"], "hash_mismatch");
    assert_eq!(report["claims"], Value::Null, "claims that do not hold are not shown");
}

#[test]
fn trust_and_keys_that_others_could_change_or_read_are_not_used() {
    let user = user();
    user.done("sign model.wasm -o signed.wasm");
    let mode = |name: &str, mode| {
        fs::set_permissions(user.file(name), Permissions::from_mode(mode)).unwrap();
    };
    mode("config/trust.toml", 0o666);
    for line in ["verify signed.wasm", "keys list", "keys trust --module signed.wasm"] {
        user.refused(line, 2, &["can be written by others", "hint: chmod go-w "]);
    }
    mode("config/trust.toml", 0o600);
    mode("config", 0o777);
    user.refused("verify signed.wasm", 2, &["can be written by others"]);
    mode("config", 0o700);
    user.done("verify signed.wasm");
    mode("config/keys/issuer.nk", 0o644);
    user.refused("sign model.wasm -o x.wasm", 2, &["others can read", "hint: chmod 600 "]);
    assert!(!user.file("x.wasm").exists());
    fs::write(user.file("config/trust.toml"), "[revokd]\n").unwrap();
    user.refused("verify signed.wasm", 2, &["revokd"]);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let user = user();
    let epoch = [("SOURCE_DATE_EPOCH", "1700000000")];
    for (input, output) in
        [("model.wasm", "1.wasm"), ("model.wasm", "2.wasm"), ("1.wasm", "3.wasm")]
    {
        let line = format!("sign {input} -o {output} --name m --expires 90d --revision 3 --tag t");
        assert_eq!(user.run_with(&line, &epoch).code, 0);
    }
    let first = fs::read(user.file("1.wasm")).unwrap();
    assert_eq!(fs::read(user.file("2.wasm")).unwrap(), first);
    assert_eq!(fs::read(user.file("3.wasm")).unwrap(), first, "signing again replaces");
    let claims = user.inspect("1.wasm")["claims"].clone();
    assert_eq!(claims["issued_at"], 1_700_000_000);
    assert_eq!(claims["expires"], 1_700_000_000 + 90 * 24 * 3600);
    assert_eq!((&claims["revision"], &claims["tags"][0]), (&3.into(), &"t".into()));
    let bad = user.run_with("sign model.wasm -o x.wasm", &[("SOURCE_DATE_EPOCH", "now")]);
    assert_eq!(bad.code, 2, "{}", bad.stderr);
}

#[test]
fn expiry_revocation_and_revision_refuse_with_their_reason() {
    let user = user();
    let old = [("SOURCE_DATE_EPOCH", "1000000000")];
    let run = user.run_with("sign model.wasm -o old.wasm --expires 1d", &old);
    assert!(run.code == 0 && run.stderr.contains("have expired already"), "{}", run.stderr);
    user.refused("verify old.wasm", 1, &["(expired)", "2001-09-10", "--expires 90d"]);
    user.refused("sign model.wasm -o x.wasm --expires 0s", 2, &["at least a second"]);
    user.refused("sign model.wasm -o x.wasm --expires 90", 2, &["not a duration"]);

    user.done("sign model.wasm -o signed.wasm --revision 2");
    let soon = user.run("sign model.wasm -o soon.wasm --expires 13d");
    assert_eq!(soon.code, 0);
    let soon = user.run("verify soon.wasm");
    assert!(soon.code == 0 && soon.stderr.contains("expire soon"), "{}", soon.stderr);

    let trust = fs::read_to_string(user.file("config/trust.toml")).unwrap();
    let claims = user.inspect("signed.wasm")["claims"].clone();
    let (subject, token) = (claims["subject"].as_str().unwrap(), claims["id"].as_str().unwrap());
    for (lines, code) in [
        (format!("[revoked]\nsubjects = [{subject:?}]\n"), "revoked_subject"),
        (format!("[revoked]\ntokens = [{token:?}]\n"), "revoked_token"),
        (format!("[minimum_revisions]\n{subject} = 3\n"), "revision_too_low"),
        ("require_expiry = true\n".into(), "no_expiry"),
        ("allowed_capabilities = [\"wascc:logging\"]\n".into(), "capability_not_allowed"),
    ] {
        fs::write(user.file("config/trust.toml"), format!("{lines}{trust}")).unwrap();
        user.refused("verify signed.wasm", 1, &[&format!("({code})"), "hint: "]);
        user.done("keys list");
    }
}

#[test]
fn what_cannot_be_signed_leaves_nothing_behind() {
    let user = user();
    fs::write(user.file("component.wasm"), b"\0asm\x0d\0\x01\0").unwrap();
    fs::write(user.file("cat.png"), b"\x89PNG").unwrap();
    fs::write(user.file("out.wasm"), b"old").unwrap();
    for name in ["component.wasm", "cat.png", "missing.wasm"] {
        user.refused(&format!("sign {name} -o out.wasm"), 1, &[name]);
        user.refused(&format!("verify {name}"), 1, &[name]);
    }
    for name in ["cat.png", "missing.wasm"] {
        user.refused(&format!("inspect {name}"), 1, &[name]);
    }
    let card = user.done("inspect component.wasm");
    assert!(card.contains("refused (component)"), "{card}");
    assert_eq!(fs::read(user.file("out.wasm")).unwrap(), b"old");
    assert!(!user.file("config").exists(), "no key is made for nothing");
    user.refused("sign model.wasm -o no/such/folder.wasm", 2, &["no folder no/such"]);
    user.refused("sign model.wasm", 2, &["--output"]);
    user.refused("sign model.wasm -o out.wasm --subject nobody", 2, &["--subject"]);
}

#[test]
fn other_keys_and_capabilities_can_be_named() {
    let user = user();
    let team = user.done("keys new --name team");
    user.done(
        "sign model.wasm -o signed.wasm --issuer config/keys/team.nk --name n --cap wascc:logging",
    );
    let report = user.inspect("signed.wasm");
    assert_eq!(report["claims"]["issuer"], team);
    assert_eq!(report["claims"]["issuer_name"], "team");
    assert_eq!(report["claims"]["capabilities"], serde_json::json!(["wascc:logging"]));
    assert_eq!(report["verdict"]["verified"], true);
    let subject = report["claims"]["subject"].as_str().unwrap().to_owned();
    user.done(&format!("sign model.wasm -o other.wasm --name other --subject {subject}"));
    assert_eq!(user.inspect("other.wasm")["claims"]["subject"], subject);
    user.done("sign model.wasm -o file.wasm --name x --subject config/keys/actors/n.nk");
    assert_eq!(user.inspect("file.wasm")["claims"]["subject"], subject);
    user.refused("sign model.wasm -o x.wasm --issuer config/keys/actors/n.nk", 2, &["issuer"]);
}

const CARD: &str = r#"{"spec":{
    "model":{"name":"digits","version":"1.0","onnx":"digits.onnx","licence":"MIT"},
    "input":{"shape":[1,1,28,28]},
    "preprocess":{"channels":"grey"},
    "output":{"labels":"labels.txt"}
  },"labels":10,"sizes":{"params":123456,"later":1},"versions":{"tvm":"0.27.0"}}"#;

#[test]
fn inspect_shows_what_a_module_needs_and_is() {
    let user = user();
    let constant = [&[0xfd, 0x0c][..], &[0; 16]].concat();
    let relaxed = [&constant.repeat(3)[..], &[0xfd, 0x85, 0x02, 0x1a]].concat();
    let simd = [&constant[..], &[0x1a]].concat();
    for (code, level) in [(&[][..], "none"), (&simd, "simd128"), (&relaxed, "relaxed")] {
        fs::write(user.file("m.wasm"), tiny_module(code, Some(CARD))).unwrap();
        assert_eq!(user.inspect("m.wasm")["simd"], level);
    }
    user.done("sign m.wasm -o m.wasm --expires 30d");
    let report = user.inspect("m.wasm");
    assert_eq!(report["claims"]["name"], "digits", "the model's name by default");
    assert_eq!(report["claims"]["version"], "1.0");
    assert_eq!(report["model"]["spec"]["model"]["licence"], "MIT");
    assert_eq!(report["model"]["labels"], 10);
    assert_eq!(report["imports"][0]["module"], "wapc");
    assert_eq!(report["imports"][0]["kind"], "func (i32, i32) -> i32");
    assert_eq!(report["exports"][0]["kind"], "func ()");
    assert_eq!(report["exports"][1]["kind"], "memory");
    assert_eq!(report["memory"][0]["pages"], 2);
    let sections: Vec<_> = report["sections"].as_array().unwrap().iter().collect();
    let last: Vec<_> = sections[sections.len() - 3..].iter().map(|s| &s["name"]).collect();
    assert_eq!(last, ["custom \"graphlet.model\"", "custom \"wasmcloud_jwt\"", "custom \"jwt\""]);
    let text = user.done("inspect m.wasm");
    for part in ["verified", "digits 1.0", "123,456 bytes", "relaxed", "wapc.__host_call", "Z, in "]
    {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn a_hostile_module_cannot_write_to_the_terminal() {
    let user = user();
    let hostile = CARD.replace("\"MIT\"", r#""\u001b[2Jgone""#);
    fs::write(user.file("m.wasm"), tiny_module(&[], Some(&hostile))).unwrap();
    let text = user.done("inspect m.wasm");
    assert!(text.contains("[2Jgone") && !text.contains('\u{1b}'), "{text}");
    fs::write(user.file("m.wasm"), tiny_module(&[], Some("{}"))).unwrap();
    assert!(user.done("inspect m.wasm").contains("malformed model card"));
}

#[test]
fn many_writers_lose_no_issuer() {
    let user = user();
    // Not `user.done`: it looks for every seed in what a command printed, and while others write
    // their keys it would read half-written, empty files, which any output contains.
    let outputs = std::thread::scope(|scope| {
        let run = |index| {
            let mut command = user.command(&format!("keys new --name k{index}"));
            scope.spawn(move || command.output().unwrap())
        };
        let threads: Vec<_> = (0..8).map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let seeds = user.seeds();
    assert_eq!(seeds.len(), 8);
    for output in outputs {
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        for seed in &seeds {
            assert!(seed.len() == 58 && !text.contains(seed), "a seed was printed");
        }
    }
    let list = user.done("keys list");
    // Each stands among those that are trusted and among those that can sign. Whole words: the
    // folder's name, which is in the headings, may contain any two letters.
    for name in (0..8).map(|index| format!("k{index}")) {
        let words = list.split_whitespace().filter(|word| **word == name);
        assert_eq!(words.count(), 2, "{name}: {list}");
    }
}
