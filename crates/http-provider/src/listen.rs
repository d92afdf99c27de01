//! Accepts connections and serves HTTP/1.1 on them, for actors and for the admin port alike: the
//! connection cap, the request id, and the graceful stop live here.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderValue, Request, header};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout, timeout_at},
};
use tracing::{debug, error, warn};

use crate::{
    answer::{Refusal, Response},
    gate::{Gate, Ledger},
    limits::Limits,
    request_id::{self, RequestId},
};

/// One request on its way through a [`Service`].
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) id: RequestId,
    pub(crate) client: SocketAddr,
    /// When the head was complete.
    pub(crate) arrived: Instant,
    /// The request, or the error that it must be answered with.
    pub(crate) request: Result<Request<Incoming>, Refusal>,
}

/// A boxed future of a response.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Answers requests. The future is dropped when the client leaves.
pub(crate) trait Service: Send + Sync + 'static {
    fn answer(self: Arc<Self>, exchange: Exchange) -> Answer;
}

/// A listener at work. Dropping it ends it and its connections at once.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
    draining: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Binds `address` (port 0: any free port) and begins to accept.
    pub(crate) fn start(
        address: SocketAddr,
        limits: Limits,
        service: Arc<dyn Service>,
    ) -> io::Result<Self> {
        Self::start_on(bind(address)?, limits, service)
    }

    /// Accepts on a socket that listens already.
    pub(crate) fn start_on(
        listener: TcpListener,
        limits: Limits,
        service: Arc<dyn Service>,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let mut limits = limits;
        limits.max_connections = affordable_connections(limits.max_connections);
        let connections = Arc::default();
        let draining = Arc::default();
        let (stop, stopped) = watch::channel(false);
        let accepting = Accepting {
            listener,
            context: Context {
                limits: Arc::new(limits),
                service,
                crowded: Arc::default(),
                draining: Arc::clone(&draining),
                stopped,
            },
            connections: Arc::clone(&connections),
        };
        Ok(Self { address, connections, stop, draining, task: tokio::spawn(accepting.run()) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections are open, kept up to date by the accept loop.
    pub(crate) fn connections(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.connections)
    }

    /// Goes on accepting, but ends each connection with its next answer.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Stops to accept, and ends each connection when its current request is answered.
    pub(crate) fn begin_stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits for the end of [`Server::begin_stop`]; what runs at `deadline` is cut off.
    pub(crate) async fn finish_stop(mut self, deadline: Instant) {
        self.begin_stop();
        if timeout_at(deadline.into(), &mut self.task).await.is_err() {
            let open = self.connections.load(Ordering::Relaxed);
            if open > 0 {
                warn!(address = %self.address, connections = open, "Grace is over, connections cut off");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The task owns the connections' tasks.
        self.task.abort();
    }
}

// Connections that wait in the kernel to be accepted: a burst of one full queue of clients.
const BACKLOG: u32 = 1024;

// Connections over the cap that are being told so, before others over it are closed silently.
const MAX_REFUSALS: usize = 64;

// From the stop of a listener to its closing.
const LAST_CALL: Duration = Duration::from_millis(100);

// Files that this process needs beside connections: modules, caches, logs, pipes.
const OTHER_FILES: usize = 128;

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted server gets its port back although old connections linger in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// How many of `wanted` connections the limit on open files leaves room for, after raising the
/// soft limit as far as the hard one lets us.
fn affordable_connections(wanted: usize) -> usize {
    let needed = (wanted + MAX_REFUSALS + OTHER_FILES) as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(mut open_files) = current else { return wanted };
    if open_files < needed {
        let raised = maximum.map_or(needed, |maximum| needed.min(maximum));
        if raised > open_files
            && setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }).is_ok()
        {
            open_files = raised;
        }
    }
    if open_files >= needed {
        return wanted;
    }
    let left = usize::try_from(open_files).unwrap_or(usize::MAX);
    let affordable = left.saturating_sub(MAX_REFUSALS + OTHER_FILES).max(16).min(wanted);
    warn!(
        open_files,
        wanted, affordable, "Fewer connections than configured: open files are limited"
    );
    affordable
}

/// What every connection of a listener shares.
#[derive(Clone)]
struct Context {
    limits: Arc<Limits>,
    service: Arc<dyn Service>,
    /// Set while more than half of the connections are taken: idle ones then end sooner.
    crowded: Arc<AtomicBool>,
    /// Set while clients are to go elsewhere with what they ask next.
    draining: Arc<AtomicBool>,
    stopped: watch::Receiver<bool>,
}

struct Accepting {
    listener: TcpListener,
    context: Context,
    connections: Arc<AtomicUsize>,
}

impl Accepting {
    async fn run(self) {
        let mut stopped = self.context.stopped.clone();
        let mut open = JoinSet::new();
        let mut refused = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = wait_for_stop(&mut stopped) => break,
                Some(ended) = open.join_next() => {
                    if let Err(error) = ended {
                        error!(%error, "A connection's task failed");
                    }
                    self.count(open.len());
                    continue;
                }
                Some(_) = refused.join_next() => continue,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok(client) => self.admit(client, &mut open, &mut refused),
                Err(error) if is_clients_fault(&error) => {}
                Err(error) => {
                    warn!(%error, "Accepting a connection failed");
                    // Usually out of files or memory: to try again at once would only spin.
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        // Who connected before the stop may wait in the kernel's queue, and closing the listener
        // would reset them: they are served too. The runtime needs a moment to notice them.
        let last_call = Instant::now() + LAST_CALL;
        while let Ok(accepted) = timeout_at(last_call.into(), self.listener.accept()).await {
            match accepted {
                Ok(client) => self.admit(client, &mut open, &mut refused),
                Err(error) if is_clients_fault(&error) => {}
                Err(_) => break,
            }
        }
        drop(self.listener);
        while open.join_next().await.is_some() {
            self.connections.store(open.len(), Ordering::Relaxed);
        }
    }

    fn admit(
        &self,
        (stream, client): (TcpStream, SocketAddr),
        open: &mut JoinSet<()>,
        refused: &mut JoinSet<()>,
    ) {
        if open.len() < self.context.limits.max_connections {
            open.spawn(serve(stream, client, self.context.clone()));
            self.count(open.len());
        } else if refused.len() < MAX_REFUSALS {
            debug!(client.address = %client, "Connection refused, too many are open");
            refused.spawn(turn_away(stream, self.context.limits.linger));
        }
    }

    fn count(&self, open: usize) {
        self.connections.store(open, Ordering::Relaxed);
        let crowded = open > self.context.limits.max_connections / 2;
        self.context.crowded.store(crowded, Ordering::Relaxed);
    }
}

async fn wait_for_stop(stopped: &mut watch::Receiver<bool>) {
    // An error means that the server was dropped.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Errors of the connection that would have been, not of the listener (accept(2)).
fn is_clients_fault(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(error.kind(), E::ConnectionAborted | E::ConnectionReset | E::ConnectionRefused)
}

/// Says 503 to a connection over the cap, without reading its request.
async fn turn_away(mut stream: TcpStream, linger: Duration) {
    let (head, body) = Refusal::TooManyConnections.to_response().into_parts();
    let mut message = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        message.extend_from_slice(format!("{name}: ").as_bytes());
        message.extend_from_slice(value.as_bytes());
        message.extend_from_slice(b"\r\n");
    }
    let body = body.collect().await.unwrap_or_else(|never| match never {}).to_bytes();
    message.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    message.extend_from_slice(&body);
    let farewell = async {
        stream.write_all(&message).await?;
        stream.shutdown().await?;
        // Until the client has closed; see `Limits::linger`.
        let mut dropped = [0; 4096];
        while stream.read(&mut dropped).await? > 0 {}
        io::Result::Ok(())
    };
    // Who does not listen to the end is gone, which was the aim.
    let _ = timeout(linger, farewell).await;
}

async fn serve(stream: TcpStream, client: SocketAddr, mut context: Context) {
    // Answers are written whole: nothing is gained by waiting for more.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(client.address = %client, %error, "Connection lost before its first request");
        return;
    }
    let ledger = Arc::new(Ledger::new(Arc::clone(&context.crowded)));
    let gate = Gate::new(stream, Arc::clone(&ledger), Arc::clone(&context.limits));
    let service = {
        let (ledger, service) = (Arc::clone(&ledger), Arc::clone(&context.service));
        let draining = Arc::clone(&context.draining);
        service_fn(move |request| {
            let (ledger, draining) = (Arc::clone(&ledger), Arc::clone(&draining));
            answer(request, client, ledger, draining, Arc::clone(&service))
        })
    };
    let connection = http1::Builder::new()
        .max_headers(context.limits.max_header_fields)
        // Holds the longest head; what else is in flight is bounded by it.
        .max_buf_size(context.limits.max_header_bytes.max(HYPER_BUFFER_BYTES))
        // The gate keeps the time.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(gate), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = wait_for_stop(&mut context.stopped) => {
            ledger.stop();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(client.address = %client, %error, "Connection ended early");
    }
}

// A few TCP segments at a time for bodies of megabytes.
const HYPER_BUFFER_BYTES: usize = 128 << 10;

/// Answers one request that hyper delivered, and finishes the response's header.
async fn answer(
    request: Request<Incoming>,
    client: SocketAddr,
    ledger: Arc<Ledger>,
    draining: Arc<AtomicBool>,
    service: Arc<dyn Service>,
) -> Result<Response, std::convert::Infallible> {
    let _answered = Answered(&ledger);
    let note = ledger.take_note();
    let id = RequestId::of(request.headers());
    let (arrived, refusal, last) = match note {
        Some(note) => (note.arrived, note.refusal, note.last),
        // Cannot happen: hyper delivers what the gate noted. Should it, the connection ends.
        None => (Instant::now(), None, true),
    };
    let request = refusal.map_or(Ok(request), Err);
    let exchange = Exchange { id: id.clone(), client, arrived, request };
    let mut response = service.answer(exchange).await;
    let headers = response.headers_mut();
    headers.insert(request_id::HEADER, id.to_header_value());
    headers.insert(header::SERVER, HeaderValue::from_static("graphlet"));
    if last || ledger.is_stopping() || draining.load(Ordering::Relaxed) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Tells the gate when a request is answered, or given up.
struct Answered<'a>(&'a Ledger);

impl Drop for Answered<'_> {
    fn drop(&mut self) {
        self.0.answered();
    }
}
