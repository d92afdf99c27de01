//! From outcomes to HTTP answers: the one place where a problem gets its status, its stable code
//! and its sentence.

use std::collections::BTreeMap;

use serde::Serialize;
use wire::Response;

/// Why a request was not answered with a label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The request has no image in it.
    #[error("{0}")]
    NoImage(&'static str),
    /// It is an image of a kind we read, but damaged.
    #[error("{0}")]
    BrokenImage(String),
    /// More bytes or pixels than the limits allow.
    #[error("{0}")]
    ImageTooLarge(String),
    /// The bytes are not of any image format we read.
    #[error("{0}")]
    NotAnImage(String),
    /// A well-formed image that uses something we do not carry out.
    #[error("{0}")]
    UnsupportedImage(String),
    /// More bytes than a body may have.
    #[error("the body is longer than {limit} bytes")]
    BodyTooLarge {
        /// What it may have.
        limit: usize,
    },
    /// The body did not arrive whole.
    #[error("the body is malformed or ended early")]
    BodyBroken,
    /// The body is compressed or encoded in a way that we do not undo.
    #[error("the encoding `{0}` is not supported; send the bytes as they are")]
    Encoding(String),
    /// A query parameter has a value it cannot have.
    #[error("{0}")]
    BadQuery(String),
    /// The body is not the multipart form that its content type promises.
    #[error("the multipart body is malformed: {0}")]
    BadMultipart(&'static str),
    /// The body is not the JSON that this address takes.
    #[error("the JSON body is malformed: {0}")]
    BadJson(String),
    /// A tensor in the body is not one the model takes.
    #[error("{0}")]
    BadTensor(String),
    /// The values sent are such that the model has no finite answer.
    #[error("the model has no finite answer to these values")]
    NotFinite,
    /// Nothing is at this path.
    #[error("nothing is served at this path; GET / tells what is")]
    NotFound,
    /// Another model is served here.
    #[error("no such model here; this server has `{name}`, version `{version}`")]
    UnknownModel {
        /// The model that is here.
        name: String,
        /// Its version.
        version: String,
    },
    /// The path exists and takes other methods.
    #[error("this path takes {allow}")]
    MethodNotAllowed {
        /// Value of the `Allow` field.
        allow: &'static str,
    },
    /// Defined by the protocol and not carried out yet.
    #[error("{0} is not supported yet")]
    NotYet(&'static str),
    /// The picture is within the limits, but this instance's memory does not hold it. Status, code
    /// and sentence are those that the host gives when the instance itself does not fit.
    #[error("the model ran out of memory on this request")]
    OutOfMemory,
    /// The model could not be loaded: no request can be answered.
    #[error("the model could not be loaded")]
    ModelUnavailable,
    /// The model failed on a request that was in order. The reason is in the log, not here.
    #[error("the model failed")]
    ModelFailed(String),
}

impl Problem {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u32 {
        self.entry().0
    }

    /// The code that programs may compare: it never changes, whatever the sentence says.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.entry().1
    }

    fn entry(&self) -> (u32, &'static str) {
        match self {
            Problem::NoImage(_) => (400, "no_image"),
            Problem::BrokenImage(_) => (400, "broken_image"),
            Problem::BadQuery(_) => (400, "bad_query"),
            Problem::BadMultipart(_) => (400, "bad_multipart"),
            Problem::BadJson(_) => (400, "bad_json"),
            Problem::BadTensor(_) => (400, "bad_tensor"),
            // Where no HTTP provider of ours stands before the model; codes and sentences are its.
            Problem::BodyBroken => (400, "malformed_body"),
            Problem::BodyTooLarge { .. } => (413, "body_too_large"),
            Problem::NotFound => (404, "not_found"),
            Problem::UnknownModel { .. } => (404, "unknown_model"),
            Problem::MethodNotAllowed { .. } => (405, "method_not_allowed"),
            Problem::ImageTooLarge(_) => (413, "image_too_large"),
            Problem::NotAnImage(_) => (415, "not_an_image"),
            Problem::Encoding(_) => (415, "content_encoding"),
            Problem::UnsupportedImage(_) => (422, "unsupported_image"),
            Problem::NotFinite => (422, "not_finite"),
            Problem::ModelFailed(_) => (500, "model_failed"),
            Problem::ModelUnavailable => (500, "model_unavailable"),
            Problem::NotYet(_) => (501, "not_yet"),
            Problem::OutOfMemory => (503, "actor_out_of_memory"),
        }
    }

    /// The answer a client gets.
    #[must_use]
    pub fn answer(&self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            error: &'a str,
            code: &'static str,
        }
        let (status, code) = self.entry();
        let mut answer = json(status, &Body { error: &self.to_string(), code });
        match self {
            Problem::MethodNotAllowed { allow } => {
                answer.header.insert("allow".into(), (*allow).into());
            }
            Problem::OutOfMemory => {
                answer.header.insert("retry-after".into(), "1".into());
            }
            _ => {}
        }
        answer.header.insert(wire::OUTCOME_HEADER.into(), code.into());
        answer
    }
}

/// An answer with a JSON body.
#[must_use]
pub fn json(status: u32, value: &impl Serialize) -> Response {
    // Our values have string keys only, which is all that can fail in serde_json.
    let body = serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec());
    with_body(status, "application/json", body)
}

/// An answer with a body of some type.
#[must_use]
pub fn with_body(status: u32, content_type: &str, body: Vec<u8>) -> Response {
    let mut answer = empty(status);
    answer.header.insert("content-type".into(), content_type.into());
    answer.header.insert("x-content-type-options".into(), "nosniff".into());
    answer.body = body;
    answer
}

/// An answer without a body.
#[must_use]
pub fn empty(status: u32) -> Response {
    let header = BTreeMap::from([
        // An answer belongs to one picture; a cache that kept it could only be wrong.
        ("cache-control".to_owned(), "no-store".to_owned()),
        (wire::OUTCOME_HEADER.to_owned(), "ok".to_owned()),
    ]);
    Response { status_code: status, status: reason(status).into(), header, body: Vec::new() }
}

fn reason(status: u32) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_a_sentence_with_a_stable_code() {
        let problems = [
            (Problem::NoImage("send one"), 400, "no_image"),
            (Problem::BrokenImage("cut".into()), 400, "broken_image"),
            (Problem::BadQuery("x".into()), 400, "bad_query"),
            (Problem::BadMultipart("x"), 400, "bad_multipart"),
            (Problem::BadJson("x".into()), 400, "bad_json"),
            (Problem::BadTensor("x".into()), 400, "bad_tensor"),
            (Problem::BodyBroken, 400, "malformed_body"),
            (Problem::BodyTooLarge { limit: 7 }, 413, "body_too_large"),
            (Problem::NotFound, 404, "not_found"),
            (Problem::UnknownModel { name: "m".into(), version: "1".into() }, 404, "unknown_model"),
            (Problem::MethodNotAllowed { allow: "GET" }, 405, "method_not_allowed"),
            (Problem::ImageTooLarge("x".into()), 413, "image_too_large"),
            (Problem::NotAnImage("x".into()), 415, "not_an_image"),
            (Problem::Encoding("gzip".into()), 415, "content_encoding"),
            (Problem::UnsupportedImage("x".into()), 422, "unsupported_image"),
            (Problem::NotFinite, 422, "not_finite"),
            (Problem::ModelFailed("secret".into()), 500, "model_failed"),
            (Problem::ModelUnavailable, 500, "model_unavailable"),
            (Problem::NotYet("batching"), 501, "not_yet"),
            (Problem::OutOfMemory, 503, "actor_out_of_memory"),
        ];
        for (problem, status, code) in problems {
            let answer = problem.answer();
            assert_eq!(answer.status_code, status, "{problem:?}");
            assert_ne!(answer.status, "", "{problem:?}");
            assert_eq!(answer.header["content-type"], "application/json");
            assert_eq!(answer.header[wire::OUTCOME_HEADER], code);
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(body["code"], code);
            let sentence = body["error"].as_str().unwrap();
            assert!(!sentence.is_empty() && !sentence.contains("secret"), "{sentence}");
            assert_eq!(answer.header.contains_key("allow"), status == 405);
            assert_eq!(answer.header.contains_key("retry-after"), status == 503);
            assert!(answer.body.starts_with(b"{\"error\":"), "the sentence comes first");
        }
    }
}
