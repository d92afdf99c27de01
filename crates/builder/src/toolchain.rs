//! Which Rust compiles the guest: rustup's wasm targets, else Debian's packages.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{BuildError, guest::GuestKind};

// Debian 12, bookworm-security: rustc-web, cargo-web, rust-web-src, rust-web-llvm.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// A Rust toolchain that can compile a guest, and a linker for its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestToolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    sysroot: PathBuf,
    linker: PathBuf,
    version: String,
    builds_std: bool,
}

impl GuestToolchain {
    /// Finds a toolchain for the kind's target: first the `rustc` on the path when it has the
    /// target, then Debian's, which compiles the standard library from its sources.
    ///
    /// # Errors
    /// [`BuildError::NoGuestToolchain`] when there is neither.
    pub fn find(kind: GuestKind) -> Result<Self, BuildError> {
        let target = kind.target();
        let on_path = Self::inspect(Path::new("rustc"), Path::new("cargo"), false)
            .filter(|found| found.target_libs(target).is_dir());
        on_path
            .or_else(|| {
                Self::inspect(Path::new(DEBIAN_RUSTC), Path::new(DEBIAN_CARGO), true)
                    .filter(|found| found.sysroot.join("lib/rustlib/src/rust/library/std").is_dir())
            })
            .ok_or(BuildError::NoGuestToolchain { target })
    }

    fn inspect(rustc: &Path, cargo: &Path, builds_std: bool) -> Option<Self> {
        let ask = |arguments: &[&str]| {
            let output = Command::new(rustc).args(arguments).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?.trim());
        let version = ask(&["-vV"])?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: "))?.to_owned();
        let shipped = sysroot.join("lib/rustlib").join(host).join("bin/rust-lld");
        let linker = if shipped.is_file() { shipped } else { on_path("rust-lld")? };
        Some(GuestToolchain {
            cargo: cargo.to_path_buf(),
            rustc: rustc.to_path_buf(),
            sysroot,
            linker,
            version,
            builds_std,
        })
    }

    /// Version and host of the compiler, as `rustc -vV` prints them.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The linker (LLVM's, with the `wasm` flavour).
    pub fn linker(&self) -> &Path {
        &self.linker
    }

    /// Where the target's own objects and libraries lie, if the toolchain ships them.
    pub(crate) fn target_libs(&self, target: &str) -> PathBuf {
        self.sysroot.join("lib/rustlib").join(target).join("lib")
    }

    /// A `cargo build` for the guest, without what the caller's environment would change.
    pub(crate) fn cargo_build(&self, target: &str, rustflags: &[String]) -> Command {
        let mut command = Command::new(&self.cargo);
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let keeps = ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_PROXY"];
            let meddles = name.starts_with("CARGO") || name.starts_with("RUST");
            if meddles
                && !keeps.contains(&name.as_str())
                && !name.starts_with("CARGO_REGISTR")
                && !name.starts_with("CARGO_SOURCE")
                && !name.starts_with("RUSTUP")
            {
                command.env_remove(&name);
            }
        }
        command.arg("build").args(["--target", target]);
        if self.builds_std {
            command.env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1");
            command.arg("-Zbuild-std=std,panic_abort");
        }
        // The unit separator lets a flag hold spaces.
        command.env("CARGO_ENCODED_RUSTFLAGS", rustflags.join("\u{1f}"));
        command
    }

    /// Folders whose names must not reach the module, with what stands for them.
    pub(crate) fn remapped(&self) -> Vec<(PathBuf, &'static str)> {
        let mut folders = vec![(self.sysroot.clone(), "rust")];
        let cargo_home = env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
        folders.extend(cargo_home.map(|folder| (folder, "cargo")));
        // Debian's library sources are a link into /usr/src.
        let sources = self.sysroot.join("lib/rustlib/src/rust");
        if let Ok(real) = sources.canonicalize() {
            folders.push((real, "rust"));
        }
        folders
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(|p| p.is_file())
}
