//! The token: a JSON Web Token with Ed25519, read strictly.
//!
//! A token is one line of three base64url parts. Everything that two readers could take in two
//! ways is refused: another algorithm or header field, padding, spare bits, white space, a key
//! that occurs twice in an object, control characters in a name.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Serialize,
    de::{self, DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use crate::{ActorKey, IssuerKey, IssuerKeyPair, ModuleHash, Timestamp};

/// The longest token that is read, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;

/// A token cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("the token has {bytes} bytes, more than {MAX_TOKEN_BYTES}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Not three parts with dots between.
    #[error("a token is three parts joined by dots")]
    Parts,
    /// A part is not base64url without padding, written in the one canonical way.
    #[error("the token's {part} is not canonical base64url")]
    Base64 {
        /// Which part.
        part: &'static str,
    },
    /// A part is not the JSON that it must be.
    #[error("the token's {part} cannot be read")]
    Json {
        /// Which part.
        part: &'static str,
        /// What the JSON reader says.
        #[source]
        source: serde_json::Error,
    },
    /// Signed with something else than Ed25519, or with nothing.
    #[error("the token's algorithm is {found:?}; only \"Ed25519\" is accepted")]
    Algorithm {
        /// What the header says.
        found: String,
    },
    /// The header names another type.
    #[error("the token's type is {found:?}; only \"jwt\" is accepted")]
    Type {
        /// What the header says.
        found: String,
    },
    /// The signature is not 64 bytes.
    #[error("the token's signature has {bytes} bytes instead of 64")]
    SignatureLength {
        /// How many it has.
        bytes: usize,
    },
    /// A text in the claims is empty or holds control characters.
    #[error("the claim `{claim}` is empty, too long or holds control characters")]
    Text {
        /// Which claim.
        claim: &'static str,
    },
}

/// What an issuer says about one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who says it (`iss`).
    pub issuer: IssuerKey,
    /// Which actor it is about (`sub`).
    pub subject: ActorKey,
    /// Identity of this statement (`jti`), for revocation.
    pub id: String,
    /// When it was made (`iat`).
    pub issued_at: Timestamp,
    /// From when it does not hold any more (`exp`).
    pub expires: Option<Timestamp>,
    /// From when it holds (`nbf`).
    pub not_before: Option<Timestamp>,
    /// Name of the actor.
    pub name: Option<String>,
    /// Hash of the module without token sections.
    pub hash: ModuleHash,
    /// Free words.
    pub tags: Vec<String>,
    /// Capabilities the actor may be linked to, such as `wascc:http_server`.
    pub capabilities: Vec<String>,
    /// A number that grows from release to release.
    pub revision: Option<i32>,
    /// Free text version.
    pub version: Option<String>,
    /// True for a capability provider, which is no actor.
    pub provider: bool,
}

impl Claims {
    /// The text that stands in the module: signed by `issuer`, whose key the claims must name.
    pub(crate) fn encode(&self, issuer: &IssuerKeyPair) -> String {
        debug_assert_eq!(self.issuer, issuer.public());
        let header = Header { typ: TYPE.into(), alg: ALGORITHM.into() };
        let mut token = URL_SAFE_NO_PAD.encode(json(&header));
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(self.to_json(), &mut token);
        let signature = issuer.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }

    /// The claims as they stand in the token.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        json(&Payload::from(self))
    }
}

/// A token taken apart; its signature is not checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) claims: Claims,
    signed: String,
    signature: [u8; 64],
}

impl Token {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, TokenError> {
        if bytes.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLarge { bytes: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| TokenError::Parts)?;
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Parts);
        };

        let Header { typ, alg } = read_part(header, "header")?;
        if alg != ALGORITHM {
            return Err(TokenError::Algorithm { found: alg });
        }
        if typ != TYPE {
            return Err(TokenError::Type { found: typ });
        }
        let claims = Claims::try_from(read_part::<Payload>(payload, "claims")?)?;
        let signature = decode(signature, "signature")?;
        let signature = signature
            .try_into()
            .map_err(|bytes: Vec<u8>| TokenError::SignatureLength { bytes: bytes.len() })?;
        Ok(Token { claims, signed: text[..header.len() + 1 + payload.len()].into(), signature })
    }

    /// Whether the issuer that the claims name signed them. Says nothing about trust in it.
    pub(crate) fn is_authentic(&self) -> bool {
        self.claims.issuer.verifies(self.signed.as_bytes(), &self.signature)
    }
}

/// Unknown fields (`crit`, `b64`, `jwk`, …) change what a signature means: refused.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    typ: String,
    alg: String,
}

/// The claims as they are written; the order of wascap's own.
#[derive(Serialize, Deserialize)]
struct Payload {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<Timestamp>,
    jti: String,
    iat: Timestamp,
    iss: IssuerKey,
    sub: ActorKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<Timestamp>,
    wascap: Metadata,
    // wascap 0.13 skips the hash unless this is at least 3. Ours is always checked, so it is
    // written for those readers and never read.
    #[serde(default, skip_deserializing)]
    wascap_revision: u32,
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    hash: ModuleHash,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rev: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ver: Option<String>,
    #[serde(default)]
    prov: bool,
}

impl From<&Claims> for Payload {
    fn from(claims: &Claims) -> Self {
        Payload {
            exp: claims.expires,
            jti: claims.id.clone(),
            iat: claims.issued_at,
            iss: claims.issuer,
            sub: claims.subject,
            nbf: claims.not_before,
            wascap: Metadata {
                name: claims.name.clone(),
                hash: claims.hash,
                tags: Some(claims.tags.clone()),
                caps: Some(claims.capabilities.clone()),
                rev: claims.revision,
                ver: claims.version.clone(),
                prov: claims.provider,
            },
            wascap_revision: WASCAP_REVISION,
        }
    }
}

impl TryFrom<Payload> for Claims {
    type Error = TokenError;

    fn try_from(payload: Payload) -> Result<Self, TokenError> {
        let Metadata { name, hash, tags, caps, rev, ver, prov } = payload.wascap;
        let (tags, caps) = (tags.unwrap_or_default(), caps.unwrap_or_default());
        check_text("jti", Some(&payload.jti), 1)?;
        check_text("name", name.as_ref(), 0)?;
        check_text("ver", ver.as_ref(), 0)?;
        check_text("tags", &tags, 1)?;
        check_text("caps", &caps, 1)?;
        Ok(Claims {
            issuer: payload.iss,
            subject: payload.sub,
            id: payload.jti,
            issued_at: payload.iat,
            expires: payload.exp,
            not_before: payload.nbf,
            name,
            hash,
            tags,
            capabilities: caps,
            revision: rev,
            version: ver,
            provider: prov,
        })
    }
}

// Names reach terminals and logs: no escape sequence, no line feed.
fn check_text<'a>(
    claim: &'static str,
    texts: impl IntoIterator<Item = &'a String>,
    least: usize,
) -> Result<(), TokenError> {
    let good = |text: &&String| {
        (least..=MAX_TEXT_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
    };
    if texts.into_iter().all(|text| good(&text)) { Ok(()) } else { Err(TokenError::Text { claim }) }
}

fn decode(part: &str, name: &'static str) -> Result<Vec<u8>, TokenError> {
    // This engine refuses padding, foreign characters and spare bits that are not zero.
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Base64 { part: name })
}

fn read_part<T: DeserializeOwned>(part: &str, name: &'static str) -> Result<T, TokenError> {
    let bytes = decode(part, name)?;
    let error = |source| TokenError::Json { part: name, source };
    let mut reader = serde_json::Deserializer::from_slice(&bytes);
    let value = UniqueKeys.deserialize(&mut reader).map_err(error)?;
    reader.end().map_err(error)?;
    // The derived readers would take an array for an object as well.
    if !value.is_object() || value.get("wascap").is_some_and(|wascap| !wascap.is_object()) {
        return Err(error(de::Error::custom("not an object")));
    }
    serde_json::from_value(value).map_err(error)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings, numbers and lists always become JSON")
}

/// Reads any JSON value, but no object with the same key twice.
struct UniqueKeys;

impl<'de> DeserializeSeed<'de> for UniqueKeys {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(UniqueKeys)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = serde_json::Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(UniqueKeys)?;
            if values.contains_key(&key) {
                return Err(de::Error::custom(format_args!("the key {key:?} occurs twice")));
            }
            values.insert(key, value);
        }
        Ok(Value::Object(values))
    }
}

const TYPE: &str = "jwt";
const ALGORITHM: &str = "Ed25519";
// wascap 0.13's own.
const WASCAP_REVISION: u32 = 3;
// Far more than any name needs, and little enough for a line of a log.
const MAX_TEXT_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seed;
    use zeroize::Zeroizing;

    fn issuer() -> IssuerKeyPair {
        IssuerKeyPair::from_seed(&Seed::issuer(Zeroizing::new([7; 32]))).unwrap()
    }

    fn claims() -> Claims {
        Claims {
            issuer: issuer().public(),
            subject: Seed::actor(Zeroizing::new([8; 32])).actor_key().unwrap(),
            id: "ID".into(),
            issued_at: Timestamp(1000),
            expires: Some(Timestamp(2000)),
            not_before: Some(Timestamp(900)),
            name: Some("digits".into()),
            hash: ModuleHash([9; 32]),
            tags: vec!["tag".into()],
            capabilities: vec!["wascc:http_server".into()],
            revision: Some(3),
            version: Some("1.2".into()),
            provider: false,
        }
    }

    /// A properly signed token with these two parts.
    fn token(header: &str, payload: &str) -> Vec<u8> {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", encode(header), encode(payload));
        let signature = URL_SAFE_NO_PAD.encode(issuer().sign(signed.as_bytes()));
        format!("{signed}.{signature}").into_bytes()
    }

    fn payload() -> String {
        String::from_utf8(claims().to_json()).unwrap()
    }

    const HEADER: &str = r#"{"typ":"jwt","alg":"Ed25519"}"#;

    #[test]
    fn what_is_written_is_read_again() {
        let token = Token::parse(claims().encode(&issuer()).as_bytes()).unwrap();
        assert_eq!(token.claims, claims());
        assert!(token.is_authentic());
    }

    #[test]
    fn the_wire_form_is_the_one_of_wascap() {
        let hash = "09".repeat(32);
        assert_eq!(
            payload(),
            format!(
                r#"{{"exp":2000,"jti":"ID","iat":1000,"iss":"{}","sub":"{}","nbf":900,"wascap":{{"name":"digits","hash":"{hash}","tags":["tag"],"caps":["wascc:http_server"],"rev":3,"ver":"1.2","prov":false}},"wascap_revision":3}}"#,
                claims().issuer,
                claims().subject
            )
        );
    }

    #[test]
    fn every_other_algorithm_is_refused_even_when_the_signature_holds() {
        for algorithm in ["none", "None", "HS256", "EdDSA", "ed25519", "ES256", ""] {
            let header = format!(r#"{{"typ":"jwt","alg":"{algorithm}"}}"#);
            match Token::parse(&token(&header, &payload())) {
                Err(TokenError::Algorithm { found }) => assert_eq!(found, algorithm),
                other => panic!("{algorithm}: {other:?}"),
            }
        }
        let header = r#"{"typ":"JWT","alg":"Ed25519"}"#;
        assert!(matches!(Token::parse(&token(header, &payload())), Err(TokenError::Type { .. })));
    }

    #[test]
    fn headers_that_say_more_or_say_it_twice_are_refused() {
        for header in [
            r#"{"typ":"jwt","alg":"Ed25519","crit":["b64"]}"#,
            r#"{"typ":"jwt","alg":"Ed25519","alg":"Ed25519"}"#,
            r#"{"typ":"jwt","alg":"Ed25519"} {}"#,
            r#"{"typ":"jwt"}"#,
            r#"["jwt","Ed25519"]"#,
            "",
        ] {
            let parsed = Token::parse(&token(header, &payload()));
            assert!(
                matches!(parsed, Err(TokenError::Json { part: "header", .. })),
                "{header}: {parsed:?}"
            );
        }
    }

    #[test]
    fn a_key_that_occurs_twice_is_refused_at_any_depth() {
        let good = payload();
        for bad in [
            good.replacen('{', r#"{"exp":9999,"#, 1),
            good.replace(r#""prov""#, r#""caps":[],"prov""#),
            good.replacen('{', r#"{"unknown":{"a":1,"a":2},"#, 1),
            good.replacen('{', r#"{"unknown":1,"unk\u006eown":2,"#, 1),
        ] {
            let parsed = Token::parse(&token(HEADER, &bad));
            assert!(matches!(parsed, Err(TokenError::Json { part: "claims", .. })), "{bad}");
        }
        // An unknown key alone is no harm: RFC 7519 asks to ignore it.
        let unknown = good.replacen('{', r#"{"unknown":[1.5,null,true,-1],"#, 1);
        assert!(Token::parse(&token(HEADER, &unknown)).is_ok());
    }

    #[test]
    fn claims_with_wrong_types_or_texts_are_refused() {
        let good = payload();
        let Claims { issuer, subject, .. } = claims();
        for bad in [
            good.replace("2000", "2000.5"),
            good.replace("2000", "-1"),
            good.replace("2000", "\"2000\""),
            good.replace(&issuer.to_string(), &subject.to_string()),
            good.replace(&subject.to_string(), &issuer.to_string()),
            good.replace(&subject.to_string(), "module.wasm"),
            good.replace("0909", "09"),
            good.replace("\"digits\"", r#""\u001b[2Jdigits""#),
            good.replace("\"ID\"", "\"\""),
            good.replace("wascc:http_server", ""),
            good.replace("\"digits\"", &format!("\"{}\"", "x".repeat(2000))),
            good.replace(r#"{"name":"digits""#, r#"["digits""#).replace("false}", "false]"),
            "[]".into(),
            "".into(),
            "[".repeat(5000),
        ] {
            assert!(Token::parse(&token(HEADER, &bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_written_in_one_way_only() {
        let good = String::from_utf8(token(HEADER, &payload())).unwrap();
        assert!(Token::parse(good.as_bytes()).is_ok());
        let (signed, signature) = good.rsplit_once('.').unwrap();
        // 64 bytes leave two characters of which the last carries four spare bits.
        let last = signature.as_bytes()[signature.len() - 1];
        let spare = char::from(if last == b'A' { b'B' } else { last + 1 });
        for bad in [
            format!("{good}="),
            format!("{good}\n"),
            format!(" {good}"),
            format!("{good}."),
            format!("{good}.{signature}"),
            signed.to_owned(),
            format!("{signed}."),
            format!("{signed}.{}", &signature[..84]),
            format!("{signed}.{}{spare}", &signature[..signature.len() - 1]),
            String::new(),
        ] {
            assert!(Token::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(matches!(
            Token::parse(&vec![b'a'; MAX_TOKEN_BYTES + 1]),
            Err(TokenError::TooLarge { .. })
        ));
    }
}
