//! TorchServe's prediction address: `POST /predictions/MODEL` answers `{"label": score, ...}`.

use std::collections::HashSet;

use serde::{Serialize, Serializer};
use wire::{RequestView, Response};

use crate::{
    answer::{Problem, json},
    model::{Mark, Model, Ranked, rank},
    query, raw,
};

// What TorchServe's own image classifier lists.
const TOP_K: usize = 5;

/// Answers with the best five labels, or with as many as `top_k` says.
///
/// # Errors
/// A [`Problem`] with the image, the query or the model.
pub fn answer(
    model: &mut dyn Model,
    request: &RequestView<'_>,
    mark: Mark<'_>,
) -> Result<Response, Problem> {
    let classes = model.labels().len();
    let k = query::top_k(&request.query_string, classes)?.unwrap_or(TOP_K.min(classes));
    let scores = model.score_image(raw::image(request)?, mark)?;
    Ok(json(200, &Object(rank(model, &scores, k)?)))
}

/// Ranked labels as a JSON object, best first. ImageNet has two classes called `crane`; an object
/// can name one, so the better one stands.
struct Object(Vec<Ranked>);

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seen = HashSet::new();
        serializer.collect_map(
            self.0
                .iter()
                .filter(|ranked| seen.insert(ranked.label))
                .map(|ranked| (ranked.label, ranked.score)),
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::model::fake::{Fake, body, request};

    #[test]
    fn an_image_gets_an_object_of_scores_best_first() {
        let form = b"--X\r\nContent-Disposition: form-data; name=\"data\"\r\n\r\ndog\r\n--X--\r\n";
        let multipart = [("content-type", "multipart/form-data; boundary=X")];
        for (header, sent) in [(&[][..], b"dog".as_slice()), (&multipart, form)] {
            let response = Fake::new().send(&request("POST", "/predictions/fake-1", header, sent));
            assert_eq!(response.status_code, 200);
            assert_eq!(
                String::from_utf8(response.body).unwrap(),
                r#"{"dog \"d\"":0.5,"cat":0.25,"crane":0.125}"#
            );
        }
    }

    #[test]
    fn of_two_classes_with_one_name_the_better_stands() {
        let response = Fake::new().send(&request("PUT", "/predictions/fake-1", &[], b"crane"));
        assert_eq!(body(&response)["crane"], 0.5);
    }

    #[test]
    fn another_model_is_not_found_and_an_empty_body_is_no_image() {
        let mut model = Fake::new();
        for (target, status, code) in [
            ("/predictions/other", 404, "unknown_model"),
            ("/predictions/fake-1/2.0", 404, "not_found"),
            ("/predictions/", 404, "not_found"),
            ("/predictions", 404, "not_found"),
            ("/predictions/fake-1", 400, "no_image"),
            ("/predictions/fake%2d1", 400, "no_image"),
            ("/predictions/fake-1?top_k=9", 400, "bad_query"),
        ] {
            let response = model.send(&request("POST", target, &[], b""));
            assert_eq!(response.status_code, status, "{target}");
            assert_eq!(body(&response)["code"], code, "{target}");
        }
    }
}
