//! Files that are private, and modules.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, Read as _, Write as _},
    ops::Range,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use claims::Source;
use tempfile::NamedTempFile;

/// Writes a file that only its owner can read, whole or not at all.
///
/// # Errors
/// The path and what went wrong; an earlier file is still there then.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        private_file(parent(path), bytes)?.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// As [`write_private`], but never over a file that is there: returns false then.
///
/// # Errors
/// The path and what went wrong.
pub fn write_private_new(path: &Path, bytes: &[u8]) -> Result<bool> {
    let write = || match private_file(parent(path), bytes)?.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.error),
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn private_file(folder: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix(".graphlet-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    // Without this a crash may leave the name with nothing behind it.
    file.as_file().sync_all()?;
    Ok(file)
}

/// Makes a folder, and those above it, that only their owner can enter. One that is there
/// already stays as it is.
///
/// # Errors
/// The path and what went wrong.
pub fn create_private_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot create {}", path.display()))
}

/// The folder that a file is in; `.` for a bare name.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Reads a module, at most as large as modules may be; of what begins as something else, no more
/// than its beginning.
///
/// # Errors
/// The path and what went wrong.
pub fn read_module(path: &Path) -> Result<Vec<u8>> {
    read_at_most(path, claims::MAX_MODULE_BYTES as u64, "the most that a module may have")
}

/// As [`read_module`], to look at it: also one that is too large to be signed.
///
/// # Errors
/// The path and what went wrong.
pub fn read_large_module(path: &Path) -> Result<Vec<u8>> {
    read_at_most(path, MAX_INSPECTED_BYTES, "the most that WebAssembly's memory holds")
}

// What a 32-bit linear memory can be filled with, and with it a module's data.
const MAX_INSPECTED_BYTES: u64 = 4 << 30;

fn read_at_most(path: &Path, limit: u64, most: &str) -> Result<Vec<u8>> {
    let context = || format!("cannot read {}", path.display());
    let mut file = fs::File::open(path).with_context(context)?;
    let size = file.metadata().with_context(context)?.len();
    let mut bytes = Vec::new();
    let magic = WASM_MAGIC.len() as u64;
    io::Read::by_ref(&mut file).take(magic).read_to_end(&mut bytes).with_context(context)?;
    if bytes != WASM_MAGIC {
        return Ok(bytes);
    }
    let room = usize::try_from(size.min(limit)).unwrap_or(usize::MAX);
    bytes.try_reserve(room).map_err(io::Error::from).with_context(context)?;
    // Not only the size: a device or a growing file has none that holds.
    file.take(limit + 1 - bytes.len() as u64).read_to_end(&mut bytes).with_context(context)?;
    if bytes.len() as u64 > limit {
        bail!("{} has more than {limit} bytes, {most}", path.display());
    }
    Ok(bytes)
}

const WASM_MAGIC: &[u8] = b"\0asm";

/// A module's file, read in pieces when they are needed.
pub struct ModuleFile {
    file: fs::File,
    size: u64,
}

impl ModuleFile {
    /// Of an open file; `None` of anything that has no size, such as a pipe.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn of(file: fs::File) -> io::Result<Option<Self>> {
        let metadata = file.metadata()?;
        Ok(metadata.is_file().then(|| Self { size: metadata.len(), file }))
    }
}

impl Source for ModuleFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn piece<'a>(&'a self, range: Range<usize>, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        buffer.resize(range.len(), 0);
        self.file.read_exact_at(buffer, range.start as u64)?;
        Ok(buffer)
    }
}

/// Text from a file as part of a line on a terminal: control characters, which could move the
/// cursor or clear the screen, become U+FFFD.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_files_are_private_and_never_written_over_by_new_ones() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        create_private_dir(&inner).unwrap();
        create_private_dir(&inner).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(inner.parent().unwrap())), (0o700, 0o700));
        let file = inner.join("key");
        assert!(write_private_new(&file, b"one").unwrap());
        assert!(!write_private_new(&file, b"two").unwrap());
        assert_eq!((fs::read(&file).unwrap(), mode(&file)), (b"one".to_vec(), 0o600));
        write_private(&file, b"three").unwrap();
        assert_eq!((fs::read(&file).unwrap(), mode(&file)), (b"three".to_vec(), 0o600));
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_module_is_read_up_to_a_limit_and_what_is_none_is_not_read_through() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.wasm");
        let module = b"\0asm\x01\0\0\0";
        fs::write(&file, module).unwrap();
        assert_eq!(read_at_most(&file, 8, "a limit").unwrap(), module);
        let error = read_at_most(&file, 7, "a limit").unwrap_err().to_string();
        assert!(error.ends_with("m.wasm has more than 7 bytes, a limit"), "{error}");
        assert_eq!(read_module(Path::new("/dev/zero")).unwrap(), [0; 4]);
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r\nc"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c");
    }
}
