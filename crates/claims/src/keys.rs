//! Keys: nkeys-encoded Ed25519 public keys of issuers and actors, and the seeds they come from.
//!
//! The encoding is the one of NATS nkeys: base32 without padding over a prefix byte, 32 bytes of
//! key and a CRC-16 (XMODEM) in little-endian order; a seed has two prefix bytes, the second
//! naming the kind of key it makes.

use std::{fmt, str::FromStr};

use data_encoding::BASE32_NOPAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

/// A text is not a key of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Wrong number of characters.
    #[error("{what}s have {expected} characters, this text has {found}")]
    Length {
        /// What was asked for.
        what: &'static str,
        /// Characters it has.
        expected: usize,
        /// Characters found.
        found: usize,
    },
    /// A character outside base32, or bits set after the end.
    #[error("not base32 (upper-case letters and the digits 2 to 7)")]
    Encoding,
    /// A character was mistyped or lost.
    #[error("the checksum does not match: a character is wrong")]
    Checksum,
    /// A key, but of another kind.
    #[error("not a {what}: those begin with `{begins}`")]
    Kind {
        /// What was asked for.
        what: &'static str,
        /// How such keys begin.
        begins: &'static str,
    },
    /// The bytes are no usable point of the curve.
    #[error("not a usable Ed25519 public key")]
    Point,
}

/// 32 bytes of a public key with the kind checked; the part both newtypes share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct PublicBytes([u8; KEY_BYTES]);

impl PublicBytes {
    fn parse(text: &str, kind: Kind) -> Result<Self, KeyError> {
        let raw: [u8; PUBLIC_RAW] = decode(text, kind.public_name())?;
        let [prefix, key @ .., _, _] = raw;
        if prefix != kind.prefix() {
            return Err(KeyError::Kind { what: kind.public_name(), begins: kind.public_begins() });
        }
        let point = VerifyingKey::from_bytes(&key).map_err(|_| KeyError::Point)?;
        // A key of small order verifies signatures that nobody made.
        if point.is_weak() {
            return Err(KeyError::Point);
        }
        Ok(PublicBytes(key))
    }

    fn text(&self, kind: Kind) -> String {
        let mut raw = [0; PUBLIC_RAW];
        raw[0] = kind.prefix();
        raw[1..=KEY_BYTES].copy_from_slice(&self.0);
        push_checksum(&mut raw);
        BASE32_NOPAD.encode(&raw)
    }
}

macro_rules! public_key {
    ($(#[$doc:meta])* $name:ident, $kind:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(PublicBytes);

        impl FromStr for $name {
            type Err = KeyError;

            fn from_str(text: &str) -> Result<Self, KeyError> {
                PublicBytes::parse(text, $kind).map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(&self.0.text($kind))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}({self})", stringify!($name))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

public_key!(
    /// The public key of whoever signs modules (`A…`, an nkeys account key).
    IssuerKey,
    Kind::Issuer
);
public_key!(
    /// The public key that names one actor (`M…`, an nkeys module key).
    ActorKey,
    Kind::Actor
);

impl IssuerKey {
    /// Whether `signature` over `message` was made with this key's seed.
    ///
    /// Strict: signatures that another implementation might read in two ways are refused.
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let Ok(point) = VerifyingKey::from_bytes(&self.0.0) else { return false };
        point.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

/// The secret from which a pair of keys is made (`SA…` or `SM…`).
///
/// Wiped from memory when dropped; `Debug` shows nothing of it, and there is no `Display`.
pub struct Seed {
    kind: Kind,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl Seed {
    /// An issuer's seed from 32 bytes of a cryptographic random source.
    pub fn issuer(entropy: Zeroizing<[u8; 32]>) -> Self {
        Seed { kind: Kind::Issuer, bytes: entropy }
    }

    /// An actor's seed from 32 bytes of a cryptographic random source.
    pub fn actor(entropy: Zeroizing<[u8; 32]>) -> Self {
        Seed { kind: Kind::Actor, bytes: entropy }
    }

    /// Reads a seed; surrounding white space is allowed, as key files end with a line feed.
    ///
    /// # Errors
    /// [`KeyError`] unless it is the whole seed of an issuer or an actor.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let raw: Zeroizing<[u8; SEED_RAW]> = Zeroizing::new(decode(text.trim(), "seed")?);
        let wrong = KeyError::Kind { what: "seed of an issuer or an actor", begins: "SA or SM" };
        if raw[0] & 0b1111_1000 != PREFIX_SEED {
            return Err(wrong);
        }
        let kind = match (raw[0] & 7) << 5 | raw[1] >> 3 {
            prefix if prefix == Kind::Issuer.prefix() => Kind::Issuer,
            prefix if prefix == Kind::Actor.prefix() => Kind::Actor,
            _ => return Err(wrong),
        };
        // Three bits of the second byte are unused: one seed, one text.
        if raw[1] & 7 != 0 {
            return Err(KeyError::Encoding);
        }
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        bytes.copy_from_slice(&raw[2..2 + KEY_BYTES]);
        Ok(Seed { kind, bytes })
    }

    /// The text to be stored in a file that only its owner can read.
    pub fn to_text(&self) -> Zeroizing<String> {
        let prefix = self.kind.prefix();
        let mut raw = Zeroizing::new([0; SEED_RAW]);
        raw[0] = PREFIX_SEED | prefix >> 5;
        raw[1] = (prefix & 31) << 3;
        raw[2..2 + KEY_BYTES].copy_from_slice(&*self.bytes);
        push_checksum(&mut *raw);
        // Reserved first, so that no copy stays behind in a smaller buffer.
        let mut text = Zeroizing::new(String::with_capacity(BASE32_NOPAD.encode_len(SEED_RAW)));
        BASE32_NOPAD.encode_append(&*raw, &mut text);
        text
    }

    /// The actor's public key, when this is an actor's seed.
    pub fn actor_key(&self) -> Option<ActorKey> {
        (self.kind == Kind::Actor).then(|| {
            let signing = SigningKey::from_bytes(&self.bytes);
            ActorKey(PublicBytes(signing.verifying_key().to_bytes()))
        })
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Seed({:?}, redacted)", self.kind)
    }
}

/// An issuer's seed with its public key: what signs.
pub struct IssuerKeyPair {
    signing: SigningKey,
    public: IssuerKey,
}

impl IssuerKeyPair {
    /// The pair that a seed makes.
    ///
    /// # Errors
    /// [`KeyError::Kind`] when the seed is an actor's.
    pub fn from_seed(seed: &Seed) -> Result<Self, KeyError> {
        if seed.kind != Kind::Issuer {
            return Err(KeyError::Kind { what: "seed of an issuer", begins: "SA" });
        }
        let signing = SigningKey::from_bytes(&seed.bytes);
        let public = IssuerKey(PublicBytes(signing.verifying_key().to_bytes()));
        Ok(IssuerKeyPair { signing, public })
    }

    /// The public half.
    pub fn public(&self) -> IssuerKey {
        self.public
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }
}

impl fmt::Debug for IssuerKeyPair {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "IssuerKeyPair({}, redacted)", self.public)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Issuer,
    Actor,
}

impl Kind {
    fn prefix(self) -> u8 {
        match self {
            Kind::Issuer => 0,
            Kind::Actor => 12 << 3,
        }
    }

    fn public_name(self) -> &'static str {
        match self {
            Kind::Issuer => "issuer key",
            Kind::Actor => "actor key",
        }
    }

    fn public_begins(self) -> &'static str {
        match self {
            Kind::Issuer => "A",
            Kind::Actor => "M",
        }
    }
}

/// Decodes base32 of exactly `N` bytes whose last two are the checksum of the rest.
fn decode<const N: usize>(text: &str, what: &'static str) -> Result<[u8; N], KeyError> {
    let expected = BASE32_NOPAD.encode_len(N);
    if text.len() != expected {
        return Err(KeyError::Length { what, expected, found: text.chars().count() });
    }
    let mut raw = [0; N];
    BASE32_NOPAD.decode_mut(text.as_bytes(), &mut raw).map_err(|_| KeyError::Encoding)?;
    let (key, checksum) = raw.split_at(N - 2);
    if crc16(key).to_le_bytes() != checksum {
        return Err(KeyError::Checksum);
    }
    Ok(raw)
}

fn push_checksum(raw: &mut [u8]) {
    let end = raw.len() - 2;
    let checksum = crc16(&raw[..end]).to_le_bytes();
    raw[end..].copy_from_slice(&checksum);
}

/// CRC-16/XMODEM: polynomial 0x1021, no reflection, starting at 0.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
        })
    })
}

const KEY_BYTES: usize = 32;
const PUBLIC_RAW: usize = 1 + KEY_BYTES + 2;
const SEED_RAW: usize = 2 + KEY_BYTES + 2;
const PREFIX_SEED: u8 = 18 << 3;

#[cfg(test)]
mod tests {
    use super::*;

    // Made by the Go implementation of nkeys (a test vector of the crate nkeys).
    const GO_SEED: &str = "SAAPN4W3EG6KCJGUQTKTJ5GSB5NHK5CHAJL4DBGFUM3HHROI4XUEP4OBK4";
    const GO_PUBLIC: &str = "ACODERUVFFAWZQDSS6SBIACUA5O6SXF7HJ3YTYXBALHZP3P7R4BUO4J2";

    fn issuer(byte: u8) -> IssuerKeyPair {
        IssuerKeyPair::from_seed(&Seed::issuer(Zeroizing::new([byte; 32]))).unwrap()
    }

    #[test]
    fn a_seed_made_by_the_go_tools_gives_their_public_key() {
        let seed = Seed::parse(GO_SEED).unwrap();
        assert_eq!(&**seed.to_text(), GO_SEED);
        assert_eq!(IssuerKeyPair::from_seed(&seed).unwrap().public().to_string(), GO_PUBLIC);
    }

    #[test]
    fn our_texts_are_those_of_the_crate_nkeys() {
        for byte in 0..32 {
            let ours = Seed::actor(Zeroizing::new([byte; 32]));
            let theirs =
                nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::Module, [byte; 32]).unwrap();
            assert_eq!(**ours.to_text(), theirs.seed().unwrap());
            assert_eq!(ours.actor_key().unwrap().to_string(), theirs.public_key());
            assert_eq!(theirs.public_key().parse(), Ok(ours.actor_key().unwrap()));
        }
    }

    #[test]
    fn a_signature_holds_for_its_message_and_key_only() {
        let pair = issuer(1);
        let signature = pair.sign(b"message");
        assert!(pair.public().verifies(b"message", &signature));
        assert!(!pair.public().verifies(b"massage", &signature));
        assert!(!issuer(2).public().verifies(b"message", &signature));
    }

    #[test]
    fn one_wrong_character_is_noticed_wherever_it_stands() {
        for position in 0..GO_PUBLIC.len() {
            let mut text = GO_PUBLIC.as_bytes().to_vec();
            text[position] = if text[position] == b'7' { b'2' } else { b'7' };
            let text = String::from_utf8(text).unwrap();
            assert!(text.parse::<IssuerKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_of_another_kind_or_shape_is_refused_with_its_reason() {
        let actor = Seed::actor(Zeroizing::new([3; 32]));
        let actor_text = actor.actor_key().unwrap().to_string();
        assert!(matches!(actor_text.parse::<IssuerKey>(), Err(KeyError::Kind { .. })));
        assert!(matches!("A".parse::<IssuerKey>(), Err(KeyError::Length { found: 1, .. })));
        assert_eq!(GO_PUBLIC.to_lowercase().parse::<IssuerKey>(), Err(KeyError::Encoding));
        assert!(matches!(IssuerKeyPair::from_seed(&actor), Err(KeyError::Kind { .. })));
        assert!(matches!(Seed::parse(GO_PUBLIC), Err(KeyError::Length { .. })));
        let user = nkeys::KeyPair::new_user().seed().unwrap();
        assert!(matches!(Seed::parse(&user), Err(KeyError::Kind { .. })));
    }

    #[test]
    fn a_key_of_small_order_is_refused() {
        // The identity element: every message "verifies" under lenient rules.
        let mut identity = [0; KEY_BYTES];
        identity[0] = 1;
        let text = PublicBytes(identity).text(Kind::Issuer);
        assert_eq!(text.parse::<IssuerKey>(), Err(KeyError::Point));
    }

    #[test]
    fn debug_output_holds_nothing_secret() {
        let seed = Seed::parse(GO_SEED).unwrap();
        let pair = IssuerKeyPair::from_seed(&seed).unwrap();
        assert_eq!(format!("{seed:?}"), "Seed(Issuer, redacted)");
        assert_eq!(format!("{pair:?}"), format!("IssuerKeyPair({GO_PUBLIC}, redacted)"));
    }
}
