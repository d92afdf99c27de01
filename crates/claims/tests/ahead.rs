//! Tokens that are believed before the bytes that they speak of have been hashed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use claims::{Digest, Policy, Timestamp, VerifyError, open, verify};
use common::{DATA, MODULE, TokenSet, policy, signed, with_tokens};

fn code_hash(module: &[u8]) -> [u8; 32] {
    *verify(module, &policy()).unwrap().code_hash().as_bytes()
}

#[test]
fn tokens_name_the_hash_of_the_code_whichever_of_them_there_are() {
    let expected = code_hash(&signed());
    let bare = claims::minimal(MODULE).unwrap();
    assert_eq!(expected, *Digest::of(&bare).as_bytes());
    for set in [TokenSet::Both, TokenSet::Jwt, TokenSet::WasmcloudJwt] {
        let module = with_tokens(set);
        assert_eq!(code_hash(&module), expected, "{set:?}");
        let opened = open(module.clone(), &policy()).unwrap();
        assert_eq!(*opened.code_hash().unwrap().as_bytes(), expected, "{set:?}");
        assert_eq!(opened.confirm().unwrap(), Digest::of(&module));
        assert_eq!(opened.size(), module.len() as u64);
        let verified = opened.verified().unwrap();
        assert_eq!(verified.bytes()[..], module);
        assert_eq!(verified.claims(), opened.claims());
    }
    let loud = Policy { dangerously_allow_unsigned: true, ..policy() };
    let unsigned = open(bare.clone(), &loud).unwrap();
    assert_eq!(unsigned.code_hash(), None);
    assert_eq!(*unsigned.verified().unwrap().code_hash().as_bytes(), expected);
    assert_eq!(open(bare, &policy()).unwrap_err().code(), "unsigned");
}

#[test]
fn an_altered_module_opens_and_is_not_confirmed() {
    let mut module = signed();
    let at = module.windows(DATA.len()).position(|window| window == DATA).unwrap();
    module[at] ^= 1;
    let opened = open(module.clone(), &policy()).unwrap();
    assert_eq!(opened.confirm().unwrap_err().code(), "hash_mismatch");
    assert_eq!(opened.verified().unwrap_err().code(), "hash_mismatch");
}

#[test]
fn a_section_is_read_without_the_rest() {
    let opened = open(signed(), &policy()).unwrap();
    assert_eq!(opened.custom_section("note").unwrap().as_deref(), Some(&b"keep."[..]));
    assert_eq!(opened.custom_section("other").unwrap(), None);
}

#[test]
fn what_is_refused_is_refused_for_the_same_reason_as_in_one_go() {
    let good = signed();
    let nobody = Policy::at(Timestamp(1_700_000_100));
    let late = Policy { now: Timestamp(2_000_000_000), ..policy() };
    let code = |error: VerifyError| error.code();
    for at in 0..good.len() {
        let mut altered = good.clone();
        altered[at] ^= 0x20;
        for policy in [policy(), nobody.clone(), late.clone()] {
            let whole = verify(&altered[..], &policy).map_err(code);
            let opened = open(altered.clone(), &policy);
            let ahead = opened.and_then(|opened| opened.verified()).map_err(code);
            assert_eq!(ahead.err(), whole.err(), "byte {at}");
        }
    }
}
