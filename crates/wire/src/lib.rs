//! The MessagePack messages between host and actor (waSCC's contract).
//!
//! waSCC writes structs as maps with camelCase keys and byte strings as `bin`. `wascc-actor`
//! defines the same types for guests; `tests/codec.rs` holds the two together byte by byte.
//!
//! Decoding reads from a slice: a length that the bytes do not back is an error before anything
//! is allocated for it, nesting is bounded, and bytes after the message are refused.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

/// Operation: an HTTP request for the actor; [`Request`] in, [`Response`] out.
pub const OP_HANDLE_REQUEST: &str = "HandleRequest";
/// Operation: is the actor well? [`HealthRequest`] in, anything but an error out. The actor loads
/// its model when it is asked this first.
pub const OP_HEALTH_REQUEST: &str = "HealthRequest";
/// Operation on a capability provider: an actor is being linked.
pub const OP_BIND_ACTOR: &str = "BindActor";
/// Operation on a capability provider: an actor is being unlinked.
pub const OP_REMOVE_ACTOR: &str = "RemoveActor";
/// Operation on a host: replace a running actor by a new module.
pub const OP_PERFORM_LIVE_UPDATE: &str = "PerformLiveUpdate";
/// Operation on an actor: it was just started.
pub const OP_INITIALIZE: &str = "Initialize";
/// Operation on a capability provider: which capability is it?
pub const OP_IDENTIFY_CAPABILITY: &str = "IdentifyCapability";
/// Operation on the logging capability: write one line; [`WriteLog`] in.
pub const OP_LOG: &str = "WriteLog";

/// Capability to be called with HTTP requests.
pub const CAPABILITY_HTTP_SERVER: &str = "wascc:http_server";
/// Capability to write to the host's log.
pub const CAPABILITY_LOGGING: &str = "wascc:logging";
/// The binding that is meant when none is named.
pub const DEFAULT_BINDING: &str = "default";

/// Namespace of the host call by which an actor marks the phases of a request. Not a capability:
/// a host that does not know it refuses the call, and the actor goes on.
pub const PHASE_NAMESPACE: &str = "graphlet:phase";
/// Operation in [`PHASE_NAMESPACE`]; the payload is the phase's name in UTF-8.
pub const OP_MARK: &str = "Mark";
/// Mark: the image's bytes are about to be decoded.
pub const PHASE_DECODE: &str = "decode";
/// Mark: the picture is about to be resized and normalised.
pub const PHASE_PREPROCESS: &str = "preprocess";
/// Mark: the graph is about to run.
pub const PHASE_INFER: &str = "infer";
/// Mark: the graph has run.
pub const PHASE_DONE: &str = "done";

/// Operation on an actor: run the graph once on a picture, with a mark before every kernel call;
/// [`ProfileRequest`] in, [`ProfileAnswer`] out. Ours alone: other actors refuse it, and no
/// capability provider sends it.
pub const OP_PROFILE: &str = "GraphletProfile";
/// Mark while profiling: nothing happens until the next mark. What lies between two of these is
/// what a mark costs.
pub const PHASE_EMPTY: &str = "empty";
/// Mark while profiling: the next node of the graph is about to run.
pub const PHASE_NODE: &str = "node";
/// Mark while profiling: the same node is about to run again.
pub const PHASE_AGAIN: &str = "again";
/// Number of [`PHASE_EMPTY`] marks in a profile.
pub const PROFILE_EMPTY_MARKS: usize = 64;

/// Response header in which an actor tells its host how a request went (`ok`, or the error's
/// stable code); the host may count by it and drops it before the client sees it.
pub const OUTCOME_HEADER: &str = "x-graphlet-outcome";
/// Request header in which a host tells an actor the digest of its own module (`sha256:` and hex);
/// the host sets it on every request, so that a client's own value never arrives.
pub const DIGEST_HEADER: &str = "x-graphlet-digest";

// Deepest message of the contract: struct, header map, value. The rest is room for fields that
// newer peers add and we skip.
const MAX_DEPTH: usize = 16;

/// An HTTP request as an actor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Method in upper case.
    pub method: String,
    /// Path without the query, still percent-encoded.
    pub path: String,
    /// What follows `?`, without it; empty when there is none.
    pub query_string: String,
    /// Header fields, names in lower case, repeated fields joined by `, `.
    #[serde(default)]
    pub header: BTreeMap<String, String>,
    /// The whole body.
    #[serde(default, with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// A [`Request`] whose strings and body may lie in someone else's buffer: saves both sides a
/// second copy of a large body.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestView<'a> {
    /// Method in upper case.
    #[serde(borrow)]
    pub method: Cow<'a, str>,
    /// Path without the query, still percent-encoded.
    #[serde(borrow)]
    pub path: Cow<'a, str>,
    /// What follows `?`, without it; empty when there is none.
    #[serde(borrow)]
    pub query_string: Cow<'a, str>,
    /// Header fields, names in lower case, repeated fields joined by `, `.
    #[serde(default)]
    pub header: BTreeMap<String, String>,
    /// The whole body.
    #[serde(borrow, default, with = "serde_bytes")]
    pub body: Cow<'a, [u8]>,
}

/// An actor's answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Status code; not yet checked to be one that HTTP knows.
    pub status_code: u32,
    /// Reason phrase; advisory.
    pub status: String,
    /// Header fields; not yet checked to be valid in HTTP.
    #[serde(default)]
    pub header: BTreeMap<String, String>,
    /// The whole body.
    #[serde(default, with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// Asks an actor whether it is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthRequest {
    /// Not used; the contract wants a field.
    pub placeholder: bool,
}

/// Asks an actor to run its graph with a mark before every kernel call.
///
/// The actor marks [`PHASE_DECODE`], [`PHASE_PREPROCESS`], [`PROFILE_EMPTY_MARKS`] times
/// [`PHASE_EMPTY`], then for each node [`PHASE_NODE`] (and [`PHASE_AGAIN`]), at last
/// [`PHASE_DONE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileRequest<'a> {
    /// The picture, as a file.
    #[serde(borrow, with = "serde_bytes")]
    pub image: Cow<'a, [u8]>,
    /// Run each node twice in a row: the second time with its weights and tensors in the caches.
    pub again: bool,
}

/// What an actor ran for a [`ProfileRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProfileAnswer {
    /// The graph's kernel calls in the order in which they ran.
    pub nodes: Vec<ProfiledNode>,
}

/// One kernel call of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfiledNode {
    /// The node's name.
    pub name: String,
    /// The compiled function that it calls.
    pub function: String,
}

/// One line for the host's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteLog {
    /// 0 off, 1 error, 2 warn, 3 info, 4 debug, 5 trace.
    pub level: u32,
    /// The line.
    pub body: String,
}

/// The values of a link, as a capability provider outside this process would get them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CapabilityConfiguration {
    /// The actor's subject key.
    pub module: String,
    /// Values such as `PORT`.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
}

/// A message could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not MessagePack, cut short, nested too deeply, or not the fields that were expected.
    #[error("malformed message")]
    Malformed(#[source] rmp_serde::decode::Error),
    /// The message ended and more bytes followed.
    #[error("bytes follow the end of the message")]
    Trailing,
}

/// A message could not be written.
#[derive(Debug, thiserror::Error)]
#[error("message could not be encoded")]
pub struct EncodeError(#[from] rmp_serde::encode::Error);

/// Header fields as the contract writes them: names in lower case, repeated fields joined. Bytes
/// that are not UTF-8 are read as Latin-1, so that none is lost.
pub fn join_fields<'a>(
    fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> BTreeMap<String, String> {
    let mut joined = BTreeMap::<String, String>::new();
    for (name, value) in fields {
        let name = name.to_ascii_lowercase();
        let text = match std::str::from_utf8(value) {
            Ok(text) => text.to_owned(),
            Err(_) => value.iter().copied().map(char::from).collect(),
        };
        let separator = if name == "cookie" { "; " } else { ", " };
        joined
            .entry(name)
            .and_modify(|joined| {
                joined.push_str(separator);
                joined.push_str(&text);
            })
            .or_insert(text);
    }
    joined
}

/// Reads one message; `bytes` must hold it and nothing else.
///
/// # Errors
/// [`DecodeError`]; whatever the bytes are, this neither panics nor allocates more than a small
/// multiple of their length.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(MAX_DEPTH);
    let message = T::deserialize(&mut reader).map_err(DecodeError::Malformed)?;
    // At the end of the bytes, and only there, not even the marker of a next value can be read.
    match bool::deserialize(&mut reader) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(message),
        _ => Err(DecodeError::Trailing),
    }
}

/// Writes one message as waSCC does: structs as maps with names.
///
/// # Errors
/// [`EncodeError`] when a part is larger than MessagePack can say (4 GiB).
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, EncodeError> {
    Ok(rmp_serde::to_vec_named(message)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            method: "PUT".into(),
            path: "/cat.png".into(),
            query_string: "top_k=5".into(),
            header: BTreeMap::from([("accept".into(), "application/json".into())]),
            body: vec![0, 159, 146, 150, 255],
        }
    }

    #[test]
    fn a_request_survives_the_way_there_and_back() {
        let bytes = encode(&request()).unwrap();
        assert_eq!(decode::<Request>(&bytes).unwrap(), request());
    }

    #[test]
    fn a_view_reads_the_same_request_without_copying_its_body() {
        let bytes = encode(&request()).unwrap();
        let view: RequestView<'_> = decode(&bytes).unwrap();
        assert_eq!(view.body, request().body);
        assert!(bytes.as_ptr_range().contains(&view.body.as_ptr()), "the body was copied");
        assert!(matches!(view.path, Cow::Borrowed("/cat.png")));
        assert_eq!(encode(&view).unwrap(), bytes);
    }

    #[test]
    fn fields_that_newer_peers_add_are_skipped_and_optional_ones_may_be_missing() {
        // {"method": "GET", "path": "/", "queryString": "", "extra": [1, {"a": 2}]}
        let bytes =
            b"\x84\xa6method\xa3GET\xa4path\xa1/\xabqueryString\xa0\xa5extra\x92\x01\x81\xa1a\x02";
        let request: Request = decode(bytes).unwrap();
        assert_eq!(request.method, "GET");
        assert!(request.header.is_empty() && request.body.is_empty());
    }

    #[test]
    fn a_body_written_as_an_array_of_numbers_is_read_too() {
        let bytes = b"\x82\xaastatusCode\xcc\xc8\xa6status\xa2OK".to_vec();
        let mut with_body = bytes.clone();
        with_body[0] = 0x83;
        with_body.extend_from_slice(b"\xa4body\x93\x01\x02\x03");
        assert_eq!(decode::<Response>(&with_body).unwrap().body, [1, 2, 3]);
    }

    #[test]
    fn bytes_after_the_message_are_refused() {
        let mut bytes = encode(&request()).unwrap();
        for tail in [0xc0, 0xc2, 0x00, 0x91, 0xc6, 0xc1] {
            bytes.push(tail);
            let result = decode::<Request>(&bytes);
            assert!(matches!(result, Err(DecodeError::Trailing)), "tail {tail:#x}: {result:?}");
            bytes.pop();
        }
    }

    #[test]
    fn a_message_cut_anywhere_is_an_error() {
        let bytes = encode(&request()).unwrap();
        for end in 0..bytes.len() {
            assert!(decode::<Request>(&bytes[..end]).is_err(), "cut at {end}");
            assert!(decode::<RequestView<'_>>(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn any_byte_may_be_wrong_without_a_panic() {
        let bytes = encode(&request()).unwrap();
        for at in 0..bytes.len() {
            for value in 0..=255 {
                let mut broken = bytes.clone();
                broken[at] = value;
                // Some are still messages; none may panic.
                let _ = decode::<Request>(&broken);
                let _ = decode::<Response>(&broken);
            }
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let mut bytes = b"\x84\xa6method\xa3GET\xa4path\xa1/\xabqueryString\xa0\xa5extra".to_vec();
        bytes.extend(std::iter::repeat_n(0x91, 100_000));
        bytes.push(0xc0);
        assert!(matches!(decode::<Request>(&bytes), Err(DecodeError::Malformed(_))));
    }
}
