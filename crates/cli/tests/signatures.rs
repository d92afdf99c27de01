//! The real module with its signature removed, damaged, expired, revoked or from nobody known:
//! neither `run` nor `classify` carries it out, and both name the reason and what would help.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::ops::Range;

use support::{Built, Server, User, digits, pictures, put, until};

/// One section of a module: its id, and where it lies with its header.
fn sections(module: &[u8]) -> Vec<(u8, Range<usize>)> {
    let mut found = Vec::new();
    let mut at = 8;
    while at < module.len() {
        let (start, id) = (at, module[at]);
        at += 1;
        let mut length = 0;
        let mut shift = 0;
        loop {
            let byte = module[at];
            at += 1;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        at += length;
        found.push((id, start..at));
    }
    found
}

const CODE: u8 = 10;
const DATA: u8 = 11;

/// The sections that hold claims.
fn claims(module: &[u8]) -> Vec<Range<usize>> {
    let all = sections(module).into_iter().filter(|(id, range)| {
        let start = &module[range.start..range.end.min(range.start + 24)];
        *id == 0 && start.windows(3).any(|three| three == b"jwt")
    });
    all.map(|(_, range)| range).collect()
}

fn without(module: &[u8], ranges: &[Range<usize>]) -> Vec<u8> {
    let kept = module.iter().enumerate();
    let kept = kept.filter(|(at, _)| !ranges.iter().any(|range| range.contains(at)));
    kept.map(|(_, &byte)| byte).collect()
}

/// Asserts that a module is refused by every command that would carry it out.
#[track_caller]
fn refused(user: &User, name: &str, code: &str, hint: &str) {
    user.write("7.png", pictures::digit(7));
    let reason = format!("{name} is refused ({code})");
    let words = [reason.as_str(), "hint: ", hint];
    user.refused(&format!("run {name} --listen 127.0.0.1:0 --admin off"), 1, &words);
    user.refused(&format!("classify {name} 7.png"), 1, &words);
    user.refused(&format!("verify {name}"), 1, &words);
}

fn user() -> Option<(&'static Built, User)> {
    let built = digits()?;
    Some((built, User::with_module(built, "digits.wasm")))
}

#[test]
fn an_unsigned_module_is_refused() {
    let Some((built, user)) = user() else { return };
    let module = built.bytes();
    let ranges = claims(&module);
    assert_eq!(ranges.len(), 2, "both names of the section are written");
    user.write("bare.wasm", without(&module, &ranges));
    refused(&user, "bare.wasm", "unsigned", "graphlet sign bare.wasm");
}

#[test]
fn a_module_with_any_part_altered_is_refused() {
    let Some((built, user)) = user() else { return };
    let module = built.bytes();
    let middle = |wanted: u8| {
        let all = sections(&module);
        let (_, range) = all.iter().find(|(id, _)| *id == wanted).unwrap();
        usize::midpoint(range.start, range.end)
    };
    let flipped = |at: usize| {
        let mut bytes = module.clone();
        bytes[at] ^= 1;
        bytes
    };
    for (name, at) in [("code.wasm", middle(CODE)), ("weights.wasm", middle(DATA))] {
        user.write(name, flipped(at));
        refused(&user, name, "hash_mismatch", "graphlet inspect");
    }
    // In the payload and in the signature of each token; which rule catches it is claims' affair.
    for range in claims(&module) {
        for at in [usize::midpoint(range.start, range.end), range.end - 4] {
            let (name, bytes) = (format!("token-{at}.wasm"), flipped(at));
            user.write(&name, bytes);
            user.refused(&format!("classify {name} 7.png"), 1, &["is refused (", "hint: "]);
            user.refused(&format!("run {name} --admin off"), 1, &["is refused (", "hint: "]);
        }
    }
    let ranges = claims(&module);
    let twice = [&module[..], &module[ranges[1].clone()]].concat();
    let first = [&module[..8], &module[ranges[0].clone()], &without(&module, &ranges[..1])[8..]];
    let cut = module[..module.len() - 1].to_vec();
    for (name, bytes) in [("twice.wasm", twice), ("first.wasm", first.concat()), ("cut.wasm", cut)]
    {
        user.write(name, bytes);
        user.refused(&format!("run {name} --admin off"), 1, &["is refused (", "hint: "]);
    }
}

#[test]
fn the_claims_of_another_module_are_refused() {
    let Some((built, user)) = user() else { return };
    user.write("other.wasm", support::tiny_module(&[], None));
    user.done("sign other.wasm -o other.wasm");
    let (module, other) = (built.bytes(), user.read("other.wasm"));
    let borrowed: Vec<u8> = claims(&other).into_iter().flat_map(|r| other[r].to_vec()).collect();
    user.write("mixed.wasm", [without(&module, &claims(&module)), borrowed].concat());
    refused(&user, "mixed.wasm", "hash_mismatch", "graphlet inspect");
}

#[test]
fn an_issuer_that_nobody_trusted_is_refused_until_the_hint_is_followed() {
    let Some((built, user)) = user() else { return };
    user.done(&format!("keys untrust {}", built.issuer));
    let hint = format!("graphlet keys trust {}", built.issuer);
    refused(&user, "digits.wasm", "untrusted_issuer", &hint);
    user.done(hint.strip_prefix("graphlet ").unwrap());
    assert_eq!(user.done("classify digits.wasm 7.png"), "7");
}

#[test]
fn expired_and_revoked_modules_are_refused() {
    let Some((_, user)) = user() else { return };
    let old = [("SOURCE_DATE_EPOCH", "1000000000")];
    let run = user.run_with("sign digits.wasm -o old.wasm --expires 1d", &old);
    assert_eq!(run.code, 0, "{}", run.stderr);
    refused(&user, "old.wasm", "expired", "--expires 90d");

    let trust = String::from_utf8(user.read("config/trust.toml")).unwrap();
    let claims = user.inspect("digits.wasm")["claims"].clone();
    for (line, value, code) in [
        ("subjects", &claims["subject"], "revoked_subject"),
        ("tokens", &claims["id"], "revoked_token"),
    ] {
        user.write("config/trust.toml", format!("[revoked]\n{line} = [{value}]\n{trust}"));
        refused(&user, "digits.wasm", code, "graphlet keys list");
    }
}

#[test]
fn the_flag_for_unsigned_modules_is_loud_and_opens_nothing_else() {
    let Some((built, user)) = user() else { return };
    let module = built.bytes();
    let flag = "--dangerously-allow-unsigned";
    user.write("bare.wasm", without(&module, &claims(&module)));
    user.write("7.png", pictures::digit(7));
    assert_eq!(user.done(&format!("classify bare.wasm 7.png {flag}")), "7");
    let server = Server::start(&user, &format!("bare.wasm {flag} --instances 1"));
    assert_eq!(put(server.address(), "/", &pictures::digit(7)).label(), "7");
    let event = server.event("UNSIGNED module runs because a flag allows it");
    assert_eq!(event["level"], "WARN");
    assert_eq!(server.metric("graphlet_actor_unsigned", &[]), 1.0);
    server.stop();

    let mut altered = module.clone();
    let (_, code) = sections(&module).into_iter().find(|(id, _)| *id == CODE).unwrap();
    altered[usize::midpoint(code.start, code.end)] ^= 1;
    user.write("altered.wasm", altered);
    user.done(&format!("keys untrust {}", built.issuer));
    for (name, code) in [("altered.wasm", "hash_mismatch"), ("digits.wasm", "untrusted_issuer")] {
        let words = [format!("({code})")];
        let words = words.each_ref().map(String::as_str);
        user.refused(&format!("classify {name} 7.png {flag}"), 1, &words);
        user.refused(&format!("run {name} {flag} --admin off"), 1, &words);
    }
}

#[test]
fn an_actor_whose_issuer_loses_trust_while_it_runs_stops_getting_traffic() {
    let Some((built, user)) = user() else { return };
    let server = Server::start(&user, "digits.wasm --instances 1");
    let address = server.address();
    let seven = pictures::digit(7);
    assert_eq!(put(address, "/", &seven).label(), "7");
    user.done(&format!("keys untrust {}", built.issuer));
    // Trust is looked at again every ten seconds.
    let answer = until("a refusal", || {
        let answer = put(address, "/", &seven);
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(answer.error(), (503, "actor_refused".into()));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(server.admin("/readyz").status, 503);
    assert_eq!(server.metric("graphlet_ready", &[]), 0.0);
    let event = server.event("Actor's claims no longer hold, traffic stops");
    assert_eq!(event["level"], "ERROR");
    // With trust, traffic comes back.
    user.done(&format!("keys trust {}", built.issuer));
    until("traffic again", || (put(address, "/", &seven).status == 200).then_some(()));
    // The same for what is revoked and for taking that back.
    user.done("keys revoke --module digits.wasm");
    let answer = until("a refusal", || {
        let answer = put(address, "/", &seven);
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(answer.error(), (503, "actor_refused".into()));
    server.event_where("a reason", |event| event.to_string().contains("was revoked"));
    user.done("keys unrevoke --module digits.wasm");
    until("traffic again", || (put(address, "/", &seven).status == 200).then_some(()));
    server.stop();
}
