//! What a client is told: the one place where an error becomes a status, a stable code and a
//! sentence, and where an actor's reply is checked before it becomes a response.

use bytes::Bytes;
use host::provider::CallError;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::Full;

use crate::strict::HeadError;

/// A response whose body is at hand.
pub(crate) type Response = http::Response<Full<Bytes>>;

/// Why a request gets an error from this provider (an actor's own errors pass as they are).
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error("the request head did not arrive in time")]
    HeadTimeout,
    #[error("the body is longer than {limit} bytes")]
    BodyTooLarge { limit: u64 },
    #[error("the body arrived too slowly")]
    BodyTimeout,
    #[error("the body is malformed or ended early")]
    BodyBroken,
    #[error("bodies are read as they are: no Content-Encoding but `identity`")]
    ContentEncoding,
    #[error("too many bodies are being received")]
    BuffersFull,
    #[error("too many connections are open")]
    TooManyConnections,
    #[error("there is nothing at this path")]
    NotFound,
    #[error("only GET and HEAD are served at this path")]
    GetOnly,
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the actor's reply is malformed: {0}")]
    BadReply(&'static str),
}

/// What a [`Refusal`] looks like from outside.
struct Shape {
    status: StatusCode,
    code: &'static str,
    /// Seconds after which trying again makes sense.
    retry_after: Option<u32>,
}

impl Refusal {
    fn shape(&self) -> Shape {
        let (status, code, retry_after) = match self {
            Self::Head(HeadError::TooLong { .. } | HeadError::TooManyFields { .. }) => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "header_too_large", None)
            }
            Self::Head(HeadError::Version) => {
                (StatusCode::HTTP_VERSION_NOT_SUPPORTED, "http_version", None)
            }
            Self::Head(HeadError::Connect) => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", None)
            }
            Self::Head(_) => (StatusCode::BAD_REQUEST, "malformed_request", None),
            Self::HeadTimeout => (StatusCode::REQUEST_TIMEOUT, "header_timeout", None),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", None),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body_timeout", None),
            Self::BodyBroken => (StatusCode::BAD_REQUEST, "malformed_body", None),
            Self::ContentEncoding => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_encoding", None),
            Self::BuffersFull => (StatusCode::SERVICE_UNAVAILABLE, "buffers_full", Some(1)),
            Self::TooManyConnections => {
                (StatusCode::SERVICE_UNAVAILABLE, "too_many_connections", Some(1))
            }
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", None),
            Self::GetOnly => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", None),
            Self::Call(error) => match error {
                CallError::QueueFull { .. } => {
                    (StatusCode::SERVICE_UNAVAILABLE, "queue_full", Some(1))
                }
                CallError::Deadline => (StatusCode::GATEWAY_TIMEOUT, "deadline", None),
                CallError::Trap { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "actor_trap", None),
                CallError::OutOfMemory => {
                    (StatusCode::SERVICE_UNAVAILABLE, "actor_out_of_memory", Some(1))
                }
                CallError::Guest(_) => (StatusCode::INTERNAL_SERVER_ERROR, "actor_error", None),
                // Somebody has to sign or trust again first.
                CallError::Refused(_) => {
                    (StatusCode::SERVICE_UNAVAILABLE, "actor_refused", Some(60))
                }
                CallError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping", Some(1)),
                _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal", None),
            },
            Self::BadReply(_) => (StatusCode::BAD_GATEWAY, "bad_reply", None),
        };
        Shape { status, code, retry_after }
    }

    /// The stable code, which is also the outcome that metrics count.
    pub(crate) fn code(&self) -> &'static str {
        self.shape().code
    }

    /// Whether the connection cannot be used after this: the rest of the request is unread, or
    /// where it ends is unknown.
    fn closes(&self) -> bool {
        !matches!(
            self,
            Self::NotFound
                | Self::GetOnly
                | Self::Call(
                    CallError::QueueFull { .. }
                        | CallError::Deadline
                        | CallError::Trap { .. }
                        | CallError::OutOfMemory
                        | CallError::Guest(_)
                        | CallError::Refused(_)
                )
                | Self::BadReply(_)
        )
    }

    /// The sentence for the client: what it can act on, nothing of the inside. The whole error
    /// goes to the log.
    fn sentence(&self) -> String {
        match self {
            Self::Call(CallError::QueueFull { .. }) => "the model is busy; try again".into(),
            Self::Call(CallError::Trap { .. }) => "the model failed on this request".into(),
            Self::Call(CallError::OutOfMemory) => {
                "the model ran out of memory on this request".into()
            }
            Self::Call(CallError::Guest(_)) => "the model could not answer this request".into(),
            Self::Call(CallError::Refused(_)) => "the model's signature is not accepted".into(),
            Self::BadReply(_) => "the model's reply was malformed".into(),
            other => other.to_string(),
        }
    }

    /// The response for this error.
    pub(crate) fn to_response(&self) -> Response {
        let Shape { status, code, retry_after } = self.shape();
        let mut response = error(status, code, &self.sentence());
        let headers = response.headers_mut();
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.closes() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        match self {
            Self::ContentEncoding => {
                headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            }
            Self::GetOnly => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            Self::Head(HeadError::Connect) => {
                let allow = HeaderValue::from_static("GET, HEAD, POST, PUT");
                headers.insert(header::ALLOW, allow);
            }
            _ => {}
        }
        response
    }
}

/// A response that holds an error: the sentence first, as in the actor's own.
pub(crate) fn error(status: StatusCode, code: &str, sentence: &str) -> Response {
    let (sentence, code) = (serde_json::json!(sentence), serde_json::json!(code));
    with_json(status, format!("{{\"error\":{sentence},\"code\":{code}}}\n"))
}

/// A response that holds JSON.
pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> Response {
    with_json(status, format!("{value}\n"))
}

fn with_json(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An actor's reply as a response, and the outcome it names for the metrics.
///
/// Header fields that HTTP does not allow are dropped, as are those that belong to the connection
/// (hyper writes them) and the outcome.
///
/// # Errors
/// [`Refusal::BadReply`] for a status that is not a final one, or more header than clients accept.
pub(crate) fn of_actor(reply: wire::Response) -> Result<(Response, Option<String>), Refusal> {
    let status = u16::try_from(reply.status_code)
        .ok()
        .filter(|code| (200..=599).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(Refusal::BadReply("status"))?;
    let outcome = reply.header.get(wire::OUTCOME_HEADER).cloned();
    let header_bytes: usize = reply.header.iter().map(|(k, v)| k.len() + v.len() + 4).sum();
    if reply.header.len() > MAX_REPLY_FIELDS || header_bytes > MAX_REPLY_HEADER_BYTES {
        return Err(Refusal::BadReply("header too large"));
    }
    let has_body = status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED;
    let body = if has_body { Bytes::from(reply.body) } else { Bytes::new() };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in &reply.header {
        let name = HeaderName::from_bytes(name.as_bytes());
        // Visible ASCII, space and tab only: no line feed that would start another field, no byte
        // that clients read in different ways.
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value))
            && value.to_str().is_ok()
            && !is_ours(&name)
        {
            headers.append(name, value);
        }
    }
    Ok((response, outcome))
}

// What common clients and proxies accept; the limits that we set on requests.
const MAX_REPLY_FIELDS: usize = 64;
const MAX_REPLY_HEADER_BYTES: usize = 16 << 10;

/// Whether a header field belongs to one connection and not to the message (RFC 9110, 7.6.1).
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
    .contains(&name.as_str())
}

fn is_ours(name: &HeaderName) -> bool {
    is_hop_by_hop(name)
        || [header::CONTENT_LENGTH, header::DATE, header::SERVER].contains(name)
        || name == crate::request_id::HEADER
        || name == wire::OUTCOME_HEADER
}

/// Header fields of a request as the contract writes them: names in lower case, repeated fields
/// joined, connection-level fields left out. Bytes that are not UTF-8 are read as Latin-1, so that
/// none is lost.
pub(crate) fn to_wire_header(headers: &HeaderMap) -> std::collections::BTreeMap<String, String> {
    let mut listed = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        listed.extend(value.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii));
    }
    let is_listed = |name: &HeaderName| {
        listed.iter().any(|token| token.eq_ignore_ascii_case(name.as_str().as_bytes()))
    };
    let kept = headers
        .iter()
        .filter(|(name, _)| !is_hop_by_hop(name) && *name != header::EXPECT && !is_listed(name));
    wire::join_fields(kept.map(|(name, value)| (name.as_str(), value.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status_code: u32, header: &[(&str, &str)]) -> wire::Response {
        wire::Response {
            status_code,
            header: header.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
            body: b"body".to_vec(),
            ..Default::default()
        }
    }

    #[test]
    fn each_call_error_has_its_status_and_code() {
        for (error, status, code, retry) in [
            (CallError::QueueFull { waiting: 64 }, 503, "queue_full", true),
            (CallError::Deadline, 504, "deadline", false),
            (CallError::Trap { reason: "unreachable" }, 500, "actor_trap", false),
            (CallError::OutOfMemory, 503, "actor_out_of_memory", true),
            (CallError::Guest("secret".into()), 500, "actor_error", false),
            (CallError::Refused("secret".into()), 503, "actor_refused", true),
            (CallError::Stopping, 503, "stopping", true),
        ] {
            let response = Refusal::Call(error.clone()).to_response();
            assert_eq!(response.status(), status, "{error:?}");
            assert_eq!(Refusal::Call(error.clone()).code(), code);
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), retry, "{error:?}");
        }
    }

    #[tokio::test]
    async fn the_sentence_comes_before_the_code_as_in_an_actors_own_errors() {
        use http_body_util::BodyExt as _;
        let body = error(StatusCode::NOT_FOUND, "not_found", "no \"such\" thing").into_body();
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(bytes, "{\"error\":\"no \\\"such\\\" thing\",\"code\":\"not_found\"}\n");
    }

    #[test]
    fn what_an_actor_says_inside_an_error_stays_inside() {
        for error in [CallError::Guest("secret".into()), CallError::Refused("secret".into())] {
            assert!(!Refusal::Call(error).sentence().contains("secret"));
        }
    }

    #[test]
    fn a_status_that_ends_no_exchange_is_a_bad_reply() {
        for code in [0, 99, 100, 101, 199, 600, 1000, 65_736, u32::MAX] {
            let result = of_actor(reply(code, &[]));
            assert!(matches!(result, Err(Refusal::BadReply(_))), "status {code}");
        }
        assert!(of_actor(reply(599, &[])).is_ok());
    }

    #[test]
    fn fields_that_would_break_the_response_are_dropped_and_good_ones_kept() {
        let (response, outcome) = of_actor(reply(
            200,
            &[
                ("Content-Type", "application/json"),
                ("x-split", "a\r\nset-cookie: b"),
                ("x-null", "a\0"),
                ("x-latin", "\u{e9}"),
                ("bad name", "a"),
                ("", "a"),
                ("n\u{e9}me", "a"),
                ("Content-Length", "7"),
                ("Transfer-Encoding", "chunked"),
                ("Connection", "keep-alive"),
                ("Upgrade", "h2c"),
                ("Server", "x"),
                ("x-request-id", "x"),
                ("x-graphlet-outcome", "ok"),
            ],
        ))
        .unwrap();
        let names: Vec<_> = response.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-type"]);
        assert_eq!(outcome.as_deref(), Some("ok"));
    }

    #[test]
    fn more_header_than_clients_accept_is_a_bad_reply() {
        let long = "a".repeat(MAX_REPLY_HEADER_BYTES);
        assert!(of_actor(reply(200, &[("x", &long)])).is_err());
        let names: Vec<_> = (0..65).map(|i| format!("x-{i}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert!(of_actor(reply(200, &many)).is_err());
    }

    #[test]
    fn request_fields_are_joined_and_those_of_the_connection_left_out() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept", &b"text/html"[..]),
            ("accept", b"application/json"),
            ("cookie", b"a=1"),
            ("cookie", b"b=2"),
            ("connection", b"close, X-Mine"),
            ("x-mine", b"1"),
            ("te", b"trailers"),
            ("x-utf8", "\u{e9}".as_bytes()),
            ("x-latin1", b"\xe9"),
        ] {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        let fields = to_wire_header(&headers);
        let expected = [
            ("accept", "text/html, application/json"),
            ("cookie", "a=1; b=2"),
            ("x-latin1", "\u{e9}"),
            ("x-utf8", "\u{e9}"),
        ];
        assert_eq!(fields, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }
}
