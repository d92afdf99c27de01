//! multipart/form-data (RFC 7578), as far as one image in a form needs it.
//!
//! Parts are slices of the body: nothing is copied, and every byte is looked at a constant number
//! of times whatever the body holds.

use crate::{accept::parameter, answer::Problem};

// A form with one image in it has a handful of fields; the bound keeps a body of empty parts from
// costing more than an image would.
const MAX_PARTS: usize = 64;

// Content-Disposition and a type; browsers stay far below.
const MAX_PART_HEADER_BYTES: usize = 8 * 1024;

// RFC 2046, section 5.1.1.
const MAX_BOUNDARY_BYTES: usize = 70;

/// The boundary, if `content_type` says that the body is a form.
///
/// # Errors
/// [`Problem::BadMultipart`] when it says so without a usable boundary.
pub fn boundary(content_type: &str) -> Result<Option<&str>, Problem> {
    let (media_type, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !media_type.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Ok(None);
    }
    match parameter(parameters, "boundary") {
        Some(boundary) if (1..=MAX_BOUNDARY_BYTES).contains(&boundary.len()) => Ok(Some(boundary)),
        Some(_) => Err(Problem::BadMultipart("the boundary must have 1 to 70 characters")),
        None => Err(Problem::BadMultipart("the content type names no boundary")),
    }
}

/// The image in a form: the field `data`, else `file`, else the first field that is a file.
///
/// # Errors
/// [`Problem::BadMultipart`] for a body that is not such a form, [`Problem::NoImage`] for a form
/// without an image.
pub fn image<'a>(body: &'a [u8], boundary: &str) -> Result<&'a [u8], Problem> {
    let parts = parts(body, boundary)?;
    let named = |name: &str| parts.iter().find(|part| part.name == name);
    let part = named("data")
        .or_else(|| named("file"))
        .or_else(|| parts.iter().find(|part| part.is_file))
        .ok_or(Problem::NoImage("the form has no field `data` and no file"))?;
    if part.encoded {
        return Err(Problem::Encoding("Content-Transfer-Encoding".into()));
    }
    if part.content.is_empty() {
        return Err(Problem::NoImage("the form's image is empty"));
    }
    Ok(part.content)
}

struct Part<'a> {
    name: String,
    is_file: bool,
    /// Base64 or quoted-printable, which RFC 7578 took out.
    encoded: bool,
    content: &'a [u8],
}

fn parts<'a>(body: &'a [u8], boundary: &str) -> Result<Vec<Part<'a>>, Problem> {
    let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
    // The first delimiter may lack its line break, and a preamble may precede it.
    let mut rest = match body.strip_prefix(&delimiter[2..]) {
        Some(rest) => rest,
        None => split(body, &delimiter).ok_or(NO_END)?.1,
    };
    let mut parts = Vec::new();
    loop {
        // After a delimiter: `--` ends the form, else blanks and a line break begin a part.
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        let blanks = rest.iter().take_while(|&&byte| matches!(byte, b' ' | b'\t')).count();
        rest = rest[blanks..].strip_prefix(b"\r\n").ok_or(NO_END)?;
        if parts.len() == MAX_PARTS {
            return Err(Problem::BadMultipart("more than 64 parts"));
        }
        let (header, after) = header(rest)?;
        let (content, after) = split(after, &delimiter).ok_or(NO_END)?;
        parts.push(part(header, content)?);
        rest = after;
    }
}

const NO_END: Problem = Problem::BadMultipart("it ends before its closing boundary");

/// Splits a part into its header lines and what follows the blank line.
fn header(part: &[u8]) -> Result<(&str, &[u8]), Problem> {
    let window = &part[..part.len().min(MAX_PART_HEADER_BYTES)];
    let (header, after) = if part.starts_with(b"\r\n") {
        (&part[..0], &part[2..])
    } else {
        let (header, _) = split(window, b"\r\n\r\n")
            .ok_or(Problem::BadMultipart("a part's header has no end"))?;
        (header, &part[header.len() + 4..])
    };
    let header = std::str::from_utf8(header)
        .map_err(|_| Problem::BadMultipart("a part's header is not UTF-8"))?;
    Ok((header, after))
}

fn part<'a>(header: &str, content: &'a [u8]) -> Result<Part<'a>, Problem> {
    let field = |name: &str| {
        header.split("\r\n").find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let disposition = field("content-disposition")
        .ok_or(Problem::BadMultipart("a part has no Content-Disposition"))?;
    let (_, parameters) = disposition.split_once(';').unwrap_or((disposition, ""));
    let encoding = field("content-transfer-encoding").unwrap_or("binary");
    Ok(Part {
        name: parameter(parameters, "name").unwrap_or_default().to_owned(),
        is_file: parameter(parameters, "filename").is_some()
            || parameter(parameters, "filename*").is_some(),
        encoded: !["binary", "8bit", "7bit"].iter().any(|e| encoding.eq_ignore_ascii_case(e)),
        content,
    })
}

/// What stands before and after the first `needle`, which begins with a carriage return and has
/// no second one before its last two bytes: so attempts to match overlap by at most two bytes,
/// and the search is linear.
fn split<'a>(hay: &'a [u8], needle: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut from = 0;
    loop {
        let at = from + hay[from..].iter().position(|&byte| byte == b'\r')?;
        if hay[at..].starts_with(needle) {
            return Some((&hay[..at], &hay[at + needle.len()..]));
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (disposition, content) in parts {
            body.extend_from_slice(b"--XX\r\nContent-Disposition: form-data; ");
            body.extend_from_slice(disposition.as_bytes());
            body.extend_from_slice(b"\r\nContent-Type: image/png\r\n\r\n");
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--XX--\r\n");
        body
    }

    #[test]
    fn the_boundary_comes_from_the_content_type() {
        for (content_type, expected) in [
            ("multipart/form-data; boundary=XX", Ok(Some("XX"))),
            ("Multipart/Form-Data; charset=utf-8; Boundary=\"a b;c\"", Ok(Some("a b;c"))),
            ("image/png; boundary=XX", Ok(None)),
            ("multipart/mixed; boundary=XX", Ok(None)),
            ("", Ok(None)),
            ("multipart/form-data", Err(())),
            ("multipart/form-data; boundary=", Err(())),
            (&format!("multipart/form-data; boundary={}", "x".repeat(71)), Err(())),
        ] {
            assert_eq!(boundary(content_type).map_err(|_| ()), expected, "{content_type}");
        }
    }

    #[test]
    fn the_image_is_the_field_data_then_file_then_any_file() {
        let note = ("name=\"note\"", b"hello".as_slice());
        let upload = ("name=\"upload\"; filename=\"a.png\"", b"U".as_slice());
        let file = ("name=\"file\"; filename=\"b.png\"", b"F".as_slice());
        let data = ("name=\"data\"", b"D".as_slice());
        for (parts, expected) in [
            (vec![note, upload, file, data], Ok(b"D".as_slice())),
            (vec![note, upload, file], Ok(b"F".as_slice())),
            (vec![note, upload], Ok(b"U".as_slice())),
            (vec![note], Err("no_image")),
            (vec![], Err("no_image")),
            (vec![("name=data", b"".as_slice())], Err("no_image")),
        ] {
            let body = form(&parts);
            assert_eq!(image(&body, "XX").map_err(|e| e.code()), expected, "{parts:?}");
        }
    }

    #[test]
    fn content_may_hold_anything_but_the_delimiter() {
        let content = b"\r\n\r\n--X\r\n--Y\r\r\n--X\0\xff--XX";
        let body = form(&[("name=\"data\"", content)]);
        assert_eq!(image(&body, "XX").unwrap(), content);
    }

    #[test]
    fn a_preamble_and_blanks_after_a_boundary_are_skipped() {
        let body =
            b"hello\r\n--XX \t\r\nContent-Disposition: form-data; name=data\r\n\r\nD\r\n--XX--";
        assert_eq!(image(body, "XX").unwrap(), b"D");
    }

    #[test]
    fn a_form_cut_anywhere_is_malformed() {
        let body = form(&[("name=\"data\"", b"D"), ("name=\"x\"", b"y")]);
        // The break after the closing boundary is optional.
        for end in 0..body.len() - 2 {
            let problem = image(&body[..end], "XX").unwrap_err();
            assert_eq!(problem.code(), "bad_multipart", "cut at {end}");
        }
        assert!(image(&body[..body.len() - 2], "XX").is_ok());
    }

    #[test]
    fn malformed_parts_are_named() {
        let cases: [(&[u8], &str); 5] = [
            (b"--XX\r\n\r\nD\r\n--XX--", "bad_multipart"),
            (b"--XX\r\nContent-Type: image/png\r\n\r\nD\r\n--XX--", "bad_multipart"),
            (b"--XX\r\nContent-Disposition: form-data; name=\xff\r\n\r\nD\r\n--XX--", "bad_multipart"),
            (b"--XXContent-Disposition: form-data\r\n\r\nD\r\n--XX--", "bad_multipart"),
            (
                b"--XX\r\nContent-Disposition: form-data; name=data\r\nContent-Transfer-Encoding: base64\r\n\r\nD\r\n--XX--",
                "content_encoding",
            ),
        ];
        for (body, code) in cases {
            assert_eq!(image(body, "XX").unwrap_err().code(), code, "{}", body.escape_ascii());
        }
        let many = form(&vec![("name=x", b"".as_slice()); MAX_PARTS + 1]);
        assert_eq!(image(&many, "XX").unwrap_err().code(), "bad_multipart");
        let mut long = b"--XX\r\nContent-Disposition: form-data; name=data; x=".to_vec();
        long.resize(long.len() + MAX_PART_HEADER_BYTES, b'x');
        long.extend_from_slice(b"\r\n\r\nD\r\n--XX--");
        assert_eq!(image(&long, "XX").unwrap_err().code(), "bad_multipart");
    }
}
