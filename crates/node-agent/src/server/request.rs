//! A request's path and query, read with suspicion: names that could lead elsewhere are refused
//! before anything is looked up.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use http::{Method, StatusCode};

use crate::runtime::LogOptions;

/// A request that cannot be answered as asked: a status and a plain sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Refusal { status, text: text.into() }
    }

    fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    ContainerLogs {
        namespace: String,
        pod: String,
        container: String,
    },
    /// `exec`, `attach` or `run`.
    Session {
        what: &'static str,
    },
    PortForward {
        namespace: String,
        pod: String,
    },
    Pods,
    Summary,
    ResourceMetrics,
    Metrics,
    Healthz,
    NodeLogs,
    Unknown,
}

impl Route {
    /// The name under which requests are counted.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Route::ContainerLogs { .. } => "containerLogs",
            Route::Session { what } => what,
            Route::PortForward { .. } => "portForward",
            Route::Pods => "pods",
            Route::Summary => "stats/summary",
            Route::ResourceMetrics => "metrics/resource",
            Route::Metrics => "metrics",
            Route::Healthz => "healthz",
            Route::NodeLogs => "logs",
            Route::Unknown => "other",
        }
    }

    /// Whether it is asked for in this way.
    pub(super) fn takes(&self, method: &Method) -> bool {
        match self {
            // SPDY comes as POST, WebSocket as GET.
            Route::Session { .. } | Route::PortForward { .. } => {
                *method == Method::GET || *method == Method::POST
            }
            _ => *method == Method::GET,
        }
    }
}

/// The segments of a path, decoded.
///
/// # Errors
/// 400 for a segment that is empty or means a folder, or that hides a slash or a control
/// character behind its encoding.
pub(super) fn segments(path: &str) -> Result<Vec<String>, Refusal> {
    let Some(rest) = path.strip_prefix('/') else {
        return Err(Refusal::bad("the path does not begin with /"));
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    rest.split('/')
        .map(|segment| {
            let text = decode(segment).ok_or_else(|| Refusal::bad("malformed path"))?;
            let bad = matches!(text.as_str(), "" | "." | "..")
                || text.chars().any(|c| c == '/' || c == '\\' || c.is_control());
            if bad { Err(Refusal::bad("the path leads elsewhere")) } else { Ok(text) }
        })
        .collect()
}

/// What the segments ask for.
///
/// # Errors
/// 400 for a name that no namespace, pod or container can have.
pub(super) fn route(segments: &[String]) -> Result<Route, Refusal> {
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let name = |text: &str| {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        let well = text.len() <= 253
            && text.chars().all(good)
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && !text.contains("..");
        if well {
            Ok(text.to_owned())
        } else {
            Err(Refusal::bad("no name of a namespace, pod or container"))
        }
    };
    Ok(match parts.as_slice() {
        ["containerLogs", namespace, pod, container] => Route::ContainerLogs {
            namespace: name(namespace)?,
            pod: name(pod)?,
            container: name(container)?,
        },
        ["exec", ..] => Route::Session { what: "exec" },
        ["attach", ..] => Route::Session { what: "attach" },
        ["run", ..] => Route::Session { what: "run" },
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
            Route::PortForward { namespace: name(namespace)?, pod: name(pod)? }
        }
        ["pods"] | ["runningpods"] => Route::Pods,
        ["stats", "summary"] => Route::Summary,
        ["metrics", "resource"] => Route::ResourceMetrics,
        ["metrics"] => Route::Metrics,
        ["healthz"] | ["healthz", "ping" | "syncloop"] => Route::Healthz,
        ["logs", ..] => Route::NodeLogs,
        _ => Route::Unknown,
    })
}

/// The subresources of the Node of which one suffices for this path, as kubelets of 1.33 and
/// later map them.
pub(super) fn subresources(segments: &[String]) -> &'static [&'static str] {
    match segments.first().map(String::as_str) {
        Some("pods" | "runningpods") => &["pods", "proxy"],
        Some("healthz") => &["healthz", "proxy"],
        Some("configz") => &["configz", "proxy"],
        Some("stats") => &["stats"],
        Some("metrics") => &["metrics"],
        Some("logs") => &["log"],
        Some("checkpoint") => &["checkpoint"],
        Some("statusz") => &["statusz"],
        Some("flagz") => &["configz"],
        _ => &["proxy"],
    }
}

/// The verb that authorisation knows for a method.
pub(super) fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// The options of `kubectl logs` as the API server passes them on.
///
/// # Errors
/// 400 for what cannot be read, 422 for what cannot be meant, as kubelets do it.
pub(super) fn log_options(query: &str, now: SystemTime) -> Result<LogOptions, Refusal> {
    let mut options = LogOptions::default();
    let mut since_seconds = None;
    let mut since_time = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value =
            decode(&value.replace('+', " ")).ok_or_else(|| Refusal::bad("malformed query"))?;
        match name {
            "follow" => options.follow = flag(name, &value)?,
            "previous" => options.previous = flag(name, &value)?,
            "timestamps" => options.timestamps = flag(name, &value)?,
            "tail" if value == "all" => options.tail_lines = None,
            "tailLines" | "tail" => options.tail_lines = Some(number(name, &value, 0)?),
            "limitBytes" => options.limit_bytes = Some(number(name, &value, 1)?),
            "sinceSeconds" => since_seconds = Some(number(name, &value, 1)?),
            "sinceTime" => since_time = Some(time(&value)?),
            "stream" if value != "All" => {
                return Err(Refusal::bad(
                    "only stream=All is known here: a module's two streams are kept in one log",
                ));
            }
            _ => {}
        }
    }
    options.since = match (since_seconds, since_time) {
        (Some(_), Some(_)) => {
            return Err(unprocessable("at most one of sinceTime or sinceSeconds may be specified"));
        }
        // So long ago that the clock cannot show it: from the beginning.
        (Some(seconds), None) => now.checked_sub(Duration::from_secs(seconds)),
        (None, time) => time,
    };
    Ok(options)
}

fn unprocessable(text: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, text)
}

fn flag(name: &str, value: &str) -> Result<bool, Refusal> {
    match value {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Refusal::bad(format!("{name} is true or false"))),
    }
}

fn number(name: &str, value: &str, least: i64) -> Result<u64, Refusal> {
    let number: i64 =
        value.parse().map_err(|_| Refusal::bad(format!("{name} is a whole number")))?;
    match u64::try_from(number) {
        Ok(unsigned) if number >= least => Ok(unsigned),
        _ => Err(unprocessable(format!("{name} must be at least {least}"))),
    }
}

fn time(value: &str) -> Result<SystemTime, Refusal> {
    // A + in an offset that was not encoded arrives as a space.
    DateTime::parse_from_rfc3339(&value.replace(' ', "+"))
        .map(|time| time.with_timezone(&Utc).into())
        .map_err(|_| Refusal::bad("sinceTime is a time such as 2026-01-02T03:04:05Z"))
}

/// Percent-encoding undone; `None` when it is malformed or no UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn read(path: &str) -> Result<Route, u16> {
        segments(path)
            .and_then(|segments| route(&segments))
            .map_err(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn the_paths_of_a_kubelet_are_known() {
        let logs = Route::ContainerLogs {
            namespace: "default".into(),
            pod: "digits-1".into(),
            container: "actor".into(),
        };
        let forward = Route::PortForward { namespace: "a".into(), pod: "b".into() };
        for (path, expected) in [
            ("/containerLogs/default/digits-1/actor", logs),
            ("/exec/a/b/c", Route::Session { what: "exec" }),
            ("/attach/a/b/uid/c", Route::Session { what: "attach" }),
            ("/run/a/b/c", Route::Session { what: "run" }),
            ("/portForward/a/b", forward),
            ("/pods/", Route::Pods),
            ("/runningpods/", Route::Pods),
            ("/stats/summary", Route::Summary),
            ("/metrics", Route::Metrics),
            ("/metrics/resource", Route::ResourceMetrics),
            ("/metrics/cadvisor", Route::Unknown),
            ("/healthz", Route::Healthz),
            ("/logs/syslog", Route::NodeLogs),
            ("/", Route::Unknown),
            ("/containerLogs/default/digits-1", Route::Unknown),
        ] {
            assert_eq!(read(path), Ok(expected), "path: {path}");
        }
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_400() {
        for path in [
            "/containerLogs/default/../etc/passwd",
            "/containerLogs/default/../../etc",
            "/containerLogs/default/pod/..",
            "/containerLogs/default/pod/%2e%2e",
            "/containerLogs/default/pod/..%2f..%2fetc",
            "/containerLogs/default/pod/a%2Fb",
            "/containerLogs/default/pod/a%5cb",
            "/containerLogs/default/pod/a%00",
            "/containerLogs//pod/a",
            "/containerLogs/default/pod/%zz",
            "/containerLogs/default/pod/%f",
            "/containerLogs/default/pod/%ff",
            "/containerLogs/Default/pod/a",
            "/containerLogs/default/.hidden/a",
            "/containerLogs/default/a..b/a",
            "/stats/../containerLogs/a/b/c",
            "/./metrics",
            "no-slash",
        ] {
            assert_eq!(read(path), Err(400), "path: {path}");
        }
    }

    #[test]
    fn each_path_needs_the_right_that_kubelets_ask_for() {
        for (path, expected) in [
            ("/containerLogs/a/b/c", &["proxy"][..]),
            ("/exec/a/b/c", &["proxy"]),
            ("/metrics/resource", &["metrics"]),
            ("/metrics", &["metrics"]),
            ("/stats/summary", &["stats"]),
            ("/logs/x", &["log"]),
            ("/pods", &["pods", "proxy"]),
            ("/runningpods/", &["pods", "proxy"]),
            ("/healthz/ping", &["healthz", "proxy"]),
            ("/metricsx", &["proxy"]),
            ("/", &["proxy"]),
        ] {
            let segments = segments(path).expect("a path");
            assert_eq!(subresources(&segments), expected, "path: {path}");
        }
        for (method, expected) in [("GET", "get"), ("POST", "create"), ("DELETE", "delete")] {
            assert_eq!(verb(&method.parse().expect("a method")), expected);
        }
    }

    #[test]
    fn every_option_of_kubectl_logs_is_read() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let options = log_options(
            "follow=true&previous=true&timestamps=true&tailLines=5&limitBytes=10&sinceSeconds=60&pretty=x",
            now,
        )
        .expect("options");
        assert!(options.follow && options.previous && options.timestamps);
        assert_eq!((options.tail_lines, options.limit_bytes), (Some(5), Some(10)));
        assert_eq!(options.since, Some(now - Duration::from_secs(60)));
        for query in
            ["sinceTime=1970-01-01T01:00:00%2B01:00", "sinceTime=1970-01-01T01:00:00+01:00"]
        {
            assert_eq!(
                log_options(query, now).expect("options").since,
                Some(UNIX_EPOCH),
                "{query}"
            );
        }
        let none = log_options("tail=all&stream=All&follow=false", now).expect("options");
        assert!(!none.follow && none.tail_lines.is_none() && none.since.is_none());
    }

    #[test]
    fn options_that_cannot_be_read_are_400_and_impossible_ones_422() {
        for (query, status) in [
            ("tailLines=x", 400),
            ("tailLines=-1", 422),
            ("limitBytes=0", 422),
            ("sinceSeconds=0", 422),
            ("sinceSeconds=5&sinceTime=1970-01-01T00:00:00Z", 422),
            ("sinceTime=yesterday", 400),
            ("follow=perhaps", 400),
            ("stream=Stdout", 400),
            ("tailLines=%zz", 400),
            ("tailLines=99999999999999999999", 400),
        ] {
            let refusal = log_options(query, UNIX_EPOCH).expect_err(query);
            assert_eq!(refusal.status.as_u16(), status, "query: {query}");
        }
        let long_ago =
            log_options("sinceSeconds=9223372036854775807", UNIX_EPOCH).expect("options");
        assert!(long_ago.since.is_none_or(|since| since < UNIX_EPOCH));
    }
}
