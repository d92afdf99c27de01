//! Requests and answers between what `wasi:http` hands over and what the actor's routes read.

use std::{borrow::Cow, collections::BTreeMap};

use actor::{answer::Problem, raw};
use wire::{RequestView, Response};

/// The longest body. 16 MiB holds a 64-megapixel JPEG of good quality; it is what our own HTTP
/// provider takes by default.
pub const MAX_BODY_BYTES: usize = 16 << 20;

/// A request as it arrives: its head, then its body piece by piece.
#[derive(Debug)]
pub struct Message {
    method: String,
    path: String,
    query_string: String,
    header: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Message {
    /// Begins with the head: the method in upper case, path and query as they were sent, the
    /// authority that the client named, and the fields.
    pub fn new<'a>(
        method: &str,
        target: &str,
        authority: Option<&str>,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Self {
        let (path, query_string) = target.split_once('?').unwrap_or((target, ""));
        let mut header = wire::join_fields(fields);
        // Hosts of components keep the authority apart from the fields.
        if let Some(authority) = authority {
            header.insert("host".into(), authority.into());
        }
        // Only a host that verified the module knows its digest, and no such host is here.
        header.remove(wire::DIGEST_HEADER);
        Message {
            method: method.into(),
            path: path.into(),
            query_string: query_string.into(),
            header,
            body: Vec::new(),
        }
    }

    /// Whether the body is worth reading, told by the head.
    ///
    /// # Errors
    /// [`Problem::Encoding`] or [`Problem::BodyTooLarge`].
    pub fn check(&self) -> Result<(), Problem> {
        raw::check_encoding(&self.header)?;
        let length = self.header.get("content-length");
        // One that is no number is for the host to refuse; the body is counted anyway.
        match length.and_then(|length| length.parse::<u64>().ok()) {
            Some(bytes) if bytes > MAX_BODY_BYTES as u64 => Err(too_large()),
            _ => Ok(()),
        }
    }

    /// Adds a piece of the body.
    ///
    /// # Errors
    /// [`Problem::BodyTooLarge`], or [`Problem::OutOfMemory`] when there is no room for it.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), Problem> {
        if piece.len() > MAX_BODY_BYTES - self.body.len() {
            return Err(too_large());
        }
        self.body.try_reserve(piece.len()).map_err(|_| Problem::OutOfMemory)?;
        self.body.extend_from_slice(piece);
        Ok(())
    }

    /// The request as the actor's routes read it.
    pub fn request(&self) -> RequestView<'_> {
        RequestView {
            method: Cow::Borrowed(&self.method),
            path: Cow::Borrowed(&self.path),
            query_string: Cow::Borrowed(&self.query_string),
            header: self.header.clone(),
            body: Cow::Borrowed(&self.body),
        }
    }

    /// Whether the client wants the answer's head alone.
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }
}

fn too_large() -> Problem {
    Problem::BodyTooLarge { limit: MAX_BODY_BYTES }
}

/// Whether an answer's body is to be sent.
pub fn has_body(message: &Message, response: &Response) -> bool {
    !message.is_head() && !matches!(response.status_code, 204 | 304)
}

/// An answer's header fields as they are sent, with the length of the body if there is one: its
/// outcome is for hosts that know of it.
pub fn fields(response: &Response, has_body: bool) -> Vec<(String, Vec<u8>)> {
    let shown = response.header.iter().filter(|(name, _)| *name != wire::OUTCOME_HEADER);
    let mut fields: Vec<(String, Vec<u8>)> =
        shown.map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
    if has_body {
        fields.push(("content-length".into(), response.body.len().to_string().into_bytes()));
    }
    fields
}

#[cfg(test)]
mod tests {
    use actor::answer;

    use super::*;

    fn put(fields: &[(&str, &str)]) -> Message {
        let fields = fields.iter().map(|&(name, value)| (name, value.as_bytes()));
        Message::new("PUT", "/cat.png?top_k=2&x=?", Some("localhost:8000"), fields)
    }

    #[test]
    fn a_request_reaches_the_routes_as_it_was_sent() {
        let mut message = put(&[("Accept", "a"), ("accept", "b"), ("host", "elsewhere")]);
        message.push(b"pic").unwrap();
        message.push(b"ture").unwrap();
        let request = message.request();
        assert_eq!((request.method.as_ref(), request.path.as_ref()), ("PUT", "/cat.png"));
        assert_eq!(request.query_string, "top_k=2&x=?");
        assert_eq!(request.body.as_ref(), b"picture");
        assert_eq!(request.header["accept"], "a, b");
        assert_eq!(request.header["host"], "localhost:8000");
    }

    #[test]
    fn a_client_cannot_name_the_digest_of_the_module() {
        let message = put(&[("X-Graphlet-Digest", "sha256:0")]);
        assert!(!message.request().header.contains_key(wire::DIGEST_HEADER));
    }

    #[test]
    fn what_the_head_tells_is_refused_before_the_body_is_read() {
        for (field, value, expected) in [
            ("content-length", "16777216", None),
            ("content-length", "16777217", Some("body_too_large")),
            ("content-length", "99999999999999999999", None),
            ("content-encoding", "identity", None),
            ("content-encoding", "gzip", Some("content_encoding")),
        ] {
            let found = put(&[(field, value)]).check().err().map(|problem| problem.code());
            assert_eq!(found, expected, "{field}: {value}");
        }
    }

    #[test]
    fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
        let mut message = put(&[]);
        message.push(&vec![0; MAX_BODY_BYTES]).unwrap();
        message.push(b"").unwrap();
        assert_eq!(message.push(b"x").unwrap_err().code(), "body_too_large");
        assert_eq!(message.request().body.len(), MAX_BODY_BYTES);
    }

    #[test]
    fn an_answers_outcome_stays_inside_and_its_length_is_told() {
        let answer = answer::json(200, &"cat");
        let names = |has_body| {
            let fields = fields(&answer, has_body);
            fields.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(
            names(true),
            ["cache-control", "content-type", "x-content-type-options", "content-length"]
        );
        assert_eq!(names(false).len(), 3);
    }

    #[test]
    fn head_and_204_have_no_body() {
        let head = Message::new("HEAD", "/", None, []);
        let (card, options) = (answer::json(200, &1), answer::empty(204));
        assert!(has_body(&put(&[]), &card));
        assert!(!has_body(&head, &card) && !has_body(&put(&[]), &options));
    }
}
