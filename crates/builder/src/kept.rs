//! Guest libraries on disk: found, held while somebody links them, and bounded in number.
//!
//! Each change of a guest's sources makes a new library under a new name, so the old ones are
//! removed, those used longest ago first. Builds of other processes go on meanwhile: a library
//! that a build has in its hands is locked and stays, and only who holds the folder's lock removes.

use std::{
    fs::{self, File, TryLockError},
    io,
    ops::Deref,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Bytes of all libraries together. An actor's has 24 MB and a checkout needs up to ten, so that a
/// few checkouts, or the states of one that is worked on, stay beside each other.
pub(crate) const MAX_LIBRARY_BYTES: u64 = 512 << 20;

/// Bytes of the folder in which cargo compiles libraries: twice what one state of the sources
/// leaves there. Cargo removes nothing; beyond this it begins anew, which takes a minute.
pub(crate) const MAX_TARGET_BYTES: u64 = 2 << 30;

/// A kept library, which is not removed as long as this value lives.
#[derive(Debug)]
pub struct Library {
    path: PathBuf,
    /// Locked, shared.
    _file: File,
}

impl Deref for Library {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl Library {
    /// The library at `path`, marked as used now; `None` when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be opened or locked.
    pub(crate) fn hold(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let Some(file) = found(File::open(path))? else { return Ok(None) };
            // Waits for nobody but who is just removing it.
            file.lock_shared()?;
            let Some(named) = found(fs::metadata(path))? else { return Ok(None) };
            let opened = file.metadata()?;
            // Removed between the two, and made anew.
            if (named.dev(), named.ino()) != (opened.dev(), opened.ino()) {
                continue;
            }
            // A folder that may only be read serves as well: there nothing is removed either.
            file.set_modified(SystemTime::now()).ok();
            return Ok(Some(Self { path: path.to_path_buf(), _file: file }));
        }
    }
}

/// Removes the libraries in `folder` that were used longest ago until the others fit into
/// `max_bytes`, but for those that are held, and what builds that were killed left unfinished.
/// Only for who holds the folder's lock.
///
/// # Errors
/// When the folder cannot be read, or something in it not removed.
pub(crate) fn prune(folder: &Path, max_bytes: u64) -> io::Result<()> {
    let mut libraries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(metadata) = found(fs::symlink_metadata(&path))?.filter(fs::Metadata::is_file)
        else {
            continue;
        };
        if path.extension().is_some_and(|extension| extension == "a") {
            libraries.push((metadata.modified()?, metadata.len(), path));
        } else if path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(PARTIAL.as_bytes()))
        {
            found(fs::remove_file(&path))?;
        }
    }
    libraries.sort_unstable_by(|a, b| b.cmp(a));
    let mut total = 0_u64;
    for (_, bytes, path) in libraries {
        total = total.saturating_add(bytes);
        if total > max_bytes {
            remove_unless_held(&path)?;
        }
    }
    Ok(())
}

/// What the names of libraries begin with that are not whole yet.
pub(crate) const PARTIAL: &str = ".partial-";

fn remove_unless_held(path: &Path) -> io::Result<()> {
    let Some(file) = found(File::open(path))? else { return Ok(()) };
    match file.try_lock() {
        // Who has opened it, and waits for its lock now, finds the name gone.
        Ok(()) => found(fs::remove_file(path)).map(|_| ()),
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Empties cargo's folder when more than `max_bytes` lie there. Only for who holds the lock.
///
/// # Errors
/// When it cannot be read or removed.
pub(crate) fn prune_target(target_dir: &Path, max_bytes: u64) -> io::Result<()> {
    if bytes_in(target_dir)? > max_bytes {
        found(fs::remove_dir_all(target_dir))?;
    }
    Ok(())
}

/// Bytes of all files in a folder and those below it; links are not followed.
fn bytes_in(folder: &Path) -> io::Result<u64> {
    let Some(entries) = found(fs::read_dir(folder))? else { return Ok(0) };
    let mut total = 0_u64;
    for entry in entries {
        let entry = entry?;
        let Some(metadata) = found(entry.metadata())? else { continue };
        let bytes = if metadata.is_dir() { bytes_in(&entry.path())? } else { metadata.len() };
        total = total.saturating_add(bytes);
    }
    Ok(total)
}

/// `None` for what is not there, or no longer.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::{
            Mutex,
            atomic::{AtomicBool, Ordering},
        },
        thread,
        time::Duration,
    };

    use super::*;

    /// A library of 100 bytes that was used `at` seconds after the beginning of time.
    fn put(folder: &Path, name: &str, at: u64) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, [7; 100]).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        path
    }

    fn names(folder: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_libraries_used_longest_ago_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for (name, at) in [("old.a", 1), ("middle.a", 2), ("new.a", 3), ("lock", 0), ("a", 0)] {
            put(folder.path(), name, at);
        }
        put(folder.path(), ".partial-x", 9);
        fs::create_dir(folder.path().join("target.a")).unwrap();
        let used = Library::hold(&folder.path().join("old.a")).unwrap().expect("it is there");
        drop(used);
        prune(folder.path(), 299).unwrap();
        let left = ["a", "lock", "new.a", "old.a", "target.a"].map(str::to_owned);
        assert_eq!(names(folder.path()), BTreeSet::from(left), "use is what counts");
        prune(folder.path(), 200).unwrap();
        assert_eq!(names(folder.path()).len(), 5, "these fit");
    }

    #[test]
    fn a_library_that_somebody_links_stays_until_he_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = put(folder.path(), "held.a", 1);
        put(folder.path(), "new.a", 2);
        let held = Library::hold(&path).unwrap().expect("it is there");
        let again = Library::hold(&path).unwrap().expect("two may hold it");
        assert_eq!(&*held, path);
        drop(held);
        prune(folder.path(), 0).unwrap();
        assert_eq!(names(folder.path()), BTreeSet::from(["held.a".to_owned()]));
        drop(again);
        prune(folder.path(), 0).unwrap();
        assert!(names(folder.path()).is_empty());
        assert!(Library::hold(&path).unwrap().is_none());
    }

    #[test]
    fn what_is_held_can_be_read_whatever_others_remove_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("library.a");
        let stop = AtomicBool::new(false);
        let folders_lock = Mutex::new(());
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _lock = folders_lock.lock().unwrap();
                    prune(folder.path(), 0).unwrap();
                }
            });
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut held = 0;
                        while held < 200 {
                            let Some(library) = Library::hold(&path).unwrap() else {
                                let _lock = folders_lock.lock().unwrap();
                                if path.exists() {
                                    continue;
                                }
                                let new = tempfile::Builder::new().tempfile_in(folder.path());
                                let new = new.unwrap();
                                fs::write(new.path(), [7; 100]).unwrap();
                                new.persist(&path).unwrap();
                                continue;
                            };
                            assert_eq!(fs::read(&*library).unwrap(), [7; 100]);
                            held += 1;
                        }
                    })
                })
                .collect();
            let all_read = readers.into_iter().map(|reader| reader.join().is_ok());
            let all_read = all_read.collect::<Vec<_>>();
            stop.store(true, Ordering::Relaxed);
            assert_eq!(all_read, [true, true]);
        });
    }

    #[test]
    fn cargos_folder_is_emptied_only_when_it_is_too_large() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        prune_target(&target, 0).unwrap();
        fs::create_dir_all(target.join("deep/er")).unwrap();
        put(&target, "one", 1);
        put(&target.join("deep/er"), "two", 1);
        prune_target(&target, 200).unwrap();
        assert!(target.join("deep/er/two").is_file());
        prune_target(&target, 199).unwrap();
        assert!(!target.exists());
    }
}
