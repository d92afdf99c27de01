//! `graphlet node`: the node agent, a program of its own so that this one stays small.

use std::{
    env,
    ffi::OsString,
    io::ErrorKind,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::exit::Hinted;

/// Run a Kubernetes node for WebAssembly pods
///
/// `graphlet node --help` shows the options of the node agent, `graphlet-node`, which is looked
/// for beside this program, then on PATH.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Options of the node agent
    #[arg(value_name = "OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<OsString>,
}

/// Becomes the node agent.
pub fn run(args: &Args) -> Result<ExitCode> {
    let own = env::current_exe().context("cannot find this program's folder")?;
    let program = beside(&own).unwrap_or_else(|| PathBuf::from(PROGRAM));
    // Returns only when it cannot be started.
    let error = Command::new(&program).args(&args.options).exec();
    let missing = error.kind() == ErrorKind::NotFound;
    let error = anyhow::Error::new(error).context(match missing {
        true => format!("{PROGRAM} is neither beside {} nor on PATH", own.display()),
        false => format!("cannot start {}", program.display()),
    });
    let hint = "cargo build --release -p node-agent   (in a checkout; its binary belongs beside \
                graphlet)";
    Err(Hinted::new(error, missing.then(|| hint.into())).into())
}

/// The agent that was installed together with this program.
fn beside(own: &Path) -> Option<PathBuf> {
    let program = own.parent()?.join(PROGRAM);
    program.is_file().then_some(program)
}

const PROGRAM: &str = "graphlet-node";
