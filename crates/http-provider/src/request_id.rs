//! One name per request, in logs and in the client's hands.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries the id both ways.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

// A UUID has 36 characters and a W3C trace id 32; 64 leaves room for a prefix.
const MAX_LEN: usize = 64;

/// The name of a request: a sane one that the client sent, else one of ours.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(String);

impl RequestId {
    /// A new id: random per process, counted within it.
    pub(crate) fn new() -> Self {
        static PROCESS: OnceLock<u64> = OnceLock::new();
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // `RandomState` is keyed from the system's randomness: good for telling processes apart.
        // Nothing secret hangs on it.
        let process = *PROCESS.get_or_init(|| RandomState::new().hash_one("graphlet"));
        Self(format!("{process:016x}{:016x}", COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The client's id when there is exactly one of letters, digits, `.`, `_` and `-`; otherwise
    /// a new one, so that nobody writes into our log.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut sent = headers.get_all(HEADER).iter();
        match (sent.next().and_then(|value| value.to_str().ok()), sent.next()) {
            (Some(id), None) if is_sane(id) => Self(id.to_owned()),
            _ => Self::new(),
        }
    }

    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as a header's value.
    pub(crate) fn to_header_value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("letters, digits, `.`, `_` and `-` only")
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_sane(id: &str) -> bool {
    (1..=MAX_LEN).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_id_is_kept_and_any_other_replaced() {
        let long = "a".repeat(64);
        let longer = "a".repeat(65);
        for (sent, kept) in [
            ("7f3a-1.B_", true),
            (long.as_str(), true),
            (longer.as_str(), false),
            ("", false),
            ("a b", false),
            ("a\"b", false),
            ("\u{e9}", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_bytes(sent.as_bytes()).unwrap());
            assert_eq!(RequestId::of(&headers).as_str() == sent, kept, "sent: {sent:?}");
        }
    }

    #[test]
    fn two_ids_in_one_request_are_both_dropped() {
        let mut headers = HeaderMap::new();
        headers.append(HEADER, HeaderValue::from_static("one"));
        headers.append(HEADER, HeaderValue::from_static("two"));
        let id = RequestId::of(&headers);
        assert!(!["one", "two"].contains(&id.as_str()));
    }

    #[test]
    fn new_ids_differ() {
        assert_ne!(RequestId::new().as_str(), RequestId::new().as_str());
    }
}
