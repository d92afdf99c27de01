//! A server that answers what a test tells it to, well-formed or not, and remembers what it was
//! asked. Written by hand on TCP, as no HTTP library would send what it sends.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use registry::Digest;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What was asked.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    headers: HashMap<String, String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// `user:password`.
    pub fn basic_auth(&self) -> Option<String> {
        let text = self.header("authorization")?.strip_prefix("Basic ")?;
        String::from_utf8(STANDARD.decode(text).ok()?).ok()
    }

    pub fn query(&self, name: &str) -> Option<String> {
        let url: reqwest::Url = format!("http://x{}", self.path).parse().ok()?;
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    pub fn is_blob(&self) -> bool {
        self.path.contains("/blobs/sha256:")
    }

    pub fn is_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }
}

/// What is answered.
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
}

enum Body {
    Whole(Vec<u8>),
    /// The length says more than comes.
    Cut {
        sent: Vec<u8>,
        length: usize,
    },
    /// The same bytes again and again.
    Endless,
    /// One byte at a time, with a pause before each.
    Drip {
        bytes: Vec<u8>,
        pause: Duration,
    },
    /// Nothing at all, the connection stays open.
    Silence,
    /// The connection is closed at once.
    Hangup,
}

impl Reply {
    fn of(status: u16, body: Body) -> Self {
        Reply { status, headers: Vec::new(), body }
    }

    pub fn bytes(status: u16, bytes: impl Into<Vec<u8>>) -> Self {
        Reply::of(status, Body::Whole(bytes.into()))
    }

    pub fn json(status: u16, value: &Value) -> Self {
        Reply::bytes(status, value.to_string()).with("Content-Type", "application/json")
    }

    pub fn html(status: u16) -> Self {
        Reply::bytes(status, "<html><body>Welcome</body></html>")
            .with("Content-Type", "text/html; charset=utf-8")
    }

    pub fn cut(status: u16, sent: impl Into<Vec<u8>>, length: usize) -> Self {
        Reply::of(status, Body::Cut { sent: sent.into(), length })
    }

    pub fn endless(status: u16) -> Self {
        Reply::of(status, Body::Endless)
    }

    pub fn drip(bytes: impl Into<Vec<u8>>, pause: Duration) -> Self {
        Reply::of(200, Body::Drip { bytes: bytes.into(), pause })
    }

    pub fn silence() -> Self {
        Reply::of(200, Body::Silence)
    }

    pub fn hangup() -> Self {
        Reply::of(200, Body::Hangup)
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// A manifest for a module of that digest and size.
    pub fn manifest(digest: Digest, size: usize) -> Self {
        Reply::bytes(200, manifest(digest, size))
            .with("Content-Type", "application/vnd.oci.image.manifest.v1+json")
    }
}

/// A manifest's bytes for a module of that digest and size.
pub fn manifest(digest: Digest, size: usize) -> Vec<u8> {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.wasm.config.v0+json",
                   "digest": Digest::of(b"{}").to_string(), "size": 2},
        "layers": [{"mediaType": "application/wasm", "digest": digest.to_string(),
                    "size": size}],
    });
    manifest.to_string().into_bytes()
}

/// The server; dropped, it is gone.
pub struct Hostile {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    open: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

type Answer = dyn Fn(&Request, usize) -> Reply + Send + Sync;

impl Hostile {
    /// Answers with what `answer` says for a request and the number of those before it.
    pub async fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let open = Arc::new(AtomicUsize::new(0));
        let answer: Arc<Answer> = Arc::new(answer);
        let task = tokio::spawn({
            let (seen, open) = (seen.clone(), open.clone());
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (seen, open, answer) = (seen.clone(), open.clone(), answer.clone());
                    tokio::spawn(async move {
                        open.fetch_add(1, Ordering::SeqCst);
                        serve(stream, &seen, &*answer).await;
                        open.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            }
        });
        Hostile { address, seen, open, task }
    }

    /// A registry with one module under every tag, whose blobs `blob` answers.
    pub async fn with_module(
        digest: Digest,
        size: usize,
        blob: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let blobs = AtomicUsize::new(0);
        Self::start(move |request, _| {
            if request.is_blob() {
                blob(request, blobs.fetch_add(1, Ordering::SeqCst))
            } else {
                Reply::manifest(digest, size)
            }
        })
        .await
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    pub fn blob_requests(&self) -> Vec<Request> {
        self.requests().into_iter().filter(Request::is_blob).collect()
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request and its answer; then the connection is closed.
async fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Request>>, answer: &Answer) {
    let Some(request) = read_request(&mut stream).await else { return };
    let before = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len() - 1
    };
    let reply = answer(&request, before);
    // The client may well leave in the middle.
    let _ = write_reply(&mut stream, reply, request.method == "HEAD").await;
}

async fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        // Nor does it understand TLS.
        if stream.read_buf(&mut bytes).await.ok()? == 0 || bytes.first() == Some(&0x16) {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < end + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(Request { method, path, headers })
}

async fn write_reply(stream: &mut TcpStream, reply: Reply, head_only: bool) -> std::io::Result<()> {
    let length = match &reply.body {
        Body::Whole(bytes) | Body::Drip { bytes, .. } => Some(bytes.len()),
        Body::Cut { length, .. } => Some(*length),
        Body::Endless => None,
        Body::Silence => {
            let mut rest = [0; 1];
            return stream.read(&mut rest).await.map(drop);
        }
        Body::Hangup => return Ok(()),
    };
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(length) = length {
        head += &format!("Content-Length: {length}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes()).await?;
    if head_only {
        return Ok(());
    }
    match reply.body {
        Body::Whole(bytes) | Body::Cut { sent: bytes, .. } => stream.write_all(&bytes).await?,
        Body::Drip { bytes, pause } => {
            for byte in bytes {
                tokio::time::sleep(pause).await;
                stream.write_all(&[byte]).await?;
            }
        }
        Body::Endless => loop {
            stream.write_all(&[b' '; 64 << 10]).await?;
        },
        Body::Silence | Body::Hangup => {}
    }
    stream.flush().await
}
