//! A fake actor and a raw-socket client for the tests of this folder.
#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use host::provider::{
    ActorIdentity, ActorService, ActorState, ActorStatus, BoxFuture, CallError, CapabilityProvider,
    Link, Reply,
};
use http_provider::{HttpProvider, Limits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

/// Upper bound for anything that should happen soon, on a machine that does other things too.
pub const SOON: Duration = Duration::from_secs(60);

/// What the fake does with a request.
pub type Script = dyn Fn(&wire::Request) -> Result<wire::Response, CallError> + Send + Sync;

/// An actor with instances, a bounded queue, and a script instead of a model.
pub struct FakeActor {
    pub identity: ActorIdentity,
    pub status: Mutex<ActorStatus>,
    /// Free instances; a test that wants requests to hang takes them all.
    pub instances: Semaphore,
    pub max_queue: usize,
    pub waiting: AtomicUsize,
    /// Calls that have an instance now, and the most there ever were.
    pub inside: AtomicUsize,
    pub calls: AtomicUsize,
    pub seen: Mutex<Vec<wire::Request>>,
    /// How long a call holds its instance.
    pub takes: Duration,
    pub script: Box<Script>,
}

/// Counts down when a call ends, whichever way.
struct Within<'a>(&'a AtomicUsize);

impl<'a> Within<'a> {
    fn enter(counter: &'a AtomicUsize) -> (Self, usize) {
        let before = counter.fetch_add(1, Ordering::SeqCst);
        (Self(counter), before)
    }
}

impl Drop for Within<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl FakeActor {
    pub fn new(
        script: impl Fn(&wire::Request) -> Result<wire::Response, CallError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            identity: ActorIdentity {
                name: "fake".into(),
                subject: "MFAKE".into(),
                issuer: Some("AFAKE".into()),
                digest: "sha256:00".into(),
                model: "digits".into(),
                version: "1.0.0".into(),
            },
            status: Mutex::new(ActorStatus {
                state: ActorState::Running,
                idle_instances: 2,
                busy_instances: 1,
                starting_instances: 0,
                queue_depth: 3,
                instance_memory_bytes: vec![65_536, 131_072],
                traps: BTreeMap::from([("deadline", 4)]),
                claims_expire_in: Some(Duration::from_secs(86_400)),
                unsigned: false,
            }),
            instances: Semaphore::new(64),
            max_queue: 64,
            waiting: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            seen: Mutex::default(),
            takes: Duration::ZERO,
            script: Box::new(script),
        }
    }

    /// Answers every request with its method, path and body.
    pub fn echo() -> Self {
        Self::new(|request| {
            let mut body = format!("{} {} ", request.method, request.path).into_bytes();
            body.extend_from_slice(&request.body);
            Ok(ok(body))
        })
    }
}

/// A plain response.
pub fn ok(body: impl Into<Vec<u8>>) -> wire::Response {
    wire::Response {
        status_code: 200,
        status: "OK".into(),
        header: BTreeMap::from([("content-type".into(), "text/plain".into())]),
        body: body.into(),
    }
}

impl ActorService for FakeActor {
    fn identity(&self) -> &ActorIdentity {
        &self.identity
    }

    fn status(&self) -> ActorStatus {
        self.status.lock().unwrap().clone()
    }

    fn call<'a>(
        &'a self,
        operation: &'a str,
        message: Vec<u8>,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Reply, CallError>> {
        Box::pin(async move {
            assert_eq!(operation, wire::OP_HANDLE_REQUEST);
            let request: wire::Request = wire::decode(&message).unwrap();
            let begin = Instant::now();
            let work = async {
                let _instance = match self.instances.try_acquire() {
                    Ok(instance) => instance,
                    Err(_) => {
                        let (_place, before) = Within::enter(&self.waiting);
                        if before >= self.max_queue {
                            return Err(CallError::QueueFull { waiting: before });
                        }
                        self.instances.acquire().await.unwrap()
                    }
                };
                let queued = begin.elapsed();
                let (_inside, _) = Within::enter(&self.inside);
                self.calls.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(self.takes).await;
                let result = (self.script)(&request);
                self.seen.lock().unwrap().push(request);
                let phases = vec![
                    ("decode".to_owned(), Duration::from_millis(2)),
                    ("infer".to_owned(), Duration::from_millis(7)),
                    ("invented".to_owned(), Duration::from_millis(1)),
                ];
                Ok(Reply { body: wire::encode(&result?).unwrap(), phases, queued })
            };
            tokio::time::timeout_at(deadline.into(), work).await.unwrap_or(Err(CallError::Deadline))
        })
    }
}

/// A provider with one fake actor behind it.
pub struct Served {
    pub provider: HttpProvider,
    pub actor: Arc<FakeActor>,
    pub address: std::net::SocketAddr,
}

pub async fn serve(actor: FakeActor) -> Served {
    serve_with(actor, &[]).await
}

/// Serves with link values beside the address.
pub async fn serve_with(actor: FakeActor, values: &[(&str, &str)]) -> Served {
    let provider = HttpProvider::new(Limits::default());
    let actor = Arc::new(actor);
    // Not the address from which clients connect: a port that a test gives back stays free.
    provider.link(actor.clone(), &link("127.0.0.2:0", values)).await.unwrap();
    let address = provider.bound()[0].address;
    Served { provider, actor, address }
}

pub fn link(listen: &str, values: &[(&str, &str)]) -> Link {
    let mut all: BTreeMap<String, String> =
        values.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
    all.insert("LISTEN".into(), listen.into());
    Link { capability: "wascc:http_server".into(), binding: "default".into(), values: all }
}

/// One response as it came over the wire.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        let first = found.next();
        assert!(found.next().is_none(), "{name} is repeated: {self:?}");
        first.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The stable code of an error answer; checks the shape on the way.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let error: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert!(error["error"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        error["code"].as_str().unwrap().to_owned()
    }
}

/// A client that sends exactly the bytes it is told to.
pub struct Client {
    pub stream: TcpStream,
    held: Vec<u8>,
}

impl Client {
    pub async fn connect(address: std::net::SocketAddr) -> Self {
        let stream = timeout(SOON, TcpStream::connect(address)).await.unwrap().unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, held: Vec::new() }
    }

    /// A connection on which a request waits already when the server sees it, so that no timer of
    /// the server's, however short, ends before it is there.
    pub async fn connect_with(address: std::net::SocketAddr, bytes: impl AsRef<[u8]>) -> Self {
        // Blocking, on the only thread: the system alone answers.
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        std::io::Write::write_all(&mut stream, bytes.as_ref()).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: TcpStream::from_std(stream).unwrap(), held: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(SOON, self.stream.write_all(bytes.as_ref())).await.unwrap().unwrap();
    }

    /// Sends as much as the server takes; it may close at any moment.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        matches!(timeout(SOON, self.stream.write_all(bytes.as_ref())).await, Ok(Ok(())))
    }

    async fn fill(&mut self) -> usize {
        let count = timeout(SOON, self.stream.read_buf(&mut self.held)).await;
        count.expect("nothing arrived in time").unwrap_or(0)
    }

    /// The next response, read by its own Content-Length; `None` when the connection ended.
    pub async fn try_receive(&mut self, to_head: bool) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.held.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if self.fill().await == 0 {
                assert!(self.held.is_empty(), "cut: {:?}", String::from_utf8_lossy(&self.held));
                return None;
            }
        };
        let head = String::from_utf8(self.held.drain(..end).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap();
        assert!(status_line.starts_with("HTTP/1."), "status line: {status_line:?}");
        let status = status_line.split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<_> = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        if status >= 200 && status != 204 && !to_head {
            let length: usize = answer.header("content-length").unwrap().parse().unwrap();
            while self.held.len() < length {
                assert_ne!(self.fill().await, 0, "the body was cut");
            }
            answer.body = self.held.drain(..length).collect();
        }
        Some(answer)
    }

    pub async fn receive(&mut self) -> Answer {
        self.try_receive(false).await.expect("the connection ended without an answer")
    }

    pub async fn exchange(&mut self, bytes: impl AsRef<[u8]>) -> Answer {
        self.send(bytes).await;
        self.receive().await
    }

    /// Asserts that the server ends the connection without another byte.
    pub async fn expect_end(&mut self) {
        assert!(self.held.is_empty(), "more came: {:?}", String::from_utf8_lossy(&self.held));
        assert_eq!(self.fill().await, 0, "more came: {:?}", String::from_utf8_lossy(&self.held));
    }
}

/// One request on a connection of its own.
pub async fn once(address: std::net::SocketAddr, bytes: impl AsRef<[u8]>) -> Answer {
    Client::connect(address).await.exchange(bytes).await
}

pub fn put(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("PUT {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < SOON, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the server has no connection any more, as its metrics tell.
pub async fn until_no_connection(admin: std::net::SocketAddr) {
    let begin = Instant::now();
    loop {
        let text = once(admin, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await.text();
        let line = text.lines().find(|line| line.starts_with("graphlet_connections{")).unwrap();
        if line.ends_with(" 0") {
            return;
        }
        assert!(begin.elapsed() < SOON, "not in time: {line}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
