//! Compiled code on disk, by content: compiled once, mapped ever after.
//!
//! Machine code that is loaded runs with all rights of this process, so a directory counts only
//! if nobody but its owner (this user or root) could have put something there. Each file ends with
//! a checksum against accidents; whatever does not match is compiled again.

#![allow(unsafe_code, reason = "compiled code is mapped and trusted")]

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tracing::debug;
use wasmtime::Module;

use crate::checksum::{self, Data, TRAILER_BYTES, read_at, trailer};

// Machine code and weights of twenty large models; older files go first.
const MAX_CACHE_BYTES: u64 = 4 << 30;

// Writing takes a second; nobody who still lives writes for so long.
const ABANDONED: Duration = Duration::from_secs(3600);

/// What the names of files begin with that are not whole yet.
const PARTIAL: &str = ".new-";

/// A directory of compiled code.
#[derive(Debug)]
pub struct CodeCache {
    dir: PathBuf,
}

/// Compiled code could not be kept or found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// Somebody else could write there.
    #[error("`{}` {reason}: compiled code is loaded only from a directory that its owner alone can write", path.display())]
    Unsafe {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file system said no.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// There is no such entry.
    #[error("no such entry")]
    Absent,
    /// The file is cut short or altered.
    #[error("`{}` is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// wasmtime does not take it.
    #[error("`{}` is not for this engine", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What wasmtime says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl CodeCache {
    /// Opens `dir`, making it (mode 0700) if need be.
    ///
    /// # Errors
    /// [`CacheError::Unsafe`] unless it is a directory of this user or of root that no one else
    /// can write, and the same holds for the directories above it (but for sticky ones such as
    /// `/tmp`).
    pub fn open(dir: &Path) -> Result<Self, CacheError> {
        let fail = |action| {
            let path = dir.to_owned();
            move |source| CacheError::Io { action, path, source }
        };
        private_dir_builder().create(dir).map_err(fail("create"))?;
        // Symbolic links resolved: what is checked is what is used.
        let dir = fs::canonicalize(dir).map_err(fail("resolve"))?;
        for ancestor in dir.ancestors() {
            let metadata = fs::symlink_metadata(ancestor).map_err(fail("inspect"))?;
            let reason = if !metadata.is_dir() {
                Some("is not a directory")
            } else {
                permission_fault(&metadata, ancestor != dir)
            };
            if let Some(reason) = reason {
                return Err(CacheError::Unsafe { path: ancestor.to_owned(), reason });
            }
        }
        Ok(Self { dir })
    }

    pub(crate) fn entry(&self, key: &[u8; 32]) -> Entry<'_> {
        let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        Entry { cache: self, path: self.dir.join(name + ".cwasm") }
    }

    /// Removes the files that were used longest ago until the rest fits, and those that processes
    /// left which were killed while they wrote. Files in use stay mapped where they are; who finds
    /// one gone compiles. Other processes may do the same meanwhile.
    fn prune(&self, max_bytes: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for file in fs::read_dir(&self.dir)? {
            let file = file?;
            let path = file.path();
            let Some(metadata) = unless_gone(file.metadata())? else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if path.extension().is_some_and(|extension| extension == "cwasm") {
                files.push((used, metadata.len(), path));
            } else if file.file_name().as_encoded_bytes().starts_with(PARTIAL.as_bytes())
                && used.elapsed().is_ok_and(|age| age > ABANDONED)
            {
                unless_gone(fs::remove_file(path))?;
            }
        }
        files.sort_unstable_by(|a, b| b.cmp(a));
        let mut total = 0_u64;
        for (_, bytes, path) in files {
            total = total.saturating_add(bytes);
            if total > max_bytes {
                unless_gone(fs::remove_file(path))?;
            }
        }
        Ok(())
    }
}

/// `None` for what another process has removed.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// One module's place in the cache.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    cache: &'a CodeCache,
    path: PathBuf,
}

impl Entry<'_> {
    /// Maps the code, of which all but the data is what was written.
    pub(crate) fn load(
        &self,
        engine: &wasmtime::Engine,
    ) -> Result<(Module, UncheckedData), CacheError> {
        let fail =
            |action| move |source| CacheError::Io { action, path: self.path.clone(), source };
        let file = match open_no_follow(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CacheError::Absent);
            }
            opened => opened.map_err(fail("open"))?,
        };
        let metadata = file.metadata().map_err(fail("inspect"))?;
        let reason = if !metadata.is_file() {
            Some("is not a file")
        } else {
            permission_fault(&metadata, false)
        };
        if let Some(reason) = reason {
            return Err(CacheError::Unsafe { path: self.path.clone(), reason });
        }
        let Some(data) = checksum::check(&file, metadata.len()).map_err(fail("read"))? else {
            return Err(CacheError::Damaged { path: self.path.clone() });
        };
        let unchecked = file.try_clone().map_err(fail("use"))?;
        let unchecked = UncheckedData { path: self.path.clone(), file: unchecked, data };
        // Marks the entry as used; a cache that may only be read works as well.
        if let Err(error) = file.set_modified(SystemTime::now()) {
            debug!(%error, "Use of cached code was not marked");
        }
        // SAFETY: these are the bytes that wasmtime wrote (the checksum over the open file says
        // so; of the data later, which is not run), under a name that stands for this engine's version and settings, which wasmtime
        // checks once more. They cannot have come from anybody but this user or root, and cannot
        // be changed by others while they are mapped (`CodeCache::open` and `permission_fault`);
        // this user's processes replace entries by renaming, and never write into one.
        let module = unsafe { Module::deserialize_open_file(engine, file) };
        let module = module.map_err(|error| CacheError::Refused {
            path: self.path.clone(),
            source: error.into(),
        })?;
        Ok((module, unchecked))
    }

    /// Keeps the code; whole or not at all.
    pub(crate) fn write(&self, code: &[u8]) -> Result<(), CacheError> {
        let fail =
            |action| move |source| CacheError::Io { action, path: self.path.clone(), source };
        // Mode 0600 is what `tempfile` gives. No fsync: after a power cut the checksum tells.
        let mut file = tempfile::Builder::new()
            .prefix(PARTIAL)
            .tempfile_in(&self.cache.dir)
            .map_err(fail("create"))?;
        file.write_all(code).map_err(fail("write"))?;
        file.write_all(&trailer(code)).map_err(fail("write"))?;
        file.persist(&self.path).map_err(|error| fail("rename")(error.error))?;
        if let Err(error) = self.cache.prune(MAX_CACHE_BYTES) {
            debug!(%error, "Old compiled code was not removed");
        }
        Ok(())
    }
}

/// Code for a process that is handed it as an open file: with the key it was made under, which
/// stands for the module and the engine, and the checksum over both.
pub(crate) fn seal(mut code: Vec<u8>, key: &[u8; 32]) -> Vec<u8> {
    code.extend_from_slice(key);
    let trailer = trailer(&code);
    code.extend_from_slice(&trailer);
    code
}

/// Maps code that [`seal`] made, from a file that this process was handed open.
pub(crate) fn load_sealed(
    engine: &wasmtime::Engine,
    file: &File,
    key: &[u8; 32],
) -> Result<(Module, UncheckedData), CacheError> {
    let path = || PathBuf::from("the descriptor of compiled code");
    let fail = |action| move |source| CacheError::Io { action, path: path(), source };
    let file = file.try_clone().map_err(fail("use"))?;
    let metadata = file.metadata().map_err(fail("inspect"))?;
    let reason =
        if metadata.is_file() { permission_fault(&metadata, false) } else { Some("is not a file") };
    if let Some(reason) = reason {
        return Err(CacheError::Unsafe { path: path(), reason });
    }
    let len = metadata.len();
    let Some(data) = checksum::check(&file, len).map_err(fail("read"))? else {
        return Err(CacheError::Damaged { path: path() });
    };
    let Some(at) = len.checked_sub((TRAILER_BYTES + key.len()) as u64) else {
        return Err(CacheError::Damaged { path: path() });
    };
    let mut found = [0; 32];
    read_at(&file, &mut found, at).map_err(fail("read"))?;
    if found != *key {
        let source = "it was made of another module, or for another engine".into();
        return Err(CacheError::Refused { path: path(), source });
    }
    let unchecked = file.try_clone().map_err(fail("use"))?;
    // SAFETY: these are the bytes that wasmtime wrote for this very module (the checksum and the
    // key say so; of the data later, which is not run), which wasmtime checks once more for its version and settings. The file belongs
    // to root or this user and nobody else can write it, so that who could change it could change
    // this program as well; the agent, which made it, never writes into one that it handed out.
    let module = unsafe { Module::deserialize_open_file(engine, file) };
    let module =
        module.map_err(|error| CacheError::Refused { path: path(), source: error.into() })?;
    Ok((module, UncheckedData { path: path(), file: unchecked, data }))
}

/// The data of code that was mapped, weights nearly all of it: not machine code, so that it can be
/// compared with its checksum while the code runs. What the code answers is worth nothing before.
#[derive(Debug)]
pub struct UncheckedData {
    path: PathBuf,
    file: File,
    data: Data,
}

impl UncheckedData {
    /// Compares, which takes as long as reading it.
    ///
    /// # Errors
    /// [`CacheError::Damaged`], or [`CacheError::Io`] when it cannot be read.
    pub fn check(&self) -> Result<(), CacheError> {
        let path = || self.path.clone();
        match self.data.intact(&self.file) {
            Ok(true) => Ok(()),
            Ok(false) => Err(CacheError::Damaged { path: path() }),
            Err(source) => Err(CacheError::Io { action: "read", path: path(), source }),
        }
    }
}

#[cfg(unix)]
fn private_dir_builder() -> DirBuilder {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
}

#[cfg(not(unix))]
fn private_dir_builder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    builder
}

#[cfg(unix)]
fn open_no_follow(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // Without O_NONBLOCK a FIFO under this name would hang us.
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

#[cfg(not(unix))]
fn open_no_follow(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).open(path)
}

/// Why others could tamper with it, if they could. In a sticky directory nobody can replace what
/// belongs to another.
#[cfg(unix)]
fn permission_fault(metadata: &fs::Metadata, sticky_will_do: bool) -> Option<&'static str> {
    use std::os::unix::fs::MetadataExt;
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    // SAFETY: geteuid only reads this process's credentials.
    let user = unsafe { libc::geteuid() };
    if metadata.uid() != user && metadata.uid() != 0 {
        return Some("belongs to another user");
    }
    let sticky = sticky_will_do && metadata.mode() & STICKY != 0;
    (metadata.mode() & OTHERS_WRITE != 0 && !sticky).then_some("can be written by others")
}

#[cfg(not(unix))]
fn permission_fault(_metadata: &fs::Metadata, _sticky_will_do: bool) -> Option<&'static str> {
    Some("cannot be checked for its owner on this system")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of 100 bytes that was used `ago` seconds ago.
    fn put(dir: &Path, name: &str, ago: u64) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, [0; 100]).unwrap();
        let time = SystemTime::now() - Duration::from_secs(ago);
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        path
    }

    #[test]
    fn the_oldest_entries_leave_a_full_cache() {
        let dir = tempfile::tempdir().unwrap();
        let cache = CodeCache::open(dir.path()).unwrap();
        for (name, ago) in [("old.cwasm", 9), ("middle.cwasm", 6), ("new.cwasm", 3)] {
            put(dir.path(), name, ago);
        }
        cache.prune(250).unwrap();
        let exists = |name: &str| dir.path().join(name).exists();
        assert!(!exists("old.cwasm") && exists("middle.cwasm") && exists("new.cwasm"));
    }

    #[test]
    fn what_killed_processes_left_is_removed_and_what_is_being_written_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let cache = CodeCache::open(dir.path()).unwrap();
        let left = put(dir.path(), ".new-left", 2 * ABANDONED.as_secs());
        let written = put(dir.path(), ".new-now", 0);
        let foreign = put(dir.path(), "foreign", 2 * ABANDONED.as_secs());
        cache.prune(0).unwrap();
        assert!(!left.exists() && written.exists() && foreign.exists());
    }

    #[test]
    fn several_processes_may_clean_up_at_the_same_time() {
        let dir = tempfile::tempdir().unwrap();
        let caches = [(); 3].map(|()| CodeCache::open(dir.path()).unwrap());
        for round in 0..20 {
            for file in 0..20 {
                put(dir.path(), &format!("{round}-{file}.cwasm"), file);
            }
            let pruned = std::thread::scope(|scope| {
                let threads = caches.each_ref().map(|cache| scope.spawn(|| cache.prune(500)));
                threads.map(|thread| thread.join().unwrap().is_ok())
            });
            assert_eq!(pruned, [true; 3]);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
        }
    }

    #[test]
    fn code_that_is_mapped_outlives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let cache = CodeCache::open(dir.path()).unwrap();
        let engine = wasmtime::Engine::default();
        let entry = cache.entry(&[7; 32]);
        let data = "weights ".repeat(2000);
        let text = format!(
            "(module (memory (export \"m\") 1) (data (i32.const 8) \"{data}\")
               (func (export \"f\") (result i32) (i32.load8_u (i32.const 15008))))"
        );
        let code = engine.precompile_module(&wat::parse_str(text).unwrap()).unwrap();
        entry.write(&code).unwrap();
        let (module, unchecked) = entry.load(&engine).unwrap();
        cache.prune(0).unwrap();
        assert!(matches!(entry.load(&engine), Err(CacheError::Absent)));
        unchecked.check().unwrap();
        let mut store = wasmtime::Store::new(&engine, ());
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
        let f = instance.get_typed_func::<(), i32>(&mut store, "f").unwrap();
        assert_eq!(f.call(&mut store, ()).unwrap(), i32::from(b'w'));
    }
}
