//! Files that hold keys: for their owner alone, and whole or not there.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
};

use tempfile::NamedTempFile;

/// Makes a folder that only its owner can enter; one that is there is narrowed to that.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o700))
}

/// Writes a file with mode 0600, in one step: a reader, or a crash, sees the old or the new.
///
/// # Errors
/// What the system says.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // tempfile creates with mode 0600.
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // The name is on disk only when its folder is.
    File::open(folder)?.sync_all()
}

/// Reads a text file; `None` when it is not there.
pub(crate) fn read_if_there(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file that may be gone already.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_is_readable_by_its_owner_alone_and_replaced_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let inner = folder.path().join("pki");
        create_private_dir(&inner).expect("a folder");
        assert_eq!(fs::metadata(&inner).expect("its facts").permissions().mode() & 0o777, 0o700);
        let path = inner.join("client.pem");
        for text in ["first, and rather long", "second"] {
            write_private(&path, text.as_bytes()).expect("a file");
            assert_eq!(read_if_there(&path).expect("readable").as_deref(), Some(text));
            let mode = fs::metadata(&path).expect("its facts").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(&inner).expect("a folder").count(), 1, "nothing is left beside it");
        remove_if_there(&path).expect("removed");
        remove_if_there(&path).expect("gone is fine");
        assert_eq!(read_if_there(&path).expect("gone is fine"), None);
    }
}
