//! Where graphlet keeps its configuration and caches.

use std::{env, path::PathBuf};

use anyhow::Result;

use crate::exit::Usage;

/// Keys and trust: `GRAPHLET_CONFIG_DIR`, else `XDG_CONFIG_HOME/graphlet`, else
/// `~/.config/graphlet`.
pub fn config_dir() -> Result<PathBuf> {
    folder("GRAPHLET_CONFIG_DIR", "XDG_CONFIG_HOME", ".config")
}

/// Compiled code, guest libraries, Python: `GRAPHLET_CACHE_DIR`, else `XDG_CACHE_HOME/graphlet`,
/// else `~/.cache/graphlet`.
pub fn cache_dir() -> Result<PathBuf> {
    folder("GRAPHLET_CACHE_DIR", "XDG_CACHE_HOME", ".cache")
}

fn folder(own: &str, xdg: &str, below_home: &str) -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = set(own) {
        return Ok(folder);
    }
    // The XDG specification: relative paths are ignored.
    let base = set(xdg)
        .filter(|base| base.is_absolute())
        .or_else(|| set("HOME").map(|home| home.join(below_home)));
    match base {
        Some(base) => Ok(base.join("graphlet")),
        None => Err(Usage::new(format!("neither {own}, {xdg} nor HOME is set"))
            .hint(format!("set {own} to a folder of yours"))
            .into()),
    }
}
