//! The cache's folder: modules by digest, what references meant, downloads on their way.
//!
//! ```text
//! blobs/<hex>         modules, 0444, each whole and verified when it got its name
//! refs/<hash>.json    what a reference meant and who may know it
//! partial/            downloads; each file is locked by the process that fills it
//! salt                for the hashes of logins
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::{
    credentials::Credentials,
    error::StoreError,
    reference::{Digest, ModuleRef},
};

/// A module in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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

/// What a reference meant when its registry was last asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) manifest_digest: Digest,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// Whether anybody may have it.
    anonymous: bool,
    /// The logins with which it was pulled, as salted hashes.
    logins: BTreeSet<String>,
}

/// The folder.
pub(crate) struct Files {
    folder: PathBuf,
    salt: [u8; 32],
    /// Held while a file is found and marked as used, and while files are removed.
    gate: Mutex<()>,
}

impl Files {
    pub(crate) fn open(folder: PathBuf) -> Result<Self, StoreError> {
        let error = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError { path, source }
        };
        private_dir(&folder).map_err(error(&folder))?;
        for name in [BLOBS, REFS, PARTIAL] {
            let path = folder.join(name);
            private_dir(&path).map_err(error(&path))?;
        }
        let path = folder.join("salt");
        let salt = salt(&path).map_err(error(&path))?;
        let files = Files { folder, salt, gate: Mutex::new(()) };
        files.remove_abandoned().map_err(error(&files.folder.join(PARTIAL)))?;
        Ok(files)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn blob(&self, digest: Digest) -> PathBuf {
        self.folder.join(BLOBS).join(digest.hex())
    }

    /// A file to download into, which goes when it is dropped.
    pub(crate) fn partial(&self) -> io::Result<NamedTempFile> {
        let file = tempfile::Builder::new()
            .prefix("module-")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(self.folder.join(PARTIAL))?;
        file.as_file().lock()?;
        Ok(file)
    }

    /// Gives a whole and verified file its name.
    pub(crate) fn keep(&self, file: NamedTempFile, digest: Digest) -> io::Result<()> {
        file.as_file().set_permissions(Permissions::from_mode(0o444))?;
        // A crash may leave the name with nothing behind it otherwise.
        file.as_file().sync_all()?;
        let _gate = self.gate();
        file.as_file().set_modified(SystemTime::now())?;
        file.persist(self.blob(digest)).map_err(|error| error.error)?;
        File::open(self.folder.join(BLOBS))?.sync_all()
    }

    /// Whether a module is here, marking it as used. What a disk has spoilt is removed.
    pub(crate) fn find(&self, digest: Digest, size: u64) -> io::Result<bool> {
        let path = self.blob(digest);
        let mut file = {
            let _gate = self.gate();
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            };
            // Before it is read through, so that no clean-up takes it meanwhile.
            file.set_modified(SystemTime::now())?;
            file
        };
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        let mut bytes = 0;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
            hasher.update(&buffer[..read]);
        }
        if bytes == size && Digest::finish(hasher) == digest {
            return Ok(true);
        }
        tracing::warn!(module = %digest, path = %path.display(), "Spoilt module removed");
        let _gate = self.gate();
        remove(&path)?;
        Ok(false)
    }

    /// What a reference meant.
    pub(crate) fn record(&self, reference: &ModuleRef) -> Option<Record> {
        let name = reference.to_string();
        let text = fs::read(self.record_path(&name)).ok()?;
        // One that cannot be read is as good as none: the registry knows.
        serde_json::from_slice(&text).ok().filter(|record: &Record| record.name == name)
    }

    /// Whether somebody with these credentials may have what was pulled before. Whoever pulled a
    /// private module opens it to nobody else on the machine.
    pub(crate) fn may_use(
        &self,
        record: &Record,
        reference: &ModuleRef,
        credentials: &Credentials,
    ) -> bool {
        record.anonymous
            || credentials
                .for_repository(reference.host(), reference.repository())
                .iter()
                .any(|login| record.logins.contains(&login.fingerprint(&self.salt)))
    }

    /// Writes down what a reference meant, for its tag and for its digest.
    pub(crate) fn remember(
        &self,
        reference: &ModuleRef,
        manifest_digest: Digest,
        (digest, size): (Digest, u64),
        login: Option<&crate::credentials::Login>,
    ) -> io::Result<()> {
        let _gate = self.gate();
        let pinned = reference.pinned(manifest_digest);
        let names = [reference, &pinned];
        for name in &names[..if *reference == pinned { 1 } else { 2 }] {
            let mut record = Record {
                name: name.to_string(),
                manifest_digest,
                digest,
                size,
                anonymous: login.is_none(),
                logins: BTreeSet::new(),
            };
            if let Some(before) = self.record(name)
                && before.manifest_digest == manifest_digest
            {
                record.anonymous |= before.anonymous;
                record.logins = before.logins;
            }
            if let Some(login) = login {
                if record.logins.len() >= MOST_LOGINS {
                    record.logins.pop_first();
                }
                record.logins.insert(login.fingerprint(&self.salt));
            }
            let mut file = NamedTempFile::new_in(self.folder.join(PARTIAL))?;
            file.as_file().lock()?;
            serde_json::to_writer(&mut file, &record)?;
            file.flush()?;
            file.persist(self.record_path(&record.name)).map_err(|error| error.error)?;
        }
        Ok(())
    }

    pub(crate) fn list(&self) -> Result<Vec<Cached>, StoreError> {
        let mut names: HashMap<Digest, Vec<String>> = HashMap::new();
        for (_, record) in self.records().map_err(|source| self.error(REFS, source))? {
            names.entry(record.digest).or_default().push(record.name);
        }
        let mut cached = self.blobs().map_err(|source| self.error(BLOBS, source))?;
        for module in &mut cached {
            module.names = names.remove(&module.digest).unwrap_or_default();
            module.names.sort();
        }
        Ok(cached)
    }

    pub(crate) fn collect_garbage(
        &self,
        in_use: &[Digest],
        budget_bytes: u64,
        grace: Duration,
    ) -> Result<Freed, StoreError> {
        let _gate = self.gate();
        self.remove_abandoned().map_err(|source| self.error(PARTIAL, source))?;
        let mut cached = self.blobs().map_err(|source| self.error(BLOBS, source))?;
        cached.sort_by_key(|module| module.used);
        let now = SystemTime::now();
        let mut total: u64 = cached.iter().map(|module| module.size).sum();
        let mut freed = Freed::default();
        for module in cached {
            if total <= budget_bytes {
                break;
            }
            // A clock that was set back makes everything look used a moment ago: kept, then.
            let idle = now.duration_since(module.used).unwrap_or_default();
            if idle < grace || in_use.contains(&module.digest) {
                continue;
            }
            let path = self.blob(module.digest);
            remove(&path).map_err(|source| StoreError { path, source })?;
            total -= module.size;
            freed.modules += 1;
            freed.bytes += module.size;
        }
        for (path, record) in self.records().map_err(|source| self.error(REFS, source))? {
            if !self.blob(record.digest).exists() {
                remove(&path).map_err(|source| StoreError { path, source })?;
            }
        }
        Ok(freed)
    }

    fn blobs(&self) -> io::Result<Vec<Cached>> {
        let mut cached = Vec::new();
        for entry in fs::read_dir(self.folder.join(BLOBS))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(digest) = format!("sha256:{name}").parse() else { continue };
            let metadata = entry.metadata()?;
            let (size, used) = (metadata.len(), metadata.modified()?);
            cached.push(Cached { digest, names: Vec::new(), size, used });
        }
        Ok(cached)
    }

    fn records(&self) -> io::Result<Vec<(PathBuf, Record)>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(self.folder.join(REFS))? {
            let path = entry?.path();
            match fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
                Some(record) => records.push((path, record)),
                None => remove(&path)?,
            }
        }
        Ok(records)
    }

    /// Removes the downloads of processes that are no more.
    fn remove_abandoned(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.folder.join(PARTIAL))? {
            let entry = entry?;
            let Ok(metadata) = entry.metadata() else { continue };
            // Between making and locking a file lies a moment.
            let age = metadata.modified()?.elapsed().unwrap_or_default();
            if age < Duration::from_secs(60) {
                continue;
            }
            if File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn record_path(&self, name: &str) -> PathBuf {
        self.folder.join(REFS).join(format!("{}.json", Digest::of(name.as_bytes()).hex()))
    }

    fn gate(&self) -> MutexGuard<'_, ()> {
        // It guards files, which no panic leaves half done.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, name: &str, source: io::Error) -> StoreError {
        StoreError { path: self.folder.join(name), source }
    }
}

/// Makes a folder that only its owner can enter, or takes one that is ours and closes it.
fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let metadata = fs::metadata(path)?;
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() != me {
        let text = format!("it belongs to user {}, not to {me}", metadata.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// The cache's own random bytes, made on first use.
fn salt(path: &Path) -> io::Result<[u8; 32]> {
    let read = || fs::read(path).ok().and_then(|bytes| bytes.try_into().ok());
    if let Some(salt) = read() {
        return Ok(salt);
    }
    let mut salt = [0; 32];
    getrandom::fill(&mut salt).map_err(|error| io::Error::other(error.to_string()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(&salt)?;
    file.as_file().sync_all()?;
    // Another process may have been faster; then its salt holds, unless it is no salt.
    match file.persist_noclobber(path) {
        Ok(_) => Ok(salt),
        Err(error) => match read() {
            Some(salt) => Ok(salt),
            None => error.file.persist(path).map(|_| salt).map_err(|error| error.error),
        },
    }
}

/// Removes a file that may be gone already.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

const BLOBS: &str = "blobs";
const REFS: &str = "refs";
const PARTIAL: &str = "partial";
/// Rotated passwords leave their hashes behind; the oldest may go.
const MOST_LOGINS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &tempfile::TempDir) -> Files {
        Files::open(folder.path().join("cache")).unwrap()
    }

    fn put(files: &Files, bytes: &[u8], age: Duration) -> Digest {
        let mut file = files.partial().unwrap();
        file.write_all(bytes).unwrap();
        let digest = Digest::of(bytes);
        files.keep(file, digest).unwrap();
        let file = File::open(files.blob(digest)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        digest
    }

    fn names(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_cache_is_private_and_its_modules_are_read_only() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("cache")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        fs::set_permissions(folder.path().join("cache"), Permissions::from_mode(0o755)).unwrap();
        let files = open(&folder);
        let digest = put(&files, b"module", HOUR);
        for path in [files.folder(), &files.folder().join(BLOBS), &files.folder().join(PARTIAL)] {
            assert_eq!(mode(path), 0o700, "{}", path.display());
        }
        assert_eq!(mode(&files.blob(digest)), 0o444);
        assert!(files.find(digest, 6).unwrap());
        assert_eq!(open(&folder).salt, files.salt, "the salt stays");
    }

    #[test]
    fn what_a_disk_has_spoilt_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let files = open(&folder);
        for spoilt in [&b"modulf"[..], b"modul", b"", b"module+"] {
            let digest = put(&files, b"module", HOUR);
            fs::set_permissions(files.blob(digest), Permissions::from_mode(0o644)).unwrap();
            fs::write(files.blob(digest), spoilt).unwrap();
            assert!(!files.find(digest, 6).unwrap(), "{spoilt:?}");
            assert!(!files.blob(digest).exists());
        }
    }

    #[test]
    fn clean_up_takes_what_was_idle_longest_and_spares_what_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let files = open(&folder);
        let modules: Vec<Digest> = (1..=4u32)
            .map(|n| put(&files, format!("module {n}").as_bytes(), HOUR * (10 - n)))
            .collect();
        let fresh = put(&files, b"module 5", Duration::ZERO);
        let reference: ModuleRef = "localhost/a:v1".parse().unwrap();
        for (digest, tag) in [(modules[0], "one"), (modules[1], "two")] {
            let name = format!("localhost/a:{tag}").parse().unwrap();
            files.remember(&name, Digest::of(tag.as_bytes()), (digest, 8), None).unwrap();
        }
        assert_eq!(files.collect_garbage(&[], 5 * 8, HOUR).unwrap(), Freed::default());
        let freed = files.collect_garbage(&[modules[0]], 3 * 8, HOUR).unwrap();
        assert_eq!(freed, Freed { modules: 2, bytes: 16 });
        assert!(files.blob(modules[0]).exists(), "in use");
        assert!(!files.blob(modules[1]).exists() && !files.blob(modules[2]).exists());
        let kept = files.list().unwrap();
        let of = |digest| kept.iter().find(|module| module.digest == digest).unwrap();
        assert_eq!(of(modules[0]).names.len(), 2, "{kept:?}");
        assert_eq!(names(&files.folder().join(REFS)), 2, "records go with their module");
        assert_eq!(files.collect_garbage(&[], 0, HOUR).unwrap().modules, 2);
        assert!(files.blob(fresh).exists(), "handed out a moment ago");
        assert_eq!(files.record(&reference), None);
        assert_eq!(files.collect_garbage(&[], 0, Duration::ZERO).unwrap().modules, 1);
        assert_eq!(files.list().unwrap(), []);
    }

    #[test]
    fn a_private_module_is_for_those_who_could_pull_it() {
        let folder = tempfile::tempdir().unwrap();
        let files = open(&folder);
        let reference: ModuleRef = "r.example/a:v1".parse().unwrap();
        let manifest = Digest::of(b"manifest");
        let (owner, other) =
            (Credentials::basic("r.example", "u", "p"), Credentials::basic("r.example", "u", "q"));
        let login = owner.for_repository("r.example", "a")[0].clone();
        let module = (Digest::of(b"module"), 6);
        files.remember(&reference, manifest, module, Some(&login)).unwrap();
        let may = |credentials: &Credentials| {
            [reference.clone(), reference.pinned(manifest)].map(|name| {
                let record = files.record(&name).unwrap();
                files.may_use(&record, &name, credentials)
            })
        };
        assert_eq!(may(&owner), [true; 2]);
        assert_eq!(may(&other), [false; 2]);
        assert_eq!(may(&Credentials::anonymous()), [false; 2]);
        files.remember(&reference, manifest, module, None).unwrap();
        assert_eq!(may(&Credentials::anonymous()), [true; 2]);
        let text = fs::read_to_string(files.record_path(&reference.to_string())).unwrap();
        assert!(text.contains(&login.fingerprint(&files.salt)), "the owner is still known");
        // A tag that was moved begins anew.
        files.remember(&reference, Digest::of(b"moved"), module, Some(&login)).unwrap();
        assert_eq!(may(&Credentials::anonymous()), [false, true]);
    }

    #[test]
    fn downloads_of_dead_processes_go_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let files = open(&folder);
        let old = |file: &File| file.set_modified(SystemTime::now() - HOUR).unwrap();
        let running = files.partial().unwrap();
        old(running.as_file());
        let dead = files.folder().join(PARTIAL).join("module-dead");
        old(&File::create(&dead).unwrap());
        let young = files.folder().join(PARTIAL).join("module-young");
        File::create(&young).unwrap();
        let again = open(&folder);
        assert!(running.path().exists() && young.exists() && !dead.exists());
        drop(running);
        assert_eq!(names(&again.folder().join(PARTIAL)), 1);
    }

    #[test]
    fn records_that_cannot_be_read_are_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let files = open(&folder);
        let reference: ModuleRef = "r.example/a:v1".parse().unwrap();
        let path = files.record_path(&reference.to_string());
        fs::write(&path, b"{\"name\":3").unwrap();
        assert_eq!(files.record(&reference), None);
        assert_eq!(files.list().unwrap(), []);
        assert!(!path.exists());
    }
}
