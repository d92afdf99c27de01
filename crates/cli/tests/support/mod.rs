//! What the tests of the command share: a user with folders of their own, modules that are built
//! once, the served process, a client that speaks HTTP by hand, and pictures.
#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "each test file uses its part; helpers fail as tests do and tell what they skip"
)]

mod client;
mod guests;
mod modules;
pub mod pictures;
mod server;
mod user;

use std::{
    env,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU8, Ordering},
    thread,
    time::{Duration, Instant},
};

pub use self::{
    client::{Answer, Client, get, put, request},
    guests::{Work, scripted_guest, scripted_guest_with, tiny_module},
    modules::{Built, EPOCH, digits, mobilenet},
    server::Server,
    user::{Run, User},
};

/// Upper bound for anything that should happen soon, on a machine that does other things too.
pub const SOON: Duration = Duration::from_secs(60);

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Models and photographs that are not part of the repository; says so when they are not there.
pub fn shared() -> Option<PathBuf> {
    let folder =
        env::var_os("GRAPHLET_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    let there = folder.join("models").is_dir() && folder.join("images").is_dir();
    if !there {
        println!("skipped: no models and photographs at {}", folder.display());
    }
    there.then_some(folder)
}

/// An address at which nobody listens: of an address of this machine's own that nobody else uses, so
/// that no other test is given it, a port that the system gives to no connection. Asked for without
/// a listener, which a process that another test begins at that moment would hold, too.
pub fn free_address() -> SocketAddr {
    static GIVEN: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, high | 1, low, GIVEN.fetch_add(1, Ordering::Relaxed));
    let mut addresses = (20_000..30_000).map(|port| SocketAddr::from((own, port)));
    addresses.find(|address| TcpStream::connect(address).is_err()).unwrap()
}

/// Waits until `condition` gives a value.
#[track_caller]
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begin.elapsed() < SOON, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
