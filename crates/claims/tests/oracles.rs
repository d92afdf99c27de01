//! The stock tools as judges, in both directions: wascap 0.13.0, which reads `wasmcloud_jwt`
//! first, and wascap 0.5.2, which reads `jwt` only and knows MVP WebAssembly only.

mod common;

use claims::{JWT, Policy, Timestamp, WASMCLOUD_JWT, custom_section, minimal, sign, verify};
use common::*;
use wascap::{jwt as new_jwt, wasm as new_wasm};
use wascap_stock::{jwt as stock_jwt, wasm as stock_wasm};

/// SIMD and relaxed SIMD, as our models use: `f32x4.relaxed_madd` on three constants.
fn simd_module() -> Vec<u8> {
    let constant = [vec![0xfd, 0x0c], vec![0; 16]].concat();
    let code = [constant.repeat(3), vec![0xfd, 0x85, 0x02, 0x1a, 0x0b]].concat();
    let body = [vec![0], code].concat();
    let section = [vec![1], leb(body.len()), body].concat();
    [
        b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x82\0\x01\0\x0a".to_vec(),
        leb(section.len()),
        section,
    ]
    .concat()
}

#[test]
fn wascap_0_13_reads_what_we_sign() {
    for module in [MODULE.to_vec(), simd_module()] {
        let bytes = sign(&module, &issuer(), &statement()).unwrap();
        let token = new_wasm::extract_claims(&bytes).unwrap().unwrap();
        assert_eq!(token.jwt.as_bytes(), custom_section(&bytes, WASMCLOUD_JWT).unwrap().unwrap());
        let claims = &token.claims;
        assert_eq!(claims.issuer, issuer().public().to_string());
        assert_eq!(claims.subject, statement().subject.to_string());
        assert_eq!(claims.issued_at, 1_700_000_000);
        assert_eq!(claims.expires, Some(1_700_000_000 + 90 * 24 * 3600));
        let metadata = claims.metadata.as_ref().unwrap();
        assert_eq!(metadata.name.as_deref(), Some("digits"));
        assert_eq!(metadata.caps.as_ref().unwrap(), &statement().capabilities);
        assert_eq!(metadata.tags.as_ref().unwrap(), &statement().tags);
        assert_eq!((metadata.rev, metadata.ver.as_deref()), (Some(3), Some("1.2.3")));
        let validation = new_jwt::validate_token::<new_jwt::Actor>(&token.jwt).unwrap();
        assert!(validation.signature_valid);
        assert!(!validation.cannot_use_yet);
    }
}

#[test]
fn wascap_0_13_checks_our_hash() {
    let mut bytes = signed();
    let at = bytes.windows(DATA.len()).position(|part| part == DATA).unwrap();
    bytes[at] ^= 1;
    assert!(new_wasm::extract_claims(&bytes).is_err());
}

#[test]
fn wascap_0_5_reads_what_we_sign() {
    let bytes = signed();
    let token = stock_wasm::extract_claims(&bytes).unwrap().unwrap();
    assert_eq!(token.jwt.as_bytes(), custom_section(&bytes, JWT).unwrap().unwrap());
    assert_eq!(token.claims.issuer, issuer().public().to_string());
    assert_eq!(token.claims.subject, statement().subject.to_string());
    let metadata = token.claims.metadata.as_ref().unwrap();
    assert_eq!(metadata.caps.as_ref().unwrap(), &statement().capabilities);
    let validation = stock_jwt::validate_token::<stock_jwt::Actor>(&token.jwt).unwrap();
    assert!(validation.signature_valid);
}

#[test]
fn wascap_0_5_writes_mvp_modules_exactly_as_our_signer_does() {
    // This is why numbers are written in minimal form first: the old tool hashes what it would
    // write itself.
    let key = wascap_stock::prelude::KeyPair::new_account();
    let subject = wascap_stock::prelude::KeyPair::new_module();
    let bytes = stock_wasm::sign_buffer_with_claims(
        "digits".into(),
        MODULE,
        subject,
        key,
        None,
        None,
        vec![],
        vec![],
        false,
        None,
        None,
    )
    .unwrap();
    let written = section(&bytes, JWT);
    assert_eq!(bytes[..bytes.len() - written.len()], minimal(MODULE).unwrap());
}

#[test]
fn we_verify_what_wascap_0_13_signs() {
    let key = wascap::prelude::KeyPair::new_account();
    let subject = wascap::prelude::KeyPair::new_module();
    for module in [MODULE.to_vec(), simd_module()] {
        let bytes = new_wasm::sign_buffer_with_claims(
            "digits".into(),
            module,
            &subject,
            &key,
            Some(30),
            Some(0),
            vec!["wascc:http_server".into()],
            vec!["tag".into()],
            false,
            Some(7),
            Some("2.0".into()),
            Some("alias".into()),
        )
        .unwrap();
        let policy = Policy {
            trusted_issuers: [key.public_key().parse().unwrap()].into(),
            ..Policy::at(Timestamp::from(std::time::SystemTime::now()))
        };
        let module = verify(&bytes[..], &policy).unwrap();
        let claims = module.claims().unwrap();
        assert_eq!(claims.subject.to_string(), subject.public_key());
        assert_eq!(claims.capabilities, ["wascc:http_server"]);
        assert_eq!((claims.revision, claims.version.as_deref()), (Some(7), Some("2.0")));
        assert!(module.expires_in(policy.now).unwrap().as_secs() > 29 * 24 * 3600);
    }
}

#[test]
fn we_verify_what_wascap_0_5_signs() {
    let key = wascap_stock::prelude::KeyPair::new_account();
    let issuer = key.public_key();
    let subject = wascap_stock::prelude::KeyPair::new_module();
    let bytes = stock_wasm::sign_buffer_with_claims(
        "digits".into(),
        MODULE,
        subject,
        key,
        None,
        None,
        vec!["wascc:http_server".into()],
        vec![],
        false,
        None,
        None,
    )
    .unwrap();
    let policy =
        Policy { trusted_issuers: [issuer.parse().unwrap()].into(), ..Policy::at(Timestamp(0)) };
    let module = verify(&bytes[..], &policy).unwrap();
    assert!(module.may_use("wascc:http_server"));
    assert!(!module.may_use("wascc:logging"));
}

#[test]
fn our_signature_replaces_theirs() {
    let key = wascap_stock::prelude::KeyPair::new_account();
    let subject = wascap_stock::prelude::KeyPair::new_module();
    let theirs = stock_wasm::sign_buffer_with_claims(
        "digits".into(),
        MODULE,
        subject,
        key,
        None,
        None,
        vec![],
        vec![],
        false,
        None,
        None,
    )
    .unwrap();
    assert_eq!(sign(&theirs, &issuer(), &statement()).unwrap(), signed());
}
