//! One module per subcommand, and what they share.

mod init;

use std::{io::Write as _, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};

/// What the user asked for.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Init(init::Args),
}

/// Runs a subcommand.
pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Init(args) => init::run(&args),
    }
}

/// Writes a file whole or not at all.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let write = || -> std::io::Result<()> {
        let mut partial = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
        partial.write_all(bytes)?;
        partial.as_file().sync_all()?;
        // Temporary files are private; what the user asked for is not.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            partial.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        }
        partial.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
