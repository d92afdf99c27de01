//! Every limit of the HTTP provider: its name, its default, the reason for the number.

use std::{collections::BTreeMap, time::Duration};

/// What one listener grants its clients. A link changes single values (see [`Limits::KEYS`]).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Longest request body. 16 MiB holds a 64-megapixel JPEG of good quality; the actor's own
    /// limit on image bytes is the same.
    pub max_body_bytes: u64,
    /// Longest request head, request line included. 16 KiB is twice what browsers with large
    /// cookies send, and what one connection may cost before it has said anything.
    pub max_header_bytes: usize,
    /// Most header fields in a request. 64 is three times what proxies and browsers add up to.
    pub max_header_fields: usize,
    /// Longest time from a request's first byte (on a new connection: from its acceptance) to the
    /// end of its head. 5 s survives two lost packets on a bad line.
    pub header_timeout: Duration,
    /// Slowest body, measured over any [`Limits::body_window`]. 8 KiB/s is a bad mobile line; at
    /// that pace a photograph of 500 KB takes a minute.
    pub body_bytes_per_second: u64,
    /// The window for [`Limits::body_bytes_per_second`]. 15 s survives a hand-over between cells.
    pub body_window: Duration,
    /// Longest wait for a next request on an open connection. 75 s outlives the 60 s for which
    /// common proxies keep theirs, so that it is they who close, without a race.
    pub idle_timeout: Duration,
    /// Longest time without progress while an answer is written. Answers are small and fit in the
    /// socket's buffer; who does not read for 15 s is gone.
    pub send_timeout: Duration,
    /// Longest time to keep reading, and dropping, what a client still sends after its request
    /// was refused: closing at once could destroy the answer on its way. 2 s is a few round trips.
    pub linger: Duration,
    /// Longest time for a call, waiting for an instance included. 10 s is a hundred times what a
    /// large model takes on one core.
    pub call_timeout: Duration,
    /// Most open connections. 1,024 is a common proxy's pool, and costs at most 16 MiB of heads.
    /// Lowered, with a warning, when the process may not open so many files.
    pub max_connections: usize,
    /// Most bytes of bodies held at once, over all connections. 256 MiB is 16 bodies of the
    /// largest size, or thousands of usual ones; without it, 1,024 clients could hold 16 GiB.
    pub max_buffered_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 16 << 20,
            max_header_bytes: 16 << 10,
            max_header_fields: 64,
            header_timeout: Duration::from_secs(5),
            body_bytes_per_second: 8 << 10,
            body_window: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            send_timeout: Duration::from_secs(15),
            linger: Duration::from_secs(2),
            call_timeout: Duration::from_secs(10),
            max_connections: 1024,
            max_buffered_bytes: 256 << 20,
        }
    }
}

/// A limit's value could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not {wanted}")]
pub struct LimitError {
    /// The link value's name.
    pub key: String,
    /// What it holds.
    pub value: String,
    /// What it should hold.
    pub wanted: &'static str,
}

impl Limits {
    /// The link values that change a limit, each named after its field: sizes in bytes, counts,
    /// and durations such as `250ms`, `5s` or `2m`.
    pub const KEYS: [&'static str; 12] = [
        "MAX_BODY_BYTES",
        "MAX_HEADER_BYTES",
        "MAX_HEADER_FIELDS",
        "HEADER_TIMEOUT",
        "BODY_BYTES_PER_SECOND",
        "BODY_WINDOW",
        "IDLE_TIMEOUT",
        "SEND_TIMEOUT",
        "LINGER",
        "CALL_TIMEOUT",
        "MAX_CONNECTIONS",
        "MAX_BUFFERED_BYTES",
    ];

    /// These limits with those that `values` names replaced; other keys are left alone.
    ///
    /// # Errors
    /// [`LimitError`] for the first value that is malformed or zero.
    pub fn with_values(&self, values: &BTreeMap<String, String>) -> Result<Self, LimitError> {
        let mut limits = self.clone();
        for (key, value) in values {
            match key.as_str() {
                "MAX_BODY_BYTES" => limits.max_body_bytes = number(key, value)?,
                "MAX_HEADER_BYTES" => limits.max_header_bytes = count(key, value)?,
                "MAX_HEADER_FIELDS" => limits.max_header_fields = count(key, value)?,
                "HEADER_TIMEOUT" => limits.header_timeout = duration(key, value)?,
                "BODY_BYTES_PER_SECOND" => limits.body_bytes_per_second = number(key, value)?,
                "BODY_WINDOW" => limits.body_window = duration(key, value)?,
                "IDLE_TIMEOUT" => limits.idle_timeout = duration(key, value)?,
                "SEND_TIMEOUT" => limits.send_timeout = duration(key, value)?,
                "LINGER" => limits.linger = duration(key, value)?,
                "CALL_TIMEOUT" => limits.call_timeout = duration(key, value)?,
                "MAX_CONNECTIONS" => limits.max_connections = count(key, value)?,
                "MAX_BUFFERED_BYTES" => limits.max_buffered_bytes = number(key, value)?,
                _ => {}
            }
        }
        Ok(limits)
    }
}

fn number(key: &str, value: &str) -> Result<u64, LimitError> {
    value.parse().ok().filter(|number| (1..=1 << 40).contains(number)).ok_or_else(|| LimitError {
        key: key.into(),
        value: value.into(),
        wanted: "a whole number from 1 to 2^40",
    })
}

fn count(key: &str, value: &str) -> Result<usize, LimitError> {
    value.parse().ok().filter(|number| (1..=1 << 30).contains(number)).ok_or_else(|| LimitError {
        key: key.into(),
        value: value.into(),
        wanted: "a whole number from 1 to 2^30",
    })
}

fn duration(key: &str, value: &str) -> Result<Duration, LimitError> {
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let millis_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => 0,
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(millis_per_unit))
        // A day: longer than any request, short enough that clock arithmetic cannot overflow.
        .filter(|millis| (1..=86_400_000).contains(millis))
        .map(Duration::from_millis)
        .ok_or_else(|| LimitError {
            key: key.into(),
            value: value.into(),
            wanted: "a duration such as 250ms, 5s or 2m, at most a day",
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(key: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn defaults_are_those_of_the_serving_contract() {
        let limits = Limits::default();
        assert_eq!(limits.max_body_bytes, 16 * 1024 * 1024);
        assert_eq!((limits.max_header_bytes, limits.max_header_fields), (16 * 1024, 64));
        assert_eq!(limits.header_timeout, Duration::from_secs(5));
        assert_eq!(limits.body_bytes_per_second, 8 * 1024);
        assert_eq!(limits.body_window, Duration::from_secs(15));
        assert_eq!(limits.call_timeout, Duration::from_secs(10));
        assert_eq!(limits.max_connections, 1_024);
    }

    #[test]
    fn a_duration_needs_a_unit_and_must_not_be_zero() {
        for (text, expected) in [
            ("250ms", Some(Duration::from_millis(250))),
            ("5s", Some(Duration::from_secs(5))),
            ("2m", Some(Duration::from_secs(120))),
            ("5", None),
            ("0s", None),
            ("", None),
            ("s", None),
            ("-5s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615m", None),
        ] {
            let read = Limits::default().with_values(&values("CALL_TIMEOUT", text));
            assert_eq!(read.ok().map(|limits| limits.call_timeout), expected, "text: {text:?}");
        }
    }

    #[test]
    fn every_key_changes_a_limit_and_refuses_nonsense() {
        for key in Limits::KEYS {
            let usual = Limits::default();
            let value = if usual.with_values(&values(key, "7")).is_ok() { "7" } else { "7ms" };
            assert_ne!(usual.with_values(&values(key, value)).unwrap(), usual, "key: {key}");
            assert_eq!(usual.with_values(&values(key, "many")).unwrap_err().key, key);
            assert!(usual.with_values(&values(key, "0")).is_err(), "key: {key}");
        }
    }
}
