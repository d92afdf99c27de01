//! HTTP with limits: clients, retries, bounded bodies, and errors that name the registry.

use std::{
    error::Error,
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Certificate, Client, RequestBuilder, Response, StatusCode, Url,
    header::{CONTENT_TYPE, RETRY_AFTER},
    redirect::{Attempt, Policy},
};
use serde::Deserialize;

use crate::{
    error::{Cause, RegistryError},
    options::{Authority, RegistryOptions, is_loopback},
    reference::shortened,
};

/// Clients and patience; clones share connections.
#[derive(Clone)]
pub(crate) struct Transport {
    inner: Arc<Inner>,
}

struct Inner {
    options: RegistryOptions,
    /// To other machines, by way of the proxies that the environment names.
    outside: OnceLock<Result<Client, Cause>>,
    /// To this machine, without proxies.
    inside: OnceLock<Result<Client, Cause>>,
}

impl Transport {
    pub(crate) fn new(options: RegistryOptions) -> Self {
        install_provider();
        let (outside, inside) = (OnceLock::new(), OnceLock::new());
        Transport { inner: Arc::new(Inner { options, outside, inside }) }
    }

    pub(crate) fn options(&self) -> &RegistryOptions {
        &self.inner.options
    }

    /// The client for a registry; made on first use, as it reads the system's certificates.
    pub(crate) fn client(&self, host: &str) -> Result<&Client, RegistryError> {
        let inside = is_loopback(host);
        let slot = if inside { &self.inner.inside } else { &self.inner.outside };
        slot.get_or_init(|| client(&self.inner.options, inside))
            .as_ref()
            .map_err(|source| RegistryError::Client { source: source.clone() })
    }

    /// Sends a request until it is answered with something that trying again would not change.
    pub(crate) async fn send(
        &self,
        host: &str,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let client = self.client(host)?;
        let options = &self.inner.options;
        let (mut pause, mut attempt) = (options.pause, 0);
        loop {
            attempt += 1;
            let (error, wait) = match request(client).send().await {
                Ok(response) if !is_transient(response.status()) => return Ok(response),
                Ok(response) => {
                    let wait = retry_after(&response);
                    (failure(host, response).await, wait)
                }
                Err(error) => (self.error(host, &error), None),
            };
            if attempt >= options.attempts || !error.is_transient() {
                return Err(error);
            }
            tracing::debug!(registry = host, attempt, %error, "Trying again");
            tokio::time::sleep(wait.unwrap_or(pause)).await;
            pause = pause.saturating_mul(2);
        }
    }

    /// What became of a request or of a body on its way.
    pub(crate) fn error(&self, host: &str, error: &reqwest::Error) -> RegistryError {
        let host = host.to_owned();
        let options = &self.inner.options;
        if error.is_timeout() {
            let connecting = error.is_connect();
            let after = if connecting { options.connect_timeout } else { options.idle_timeout };
            return RegistryError::Timeout { host, after };
        }
        let found = Roots::of(error);
        if error.is_redirect() {
            return RegistryError::Redirect { host, reason: found.text };
        }
        let (tls, refused) = (found.tls, found.refused);
        let source: Cause = Arc::new(RootCause(found.text));
        match tls {
            true => RegistryError::Tls { host, source },
            false => RegistryError::Unreachable { host, refused, source },
        }
    }
}

/// Makes ring the process's TLS provider, unless the process chose one.
fn install_provider() {
    // An error says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn client(options: &RegistryOptions, inside: bool) -> Result<Client, Cause> {
    let mut authorities = Vec::new();
    for der in options.authorities.iter().flat_map(Authority::certificates) {
        authorities.push(Certificate::from_der(der).map_err(|error| Arc::new(error) as Cause)?);
    }
    let builder = || {
        let builder = Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.idle_timeout)
            .redirect(Policy::custom(follow));
        if inside { builder.no_proxy() } else { builder }
    };
    // A machine without any certificate authority still has its plain-HTTP registries.
    builder()
        .tls_certs_merge(authorities.clone())
        .build()
        .or_else(|_| builder().tls_certs_only(authorities).build())
        .map_err(|error| Arc::new(error) as Cause)
}

/// Registries send downloads to their storage. They may not lead in circles, from TLS to plain
/// HTTP, or from elsewhere to this machine and its cloud's metadata service.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let previous = attempt.previous();
    let (Some(first), Some(last)) = (previous.first(), previous.last()) else {
        return attempt.follow();
    };
    let reason = if previous.len() > MAX_REDIRECTS {
        "in circles"
    } else if last.scheme() == "https" && attempt.url().scheme() != "https" {
        "from TLS to a connection without"
    } else if !is_inside(first) && is_inside(attempt.url()) {
        "to this machine itself"
    } else {
        return attempt.follow();
    };
    attempt.error(RootCause(reason.into()))
}

/// Whether a URL leads to this machine, or to addresses that only this machine can reach.
pub(crate) fn is_inside(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return true };
    if is_loopback(host) {
        return true;
    }
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    match address {
        Ok(std::net::IpAddr::V4(address)) => address.is_link_local() || address.is_unspecified(),
        Ok(std::net::IpAddr::V6(address)) => {
            address.is_unicast_link_local()
                || address.is_unspecified()
                || address
                    .to_ipv4_mapped()
                    .is_some_and(|v4| v4.is_loopback() || v4.is_link_local() || v4.is_unspecified())
        }
        Err(_) => false,
    }
}

fn is_transient(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// How long the registry asks us to wait, if that is no longer than we would.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

/// Reads a small document whole.
pub(crate) async fn read(
    transport: &Transport,
    host: &str,
    mut response: Response,
    what: &'static str,
    limit: u64,
) -> Result<Bytes, RegistryError> {
    let mut body = BytesMut::new();
    let oversized = || RegistryError::Oversized { host: host.to_owned(), what, limit };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(oversized());
    }
    while let Some(chunk) = response.chunk().await.map_err(|error| transport.error(host, &error))? {
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(oversized());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// What an unsuccessful answer says.
pub(crate) async fn failure(host: &str, mut response: Response) -> RegistryError {
    let status = response.status().as_u16();
    let html = is_html(&response);
    let mut body = BytesMut::new();
    // Of an error page only the beginning is of interest, and of one that does not come, nothing.
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = ERROR_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == ERROR_BYTES {
            break;
        }
    }
    classify(host, status, html, &body)
}

/// An unsuccessful status with its body.
pub(crate) fn classify(host: &str, status: u16, html: bool, body: &[u8]) -> RegistryError {
    let message = message(body);
    let host = host.to_owned();
    match status {
        401 | 403 => RegistryError::Unauthorized {
            host,
            repository: String::new(),
            who: String::new(),
            message,
        },
        404 if !html => RegistryError::NotFound { host, what: String::new(), message },
        429 | 500.. if !html => RegistryError::Status { host, status, message },
        429 | 500.. => RegistryError::Status { host, status, message: String::new() },
        _ if html => RegistryError::NotARegistry { host, found: format!("a web page ({status})") },
        _ => RegistryError::Status { host, status, message },
    }
}

/// Whether it is a web page.
pub(crate) fn is_html(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"))
}

/// The message in a registry's error document, or a short plain text.
fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Envelope {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    match serde_json::from_slice::<Envelope>(body) {
        Ok(envelope) => {
            let texts: Vec<String> = envelope
                .errors
                .into_iter()
                .map(|entry| if entry.message.is_empty() { entry.code } else { entry.message })
                .collect();
            shortened(&texts.join("; "))
        }
        Err(_) => match std::str::from_utf8(body) {
            Ok(text) if !text.trim_start().starts_with(['<', '{', '[']) => shortened(text),
            _ => String::new(),
        },
    }
}

/// The last of a chain of causes, which is the one that says something.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct RootCause(String);

struct Roots {
    text: String,
    tls: bool,
    refused: bool,
}

impl Roots {
    fn of(error: &reqwest::Error) -> Roots {
        let mut roots = Roots { text: String::new(), tls: false, refused: false };
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(error) = next {
            roots.look_at(error);
            // What an I/O error wraps is not its source but stands inside.
            let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            next = match wrapped {
                Some(wrapped) => Some(wrapped),
                None => error.source(),
            };
        }
        roots.text = shortened(&roots.text);
        roots
    }

    fn look_at(&mut self, error: &(dyn Error + 'static)) {
        // reqwest's own texts repeat the URL, which may hold a signature.
        if !error.is::<reqwest::Error>() {
            self.text = error.to_string();
        }
        self.tls |= error.is::<rustls::Error>();
        self.refused |= error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    }
}

pub(crate) const USER_AGENT: &str = concat!("graphlet/", env!("CARGO_PKG_VERSION"));
/// A redirect to a storage and one more within it are usual.
const MAX_REDIRECTS: usize = 5;
/// A registry that asks for more is not waited for: the caller tries again later.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// What of an error page is read.
const ERROR_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_the_registry_said_and_no_more() {
        let envelope =
            br#"{"errors":[{"code":"DENIED","message":"no \u001b[31m access"},{"code":"X"}]}"#;
        let long = "a".repeat(5000);
        for (status, html, body, expected) in [
            (401, false, &envelope[..], "h refuses  to : no  [31m access; X"),
            (404, false, b"404 page not found\n", "h has no : 404 page not found"),
            (404, true, b"<html>", "h does not answer as a registry: a web page (404)"),
            (400, true, b"<html>", "h does not answer as a registry: a web page (400)"),
            (502, true, b"<html>bad gateway", "h answers 502"),
            (503, false, b"{\"x\":1}", "h answers 503"),
            (500, false, b"\xff\xfe", "h answers 500"),
        ] {
            assert_eq!(classify("h", status, html, body).to_string(), expected);
        }
        assert!(classify("h", 500, false, long.as_bytes()).to_string().len() < 300);
    }

    #[test]
    fn addresses_of_this_machine_are_known() {
        for url in [
            "http://localhost/",
            "http://127.0.0.1:1/",
            "http://169.254.169.254/x",
            "http://[::1]/",
            "http://0.0.0.0/",
            "http://[fe80::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://0x7f.1/",
            "http://2130706433/",
        ] {
            assert!(is_inside(&url.parse().unwrap()), "{url}");
        }
        for url in ["http://registry.example/", "http://10.0.0.1/", "http://[2001:db8::1]/"] {
            assert!(!is_inside(&url.parse().unwrap()), "{url}");
        }
    }
}
