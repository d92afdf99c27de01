//! The cache of modules.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    client::{Registry, Resolved},
    credentials::Credentials,
    downloads::{Downloads, Report, Source},
    error::{PullError, StoreError},
    files::{Cached, Files, Freed, Record},
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

/// A content-addressed cache of modules; clones are the same cache.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    files: Files,
    registry: Registry,
    downloads: Downloads,
    options: StoreOptions,
}

impl Store {
    /// Opens a cache, making the folder (mode 0700) when it is not there. Several processes may
    /// have the same one open.
    ///
    /// # Errors
    /// [`StoreError`] when the folder cannot be made, or is not ours.
    pub fn open(folder: impl Into<PathBuf>, options: StoreOptions) -> Result<Self, StoreError> {
        let files = Files::open(folder.into())?;
        let registry = Registry::new(options.registries.clone());
        let downloads = Downloads::default();
        Ok(Store { inner: Arc::new(Inner { files, registry, downloads, options }) })
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
        let after = self.inner.options.deadline;
        let pull = self.bring(&reference, policy, credentials, progress);
        let timed = tokio::time::timeout(after, pull).await;
        timed.unwrap_or_else(|_| {
            Err(PullError::Deadline { reference: reference.to_string(), after })
        })
    }

    /// What is in the cache.
    ///
    /// # Errors
    /// [`StoreError`] when the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Cached>, StoreError> {
        self.inner.files.list()
    }

    /// Removes the modules that were not asked for longest until the rest fits `budget_bytes`;
    /// those in use stay, and what was handed out within [`StoreOptions::grace`].
    ///
    /// # Errors
    /// [`StoreError`] when the folder cannot be read or a file not be removed.
    pub fn collect_garbage(
        &self,
        in_use: &[Digest],
        budget_bytes: u64,
    ) -> Result<Freed, StoreError> {
        self.inner.files.collect_garbage(in_use, budget_bytes, self.inner.options.grace)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.inner.files.folder()
    }

    /// The way to registries that this cache uses, with which modules are pushed.
    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    async fn bring(
        &self,
        reference: &ModuleRef,
        policy: PullPolicy,
        credentials: &Credentials,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Pulled, PullError> {
        let shown = || reference.to_string();
        if policy != PullPolicy::Always {
            let record = self.with_files({
                let reference = reference.clone();
                move |files| Ok(files.record(&reference))
            });
            let record = match record.await? {
                Some(record) if self.has(record.digest, record.size).await? => Some(record),
                _ => None,
            };
            match record {
                Some(record) if self.inner.files.may_use(&record, reference, credentials) => {
                    let Record { manifest_digest, digest, size, .. } = record;
                    return Ok(self.pulled(reference, manifest_digest, (digest, size), true));
                }
                Some(_) if policy == PullPolicy::Never => {
                    return Err(PullError::NotYours { reference: shown() });
                }
                None if policy == PullPolicy::Never => {
                    return Err(PullError::NotPresent { reference: shown() });
                }
                _ => {}
            }
        }
        progress(Progress::Resolving);
        let resolved = self.inner.registry.resolve(reference, credentials).await?;
        let (manifest_digest, layer) = (resolved.manifest_digest, resolved.layer.clone());
        let limit = self.inner.options.max_module_bytes;
        if layer.size > limit {
            return Err(PullError::TooLarge { reference: shown(), bytes: layer.size, limit });
        }
        let module = (layer.digest, layer.size);
        let login = resolved.session.login().cloned();
        let was_here = self.has(layer.digest, layer.size).await?;
        if !was_here {
            self.download(reference, resolved, progress).await?;
        }
        let remembered = reference.clone();
        self.with_files(move |files| {
            files.remember(&remembered, manifest_digest, module, login.as_ref())
        })
        .await?;
        Ok(self.pulled(reference, manifest_digest, module, was_here))
    }

    async fn download(
        &self,
        reference: &ModuleRef,
        resolved: Resolved,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), PullError> {
        let total = resolved.layer.size;
        let repository = format!("{}/{}", resolved.session.endpoint.host, reference.repository());
        let source = Source { repository, digest: resolved.layer.digest };
        let store = self.clone();
        let begin = |report: Report| async move { store.fetch(resolved, &report).await };
        let shown = |done| progress(Progress::Downloading { done, total });
        match self.inner.downloads.join(source, begin, shown).await {
            Some(result) => result,
            None => {
                let error = io::Error::other("the download was given up");
                Err(PullError::storage(self.folder())(error))
            }
        }
    }

    /// The work of one download.
    async fn fetch(&self, mut resolved: Resolved, report: &Report) -> Result<(), PullError> {
        let digest = resolved.layer.digest;
        let (partial, file) = self
            .with_files(|files| {
                let partial = files.partial()?;
                let file = partial.as_file().try_clone()?;
                Ok((partial, file))
            })
            .await?;
        let mut file = tokio::fs::File::from_std(file);
        resolved.download(&mut file, |bytes| report.received(bytes)).await?;
        drop(file);
        self.with_files(move |files| files.keep(partial, digest)).await
    }

    async fn has(&self, digest: Digest, size: u64) -> Result<bool, PullError> {
        self.with_files(move |files| files.find(digest, size)).await
    }

    fn pulled(
        &self,
        reference: &ModuleRef,
        manifest_digest: Digest,
        (digest, size): (Digest, u64),
        was_here: bool,
    ) -> Pulled {
        let path = self.inner.files.blob(digest);
        let reference = reference.pinned(manifest_digest);
        Pulled { digest, manifest_digest, path, reference, size, was_here }
    }

    /// Work on the disk, where it holds up nobody.
    async fn with_files<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Files) -> io::Result<T> + Send + 'static,
    ) -> Result<T, PullError> {
        let inner = self.inner.clone();
        let done = tokio::task::spawn_blocking(move || work(&inner.files)).await;
        let done = done.unwrap_or_else(|error| Err(io::Error::other(error)));
        done.map_err(PullError::storage(self.folder()))
    }
}
