//! Modules written by hand and signed, a runtime with a state folder of its own, and a client, for
//! tests with real processes.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "each test file uses its part, and may panic"
)]

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use claims::{IssuerKeyPair, Seed, Statement, Timestamp, sign};
use node_agent::runtime::{
    Container, ContainerEvent, ContainerId, ContainerSpec, Exit, ModuleKind, PodRef, Runtime,
    RuntimeConfig, Trust,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::{sleep, timeout},
};
use zeroize::Zeroizing;

/// Upper bound for anything that should happen soon, on a machine that does other things too.
pub const SOON: Duration = Duration::from_secs(60);

/// The `graphlet` command, and whether these tests can run at all.
pub fn graphlet() -> Option<PathBuf> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: pods get users of their own, which needs root");
        return None;
    }
    let built = std::env::var_os("GRAPHLET_BIN").map(PathBuf::from).or_else(|| {
        let beside = Path::new(env!("CARGO_BIN_EXE_graphlet-node")).with_file_name("graphlet");
        beside.exists().then_some(beside)
    });
    if built.is_none() {
        println!("skipped: the command graphlet is not built (cargo build -p cli)");
        assert!(std::env::var_os("CI").is_none(), "in CI a skip is a failure");
    }
    built
}

/// A runtime, its events, and its folder.
pub struct Node {
    pub runtime: Runtime,
    pub events: mpsc::UnboundedReceiver<ContainerEvent>,
    pub folder: Arc<tempfile::TempDir>,
}

impl Node {
    pub async fn new() -> Option<Self> {
        graphlet()?;
        Some(Self::open(Arc::new(tempfile::tempdir().unwrap())).await)
    }

    /// A runtime on the state of an earlier one.
    pub async fn open(folder: Arc<tempfile::TempDir>) -> Self {
        let config = RuntimeConfig::new(
            folder.path().join("state"),
            graphlet().unwrap(),
            env!("CARGO_BIN_EXE_graphlet-node"),
            [192, 0, 2, 1].into(),
        );
        let (runtime, events) = Runtime::open(config).await.unwrap();
        Self { runtime, events, folder }
    }

    /// Drops the runtime, as the agent's end would, and opens the next one.
    pub async fn restarted(self) -> Self {
        let Self { runtime, events, folder } = self;
        drop((runtime, events));
        Self::open(folder).await
    }

    /// What is asked for: the signed module under a new pod, answering on a free port.
    pub fn spec(&self, kind: ModuleKind, wasm: &str, name: &str) -> ContainerSpec {
        let module = signed(wasm);
        let digest = {
            use sha2::Digest as _;
            let digest = sha2::Sha256::digest(&module);
            digest.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
        };
        let path = self.folder.path().join(digest.replace(':', "-"));
        fs::write(&path, module).unwrap();
        let listen = match kind {
            ModuleKind::Actor => vec![free_address()],
            ModuleKind::Command => Vec::new(),
        };
        ContainerSpec {
            pod: PodRef { namespace: "test".into(), name: name.into(), uid: format!("uid-{name}") },
            container: "main".into(),
            attempt: 0,
            module: path,
            digest,
            trust: Trust { issuers: [issuer().public().to_string()].into(), ..Trust::default() },
            kind,
            env: BTreeMap::new(),
            args: Vec::new(),
            mounts: Vec::new(),
            listen,
            instances: Some(1),
            isolated_requests: false,
            memory_bytes: None,
            cpu_millis: None,
        }
    }

    pub fn actor(&self, name: &str) -> ContainerSpec {
        self.spec(ModuleKind::Actor, &actor(), name)
    }

    /// Starts an actor and waits until it answers.
    pub async fn ready(&mut self, spec: ContainerSpec) -> Container {
        let container = self.runtime.start(spec).await.unwrap();
        match self.event().await {
            ContainerEvent::Ready(id) if id == container.id => container,
            other => panic!("{other:?} instead of readiness: {}", self.log(&container).await),
        }
    }

    pub async fn event(&mut self) -> ContainerEvent {
        timeout(SOON, self.events.recv()).await.expect("an event in time").unwrap()
    }

    /// How a container ended, whatever it did before.
    pub async fn exit(&mut self, id: &ContainerId) -> Exit {
        loop {
            if let ContainerEvent::Exited(ended, exit) = self.event().await
                && ended == *id
            {
                return exit;
            }
        }
    }

    /// Waits until a container computes: until it has used 50 ms more than when this began.
    pub async fn computing(&self, id: &ContainerId) {
        let used = || self.runtime.usage(id).unwrap().cpu;
        let before = used();
        let computes = async {
            while used() < before + Duration::from_millis(50) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, computes).await.expect("it computes in time");
    }

    pub async fn log(&self, container: &Container) -> String {
        let spec = &container.spec;
        self.log_with(spec, Default::default()).await
    }

    pub async fn log_with(
        &self,
        spec: &ContainerSpec,
        options: node_agent::runtime::LogOptions,
    ) -> String {
        use futures_util::StreamExt as _;
        let stream = self.runtime.logs(&spec.pod, &spec.container, options).await.unwrap();
        let chunks: Vec<_> = stream.map(|chunk| chunk.unwrap()).collect().await;
        String::from_utf8(chunks.concat()).unwrap()
    }
}

fn issuer() -> IssuerKeyPair {
    IssuerKeyPair::from_seed(&Seed::issuer(Zeroizing::new([7; 32]))).unwrap()
}

fn signed(text: &str) -> Vec<u8> {
    let wasm = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let statement = Statement {
        subject: Seed::actor(Zeroizing::new([8; 32])).actor_key().unwrap(),
        name: "test".into(),
        version: None,
        revision: None,
        tags: Vec::new(),
        capabilities: vec!["wascc:http_server".into(), "wascc:logging".into()],
        // The same bytes each time, so that code is compiled once.
        issued_at: Timestamp(1_700_000_000),
        valid_for: None,
        not_before: None,
    };
    sign(&wasm, &issuer(), &statement).unwrap()
}

/// An address at which nobody listens: of an address of this machine's own that nobody else uses, so
/// that no other test is given it, a port that the system gives to no connection. Asked for without
/// a listener, which a process that another test begins at that moment would hold, too.
pub fn free_address() -> SocketAddr {
    static GIVEN: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, high | 1, low, GIVEN.fetch_add(1, Ordering::Relaxed));
    let mut addresses = (20_000..30_000).map(|port| SocketAddr::from((own, port)));
    addresses.find(|address| std::net::TcpStream::connect(address).is_err()).unwrap()
}

/// Waits until nobody has an address any more. A process that another test begins at that moment
/// may hold it until it has become another program.
pub async fn freed(address: SocketAddr) {
    let begin = std::time::Instant::now();
    while std::net::TcpListener::bind(address).is_err() {
        assert!(begin.elapsed() < SOON, "{address} is not free again");
        sleep(Duration::from_millis(5)).await;
    }
}

/// An actor that does what the request's last byte says: `E` never comes back, `L` computes for
/// about a second, `H` takes memory until it gets no more; others are answered with the byte.
pub fn actor() -> String {
    let reply = wire::Response {
        status_code: 200,
        status: "OK".into(),
        body: b"?".to_vec(),
        ..wire::Response::default()
    };
    let reply = wire::encode(&reply).unwrap();
    // The body is a message's last field, here and in requests.
    assert_eq!(reply.last(), Some(&b'?'));
    let data: String = reply.iter().map(|byte| format!("\\{byte:02x}")).collect();
    format!(
        r#"(module
  (import "wapc" "__guest_request" (func $guest_request (param i32 i32)))
  (import "wapc" "__guest_response" (func $guest_response (param i32 i32)))
  (memory (export "memory") 32)
  (data (i32.const 2048) "{data}")
  (func (export "__guest_call") (param $op i32) (param $msg i32) (result i32)
    (local $what i32) (local $n i64)
    (call $guest_request (i32.const 1024) (i32.const 65536))
    (local.set $what (i32.load8_u (i32.add (i32.const 65535) (local.get $msg))))
    (if (i32.eq (local.get $what) (i32.const 69)) (then (loop $again (br $again))))
    (if (i32.eq (local.get $what) (i32.const 76))
      (then (loop $again
        (local.set $n (i64.add (local.get $n) (i64.const 1)))
        (br_if $again (i64.lt_u (local.get $n) (i64.const 1500000000))))))
    (if (i32.eq (local.get $what) (i32.const 72))
      (then (loop $again
        (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
        unreachable))
    (i32.store8 (i32.const {answer}) (local.get $what))
    (call $guest_response (i32.const 2048) (i32.const {length}))
    i32.const 1)
)"#,
        answer = 2048 + reply.len() - 1,
        length = reply.len(),
    )
}

/// A command that writes `text` to standard output and ends with `code`.
pub fn command(text: &str, code: i32) -> String {
    let data: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "{data}")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (i32.const {length}))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (call $proc_exit (i32.const {code})))
)"#,
        length = text.len(),
    )
}

/// A command that copies the file `greeting` of its first folder to standard output.
pub fn reader() -> &'static str {
    r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read"
    (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 512) "greeting")
  (func (export "_start") (local $error i32)
    ;; fd_read is the second right.
    (local.set $error (call $path_open (i32.const 3) (i32.const 0) (i32.const 512) (i32.const 8)
      (i32.const 0) (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 100)))
    (if (local.get $error) (then (call $proc_exit (local.get $error))))
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (i32.const 1024))
    (drop (call $fd_read (i32.load (i32.const 100)) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 4) (i32.load (i32.const 8)))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
)"#
}

/// Sends one request on a connection of its own; gives the whole response as text.
pub async fn post(address: SocketAddr, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    timeout(SOON, stream.read_to_string(&mut response)).await??;
    Ok(response)
}

/// Lines of `/proc/PID/status` by name.
pub fn status(pid: u32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| {
            (name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" "))
        })
        .collect()
}

/// Whether the process is there and not only waiting to be asked how it ended.
pub fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.starts_with(" Z"))
}

/// Children of this process that have ended and were not asked how.
pub fn zombies() -> Vec<String> {
    let me = format!(" Z {} ", std::process::id());
    let stats = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(&me)).collect()
}
