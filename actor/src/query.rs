//! The parts of a request's target: path segments and query parameters.

use std::borrow::Cow;

use crate::answer::Problem;

/// Undoes percent-encoding; `None` when what comes out is not UTF-8. A `%` that no two hex
/// digits follow stands for itself, as browsers have it.
#[must_use]
pub fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digit = |offset: usize| bytes.get(at + offset).and_then(|b| (*b as char).to_digit(16));
        match (byte, digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                // Two hex digits are at most 255.
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

/// The value of `top_k`, if the query has one.
///
/// # Errors
/// [`Problem::BadQuery`] unless it is one whole number from 1 to `classes`.
pub fn top_k(query: &str, classes: usize) -> Result<Option<usize>, Problem> {
    let mut found = None;
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if percent_decoded(name).as_deref() != Some("top_k") {
            continue;
        }
        let k = percent_decoded(value)
            .filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|value| value.parse().ok())
            .filter(|k| (1..=classes).contains(k));
        if k.is_none() || found.is_some() {
            return Err(Problem::BadQuery(format!(
                "top_k must be given once, as a whole number from 1 to {classes}"
            )));
        }
        found = k;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_are_undone_and_stray_ones_stay() {
        for (text, expected) in [
            ("plain", Some("plain")),
            ("a%20b%2Fc", Some("a b/c")),
            ("%e4%bd%a0", Some("\u{4f60}")),
            ("100%", Some("100%")),
            ("%4", Some("%4")),
            ("%zz", Some("%zz")),
            ("%+1", Some("%+1")),
            ("%\u{e4}1", Some("%\u{e4}1")),
            ("%ff", None),
            ("%00", Some("\0")),
        ] {
            assert_eq!(percent_decoded(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn top_k_is_a_whole_number_within_the_classes() {
        for (query, expected) in [
            ("", Ok(None)),
            ("x=1&topk=3", Ok(None)),
            ("top_k=1", Ok(Some(1))),
            ("a=b&top_k=10&c", Ok(Some(10))),
            ("top%5fk=%35", Ok(Some(5))),
            ("top_k=0", Err(())),
            ("top_k=11", Err(())),
            ("top_k=", Err(())),
            ("top_k", Err(())),
            ("top_k=-1", Err(())),
            ("top_k=+1", Err(())),
            ("top_k=1.5", Err(())),
            ("top_k=99999999999999999999999", Err(())),
            ("top_k=%ff", Err(())),
            ("top_k=2&top_k=3", Err(())),
        ] {
            assert_eq!(top_k(query, 10).map_err(|_| ()), expected, "{query}");
        }
    }
}
