//! One module per subcommand, and what they share.

mod build;
mod check;
mod classify;
mod compare;
mod graph;
mod init;
mod inspect;
pub mod keys;
#[cfg(feature = "kubernetes")]
mod node;
mod operators;
#[cfg(feature = "kubernetes")]
mod pod;
mod profile;
#[cfg(feature = "kubernetes")]
mod pull;
#[cfg(feature = "kubernetes")]
mod push;
mod run;
pub mod sign;
mod tune;
mod verify;

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, Result};

pub use self::classify::refusal;
use crate::{exit::Usage, files::parent};

/// What the user asked for.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Build(build::Args),
    Run(run::Args),
    Classify(classify::Args),
    Profile(profile::Args),
    Tune(tune::Args),
    Check(check::Args),
    #[command(subcommand)]
    Graph(graph::Command),
    Init(init::Args),
    #[command(subcommand)]
    Keys(keys::Command),
    Operators(operators::Args),
    Sign(sign::Args),
    Inspect(inspect::Args),
    Verify(verify::Args),
    #[cfg(feature = "kubernetes")]
    Push(push::Args),
    #[cfg(feature = "kubernetes")]
    Pull(pull::Args),
    #[cfg(feature = "kubernetes")]
    Node(node::Args),
    /// What this build leaves out, named so that it can be told.
    #[cfg(not(feature = "kubernetes"))]
    #[command(external_subcommand)]
    Absent(Vec<String>),
    #[cfg(feature = "kubernetes")]
    #[command(hide = true)]
    Pod(pod::Args),
}

/// Runs a subcommand.
pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Build(args) => build::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Classify(args) => classify::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Graph(command) => graph::run(&command),
        Command::Init(args) => init::run(&args),
        Command::Keys(command) => keys::run(&command),
        Command::Operators(args) => operators::run(&args),
        Command::Sign(args) => sign::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Verify(args) => verify::run(&args),
        #[cfg(feature = "kubernetes")]
        Command::Push(args) => push::run(&args),
        #[cfg(feature = "kubernetes")]
        Command::Pull(args) => pull::run(&args),
        #[cfg(feature = "kubernetes")]
        Command::Node(args) => node::run(&args),
        #[cfg(not(feature = "kubernetes"))]
        Command::Absent(args) => Err(absent(&args)),
        #[cfg(feature = "kubernetes")]
        Command::Pod(args) => pod::run(&args),
    }
}

/// A subcommand that is unknown, or that only a whole build has.
#[cfg(not(feature = "kubernetes"))]
fn absent(args: &[String]) -> anyhow::Error {
    let name = args.first().map_or("", String::as_str);
    match name {
        "push" | "pull" | "node" | "pod" => {
            Usage::new(format!("this graphlet was built without `{name}`, as `make run` does"))
                .hint("make build")
        }
        _ => Usage::new(format!("unrecognized subcommand '{name}'")).hint("graphlet --help"),
    }
    .into()
}

/// The folder a file is to be written to; asked before long work, too.
pub fn folder_of(path: &Path) -> Result<&Path> {
    let folder = parent(path);
    if path.is_dir() {
        let path = path.display();
        return Err(Usage::new(format!("cannot write {path}: it is a folder"))
            .hint("name a file in it")
            .into());
    }
    if !folder.is_dir() {
        let (path, folder) = (path.display(), folder.display());
        return Err(Usage::new(format!("cannot write {path}: there is no folder {folder}")).into());
    }
    Ok(folder)
}

/// Writes a file whole or not at all. What is no file, such as `/dev/stdout`, is written to and
/// stays what it is.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    folder_of(path)?;
    let write = || -> io::Result<()> {
        if fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
            return OpenOptions::new().write(true).open(path)?.write_all(bytes);
        }
        // Behind a link lies what the user means.
        let real = path.canonicalize();
        let path = real.as_deref().unwrap_or(path);
        let mut partial = tempfile::NamedTempFile::new_in(parent(path))?;
        partial.write_all(bytes)?;
        partial.as_file().sync_all()?;
        // Temporary files are private; what the user asked for is not.
        partial.as_file().set_permissions(Permissions::from_mode(0o644))?;
        partial.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, symlink};

    use super::*;

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        // Through a link, so that no mistake here can cost a machine its device.
        let folder = tempfile::tempdir().unwrap();
        for (device, works) in [("/dev/null", true), ("/dev/full", false)] {
            let link = folder.path().join("out");
            symlink(device, &link).unwrap();
            let written = write_whole(&link, b"bytes");
            assert_eq!(written.is_ok(), works, "{device}: {written:?}");
            let kind = fs::metadata(&link).unwrap().file_type();
            assert!(kind.is_char_device() && link.is_symlink(), "{device} was replaced");
            fs::remove_file(&link).unwrap();
        }
    }

    #[test]
    fn a_file_behind_a_link_is_written_and_the_link_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, b"old").unwrap();
        symlink(&file, &link).unwrap();
        write_whole(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "no temporary file is left");
        let error = write_whole(folder.path(), b"x").unwrap_err();
        assert!(error.to_string().ends_with("it is a folder"), "{error}");
    }
}
