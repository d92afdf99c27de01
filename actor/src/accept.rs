//! What a client would like to get: the `Accept` field, as far as we have a choice.

/// Whether the client asks for `[{"label", "score"}, ...]` by
/// `Accept: application/json;profile=scores`.
#[must_use]
pub fn wants_scores(accept: &str) -> bool {
    ranges(accept).any(|range| {
        range.is("application/json")
            && range.quality > 0.0
            && range.parameter("profile").is_some_and(|value| value.eq_ignore_ascii_case("scores"))
    })
}

/// Whether a person's browser asks: HTML is named, and JSON is not preferred to it. A mere `*/*`
/// (curl, most libraries) is not a wish for a page.
#[must_use]
pub fn wants_page(accept: &str) -> bool {
    let best = |types: &[&str]| {
        ranges(accept)
            .filter(|range| types.iter().any(|media_type| range.is(media_type)))
            .map(|range| range.quality)
            .fold(0.0, f32::max)
    };
    let html = best(&["text/html", "application/xhtml+xml", "text/*"]);
    html > 0.0 && html >= best(&["application/json"])
}

/// One media range of an `Accept` field.
struct Range<'a> {
    media_type: &'a str,
    parameters: &'a str,
    quality: f32,
}

impl<'a> Range<'a> {
    fn is(&self, media_type: &str) -> bool {
        self.media_type.eq_ignore_ascii_case(media_type)
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        parameter(self.parameters, name)
    }
}

fn ranges(accept: &str) -> impl Iterator<Item = Range<'_>> {
    split_outside_quotes(accept, ',').map(|range| {
        let (media_type, parameters) = range.split_once(';').unwrap_or((range, ""));
        let quality = parameter(parameters, "q")
            .map_or(1.0, |q| q.parse().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0));
        Range { media_type: media_type.trim(), parameters, quality }
    })
}

/// The value of one `;name=value` parameter, without its quotes. Backslash escapes inside quotes
/// stay as they are: no value that we compare needs one.
#[must_use]
pub fn parameter<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    split_outside_quotes(parameters, ';').find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
        key.trim().eq_ignore_ascii_case(name).then_some(value)
    })
}

fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |c: char| {
        let ends = c == separator && !quoted;
        if escaped {
            escaped = false;
        } else if c == '\\' && quoted {
            escaped = true;
        } else if c == '"' {
            quoted = !quoted;
        }
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_asked_for_by_a_profile() {
        for (accept, expected) in [
            ("application/json;profile=scores", true),
            ("application/json; profile=\"scores\"", true),
            ("Application/JSON;Profile=Scores", true),
            ("text/html, application/json;q=0.5;profile=scores", true),
            ("text/plain;x=\"a,b;c\\\"d\", application/json;profile=scores", true),
            ("application/json;profile=scores;q=0", false),
            ("application/json", false),
            ("text/html;profile=scores", false),
            ("text/plain;x=\"application/json;profile=scores\"", false),
            ("application/json;profile=\"", false),
            ("*/*", false),
            ("", false),
        ] {
            assert_eq!(wants_scores(accept), expected, "Accept: {accept}");
        }
    }

    #[test]
    fn a_page_is_for_browsers_only() {
        for (accept, expected) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("text/html", true),
            ("text/html;q=0.5, application/json;q=0.4", true),
            ("text/html;q=0.4, application/json;q=0.5", false),
            ("text/html;q=0", false),
            ("text/html;q=NaN", false),
            ("text/html;q=7", false),
            ("application/json", false),
            ("*/*", false),
            ("", false),
            (",;,;=,", false),
        ] {
            assert_eq!(wants_page(accept), expected, "Accept: {accept}");
        }
    }
}
