//! Which request heads are well formed. hyper is lenient where RFC 9112 lets it be (line feeds
//! without carriage returns, `Host` missing or doubled, `Content-Length` beside
//! `Transfer-Encoding`); two parsers that are lenient in different ways are what request smuggling
//! lives on, so that here nothing is guessed.

use http::Uri;

/// How a body follows its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes; 0 when there is no body.
    Length(u64),
    /// Chunks, the last of length 0.
    Chunked,
}

/// Why a request head was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    #[error("a line of the request head ends in a bare line feed")]
    BareLineFeed,
    #[error("the request head holds a bare carriage return")]
    BareCarriageReturn,
    #[error("the request head holds a control character")]
    ControlCharacter,
    #[error("the request line is malformed")]
    RequestLine,
    #[error("only HTTP/1.1 and HTTP/1.0 are served here")]
    Version,
    #[error("CONNECT is not served here")]
    Connect,
    #[error("the request head is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("the request has more than {limit} header fields")]
    TooManyFields { limit: usize },
    #[error("a header field is malformed")]
    Field,
    #[error("the Host header is missing")]
    HostMissing,
    #[error("the Host header is repeated")]
    HostRepeated,
    #[error("the Host header is malformed")]
    HostMalformed,
    #[error("the Content-Length header is malformed or repeated")]
    ContentLength,
    #[error("the Transfer-Encoding is not `chunked`, once, in HTTP/1.1")]
    TransferEncoding,
    #[error("the request has both Content-Length and Transfer-Encoding")]
    LengthAndEncoding,
}

/// Finds the end of a head in bytes that arrive in pieces, and refuses bytes that no head holds
/// as soon as they arrive.
#[derive(Debug, Default)]
pub(crate) struct HeadScanner {
    at: usize,
}

impl HeadScanner {
    /// Looks at the bytes that are new since the last call; `bytes` always begins with the
    /// request line's first byte. Returns the head's length when its empty line has arrived.
    pub(crate) fn advance(
        &mut self,
        bytes: &[u8],
        limit: usize,
    ) -> Result<Option<usize>, HeadError> {
        while let Some(&byte) = bytes.get(self.at) {
            if self.at >= limit {
                return Err(HeadError::TooLong { limit });
            }
            match byte {
                b'\n' if self.at == 0 || bytes[self.at - 1] != b'\r' => {
                    return Err(HeadError::BareLineFeed);
                }
                b'\n' if bytes[..=self.at].ends_with(b"\r\n\r\n") => return Ok(Some(self.at + 1)),
                b'\n' | b'\t' | b' '..=b'~' | 0x80.. => {}
                b'\r' => match bytes.get(self.at + 1) {
                    // What follows decides, when it is here.
                    None => return Ok(None),
                    Some(b'\n') => {}
                    Some(_) => return Err(HeadError::BareCarriageReturn),
                },
                _ => return Err(HeadError::ControlCharacter),
            }
            self.at += 1;
        }
        Ok(None)
    }
}

/// Checks a whole head, its empty line included, as [`HeadScanner`] delimited it.
pub(crate) fn check_head(head: &[u8], max_fields: usize) -> Result<Framing, HeadError> {
    let text = head.strip_suffix(b"\r\n\r\n").ok_or(HeadError::RequestLine)?;
    let mut lines = lines(text);
    let version = check_request_line(lines.next().unwrap_or_default())?;

    let mut hosts = 0;
    let mut length = None;
    let mut chunked = false;
    for (index, line) in lines.enumerate() {
        if index >= max_fields {
            return Err(HeadError::TooManyFields { limit: max_fields });
        }
        // A line that begins with white space would continue the one before (obs-fold); its name
        // is then no token, nor is one with white space before the colon.
        let colon = line.iter().position(|&b| b == b':').ok_or(HeadError::Field)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(|&b| is_token(b)) {
            return Err(HeadError::Field);
        }
        if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
            if hosts > 1 {
                return Err(HeadError::HostRepeated);
            }
            if value.is_empty() || !value.iter().all(|&b| is_host(b)) {
                return Err(HeadError::HostMalformed);
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let read = read_length(value).ok_or(HeadError::ContentLength)?;
            if length.replace(read).is_some() {
                return Err(HeadError::ContentLength);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked || version == Version::Http10 || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HeadError::TransferEncoding);
            }
            chunked = true;
        }
    }
    if hosts == 0 && version == Version::Http11 {
        return Err(HeadError::HostMissing);
    }
    match (length, chunked) {
        (Some(_), true) => Err(HeadError::LengthAndEncoding),
        (_, true) => Ok(Framing::Chunked),
        (length, false) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

/// The length of the request head that arrives in these pieces, its empty line included, when it
/// is one that is let through; `None` when it has not ended yet. Fuzz targets call this: a
/// connection does the same as its bytes arrive.
///
/// # Errors
/// What is wrong with the head.
pub fn head_len(
    pieces: &[&[u8]],
    limits: &crate::Limits,
) -> Result<Option<usize>, Box<dyn std::error::Error + Send + Sync>> {
    let mut scanner = HeadScanner::default();
    let mut held = Vec::new();
    for piece in pieces {
        held.extend_from_slice(piece);
        if let Some(length) = scanner.advance(&held, limits.max_header_bytes)? {
            check_head(&held[..length], limits.max_header_fields)?;
            return Ok(Some(length));
        }
    }
    Ok(None)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

fn check_request_line(line: &[u8]) -> Result<Version, HeadError> {
    let mut words = line.split(|&b| b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(HeadError::RequestLine);
    };
    if method.is_empty() || !method.iter().all(|&b| is_token(b)) {
        return Err(HeadError::RequestLine);
    }
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        // Also the preface of HTTP/2, `PRI * HTTP/2.0`.
        other if other.starts_with(b"HTTP/") => return Err(HeadError::Version),
        _ => return Err(HeadError::RequestLine),
    };
    if method == b"CONNECT" {
        return Err(HeadError::Connect);
    }
    let is_path = target.starts_with(b"/");
    let is_absolute = [&b"http://"[..], b"https://"].iter().any(|scheme| {
        target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    let is_asterisk = method == b"OPTIONS" && target == b"*";
    let is_ascii = target.iter().all(u8::is_ascii_graphic);
    // The last condition is hyper's own: what it would refuse is refused here, with our answer.
    if !(is_path || is_absolute || is_asterisk) || !is_ascii || Uri::try_from(target).is_err() {
        return Err(HeadError::RequestLine);
    }
    Ok(version)
}

/// Lines of a head whose every line feed follows a carriage return.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn read_length(value: &[u8]) -> Option<u64> {
    // `parse` alone would take a sign.
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 3986, 3.2.2 and 3.2.3, without the comma, which some proxies join two hosts by.
fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &[u8]) -> Result<Framing, HeadError> {
        match HeadScanner::default().advance(head, 1024)? {
            Some(end) => check_head(&head[..end], 4),
            None => panic!("no end found in {:?}", String::from_utf8_lossy(head)),
        }
    }

    #[test]
    fn well_formed_heads_pass_with_their_framing() {
        for (head, framing) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(0)),
            ("GET / HTTP/1.0\r\n\r\n", Framing::Length(0)),
            (
                "PUT /a?b=c HTTP/1.1\r\nhost:[::1]:80\r\ncontent-length: 12\r\n\r\n",
                Framing::Length(12),
            ),
            ("POST / HTTP/1.1\r\nHOST: a\r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::Chunked),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(0)),
            ("GET HTTP://a/b HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(0)),
            ("GET / HTTP/1.1\r\nHost: a\r\nx:\tb \u{e9}\t\r\n\r\n", Framing::Length(0)),
            ("GET / HTTP/1.1\r\nHost: a\r\nx:\r\n\r\n", Framing::Length(0)),
        ] {
            assert_eq!(check(head.as_bytes()), Ok(framing), "head: {head:?}");
        }
    }

    #[test]
    fn malformed_heads_are_refused_with_their_reason() {
        use HeadError as E;
        for (head, error) in [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", E::BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", E::BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: a\n\n", E::BareLineFeed),
            ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", E::BareLineFeed),
            ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", E::BareCarriageReturn),
            ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", E::BareCarriageReturn),
            ("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", E::ControlCharacter),
            ("GET / HTTP/1.1\r\nHost: a\r\nx: \x7f\r\n\r\n", E::ControlCharacter),
            ("GET /\r\n\r\n", E::RequestLine),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", E::RequestLine),
            (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", E::RequestLine),
            ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", E::RequestLine),
            ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", E::RequestLine),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", E::RequestLine),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", E::RequestLine),
            ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", E::RequestLine),
            ("GET / http/1.1\r\nHost: a\r\n\r\n", E::RequestLine),
            ("GET /<b> HTTP/1.1\r\nHost: a\r\n\r\n", E::RequestLine),
            ("GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", E::RequestLine),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", E::Version),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", E::Version),
            ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", E::Connect),
            ("GET / HTTP/1.1\r\n\r\n", E::HostMissing),
            ("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", E::HostRepeated),
            ("GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n", E::HostRepeated),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", E::HostMalformed),
            ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", E::HostMalformed),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", E::HostMalformed),
            ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", E::HostMalformed),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", E::Field),
            ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", E::Field),
            ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", E::Field),
            ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", E::Field),
            (
                "GET / HTTP/1.1\r\na: b\r\na: b\r\na: b\r\na: b\r\na: b\r\n\r\n",
                E::TooManyFields { limit: 4 },
            ),
            ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\n", E::ContentLength),
            ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: -4\r\n\r\n", E::ContentLength),
            ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4\r\n\r\n", E::ContentLength),
            ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n\r\n", E::ContentLength),
            ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", E::ContentLength),
            (
                "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
                E::ContentLength,
            ),
            (
                "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
                E::ContentLength,
            ),
            (
                "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
                E::TransferEncoding,
            ),
            (
                "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                E::TransferEncoding,
            ),
            (
                "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
                E::TransferEncoding,
            ),
            (
                "PUT / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                E::TransferEncoding,
            ),
            (
                "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                E::TransferEncoding,
            ),
            (
                "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
                E::LengthAndEncoding,
            ),
            (
                "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
                E::LengthAndEncoding,
            ),
        ] {
            assert_eq!(check(head.as_bytes()), Err(error), "head: {head:?}");
        }
    }

    #[test]
    fn the_end_is_found_however_the_bytes_arrive() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let message = [&head[..], b"body\n\n"].concat();
        for first in 0..=message.len() {
            let mut scanner = HeadScanner::default();
            let found = match scanner.advance(&message[..first], 1024).unwrap() {
                Some(end) => Some(end),
                None => scanner.advance(&message, 1024).unwrap(),
            };
            assert_eq!(found, Some(head.len()), "cut at {first}");
        }
    }

    #[test]
    fn a_head_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(HeadScanner::default().advance(head, head.len()), Ok(Some(head.len())));
        let limit = head.len() - 1;
        assert_eq!(HeadScanner::default().advance(head, limit), Err(HeadError::TooLong { limit }));
    }
}
