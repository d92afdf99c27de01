//! A raw image in, a label out: the address that `curl -T cat.png` uses.

use std::collections::BTreeMap;

use wire::{RequestView, Response};

use crate::{
    accept,
    answer::{Problem, json},
    model::{Mark, Model, rank},
    multipart, query,
};

const HINT: &str = "the body holds no image; send one with: curl -T cat.png http://HOST/";

/// Answers with the best label as a JSON string, or, when scores are asked for, with a list of
/// labels and scores.
///
/// # Errors
/// A [`Problem`] with the image, the query or the model.
pub fn answer(
    model: &mut dyn Model,
    request: &RequestView<'_>,
    mark: Mark<'_>,
) -> Result<Response, Problem> {
    // What is wrong with the query shows before the work is done.
    let top_k = wanted(model, request)?;
    let scores = model.score_image(image(request)?, mark)?;
    match top_k {
        Some(k) => Ok(json(200, &rank(model, &scores, k)?)),
        None => Ok(json(200, &rank(model, &scores, 1)?[0].label)),
    }
}

/// The image in a request: the body, or, in a form, the field that holds it.
///
/// # Errors
/// [`Problem::NoImage`], [`Problem::BadMultipart`], or [`Problem::Encoding`].
pub fn image<'a>(request: &'a RequestView<'_>) -> Result<&'a [u8], Problem> {
    check_encoding(&request.header)?;
    if request.body.is_empty() {
        return Err(Problem::NoImage(HINT));
    }
    match multipart::boundary(field(&request.header, "content-type"))? {
        Some(boundary) => multipart::image(&request.body, boundary),
        None => Ok(&request.body),
    }
}

/// Whether the body comes as it is: to unpack none is the surest protection from archives that
/// unpack without end.
///
/// # Errors
/// [`Problem::Encoding`].
pub fn check_encoding(header: &BTreeMap<String, String>) -> Result<(), Problem> {
    let encoding = field(header, "content-encoding");
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        return Err(Problem::Encoding(encoding.chars().take(32).collect()));
    }
    Ok(())
}

fn field<'a>(header: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    header.get(name).map_or("", String::as_str).trim()
}

/// How many labels with scores the client wants; `None` for the best label alone.
fn wanted(model: &dyn Model, request: &RequestView<'_>) -> Result<Option<usize>, Problem> {
    let classes = model.labels().len();
    let by_query = query::top_k(&request.query_string, classes)?;
    let by_profile = request
        .header
        .get("accept")
        .is_some_and(|accept| accept::wants_scores(accept))
        .then(|| model.spec().output.top_k.min(classes));
    Ok(by_query.or(by_profile))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::model::fake::{Fake, body, request};

    #[test]
    fn any_path_and_any_content_type_take_an_image() {
        for (method, target, header) in [
            ("PUT", "/cat.png", vec![]),
            ("POST", "/", vec![("content-type", "application/x-www-form-urlencoded")]),
            ("PUT", "/a/b/%ff?x=1", vec![("content-type", "text/html")]),
            ("POST", "/v2x", vec![("content-type", "nonsense"), ("content-encoding", "identity")]),
            ("POST", "/predictionsx", vec![]),
            ("POST", "", vec![]),
        ] {
            let response = Fake::new().send(&request(method, target, &header, b"cat"));
            assert_eq!(response.status_code, 200, "{method} {target}");
            assert_eq!(response.header["content-type"], "application/json");
            assert_eq!(response.body, b"\"cat\"");
        }
    }

    #[test]
    fn a_label_is_escaped_as_json() {
        let response = Fake::new().send(&request("PUT", "/", &[], b"dog"));
        assert_eq!(response.body, br#""dog \"d\"""#);
    }

    #[test]
    fn scores_come_by_query_or_by_profile() {
        let scores = [("accept", "application/json;profile=scores")];
        let two = json!([{"label": "cat", "score": 0.75}, {"label": "dog \"d\"", "score": 0.125}]);
        for (target, header, expected) in [
            ("/?top_k=1", &[][..], json!([{"label": "cat", "score": 0.75}])),
            ("/?top_k=2", &[], two.clone()),
            ("/", &scores, two.clone()),
            ("/?top_k=1", &scores, json!([{"label": "cat", "score": 0.75}])),
        ] {
            let response = Fake::new().send(&request("POST", target, header, b"cat"));
            assert_eq!(body(&response), expected, "{target}");
        }
        let all = Fake::new().send(&request("POST", "/?top_k=4", &[], b"cat"));
        assert_eq!(body(&all).as_array().unwrap().len(), 4);
    }

    #[test]
    fn each_phase_is_marked_once_and_in_order() {
        let mut model = Fake::new();
        model.send(&request("PUT", "/", &[], b"cat"));
        assert_eq!(model.marks, ["decode", "preprocess", "infer", "done"]);
    }

    #[test]
    fn what_is_wrong_with_an_image_has_a_code() {
        let form = ("content-type", "multipart/form-data; boundary=X");
        for (sent, header, status, code) in [
            ("", vec![], 400, "no_image"),
            ("broken", vec![], 400, "broken_image"),
            ("<html>", vec![], 415, "not_an_image"),
            ("large", vec![], 413, "image_too_large"),
            ("cmyk", vec![], 422, "unsupported_image"),
            ("nan", vec![], 500, "model_failed"),
            ("fail", vec![], 500, "model_failed"),
            ("cat", vec![("content-encoding", "gzip")], 415, "content_encoding"),
            ("cat", vec![form], 400, "bad_multipart"),
            ("cat", vec![("content-type", "multipart/form-data")], 400, "bad_multipart"),
        ] {
            let response = Fake::new().send(&request("PUT", "/x", &header, sent.as_bytes()));
            assert_eq!(
                (response.status_code, &body(&response)["code"]),
                (status, &json!(code)),
                "{sent}"
            );
            assert_eq!(response.header[wire::OUTCOME_HEADER], code);
        }
        let empty = Fake::new().send(&request("PUT", "/x", &[], b""));
        assert!(body(&empty)["error"].as_str().unwrap().contains("curl -T"));
        let failed = Fake::new().send(&request("PUT", "/x", &[], b"fail"));
        assert!(!failed.body.windows(6).any(|w| w == b"kernel"), "internals reached the client");
    }

    #[test]
    fn a_wrong_top_k_is_refused_before_any_work() {
        let mut model = Fake::new();
        let response = model.send(&request("PUT", "/?top_k=5", &[], b"cat"));
        assert_eq!(response.status_code, 400);
        assert_eq!(body(&response)["code"], "bad_query");
        assert!(model.marks.is_empty());
    }

    #[test]
    fn a_form_is_unpacked() {
        let form = b"--X\r\nContent-Disposition: form-data; name=\"i\"; filename=\"c.png\"\r\n\r\ncat\r\n--X--\r\n";
        let header = [("content-type", "multipart/form-data; boundary=X")];
        let response = Fake::new().send(&request("POST", "/upload", &header, form));
        assert_eq!(response.body, b"\"cat\"");
    }

    #[test]
    fn one_request_leaves_nothing_to_the_next() {
        let mut model = Fake::new();
        for (sent, expected) in [("cat", "cat"), ("broken", "broken_image"), ("crane", "crane")] {
            let response = model.send(&request("PUT", "/", &[], sent.as_bytes()));
            let answer = body(&response);
            assert_eq!(answer.as_str().or_else(|| answer["code"].as_str()), Some(expected));
        }
    }
}
