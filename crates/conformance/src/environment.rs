//! Where things are on this machine.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use builder::Home;

/// The cache folder, as the command line finds it.
///
/// # Errors
/// When the environment names no home.
pub fn cache() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("GRAPHLET_CACHE_DIR") {
        return Ok(PathBuf::from(folder));
    }
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(&env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("graphlet"))
}

/// The checkout and its tools.
///
/// # Errors
/// When they are not set up.
pub fn home() -> Result<Home> {
    Ok(Home::find(cache()?)?)
}

/// Models and photographs that are not part of the repository: `GRAPHLET_SHARED`, else `shared`
/// beside the checkout. `None`, with a line that says so, when they are not there.
pub fn shared(home: &Home) -> Option<PathBuf> {
    let folder =
        env::var_os("GRAPHLET_SHARED").map_or_else(|| home.root().join("../shared"), PathBuf::from);
    let there = folder.join("models").is_dir() && folder.join("images").is_dir();
    if !there {
        eprintln!("skipped: no shared models and photographs (GRAPHLET_SHARED)");
    }
    there.then_some(folder)
}

/// Runs Python to its end and gives what it printed.
pub(crate) fn run_python(home: &Home, arguments: &[&std::ffi::OsStr]) -> Result<Vec<u8>> {
    let compiler = home.root().join("compiler");
    let output = Command::new(home.python()?)
        .args(arguments)
        // Also what `-m` looks up first.
        .current_dir(&compiler)
        .env("PYTHONPATH", &compiler)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .context("python does not start")?;
    if !output.status.success() {
        bail!(
            "python failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output.stdout)
}
