//! What GET / shows: a page for a person, a card for a program.

use serde_json::json;
use wire::{RequestView, Response};

use crate::{accept, answer, model::Model};

const PAGE: &str = include_str!("page.html");

// Only the style and the script that stand in the page may act, told by their hashes; pictures
// are shown from memory, and nothing is loaded from anywhere. A test computes the hashes anew.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
     style-src 'sha256-eVnaRYCzVj7UVCOIzFDNsVaxFWZDQKaFwT5JeJr0Qso='; \
     script-src 'sha256-QVDe3F9Jcx8Na9QaFNuUHb/hDEV4FZx3OfaJ2evvfps='; \
     img-src blob: data:; connect-src 'self'; form-action 'self'; \
     base-uri 'none'; frame-ancestors 'none'";

/// The page when a browser asks, else the card.
pub fn answer(model: &dyn Model, request: &RequestView<'_>) -> Response {
    let accept = request.header.get("accept").map_or("", String::as_str);
    let mut answer =
        if accept::wants_page(accept) { page(model, request) } else { card(model, request) };
    answer.header.insert("vary".into(), "accept".into());
    answer
}

fn page(model: &dyn Model, request: &RequestView<'_>) -> Response {
    let spec = &model.spec().model;
    let description = match spec.description.trim_end_matches('.') {
        "" => String::new(),
        sentence => format!("{sentence}."),
    };
    let values = [
        ("name", spec.name.as_str()),
        ("version", &spec.version),
        ("description", &description),
        ("classes", &model.labels().len().to_string()),
        ("url", &url(request)),
    ];
    let mut answer = answer::with_body(200, "text/html; charset=utf-8", fill(PAGE, &values).into());
    for (name, value) in [
        ("content-security-policy", CONTENT_SECURITY_POLICY),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        answer.header.insert(name.into(), value.into());
    }
    answer
}

fn card(model: &dyn Model, request: &RequestView<'_>) -> Response {
    let spec = model.spec();
    let (height, width) = spec.input.height_width();
    let name = &spec.model.name;
    let url = url(request);
    answer::json(
        200,
        &json!({
            "model": name,
            "version": spec.model.version,
            "description": spec.model.description,
            "licence": spec.model.licence,
            "source": spec.model.source,
            // Only the host knows the bytes it verified; a host that is not ours says nothing.
            "digest": request.header.get(wire::DIGEST_HEADER),
            "input": {
                "name": spec.input.name,
                "shape": spec.input.shape,
                "dtype": spec.input.dtype,
                "layout": spec.input.layout,
                "height": height,
                "width": width,
                "channels": spec.preprocess.channels,
                "formats": ["JPEG", "PNG", "WebP", "GIF", "BMP"],
            },
            "output": {
                "name": spec.output.name,
                "kind": spec.output.kind,
                "classes": model.labels().len(),
                "top_k": spec.output.top_k,
            },
            "labels": model.labels(),
            "usage": {
                "label": format!("curl -T cat.png {url}"),
                "scores": format!("curl -T cat.png '{url}?top_k=5'"),
                "torchserve": format!("curl -T cat.png {url}predictions/{name}"),
                "open_inference": format!("{url}v2/models/{name}"),
            },
        }),
    )
}

/// The address the client used, as far as it is fit to be shown.
fn url(request: &RequestView<'_>) -> String {
    let fit = |host: &&String| {
        (1..=255).contains(&host.len())
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b))
    };
    let host = request.header.get("host").filter(fit).map_or("HOST", String::as_str);
    format!("http://{host}/")
}

/// Puts values in the places of `{{name}}`, escaped for HTML text.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut page = String::with_capacity(template.len() + 256);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        page.push_str(before);
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        let value = values.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
        for character in value.chars() {
            match character {
                '&' => page.push_str("&amp;"),
                '<' => page.push_str("&lt;"),
                '>' => page.push_str("&gt;"),
                '"' => page.push_str("&quot;"),
                '\'' => page.push_str("&#39;"),
                other => page.push(other),
            }
        }
        rest = after;
    }
    page + rest
}

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::model::fake::{Fake, body, request};

    const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

    fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
        text.split_once(start).unwrap().1.split_once(end).unwrap().0
    }

    #[test]
    fn the_policy_allows_exactly_the_style_and_the_script_of_the_page() {
        for (directive, start, end) in
            [("style-src", "<style>", "</style>"), ("script-src", "<script>", "</script>")]
        {
            let hash = BASE64_STANDARD.encode(Sha256::digest(between(PAGE, start, end)));
            let expected = format!("{directive} 'sha256-{hash}'; ");
            assert!(CONTENT_SECURITY_POLICY.contains(&expected), "expected {expected}");
        }
        assert_eq!(PAGE.matches("<script").count(), 1);
        assert_eq!(PAGE.matches("<style").count(), 1);
        for forbidden in
            ["style=\"", "onclick", "onload", "http://", "https://", "innerHTML", "src=\""]
        {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn a_browser_gets_the_page_with_every_place_filled() {
        let header = [BROWSER, ("host", "localhost:8081")];
        let response = Fake::new().send(&request("GET", "/", &header, b""));
        assert_eq!(response.status_code, 200);
        assert_eq!(response.header["content-type"], "text/html; charset=utf-8");
        assert!(response.header.contains_key("content-security-policy"));
        let page = String::from_utf8(response.body).unwrap();
        assert!(!page.contains("{{"), "a place was left open");
        assert!(page.contains("<h1>fake-1</h1>"));
        assert!(page.contains("tells &lt;b&gt; &amp; c."), "the description must be escaped");
        assert!(page.contains("curl -T cat.png http://localhost:8081/"));
        assert!(page.contains("4 classes"));
    }

    #[test]
    fn a_program_gets_the_card() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let header =
            [("host", "localhost:8081"), ("accept", "*/*"), (wire::DIGEST_HEADER, &digest)];
        let card = body(&Fake::new().send(&request("GET", "/?x=1", &header, b"")));
        assert_eq!(card["model"], "fake-1");
        assert_eq!(card["version"], "1.2");
        assert_eq!(card["digest"], digest);
        assert_eq!(card["input"]["shape"], json!([1, 1, 2, 2]));
        assert_eq!(card["input"]["name"], "pixels");
        assert_eq!(card["output"]["classes"], 4);
        assert_eq!(card["labels"], json!(["cat", "dog \"d\"", "crane", "crane"]));
        assert_eq!(card["usage"]["label"], "curl -T cat.png http://localhost:8081/");
        let foreign = body(&Fake::new().send(&request("GET", "/", &[], b"")));
        assert_eq!(foreign["digest"], serde_json::Value::Null);
    }

    #[test]
    fn a_host_that_is_not_a_name_is_not_repeated() {
        for host in ["<script>", "a b", "", "x'y", &"a".repeat(300)] {
            let response = Fake::new().send(&request("GET", "/", &[BROWSER, ("host", host)], b""));
            let page = String::from_utf8(response.body).unwrap();
            assert!(page.contains("http://HOST/"), "{host}");
        }
    }
}
