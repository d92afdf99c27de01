//! Which path leads where: exact routes first; other paths under `/v1`, `/v2` and `/predictions`
//! do not exist; everything else is a raw image.

use wire::{RequestView, Response};

use crate::{
    answer::{Problem, empty},
    model::{Mark, Model},
    openinference, page, query, raw, torchserve,
};

/// Answers one request, whatever it is. HEAD is answered as GET is: how long the body would be is
/// part of that answer, and to leave the body out is the part of whoever writes HTTP.
pub fn answer(model: &mut dyn Model, request: &RequestView<'_>, mark: Mark<'_>) -> Response {
    dispatch(model, request, mark).unwrap_or_else(|problem| {
        if let Problem::ModelFailed(reason) = &problem {
            log::error!("The model failed: {reason}");
        }
        problem.answer()
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// Card, page, or a raw image.
    Home,
    RawImage,
    Predictions,
    ServerMetadata,
    ServerLive,
    ServerReady,
    ModelMetadata,
    ModelReady,
    Infer,
    KserveV1Predict,
}

impl Route {
    /// The value of `Allow`. PUT counts as POST, since that is what `curl -T` sends.
    fn allow(self) -> &'static str {
        match self {
            Route::Home => "GET, HEAD, OPTIONS, POST, PUT",
            Route::RawImage | Route::Predictions | Route::Infer | Route::KserveV1Predict => {
                "OPTIONS, POST, PUT"
            }
            Route::ServerMetadata
            | Route::ServerLive
            | Route::ServerReady
            | Route::ModelMetadata
            | Route::ModelReady => "GET, HEAD, OPTIONS",
        }
    }
}

fn dispatch(
    model: &mut dyn Model,
    request: &RequestView<'_>,
    mark: Mark<'_>,
) -> Result<Response, Problem> {
    let route = find(&request.path, model)?;
    let (reads, writes) = match request.method.as_ref() {
        "GET" | "HEAD" => (true, false),
        "POST" | "PUT" => (false, true),
        "OPTIONS" => {
            let mut answer = empty(204);
            answer.header.insert("allow".into(), route.allow().into());
            return Ok(answer);
        }
        _ => (false, false),
    };
    match route {
        Route::Home if reads => Ok(page::answer(model, request)),
        Route::Home | Route::RawImage if writes => raw::answer(model, request, mark),
        Route::Predictions if writes => torchserve::answer(model, request, mark),
        Route::Infer if writes => openinference::infer(model, request, mark),
        Route::KserveV1Predict if writes => Err(Problem::NotYet("the KServe v1 protocol")),
        Route::ServerMetadata if reads => Ok(openinference::server_metadata()),
        Route::ServerLive if reads => Ok(openinference::server_live()),
        Route::ServerReady if reads => Ok(openinference::server_ready()),
        Route::ModelMetadata if reads => Ok(openinference::model_metadata(model)),
        Route::ModelReady if reads => Ok(openinference::model_ready(model)),
        _ => Err(Problem::MethodNotAllowed { allow: route.allow() }),
    }
}

fn find(path: &str, model: &dyn Model) -> Result<Route, Problem> {
    // `OPTIONS *` asks about the server as a whole.
    if matches!(path, "" | "/" | "*") {
        return Ok(Route::Home);
    }
    let segments: Vec<_> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    match segments[..] {
        ["predictions", name] if !name.is_empty() => {
            this_model(name, model).map(|()| Route::Predictions)
        }
        ["v2"] => Ok(Route::ServerMetadata),
        ["v2", "health", "live"] => Ok(Route::ServerLive),
        ["v2", "health", "ready"] => Ok(Route::ServerReady),
        // The version is optional; the one that is here may be named.
        ["v2", "models", name, ref rest @ ..] if !name.is_empty() => {
            let (version, rest) = match *rest {
                ["versions", version, ref rest @ ..] => (Some(version), rest),
                ref rest => (None, rest),
            };
            let route = match *rest {
                [] => Route::ModelMetadata,
                ["ready"] => Route::ModelReady,
                ["infer"] => Route::Infer,
                _ => return Err(Problem::NotFound),
            };
            this_model(name, model)?;
            match version {
                Some(version) if !is(version, &model.spec().model.version) => Err(unknown(model)),
                _ => Ok(route),
            }
        }
        ["v1", "models", name] => match name.strip_suffix(":predict") {
            Some(name) => this_model(name, model).map(|()| Route::KserveV1Predict),
            None => Err(Problem::NotFound),
        },
        ["v1" | "v2" | "predictions", ..] => Err(Problem::NotFound),
        _ => Ok(Route::RawImage),
    }
}

fn this_model(name: &str, model: &dyn Model) -> Result<(), Problem> {
    if is(name, &model.spec().model.name) { Ok(()) } else { Err(unknown(model)) }
}

fn is(segment: &str, name: &str) -> bool {
    query::percent_decoded(segment).is_some_and(|segment| segment == name)
}

fn unknown(model: &dyn Model) -> Problem {
    let model = &model.spec().model;
    Problem::UnknownModel { name: model.name.clone(), version: model.version.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fake::{Fake, body, request};

    #[test]
    fn exact_paths_come_first_and_reserved_ones_never_take_an_image() {
        let model = Fake::new();
        for (path, expected) in [
            ("/", Ok(Route::Home)),
            ("", Ok(Route::Home)),
            ("*", Ok(Route::Home)),
            ("/cat.png", Ok(Route::RawImage)),
            ("cat.png", Ok(Route::RawImage)),
            ("//", Ok(Route::RawImage)),
            ("/v2.png", Ok(Route::RawImage)),
            ("/x/v2", Ok(Route::RawImage)),
            ("/predictions/fake-1", Ok(Route::Predictions)),
            ("/predictions/%66ake-1", Ok(Route::Predictions)),
            ("/predictions/other", Err("unknown_model")),
            ("/predictions", Err("not_found")),
            ("/predictions/", Err("not_found")),
            ("/predictions/fake-1/", Err("not_found")),
            ("/v2", Ok(Route::ServerMetadata)),
            ("/v2/", Err("not_found")),
            ("/v2/health", Err("not_found")),
            ("/v2/health/live", Ok(Route::ServerLive)),
            ("/v2/health/ready", Ok(Route::ServerReady)),
            ("/v2/health/ready/", Err("not_found")),
            ("/v2/models", Err("not_found")),
            ("/v2/models/", Err("not_found")),
            ("/v2/models/fake-1", Ok(Route::ModelMetadata)),
            ("/v2/models/fake-1/ready", Ok(Route::ModelReady)),
            ("/v2/models/fake-1/infer", Ok(Route::Infer)),
            ("/v2/models/fake-1/versions/1.2", Ok(Route::ModelMetadata)),
            ("/v2/models/fake-1/versions/1.2/infer", Ok(Route::Infer)),
            ("/v2/models/fake-1/versions/9/infer", Err("unknown_model")),
            ("/v2/models/fake-1/versions", Err("not_found")),
            ("/v2/models/fake-1/load", Err("not_found")),
            ("/v2/models/other", Err("unknown_model")),
            ("/v2/models/other/load", Err("not_found")),
            ("/v2/repository/index", Err("not_found")),
            ("/v1", Err("not_found")),
            ("/v1/models", Err("not_found")),
            ("/v1/models/fake-1", Err("not_found")),
            ("/v1/models/fake-1:predict", Ok(Route::KserveV1Predict)),
            ("/v1/models/other:predict", Err("unknown_model")),
        ] {
            assert_eq!(find(path, &model).map_err(|problem| problem.code()), expected, "{path}");
        }
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        for (method, path, allow) in [
            ("DELETE", "/", "GET, HEAD, OPTIONS, POST, PUT"),
            ("PATCH", "/cat.png", "OPTIONS, POST, PUT"),
            ("GET", "/cat.png", "OPTIONS, POST, PUT"),
            ("get", "/", "GET, HEAD, OPTIONS, POST, PUT"),
            ("GET", "/predictions/fake-1", "OPTIONS, POST, PUT"),
            ("GET", "/v2/models/fake-1/infer", "OPTIONS, POST, PUT"),
            ("GET", "/v1/models/fake-1:predict", "OPTIONS, POST, PUT"),
            ("POST", "/v2", "GET, HEAD, OPTIONS"),
            ("PUT", "/v2/health/live", "GET, HEAD, OPTIONS"),
            ("POST", "/v2/health/ready", "GET, HEAD, OPTIONS"),
            ("POST", "/v2/models/fake-1", "GET, HEAD, OPTIONS"),
            ("POST", "/v2/models/fake-1/ready", "GET, HEAD, OPTIONS"),
        ] {
            let response = Fake::new().send(&request(method, path, &[], b"cat"));
            assert_eq!(response.status_code, 405, "{method} {path}");
            assert_eq!(response.header["allow"], allow, "{method} {path}");
            assert_eq!(body(&response)["code"], "method_not_allowed");
        }
    }

    #[test]
    fn options_lists_the_methods_without_doing_anything() {
        let mut model = Fake::new();
        for (path, allow) in [
            ("*", "GET, HEAD, OPTIONS, POST, PUT"),
            ("/cat.png", "OPTIONS, POST, PUT"),
            ("/v2", "GET, HEAD, OPTIONS"),
        ] {
            let response = model.send(&request("OPTIONS", path, &[], b"cat"));
            assert_eq!((response.status_code, response.body.len()), (204, 0));
            assert_eq!(response.header["allow"], allow);
            assert!(model.marks.is_empty());
        }
        assert_eq!(model.send(&request("OPTIONS", "/v2/x", &[], b"")).status_code, 404);
    }

    #[test]
    fn head_is_answered_as_get_is() {
        for path in ["/", "/v2", "/v2/models/fake-1", "/v2/nothing", "/cat.png"] {
            let get = Fake::new().send(&request("GET", path, &[], b""));
            assert_eq!(Fake::new().send(&request("HEAD", path, &[], b"")), get, "{path}");
        }
    }

    #[test]
    fn kserve_v1_is_not_there_yet() {
        let response = Fake::new().send(&request("POST", "/v1/models/fake-1:predict", &[], b"{}"));
        assert_eq!(response.status_code, 501);
        assert_eq!(body(&response)["code"], "not_yet");
    }
}
