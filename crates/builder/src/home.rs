//! Where graphlet's own sources and its kept things are.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::BuildError;

/// The folders a build works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
    cache: PathBuf,
    python: PathBuf,
}

impl Home {
    /// Finds the checkout: `GRAPHLET_HOME`, else the nearest folder above the running program,
    /// else above the working directory, that holds `compiler/` and `actor/`.
    ///
    /// `cache` is where guest libraries are kept. Python is `GRAPHLET_PYTHON`, else the
    /// environment that `scripts/setup` makes in `cache`.
    ///
    /// # Errors
    /// [`BuildError::NoHome`].
    pub fn find(cache: PathBuf) -> Result<Self, BuildError> {
        let from_environment = env::var_os("GRAPHLET_HOME").map(PathBuf::from);
        let program = env::current_exe().and_then(|path| path.canonicalize()).ok();
        let here = env::current_dir().ok();
        let root = match from_environment {
            Some(root) => is_checkout(&root).then_some(root),
            None => [program, here].into_iter().flatten().find_map(|start| {
                start.ancestors().find(|folder| is_checkout(folder)).map(Path::to_path_buf)
            }),
        };
        let root = root.ok_or(BuildError::NoHome)?;
        let python = env::var_os("GRAPHLET_PYTHON")
            .map_or_else(|| cache.join("python").join("bin").join("python"), PathBuf::from);
        Ok(Home { root, cache, python })
    }

    /// The checkout.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where guest libraries are kept.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The compiler's Python.
    ///
    /// # Errors
    /// [`BuildError::NoPython`] when it is not set up.
    pub fn python(&self) -> Result<&Path, BuildError> {
        if self.python.is_file() {
            Ok(&self.python)
        } else {
            Err(BuildError::NoPython { path: self.python.clone() })
        }
    }
}

fn is_checkout(folder: &Path) -> bool {
    folder.join("compiler/graphlet_compiler").is_dir() && folder.join("actor/Cargo.toml").is_file()
}
