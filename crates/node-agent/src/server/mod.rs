//! The kubelet's port: logs, usage and the list of pods, for the API server, metrics-server and
//! whoever else the cluster allows. Every request is authenticated and authorised.

mod auth;
mod logs;
mod metrics;
mod request;
mod stats;
mod text;
mod tls;

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tracing::{debug, info, warn};

pub use tls::TlsError;

use crate::{
    identity::{Identity, Leaf},
    node::Readings,
    runtime::{Container, ContainerId, LogError, LogOptions, PodRef, Usage},
};
use auth::{Gate, Reviewer};
use metrics::Counters;
use request::{Refusal, Route};
use stats::Rates;

/// Connections at a time: the API server keeps a few, each followed log is one more.
const CONNECTIONS: usize = 512;
/// A client has this long for its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// And this long for a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Answers under way have this long when the agent ends; followed logs are cut then.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);
/// How often usage is sampled for rates.
const SAMPLE: Duration = Duration::from_secs(10);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Where answers come from.
pub trait Backend: Send + Sync + 'static {
    /// The pods of this node.
    fn pods(&self) -> Vec<Arc<Pod>>;
    /// Its containers.
    fn containers(&self) -> Vec<Container>;
    /// What one uses.
    fn usage(&self, id: &ContainerId) -> Option<Usage>;
    /// What the machine has and uses.
    fn readings(&self) -> Readings;
    /// Why the agent does not work, if it does not.
    fn fault(&self) -> Option<String>;
    /// A container's log.
    fn logs(
        &self,
        pod: &PodRef,
        container: &str,
        options: LogOptions,
    ) -> impl Future<
        Output = Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static, LogError>,
    > + Send;
}

/// The port could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address.
    #[error(
        "cannot listen on {address}: another kubelet may have the port, then choose one with --kubelet-port"
    )]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The open port.
pub struct Server {
    listener: TcpListener,
    tls: tokio_rustls::TlsAcceptor,
}

impl Server {
    /// Opens the port on the node's own address only. `client_cas` are the CA certificates (DER)
    /// whose client certificates are believed.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn bind(
        address: IpAddr,
        port: u16,
        identity: &Identity,
        client_cas: &[Vec<u8>],
    ) -> Result<Self, ServerError> {
        let address = SocketAddr::new(address, port);
        let tls = tls::acceptor(Arc::clone(&identity.serving) as _, client_cas)?;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ServerError::Bind { address, source })?;
        info!(%address, "Kubelet port open");
        Ok(Server { listener, tls })
    }

    /// The port, also when the system chose it.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Answers until `stop` turns true, then finishes what is under way.
    pub async fn run<B: Backend>(
        self,
        identity: &Identity,
        backend: B,
        stop: watch::Receiver<bool>,
    ) {
        let service = Service::new(identity.api.clone(), identity.api.node_name(), backend);
        self.serve(Arc::new(service), stop).await;
    }

    async fn serve<B: Backend, R: Reviewer>(
        self,
        service: Arc<Service<B, R>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let sampler = tokio::spawn(Arc::clone(&service).sample());
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, say: the next try may be luckier.
                    warn!(error = &error as &dyn std::error::Error, "Connection not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                debug!("Connection refused: too many");
                continue;
            };
            let (service, tls) = (Arc::clone(&service), self.tls.clone());
            let watcher = graceful.watcher();
            tokio::spawn(async move {
                let _place = place;
                let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await
                {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => {
                        debug!(error = &error as &dyn std::error::Error, "TLS handshake failed");
                        return;
                    }
                    Err(_) => return,
                };
                let certificate = stream
                    .get_ref()
                    .1
                    .peer_certificates()
                    .and_then(|chain| Leaf::parse(chain.first()?).ok())
                    .map(Arc::new);
                let answer = hyper::service::service_fn(move |request| {
                    let (service, certificate) = (Arc::clone(&service), certificate.clone());
                    async move {
                        Ok::<_, Infallible>(service.answer(certificate.as_deref(), request).await)
                    }
                });
                let mut builder = auto::Builder::new(TokioExecutor::new());
                builder
                    .http1()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .max_headers(100);
                builder.http2().timer(TokioTimer::new()).max_concurrent_streams(100);
                let connection =
                    builder.serve_connection(TokioIo::new(stream), answer).into_owned();
                if let Err(error) = watcher.watch(connection).await {
                    debug!(error = &*error, "Connection ended early");
                }
            });
        }
        sampler.abort();
        drop(self.listener);
        let _ = tokio::time::timeout(FINISH_TIMEOUT, graceful.shutdown()).await;
    }
}

/// What answers requests.
struct Service<B, R> {
    node_name: String,
    started: SystemTime,
    gate: Gate<R>,
    backend: B,
    rates: Rates,
    counters: Counters,
}

impl<B: Backend, R: Reviewer> Service<B, R> {
    fn new(reviewer: R, node_name: &str, backend: B) -> Self {
        Service {
            node_name: node_name.to_owned(),
            started: SystemTime::now(),
            gate: Gate::new(reviewer),
            backend,
            rates: Rates::default(),
            counters: Counters::default(),
        }
    }

    async fn sample(self: Arc<Self>) {
        loop {
            self.rates.sample(&self.backend.readings(), &self.usage());
            tokio::time::sleep(SAMPLE).await;
        }
    }

    fn usage(&self) -> Vec<stats::PodUsage> {
        let pods = self.backend.pods();
        stats::by_pod(&pods, self.backend.containers(), |id| self.backend.usage(id))
    }

    async fn answer(
        &self,
        certificate: Option<&Leaf>,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let (head, _) = request.into_parts();
        let mut name = "refused";
        let answer = self.respond(certificate, &head, &mut name).await;
        let response = answer.unwrap_or_else(|refusal| {
            let mut response = plain(refusal.status, refusal.text + "\n");
            if refusal.status == StatusCode::UNAUTHORIZED {
                let bearer = HeaderValue::from_static("Bearer");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
            }
            response
        });
        self.counters.count(name, response.status());
        debug!(method = %head.method, path = head.uri.path(), status = response.status().as_u16(), "Kubelet request");
        response
    }

    async fn respond(
        &self,
        certificate: Option<&Leaf>,
        head: &http::request::Parts,
        name: &mut &'static str,
    ) -> Result<Response<Body>, Refusal> {
        let user = self.gate.authenticate(certificate, &head.headers).await?;
        // One reading of the path decides both what is allowed and what is done.
        let segments = request::segments(head.uri.path())?;
        let verb = request::verb(&head.method);
        self.gate.authorize(&user, verb, request::subresources(&segments)).await?;
        let route = request::route(&segments)?;
        *name = route.name();
        if !route.takes(&head.method) {
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"));
        }
        self.routed(route, head.uri.query().unwrap_or_default()).await
    }

    async fn routed(&self, route: Route, query: &str) -> Result<Response<Body>, Refusal> {
        match route {
            Route::ContainerLogs { namespace, pod, container } => {
                let options = request::log_options(query, SystemTime::now())?;
                let pods = self.backend.pods();
                let pod = logs::find(&pods, &namespace, &pod, &container)?;
                let previous = options.previous;
                let stream = self
                    .backend
                    .logs(&logs::reference(pod), &container, options)
                    .await
                    .map_err(|error| logs::refusal(pod, &container, previous, &error))?;
                let body = StreamBody::new(stream.map_ok(Frame::data));
                Ok(typed("text/plain", body.boxed_unsync()))
            }
            Route::Session { what } => Err(Refusal::new(
                StatusCode::NOT_IMPLEMENTED,
                format!(
                    "{what} is not possible: a WebAssembly module has no shell and no second process; kubectl logs shows what it says"
                ),
            )),
            Route::PortForward { namespace, pod } => {
                let port = logs::first_port(&self.backend.pods(), &namespace, &pod);
                Err(Refusal::new(
                    StatusCode::NOT_IMPLEMENTED,
                    format!(
                        "port-forward is not possible on this node; the API server's proxy is: kubectl get --raw /api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/"
                    ),
                ))
            }
            Route::Pods => {
                let pods: Vec<_> = self.backend.pods();
                let pods: Vec<&Pod> = pods.iter().map(AsRef::as_ref).collect();
                let list =
                    json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods });
                Ok(typed("application/json", full(list.to_string())))
            }
            Route::Summary => {
                let summary = stats::summary(
                    &self.node_name,
                    self.started,
                    &self.backend.readings(),
                    &self.usage(),
                    &self.rates,
                    SystemTime::now(),
                );
                Ok(typed("application/json", full(summary.to_string())))
            }
            Route::ResourceMetrics => {
                let text = stats::resource_metrics(
                    &self.backend.readings(),
                    &self.usage(),
                    SystemTime::now(),
                );
                Ok(typed("text/plain; version=0.0.4; charset=utf-8", full(text)))
            }
            Route::Metrics => {
                let text = metrics::page(
                    &self.counters,
                    &self.backend.pods(),
                    &self.backend.containers(),
                    self.started,
                );
                Ok(typed("text/plain; version=0.0.4; charset=utf-8", full(text)))
            }
            Route::Healthz => match self.backend.fault() {
                None => Ok(plain(StatusCode::OK, "ok".into())),
                Some(fault) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, fault)),
            },
            Route::NodeLogs => Err(Refusal::new(
                StatusCode::NOT_IMPLEMENTED,
                "the node's logs are not served here: see its journal",
            )),
            Route::Unknown => Err(Refusal::new(StatusCode::NOT_FOUND, "404 page not found")),
        }
    }
}

fn full(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = typed("text/plain; charset=utf-8", full(text));
    *response.status_mut() = status;
    response
}

fn typed(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
