//! The embedded model's component behind a port, and a client that sends what no library would.
#![allow(dead_code, reason = "tests and the example use their part")]

use std::{
    collections::BTreeMap,
    env,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use builder::{BuildError, BuildOptions, GuestKind, Home, Silent};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot};
use wasmtime::{
    Engine, Result, Store,
    component::{Component, Linker, ResourceTable},
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
    io::TokioIo,
    p2::{
        bindings::{ProxyPre, http::types::Scheme},
        body::HyperOutgoingBody,
    },
};

/// A component that is being served.
pub struct Server {
    address: SocketAddr,
    bytes: Vec<u8>,
    imports: Vec<String>,
    // Serves until the test ends.
    _runtime: Runtime,
}

/// What the server said.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub header: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Builds the embedded model; an error text when what builds it is not set up.
pub fn build(kind: GuestKind) -> Result<Vec<u8>, String> {
    let cache = env::var_os("GRAPHLET_CACHE_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let home = || PathBuf::from(env::var_os("HOME").unwrap()).join(".cache");
        env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("graphlet")
    });
    let home = Home::find(cache).unwrap();
    let spec = home.root().join("models/digits/model.toml");
    match builder::build(
        &home,
        &BuildOptions { spec, kind, simd: None, artifacts: None },
        &mut Silent,
    ) {
        Ok(built) => Ok(built.module),
        Err(error @ (BuildError::NoPython { .. } | BuildError::NoGuestToolchain { .. })) => {
            Err(error.to_string())
        }
        Err(error) => panic!("the embedded model does not build: {error:?}"),
    }
}

impl Server {
    /// The one of this process.
    pub fn get() -> &'static Result<Self, String> {
        static SERVER: OnceLock<Result<Server, String>> = OnceLock::new();
        SERVER.get_or_init(|| {
            let bytes = build(GuestKind::Component)?;
            Ok(Self::start(&Engine::default(), bytes).unwrap())
        })
    }

    /// Serves a component on a free port, a fresh instance for each request.
    pub fn start(engine: &Engine, bytes: Vec<u8>) -> Result<Self> {
        let component = Component::new(engine, &bytes)?;
        let shape = component.component_type();
        let imports = shape.imports(engine).map(|(name, _)| name.to_owned()).collect();
        let mut linker = Linker::<State>::new(engine);
        // The world `wasi:http/proxy` and nothing beyond it, as `wasmtime serve` gives it.
        wasmtime_wasi_http::p2::add_to_linker_async(&mut linker)?;
        let pre = Arc::new(ProxyPre::new(linker.instantiate_pre(&component)?)?);
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let pre = Arc::clone(&pre);
                let service = service_fn(move |request| answer(Arc::clone(&pre), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(client), service));
            }
        });
        Ok(Server { address, bytes, imports, _runtime: runtime })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// Sends a request with its length.
    pub fn send(&self, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
        send(self.address, method, target, fields, body).unwrap()
    }

    /// Sends a picture in chunks of 64 KiB.
    pub fn send_in_chunks(&self, target: &str, body: &[u8]) -> Answer {
        let fields = [("transfer-encoding", "chunked")];
        let head = head(self.address, "PUT", target, &fields) + "\r\n";
        let mut chunked = Vec::new();
        for chunk in body.chunks(64 << 10) {
            chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            chunked.extend_from_slice(chunk);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        exchange(self.address, &head, &chunked, false).unwrap()
    }

    /// Promises a whole picture and hangs up in the middle of it; `None` without an answer.
    pub fn send_cut_short(&self, target: &str, body: &[u8]) -> Option<Answer> {
        let mut head = head(self.address, "PUT", target, &[]);
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        exchange(self.address, &head, &body[..body.len() / 2], true)
    }
}

/// Sends a request with its length over a connection of its own; `None` without an answer.
pub fn send(
    address: SocketAddr,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
    body: &[u8],
) -> Option<Answer> {
    let mut head = head(address, method, target, fields);
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    exchange(address, &head, body, false)
}

fn head(address: SocketAddr, method: &str, target: &str, fields: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {address}\r\n");
    for (name, value) in fields.iter().chain(&[("connection", "close")]) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head
}

fn exchange(address: SocketAddr, head: &str, body: &[u8], hangs_up: bool) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    // A server that has refused the body may have stopped to read it.
    let _ = stream.write_all(body);
    if hangs_up {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut bytes = Vec::new();
    // What was sent in vain may break the connection after the answer.
    let _ = stream.read_to_end(&mut bytes);
    parse(&bytes)
}

/// Splits an answer; its end is the connection's.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
    let fields = lines.map(|line| line.split_once(": ").unwrap());
    let header = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    Some(Answer { status, header: header.collect(), body: bytes[end + 4..].to_vec() })
}

struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    nothing_out: NothingOut,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: &mut self.nothing_out,
        }
    }
}

/// A classifier sends no requests.
struct NothingOut;

type Sent = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

impl WasiHttpHooks for NothingOut {
    fn send_request(
        &mut self,
        _: Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        Box::new(async { Err(Error::HttpRequestDenied) })
    }
}

/// One request, one instance.
async fn answer(
    pre: Arc<ProxyPre<State>>,
    request: Request<Incoming>,
) -> Result<Response<HyperOutgoingBody>> {
    let state = State {
        wasi: WasiCtx::builder().build(),
        http: WasiHttpCtx::new(),
        table: ResourceTable::new(),
        nothing_out: NothingOut,
    };
    let mut store = Store::new(pre.engine(), state);
    let (sender, receiver) = oneshot::channel();
    let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
    let out = store.data_mut().http().new_response_outparam(sender)?;
    let task = tokio::spawn(async move {
        let proxy = pre.instantiate_async(&mut store).await?;
        proxy.wasi_http_incoming_handler().call_handle(&mut store, request, out).await
    });
    match receiver.await {
        Ok(answered) => Ok(answered?),
        // The instance ended without an answer.
        Err(_) => {
            Err(task.await.unwrap().err().unwrap_or_else(|| wasmtime::Error::msg("no answer")))
        }
    }
}
