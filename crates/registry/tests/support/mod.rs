//! What the tests of registries share: a real registry, one that misbehaves, modules.
#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    reason = "each test file uses its part; helpers fail as tests do"
)]

mod hostile;
mod real;

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use claims::{IssuerKeyPair, Seed, Statement, Timestamp};
use registry::{Credentials, PullError, PullPolicy, Pulled, RegistryOptions, Store, StoreOptions};
use zeroize::Zeroizing;

pub use self::{
    hostile::{Hostile, Reply, Request},
    real::{Access, Authority, Real, TokenRealm, free_address},
};

/// A WebAssembly module of about `bytes` bytes that no other seed gives.
pub fn module(seed: u64, bytes: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    let length = bytes as u32;
    let mut size = Vec::new();
    let mut rest = length + 5;
    loop {
        let low = (rest & 0x7f) as u8;
        rest >>= 7;
        size.push(if rest == 0 { low } else { low | 0x80 });
        if rest == 0 {
            break;
        }
    }
    module.push(0);
    module.extend(size);
    module.extend(b"\x04fill");
    for _ in 0..bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        module.push(state as u8);
    }
    module.into()
}

/// A signed module, with its issuer's and its actor's keys.
pub fn signed_module() -> (Bytes, String, String) {
    let pair = IssuerKeyPair::from_seed(&Seed::issuer(Zeroizing::new([7; 32]))).unwrap();
    let subject = Seed::actor(Zeroizing::new([9; 32])).actor_key().unwrap();
    let statement = Statement {
        subject,
        name: "digits".into(),
        version: Some("1.2.3".into()),
        revision: None,
        tags: Vec::new(),
        capabilities: vec!["wascc:http_server".into()],
        issued_at: Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
        valid_for: None,
        not_before: None,
    };
    let signed = claims::sign(&module(1, 1000), &pair, &statement).unwrap();
    (signed.into(), pair.public().to_string(), subject.to_string())
}

/// Options that do not wait long between attempts.
pub fn hasty() -> RegistryOptions {
    RegistryOptions {
        connect_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(60),
        pause: Duration::from_millis(5),
        ..RegistryOptions::default()
    }
}

/// A cache in a folder that goes with it.
pub struct Cache {
    pub store: Store,
    folder: tempfile::TempDir,
}

impl Cache {
    pub fn new() -> Self {
        Self::with(StoreOptions { registries: hasty(), ..StoreOptions::default() })
    }

    pub fn reaching(registries: RegistryOptions) -> Self {
        Self::with(StoreOptions { registries, ..StoreOptions::default() })
    }

    pub fn with(options: StoreOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("cache"), options).unwrap();
        Cache { store, folder }
    }

    pub async fn pull(&self, reference: &str) -> Result<Pulled, PullError> {
        self.pull_as(reference, &Credentials::anonymous()).await
    }

    pub async fn pull_as(
        &self,
        reference: &str,
        credentials: &Credentials,
    ) -> Result<Pulled, PullError> {
        self.store.pull(reference, PullPolicy::Always, credentials, &|_| {}).await
    }

    /// Names of what lies in one of the cache's folders.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.store.folder().join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Fails when anything of a module is here, whole or not.
    #[track_caller]
    pub fn assert_empty(&self) {
        assert_eq!(self.names("blobs"), [""; 0]);
        assert_eq!(self.names("partial"), [""; 0]);
        assert_eq!(self.names("refs"), [""; 0]);
    }
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waited)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}

pub fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}
