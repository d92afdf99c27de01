//! One actor at one address: a request's way from its head to the actor's answer.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use host::provider::{ActorHandle, CallError};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tracing::{debug, warn};

use crate::{
    answer::{self, Refusal, Response},
    body::{self, Buffers},
    limits::Limits,
    listen::{Answer, Exchange, Service},
    metrics::ActorMetrics,
    request_id::{self, RequestId},
};

/// Serves one actor.
pub(crate) struct Endpoint {
    actor: ActorHandle,
    limits: Limits,
    buffers: Buffers,
    metrics: ActorMetrics,
}

impl Endpoint {
    pub(crate) fn new(actor: ActorHandle, limits: Limits, metrics: ActorMetrics) -> Self {
        let buffers = Buffers::new(limits.max_buffered_bytes);
        Self { actor, limits, buffers, metrics }
    }

    async fn exchange(self: Arc<Self>, exchange: Exchange) -> Response {
        let Exchange { id, client, arrived, request } = exchange;
        let mut record = Record {
            endpoint: &self,
            id: &id,
            client,
            arrived,
            method: Method::GET,
            path: String::new(),
            body_bytes: 0,
            queued: None,
            ended: false,
        };
        let result = match request {
            Ok(request) => self.call(request, &mut record).await,
            Err(refusal) => Err(refusal),
        };
        match result {
            Ok((response, outcome)) => {
                let outcome = outcome.as_deref().unwrap_or(outcome_of(response.status()));
                record.end(&response, outcome, None);
                response
            }
            Err(refusal) => {
                let response = refusal.to_response();
                record.end(&response, refusal.code(), Some(&refusal));
                response
            }
        }
    }

    /// Reads the request, asks the actor, and reads its reply.
    async fn call(
        &self,
        request: Request<Incoming>,
        record: &mut Record<'_>,
    ) -> Result<(Response, Option<String>), Refusal> {
        let (head, body) = request.into_parts();
        record.method = head.method;
        record.path.push_str(head.uri.path());
        let body = body::collect(&head.headers, body, &self.limits, &self.buffers).await?;
        record.body_bytes = body.bytes.len();

        let mut header = answer::to_wire_header(&head.headers);
        header.insert(request_id::HEADER.as_str().to_owned(), record.id.as_str().to_owned());
        let digest = self.actor.identity().digest.to_string();
        header.insert(wire::DIGEST_HEADER.to_owned(), digest);
        // The answer to HEAD is that to GET; hyper leaves its body out and keeps its length.
        let method =
            if record.method == Method::HEAD { Method::GET } else { record.method.clone() };
        let message = wire::encode(&wire::RequestView {
            method: Cow::Borrowed(method.as_str()),
            path: Cow::Borrowed(head.uri.path()),
            query_string: Cow::Borrowed(head.uri.query().unwrap_or_default()),
            header,
            body: Cow::Borrowed(&body.bytes),
        })
        .map_err(|error| {
            warn!(request.id = %record.id, %error, "Request could not be encoded for the actor");
            Refusal::BodyTooLarge { limit: self.limits.max_body_bytes }
        })?;

        // Of the two copies only the message is needed now; the share of the buffers that the
        // body holds stands for it until the actor has answered.
        let share = body.into_share();
        let deadline = Instant::now() + self.limits.call_timeout;
        let reply = self.actor.call(wire::OP_HANDLE_REQUEST, message, deadline).await?;
        drop(share);

        record.queued = Some(reply.queued);
        self.metrics.replied(&reply);
        let reply = wire::decode(&reply.body).map_err(|_| Refusal::BadReply("not a response"))?;
        answer::of_actor(reply)
    }
}

impl Service for Endpoint {
    fn answer(self: Arc<Self>, exchange: Exchange) -> Answer {
        Box::pin(self.exchange(exchange))
    }
}

/// The outcome of a request whose actor names none.
fn outcome_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        ..400 => "ok",
        400..500 => "client_error",
        _ => "actor_error",
    }
}

/// One request for the log and the metrics, whichever way it ends.
struct Record<'a> {
    endpoint: &'a Endpoint,
    id: &'a RequestId,
    client: std::net::SocketAddr,
    arrived: Instant,
    method: Method,
    path: String,
    body_bytes: usize,
    queued: Option<Duration>,
    ended: bool,
}

// A path can fill the whole head; this much tells which one it was.
const MAX_LOGGED_PATH: usize = 256;

impl Record<'_> {
    fn end(&mut self, response: &Response, outcome: &str, refusal: Option<&Refusal>) {
        self.ended = true;
        let duration = self.arrived.elapsed();
        let status = response.status();
        self.endpoint.metrics.ended(outcome);
        self.endpoint.metrics.responded(&self.method, status, duration);
        let actor = &self.endpoint.actor.identity().name;
        let error = refusal.map(tracing::field::display);
        if is_fault(refusal) {
            warn!(
                request.id = %self.id,
                client.address = %self.client,
                actor.name = %actor,
                http.request.method = %self.method,
                url.path = self.logged_path(),
                http.response.status_code = status.as_u16(),
                outcome,
                error,
                duration_ms = millis(duration),
                queued_ms = self.queued.map(millis),
                body_bytes = self.body_bytes,
                "Request failed"
            );
        } else {
            debug!(
                request.id = %self.id,
                client.address = %self.client,
                actor.name = %actor,
                http.request.method = %self.method,
                url.path = self.logged_path(),
                http.response.status_code = status.as_u16(),
                outcome,
                error,
                duration_ms = millis(duration),
                queued_ms = self.queued.map(millis),
                body_bytes = self.body_bytes,
                "Request answered"
            );
        }
    }

    fn logged_path(&self) -> &str {
        // Paths are ASCII (the gate sees to it), so that any byte is a boundary.
        self.path.get(..MAX_LOGGED_PATH).unwrap_or(&self.path)
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // The future was dropped: the connection is gone, and with it the wish for an answer.
        self.endpoint.metrics.ended("client_left");
        debug!(
            request.id = %self.id,
            client.address = %self.client,
            actor.name = %self.endpoint.actor.identity().name,
            http.request.method = %self.method,
            url.path = self.logged_path(),
            outcome = "client_left",
            duration_ms = millis(self.arrived.elapsed()),
            body_bytes = self.body_bytes,
            "Client left before its answer"
        );
    }
}

/// Whether somebody must look at it. Load, lateness and refused claims are not such: they come
/// by the thousand, have their metrics, and the host tells of the state behind them once.
fn is_fault(refusal: Option<&Refusal>) -> bool {
    match refusal {
        Some(Refusal::Call(error)) => !matches!(
            error,
            CallError::QueueFull { .. }
                | CallError::Deadline
                | CallError::Refused(_)
                | CallError::Stopping
        ),
        Some(Refusal::BadReply(_)) => true,
        _ => false,
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_follows_from_the_status_when_the_actor_names_none() {
        for (status, outcome) in [
            (200, "ok"),
            (204, "ok"),
            (399, "ok"),
            (400, "client_error"),
            (499, "client_error"),
            (500, "actor_error"),
            (501, "actor_error"),
        ] {
            assert_eq!(outcome_of(StatusCode::from_u16(status).unwrap()), outcome);
        }
    }
}
