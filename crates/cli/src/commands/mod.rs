//! One module per subcommand, and what they share.

mod build;
mod check;
mod classify;
mod compare;
mod init;
mod inspect;
pub mod keys;
mod run;
pub mod sign;
mod verify;

use std::{io::Write as _, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};

/// What the user asked for.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Build(build::Args),
    Run(run::Args),
    Classify(classify::Args),
    Check(check::Args),
    Init(init::Args),
    #[command(subcommand)]
    Keys(keys::Command),
    Sign(sign::Args),
    Inspect(inspect::Args),
    Verify(verify::Args),
}

/// Runs a subcommand.
pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Build(args) => build::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Classify(args) => classify::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Keys(command) => keys::run(&command),
        Command::Sign(args) => sign::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args),
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
