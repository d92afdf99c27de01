//! Which Rust compiles guests: rustup's wasm targets, else Debian's packages.
//!
//! The builder compiles the guest of a module with it, and so do the tests that run kernels and
//! resizes inside wasm, so that both find the same toolchain and skip for the same reason.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

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
    /// Finds a toolchain for a target triple: first the `rustc` on the path when it has the
    /// target, then Debian's, which compiles the standard library from its sources. `None` when
    /// there is neither.
    pub fn find(target: &str) -> Option<Self> {
        let on_path = Self::inspect(Path::new("rustc"), Path::new("cargo"), false)
            .filter(|found| found.target_libs(target).is_dir());
        on_path.or_else(|| {
            Self::inspect(Path::new(DEBIAN_RUSTC), Path::new(DEBIAN_CARGO), true)
                .filter(|found| found.sysroot.join("lib/rustlib/src/rust/library/std").is_dir())
        })
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
    pub fn target_libs(&self, target: &str) -> PathBuf {
        self.sysroot.join("lib/rustlib").join(target).join("lib")
    }

    /// A `cargo` call (`build` or `rustc`) for a guest, without what the caller's environment
    /// would change.
    pub fn cargo(&self, subcommand: &str, target: &str, rustflags: &[String]) -> Command {
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
        command.arg(subcommand).args(["--target", target]);
        if self.builds_std {
            command.env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1");
            command.arg("-Zbuild-std=std,panic_abort");
        }
        // The unit separator lets a flag hold spaces.
        command.env("CARGO_ENCODED_RUSTFLAGS", rustflags.join("\u{1f}"));
        command
    }

    /// Folders whose names must not reach the module, with what stands for them.
    pub fn remapped(&self) -> Vec<(PathBuf, &'static str)> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolchain_names_programs_that_are_there_and_a_version() {
        let Some(found) = GuestToolchain::find("wasm32-unknown-unknown") else {
            eprintln!("skipped: no toolchain here builds for wasm32-unknown-unknown");
            return;
        };
        assert!(found.linker().is_file(), "{found:?}");
        assert!(found.version().starts_with("rustc "), "{found:?}");
        assert!(found.remapped().iter().all(|(folder, _)| folder.is_absolute()), "{found:?}");
        let flags = ["-Ctarget-feature=+simd128".to_owned(), "-Clinker=a b".to_owned()];
        let command = found.cargo("build", "wasm32-unknown-unknown", &flags);
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments[..3], ["build", "--target", "wasm32-unknown-unknown"]);
        let encoded = command.get_envs().find(|(name, _)| *name == "CARGO_ENCODED_RUSTFLAGS");
        let expected = "-Ctarget-feature=+simd128\u{1f}-Clinker=a b";
        assert_eq!(encoded.and_then(|(_, value)| value), Some(expected.as_ref()));
        // What `cargo test` sets for its tests would reach the build.
        let removed = |name: &str| command.get_envs().any(|set| set == (name.as_ref(), None));
        assert!(removed("CARGO_MANIFEST_DIR"), "{command:?}");
    }
}
