//! Every way in which a module must not verify, each on a module that verifies otherwise.

mod common;

use std::{collections::BTreeSet, time::Duration};

use claims::{
    CLOCK_SKEW, EXPIRY_WARNING, Policy, Statement, Timestamp, VerifyError, authentic_claims, sign,
    verify,
};
use common::*;

/// The code of the refusal; fails when the module is accepted.
#[track_caller]
fn refusal(bytes: &[u8], policy: &Policy) -> &'static str {
    verify(bytes, policy).expect_err("the module must be refused").code()
}

#[test]
fn the_module_that_the_tests_start_from_verifies() {
    let module = verify(&signed()[..], &policy()).unwrap();
    assert_eq!(module.claims().unwrap().name.as_deref(), Some("digits"));
    assert_eq!(module.capabilities(), ["wascc:http_server", "wascc:logging"]);
    assert_eq!(module.digest(), claims::Digest::of(&signed()));
    assert!(!module.is_unsigned());
    for only in [TokenSet::Jwt, TokenSet::WasmcloudJwt] {
        verify(&with_tokens(only)[..], &policy()).unwrap();
    }
}

#[test]
fn altered_and_forged_modules_are_refused_for_the_right_reason() {
    let good = signed();
    let (wc, jwt) = (section(&good, "wasmcloud_jwt"), section(&good, "jwt"));
    let body = &good[..good.len() - wc.len() - jwt.len()];
    let other_body = [body, &custom("other", b"module")].concat();
    let join = |parts: &[&[u8]]| parts.concat();
    let flip = |needle: &[u8]| {
        let mut bytes = good.clone();
        let at = bytes.windows(needle.len()).position(|part| part == needle).unwrap();
        bytes[at] ^= 1;
        bytes
    };
    let component = [b"\0asm\x0d\0\x01\0".to_vec(), vec![1], leb(good.len()), good.clone()];
    let first = &good[..8];
    let rest = &body[8..];

    for (what, bytes, code) in [
        ("unsigned", body.to_vec(), "unsigned"),
        ("a byte of code flipped", flip(CODE), "hash_mismatch"),
        ("a byte of data flipped", flip(DATA), "hash_mismatch"),
        ("jwt section only, other module", join(&[&other_body, &jwt]), "hash_mismatch"),
        ("both sections, other module", join(&[&other_body, &wc, &jwt]), "hash_mismatch"),
        ("wasmcloud_jwt taken away", join(&[body, &jwt]), "hash_mismatch"),
        ("the sections swapped", join(&[body, &jwt, &wc]), "token_misplaced"),
        ("jwt first", join(&[first, &jwt, rest, &wc]), "token_misplaced"),
        ("both first", join(&[first, &wc, &jwt, rest]), "token_misplaced"),
        ("a section after them", join(&[&good, &custom("other", b"")]), "token_misplaced"),
        ("a section between", join(&[body, &wc, &custom("o", b""), &jwt]), "token_misplaced"),
        ("jwt twice", join(&[&good, &jwt]), "token_duplicated"),
        ("both twice", join(&[&good, &wc, &jwt]), "token_duplicated"),
        ("wasmcloud_jwt twice", join(&[body, &wc, &wc, &jwt]), "token_duplicated"),
        ("nested in a component", component.concat(), "component"),
        ("cut short", good[..good.len() - 1].to_vec(), "malformed_section"),
        ("a byte too many", join(&[&good, &[0]]), "malformed_section"),
        ("empty", Vec::new(), "not_wasm"),
        ("a picture", b"\x89PNG\r\n\x1a\n".to_vec(), "not_wasm"),
    ] {
        assert_eq!(refusal(&bytes, &policy()), code, "{what}");
    }
}

#[test]
fn a_changed_token_is_refused_wherever_it_is_changed() {
    let good = signed();
    for name in ["jwt", "wasmcloud_jwt"] {
        let token = token_text(&good, name);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, payload) = signed.split_once('.').unwrap();
        let flipped = |text: &str| {
            let mut text = text.to_owned();
            let old = text.remove(4);
            text.insert(4, if old == 'Q' { 'R' } else { 'Q' });
            text
        };
        for (changed, expected) in [
            (format!("{}.{payload}.{signature}", flipped(header)), "token_malformed"),
            // Changes the name of a key, which leaves JSON with an unknown key.
            (format!("{header}.{}.{signature}", flipped(payload)), "signature_mismatch"),
            (format!("{header}.{payload}.{}", flipped(signature)), "signature_mismatch"),
            (format!("{header}.{payload}."), "token_malformed"),
        ] {
            let code = refusal(&with_token(&good, name, &changed), &policy());
            assert_eq!(code, expected, "{name}: {changed}");
        }
    }
}

#[test]
fn a_claim_rewritten_under_an_old_signature_is_refused() {
    let good = signed();
    for (from, to) in [
        ("wascc:logging", "wascc:keyvalue"),
        ("\"rev\":3", "\"rev\":9"),
        ("\"digits\"", "\"tabby!\""),
    ] {
        let changed = rewrite_payload(&token_text(&good, "jwt"), |json| json.replace(from, to));
        let code = refusal(&with_token(&good, "jwt", &changed), &policy());
        assert_eq!(code, "signature_mismatch", "{from}");
    }
}

#[test]
fn algorithms_other_than_ed25519_are_refused_even_with_a_good_signature() {
    for algorithm in ["none", "HS256", "ES256", "EdDSA", "RS256"] {
        let header = format!(r#"{{"typ":"jwt","alg":"{algorithm}"}}"#);
        let bytes = forge("jwt", &header, |json| json);
        assert_eq!(refusal(&bytes, &policy()), "token_algorithm", "{algorithm}");
    }
}

#[test]
fn another_key_type_as_issuer_or_subject_is_refused() {
    let statement = statement();
    let user = nkeys::KeyPair::new_user().public_key();
    for key in [issuer().public().to_string(), statement.subject.to_string()] {
        let bytes = forge("jwt", HEADER, |json| json.replace(&key, &user));
        assert_eq!(refusal(&bytes, &policy()), "token_malformed", "{key}");
    }
}

#[test]
fn the_hash_is_checked_with_and_without_wascap_revision() {
    let wrong = |json: String| {
        let at = json.find("\"hash\":\"").unwrap() + 8;
        let mut json = json;
        json.replace_range(at..at + 64, &"0".repeat(64));
        json
    };
    let no_revision = |json: String| json.replace(",\"wascap_revision\":3", "");
    let old_revision = |json: String| json.replace("revision\":3", "revision\":1");
    for name in ["jwt", "wasmcloud_jwt"] {
        for edit in [&(|json| json) as &dyn Fn(String) -> String, &no_revision, &old_revision] {
            // Properly signed by a trusted issuer: only the hash is wrong.
            let bytes = forge(name, HEADER, |json| edit(wrong(json)));
            assert_eq!(refusal(&bytes, &policy()), "hash_mismatch", "{name}");
            // The same without the wrong hash is good: the field itself decides nothing.
            verify(&forge(name, HEADER, edit)[..], &policy()).unwrap();
        }
    }
}

#[test]
fn two_tokens_that_disagree_are_refused() {
    for (from, to, claim) in [
        (statement().subject.to_string(), actor(77).to_string(), "sub"),
        ("\"exp\":".into(), "\"nbf\":1,\"exp\":1".into(), "exp"),
        ("\"iat\":".into(), "\"nbf\":1,\"iat\":".into(), "nbf"),
        ("\"rev\":3".into(), "\"rev\":4".into(), "rev"),
        ("wascc:logging".into(), "wascc:keyvalue".into(), "caps"),
        ("\"jti\":\"".into(), "\"jti\":\"X".into(), "jti"),
        ("\"prov\":false".into(), "\"prov\":true".into(), "prov"),
    ] {
        let bytes = disagreeing(|json| json.replace(&from, &to));
        match verify(&bytes[..], &policy()) {
            Err(VerifyError::Disagree { claim: found }) => assert_eq!(found, claim),
            other => panic!("{claim}: {other:?}"),
        }
    }
    verify(&disagreeing(|json| json)[..], &policy()).unwrap();
}

#[test]
fn the_claims_of_a_capability_provider_make_no_actor() {
    let bytes = forge("jwt", HEADER, |json| json.replace("\"prov\":false", "\"prov\":true"));
    assert_eq!(refusal(&bytes, &policy()), "not_an_actor");
}

#[test]
fn expiry_and_begin_hold_to_the_second_with_the_skew() {
    let skew = CLOCK_SKEW.as_secs();
    let bytes = sign(
        MODULE,
        &issuer(),
        &Statement {
            issued_at: Timestamp(10_000),
            valid_for: Some(Duration::from_secs(1000)),
            not_before: Some(Timestamp(10_500)),
            ..statement()
        },
    )
    .unwrap();
    for (now, code) in [
        (10_500 - skew - 1, Some("not_yet_valid")),
        (10_500 - skew, None),
        (10_500, None),
        (11_000 + skew - 1, None),
        (11_000 + skew, Some("expired")),
        (u64::MAX, Some("expired")),
        (0, Some("not_yet_valid")),
    ] {
        let policy = Policy { now: Timestamp(now), ..policy() };
        let found = verify(&bytes[..], &policy).err().map(|error| error.code());
        assert_eq!(found, code, "now: {now}");
    }
    let exact = Policy { now: Timestamp(11_000), skew: Duration::ZERO, ..policy() };
    assert_eq!(refusal(&bytes, &exact), "expired");
    let far = sign(
        MODULE,
        &issuer(),
        &Statement { valid_for: Some(Duration::from_secs(u64::MAX)), ..statement() },
    );
    verify(&far.unwrap()[..], &policy()).unwrap();
}

#[test]
fn who_is_not_trusted_or_was_revoked_is_refused() {
    let bytes = signed();
    let claims = authentic_claims(&bytes).unwrap();
    let nobody = Policy { trusted_issuers: BTreeSet::new(), ..policy() };
    assert_eq!(refusal(&bytes, &nobody), "untrusted_issuer");
    let others = Policy { trusted_issuers: [other_issuer().public()].into(), ..policy() };
    match verify(&bytes[..], &others) {
        Err(VerifyError::UntrustedIssuer { issuer: named }) => {
            assert_eq!(named, issuer().public());
        }
        other => panic!("{other:?}"),
    }
    let subject = Policy { revoked_subjects: [claims.subject].into(), ..policy() };
    assert_eq!(refusal(&bytes, &subject), "revoked_subject");
    let token = Policy { revoked_tokens: [claims.id].into(), ..policy() };
    assert_eq!(refusal(&bytes, &token), "revoked_token");
}

#[test]
fn revision_expiry_and_capabilities_are_required_when_the_policy_says_so() {
    let bytes = signed();
    let subject = statement().subject;
    let minimum = |minimum| Policy { minimum_revisions: [(subject, minimum)].into(), ..policy() };
    verify(&bytes[..], &minimum(3)).unwrap();
    assert_eq!(refusal(&bytes, &minimum(4)), "revision_too_low");
    let other = Policy { minimum_revisions: [(actor(77), 99)].into(), ..policy() };
    verify(&bytes[..], &other).unwrap();
    let unnumbered = sign(MODULE, &issuer(), &Statement { revision: None, ..statement() }).unwrap();
    assert_eq!(refusal(&unnumbered, &minimum(i32::MIN)), "revision_too_low");

    let endless = sign(MODULE, &issuer(), &Statement { valid_for: None, ..statement() }).unwrap();
    verify(&endless[..], &policy()).unwrap();
    assert_eq!(refusal(&endless, &Policy { require_exp: true, ..policy() }), "no_expiry");
    verify(&bytes[..], &Policy { require_exp: true, ..policy() }).unwrap();

    let allow = |names: &[&str]| Policy {
        allowed_capabilities: Some(names.iter().map(|&name| name.to_owned()).collect()),
        ..policy()
    };
    verify(&bytes[..], &allow(&["wascc:http_server", "wascc:logging", "x"])).unwrap();
    assert_eq!(refusal(&bytes, &allow(&["wascc:http_server"])), "capability_not_allowed");
}

#[test]
fn the_flag_lets_in_what_has_no_token_and_nothing_else() {
    let loud = Policy { dangerously_allow_unsigned: true, ..policy() };
    let module = verify(MODULE, &loud).unwrap();
    assert!(module.is_unsigned());
    assert_eq!(module.capabilities(), ["wascc:http_server", "wascc:logging"]);
    assert!(!module.may_use("wascc:keyvalue"));
    assert_eq!(module.expires_in(loud.now), None);
    assert_eq!(module.recheck(&policy()).unwrap_err().code(), "unsigned");

    let mut altered = signed();
    *altered.iter_mut().rev().nth(3).unwrap() ^= 1;
    assert!(verify(&altered[..], &loud).is_err());
    let untrusted = Policy { trusted_issuers: BTreeSet::new(), ..loud.clone() };
    assert_eq!(refusal(&signed(), &untrusted), "untrusted_issuer");
    assert_eq!(refusal(b"\0asm\x0d\0\x01\0", &loud), "component");
}

#[test]
fn a_running_actor_is_refused_as_soon_as_its_claims_end_or_are_revoked() {
    let bytes = signed();
    let module = verify(&bytes[..], &policy()).unwrap();
    let claims = module.claims().unwrap().clone();
    let end = claims.expires.unwrap();
    module.recheck(&policy()).unwrap();
    let late = Policy { now: end.later(CLOCK_SKEW), ..policy() };
    assert_eq!(module.recheck(&late).unwrap_err().code(), "expired");
    let revoked = Policy { revoked_subjects: [claims.subject].into(), ..policy() };
    assert_eq!(module.recheck(&revoked).unwrap_err().code(), "revoked_subject");
    let untrusted = Policy { trusted_issuers: BTreeSet::new(), ..policy() };
    assert_eq!(module.recheck(&untrusted).unwrap_err().code(), "untrusted_issuer");
}

#[test]
fn the_time_that_is_left_is_known_and_warned_of_for_two_weeks() {
    let module = verify(&signed()[..], &policy()).unwrap();
    let end = module.claims().unwrap().expires.unwrap();
    let before = |left: u64| Timestamp(end.0 - left);
    assert_eq!(module.expires_in(before(5)), Some(Duration::from_secs(5)));
    assert_eq!(module.expires_in(end.later(CLOCK_SKEW)), Some(Duration::ZERO));
    let warning = EXPIRY_WARNING.as_secs();
    assert!(module.expires_soon(before(warning)));
    assert!(!module.expires_soon(before(warning + 1)));
}

#[test]
fn no_change_of_one_byte_is_ever_accepted() {
    let policy = policy();
    for set in [TokenSet::Both, TokenSet::Jwt, TokenSet::WasmcloudJwt] {
        let mut bytes = with_tokens(set);
        verify(&bytes[..], &policy).unwrap();
        for position in 0..bytes.len() {
            let old = bytes[position];
            // Every bit, and the values that mean something in binary, base64 and names.
            let bits = (0..8).map(|bit| old ^ 1 << bit);
            let values = [0, 1, 13, 14, 0x7f, 0x80, 0xff, b'.', b'=', b'-', b'_', b'A', b'j'];
            for new in bits.chain(values).chain([old.wrapping_add(1), old.wrapping_sub(1)]) {
                if new == old {
                    continue;
                }
                bytes[position] = new;
                if verify(&bytes[..], &policy).is_ok() {
                    panic!("{set:?}: byte {position} changed from {old:#x} to {new:#x}");
                }
            }
            bytes[position] = old;
        }
    }
}

#[test]
fn no_byte_can_be_taken_away_or_put_in() {
    let policy = policy();
    let good = signed();
    for position in 0..good.len() {
        let mut less = good.clone();
        less.remove(position);
        assert!(verify(&less[..], &policy).is_err(), "removed {position}");
        let mut more = good.clone();
        more.insert(position, good[position]);
        assert!(verify(&more[..], &policy).is_err(), "doubled {position}");
    }
    // Without `jwt`, `wasmcloud_jwt` still says all there is to say: one token suffices.
    let without_jwt = good.len() - section(&good, "jwt").len();
    for length in 0..good.len() {
        let verdict = verify(&good[..length], &policy);
        assert_eq!(verdict.is_ok(), length == without_jwt, "cut at {length}");
    }
}
