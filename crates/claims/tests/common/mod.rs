//! A small module, keys, and the tools to break both.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use claims::{
    ActorKey, IssuerKeyPair, Policy, Sections, Seed, Statement, Timestamp, minimal, sign,
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// MVP WebAssembly written by hand: an exported function, a memory, a data segment. Sizes,
/// counts and a constant are padded as a linker pads them.
pub const MODULE: &[u8] = b"\0asm\x01\0\0\0\
    \x01\x85\x80\x80\x80\0\x01\x60\0\x01\x7f\
    \x03\x02\x01\0\
    \x05\x03\x01\0\x01\
    \x07\x07\x01\x03run\0\0\
    \x0a\x8f\0\x81\0\x8b\0\0\x41\xaa\x80\x80\x80\0\x28\x02\0\x0b\
    \x0b\x0c\x01\0\x41\x80\x08\x0b\x05DATA!\
    \0\x0a\x04notekeep.";
/// Bytes of the function's body after signing: `i32.const 42`, `i32.load`.
pub const CODE: &[u8] = b"\x41\x2a\x28\x02\0\x0b";
/// Bytes of the data segment.
pub const DATA: &[u8] = b"DATA!";
/// The only header that is accepted.
pub const HEADER: &str = r#"{"typ":"jwt","alg":"Ed25519"}"#;

const ISSUER_SEED: [u8; 32] = [1; 32];

pub fn issuer() -> IssuerKeyPair {
    IssuerKeyPair::from_seed(&Seed::issuer(Zeroizing::new(ISSUER_SEED))).unwrap()
}

pub fn other_issuer() -> IssuerKeyPair {
    IssuerKeyPair::from_seed(&Seed::issuer(Zeroizing::new([2; 32]))).unwrap()
}

/// The same issuer for the tools that are not ours.
pub fn issuer_nkey() -> nkeys::KeyPair {
    nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::Account, ISSUER_SEED).unwrap()
}

pub fn actor(byte: u8) -> ActorKey {
    Seed::actor(Zeroizing::new([byte; 32])).actor_key().unwrap()
}

pub fn statement() -> Statement {
    Statement {
        subject: actor(8),
        name: "digits".into(),
        version: Some("1.2.3".into()),
        revision: Some(3),
        tags: vec!["tag".into()],
        capabilities: vec!["wascc:http_server".into(), "wascc:logging".into()],
        issued_at: Timestamp(1_700_000_000),
        valid_for: Some(Duration::from_secs(90 * 24 * 3600)),
        not_before: None,
    }
}

pub fn policy() -> Policy {
    Policy { trusted_issuers: [issuer().public()].into(), ..Policy::at(Timestamp(1_700_000_100)) }
}

pub fn signed() -> Vec<u8> {
    sign(MODULE, &issuer(), &statement()).unwrap()
}

#[derive(Debug, Clone, Copy)]
pub enum TokenSet {
    Both,
    Jwt,
    WasmcloudJwt,
}

/// The signed module with one or both of its tokens, all good.
pub fn with_tokens(set: TokenSet) -> Vec<u8> {
    match set {
        TokenSet::Both => signed(),
        TokenSet::Jwt => forge("jwt", HEADER, |json| json),
        TokenSet::WasmcloudJwt => forge("wasmcloud_jwt", HEADER, |json| json),
    }
}

/// The module with a single token of the trusted issuer whose claims `edit` has changed.
pub fn forge(name: &str, header: &str, edit: impl FnOnce(String) -> String) -> Vec<u8> {
    let bytes = minimal(MODULE).unwrap();
    let json = with_hash(&payload(&token_text(&signed(), name)), &bytes);
    let token = token(header, &edit(json));
    [bytes, custom(name, token.as_bytes())].concat()
}

/// Both tokens, properly signed over the right hashes, the claims of `jwt` changed.
pub fn disagreeing(edit: impl FnOnce(String) -> String) -> Vec<u8> {
    let good = signed();
    let jwt = section(&good, "jwt");
    let rest = &good[..good.len() - jwt.len()];
    let token = token(HEADER, &edit(payload(&token_text(&good, "jwt"))));
    [rest, &custom("jwt", token.as_bytes())].concat()
}

/// The module with the text of one token replaced; the other is made to fit again, so that only
/// the change can be the reason for a refusal.
pub fn with_token(good: &[u8], name: &str, text: &str) -> Vec<u8> {
    let (wc, jwt) = (section(good, "wasmcloud_jwt"), section(good, "jwt"));
    let body = &good[..good.len() - wc.len() - jwt.len()];
    if name == "jwt" {
        return [body, &wc, &custom("jwt", text.as_bytes())].concat();
    }
    let rest = [body, &custom(name, text.as_bytes())].concat();
    let json = with_hash(&payload(&token_text(good, "jwt")), &rest);
    let token = token(HEADER, &json);
    [rest, custom("jwt", token.as_bytes())].concat()
}

/// The whole section, header and all.
pub fn section(bytes: &[u8], name: &str) -> Vec<u8> {
    let mut sections = Sections::of(bytes).unwrap().map(Result::unwrap);
    let section = sections.find(|section| section.name == Some(name)).unwrap();
    bytes[section.span].to_vec()
}

pub fn token_text(bytes: &[u8], name: &str) -> String {
    String::from_utf8(claims::custom_section(bytes, name).unwrap().unwrap().to_vec()).unwrap()
}

/// The claims' JSON.
pub fn payload(token: &str) -> String {
    let part = token.split('.').nth(1).unwrap();
    String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// The token with other claims under its old signature.
pub fn rewrite_payload(token: &str, edit: impl FnOnce(String) -> String) -> String {
    let old = payload(token);
    let new = edit(old.clone());
    assert_ne!(old, new, "the edit must change something");
    token.replace(&URL_SAFE_NO_PAD.encode(old), &URL_SAFE_NO_PAD.encode(new))
}

/// A token properly signed by the trusted issuer.
pub fn token(header: &str, payload: &str) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", encode(header), encode(payload));
    let signature = issuer_nkey().sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn with_hash(json: &str, bytes: &[u8]) -> String {
    let at = json.find("\"hash\":\"").unwrap() + 8;
    let hash = data_encoding::HEXUPPER.encode(&Sha256::digest(bytes));
    format!("{}{hash}{}", &json[..at], &json[at + 64..])
}

pub fn custom(name: &str, data: &[u8]) -> Vec<u8> {
    let body = [leb(name.len()), name.as_bytes().to_vec(), data.to_vec()].concat();
    [vec![0], leb(body.len()), body].concat()
}

pub fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}
