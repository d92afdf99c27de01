//! The admin port: is the process alive, can its actors answer, and what do the metrics say.

use std::sync::{
    Arc, Mutex, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use host::provider::{ActorHandle, ActorState};
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::Full;
use serde_json::json;

use crate::{
    answer::{self, Refusal, Response},
    listen::{Answer, Exchange, Service},
    metrics::{self, Metrics},
};

/// What readiness is judged by.
#[derive(Default)]
pub(crate) struct Readiness {
    actors: RwLock<Vec<ActorHandle>>,
    stopping: AtomicBool,
}

impl Readiness {
    pub(crate) fn add(&self, actor: ActorHandle) {
        self.actors.write().unwrap_or_else(PoisonError::into_inner).push(actor);
    }

    /// From here on nothing is ready any more.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn to_response(&self) -> Response {
        let actors = self.actors.read().unwrap_or_else(PoisonError::into_inner);
        let mut ready = !actors.is_empty() && !self.is_stopping();
        let mut listed = Vec::new();
        for actor in actors.iter() {
            let state = actor.status().state;
            ready &= state == ActorState::Running;
            let identity = actor.identity();
            listed.push(json!({
                "name": identity.name,
                "model": identity.model,
                "version": identity.version,
                "digest": identity.digest.as_str(),
                "state": state_name(state),
            }));
        }
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        answer::json(status, &json!({"ready": ready, "actors": listed}))
    }
}

fn state_name(state: ActorState) -> &'static str {
    match state {
        ActorState::Starting => "starting",
        ActorState::Running => "running",
        ActorState::Refused => "refused",
        ActorState::Stopping => "stopping",
    }
}

/// Serves `/healthz`, `/readyz` and `/metrics`.
pub(crate) struct Admin {
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) metrics: Arc<Metrics>,
    /// Scrapes take turns: each asks every actor.
    pub(crate) scraping: Mutex<()>,
}

impl Admin {
    fn respond(&self, exchange: Exchange) -> Response {
        self.look_up(exchange).unwrap_or_else(|refusal| refusal.to_response())
    }

    fn look_up(&self, exchange: Exchange) -> Result<Response, Refusal> {
        let request = exchange.request?;
        let found = match request.uri().path() {
            "/healthz" => answer::json(StatusCode::OK, &json!({"alive": true})),
            "/readyz" => self.readiness.to_response(),
            "/metrics" => self.scrape(),
            _ => return Err(Refusal::NotFound),
        };
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return Err(Refusal::GetOnly);
        }
        Ok(found)
    }

    fn scrape(&self) -> Response {
        let _turn = self.scraping.lock().unwrap_or_else(PoisonError::into_inner);
        match self.metrics.to_text() {
            Ok(text) => {
                let mut response = Response::new(Full::new(Bytes::from(text)));
                let content_type = HeaderValue::from_static(metrics::CONTENT_TYPE);
                response.headers_mut().insert(header::CONTENT_TYPE, content_type);
                response
            }
            Err(error) => {
                tracing::error!(%error, "Metrics could not be written");
                let sentence = "the metrics could not be written";
                answer::error(StatusCode::INTERNAL_SERVER_ERROR, "internal", sentence)
            }
        }
    }
}

impl Service for Admin {
    fn answer(self: Arc<Self>, exchange: Exchange) -> Answer {
        Box::pin(async move { self.respond(exchange) })
    }
}
