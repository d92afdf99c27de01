//! Files that are costly to make, kept until what they were made of changes.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use builder::Home;
use sha2::{Digest as _, Sha256};

/// Folder of everything that this crate keeps about one thing.
pub(crate) fn folder(home: &Home, name: &str) -> Result<PathBuf> {
    let folder = home.cache().join("test-models").join(name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// The content of `path`; `make` is called first when the file was made under another key, or not
/// at all. Tests and processes that ask for one file at once make it once.
pub(crate) fn file(
    path: &Path,
    key: &Key,
    make: impl FnOnce() -> Result<Vec<u8>>,
) -> Result<Vec<u8>> {
    let beside = |extension: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(extension);
        PathBuf::from(name)
    };
    let lock_path = beside(".lock");
    let lock = File::create(&lock_path)
        .with_context(|| format!("cannot write {}", lock_path.display()))?;
    lock.lock().context("cannot lock")?;
    let key_path = beside(".key");
    let key = key.to_text();
    if fs::read_to_string(&key_path).is_ok_and(|kept| kept == key)
        && let Ok(content) = fs::read(path)
    {
        return Ok(content);
    }
    // The key is written last: a file that was cut short has none that fits.
    let _ = fs::remove_file(&key_path);
    let content = make().with_context(|| format!("cannot make {}", path.display()))?;
    let write = |path: &Path, content: &[u8]| -> Result<()> {
        File::create(path)
            .and_then(|mut file| file.write_all(content))
            .with_context(|| format!("cannot write {}", path.display()))
    };
    write(path, &content)?;
    write(&key_path, key.as_bytes())?;
    Ok(content)
}

/// A digest over all that a file is made of.
#[derive(Clone, Default)]
pub(crate) struct Key(Sha256);

impl Key {
    /// With more bytes.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// With the content of a file, or of all files below a folder.
    pub(crate) fn content(mut self, path: &Path) -> Result<Self> {
        let context = || format!("cannot read {}", path.display());
        if path.is_file() {
            return Ok(self.bytes(&fs::read(path).with_context(context)?));
        }
        let mut entries = fs::read_dir(path)
            .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
            .with_context(context)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            if name == "__pycache__" {
                continue;
            }
            self = self.bytes(name.as_encoded_bytes()).content(&entry.path())?;
        }
        Ok(self)
    }

    /// The digest in hex.
    pub(crate) fn to_text(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0.clone().finalize())
    }
}
