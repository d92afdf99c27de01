//! Guest library, generated kernels and model block to one module.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use guest_toolchain::GuestToolchain;

use crate::{BuildError, GuestKind, guest::last_lines};

// What the decoders and the classifier need with room to spare; `--stack-first` puts it at the
// bottom of memory, so that an overflow traps instead of writing over data.
pub(crate) const STACK_BYTES: u32 = 1024 * 1024;

// What `docs/wasm-graph.md` lists; the memory is exported anyway.
const GRAPH_EXPORTS: [&str; 5] =
    ["run", "graphlet_alloc", "graphlet_free", "graphlet_describe", "graphlet_message"];

// What `wasi:http/proxy` of the bindings (crate `wasip2`) has a component export, the allocator
// that the canonical ABI calls, and what `preinit` calls and takes away.
const COMPONENT_EXPORTS: [&str; 3] =
    ["wasi:http/incoming-handler@0.2.12#handle", "cabi_realloc", LOAD];

/// The function of a component's module that loads its model.
pub(crate) const LOAD: &str = "graphlet_load";

/// What is linked of a model.
pub(crate) struct Model<'a> {
    pub kernels: &'a Path,
    pub block: &'a Path,
}

/// What the linker joins.
pub(crate) struct Inputs<'a> {
    pub kind: GuestKind,
    pub guest: &'a Path,
    /// Generated kernels and the model block; the operator library has neither.
    pub model: Option<Model<'a>>,
}

/// Links a module and writes it to `out`.
pub(crate) fn link(
    toolchain: &GuestToolchain,
    inputs: &Inputs<'_>,
    out: &Path,
) -> Result<(), BuildError> {
    let mut command = Command::new(toolchain.linker());
    command
        .args(["-flavor", "wasm", "--gc-sections", "--strip-all", "--stack-first"])
        .arg(format!("-zstack-size={STACK_BYTES}"));
    match inputs.kind {
        GuestKind::Actor => {
            command.args(["--no-entry", "--export=__guest_call"]);
        }
        GuestKind::Component => {
            command
                .arg("--no-entry")
                .args(COMPONENT_EXPORTS.map(|name| format!("--export={name}")));
        }
        GuestKind::Graph => {
            command.arg("--no-entry").args(GRAPH_EXPORTS.map(|name| format!("--export={name}")));
        }
        GuestKind::Operators => {
            // All but the description.
            let exports = GRAPH_EXPORTS.iter().filter(|name| **name != "graphlet_describe");
            command.arg("--no-entry").args(exports.map(|name| format!("--export={name}")));
        }
        GuestKind::Wasi => {
            let libc = wasi_libc(toolchain)?;
            command.arg(libc.join("crt1-command.o")).arg("-L").arg(&libc);
        }
    }
    if let Some(model) = &inputs.model {
        // The kernels register themselves from constructors, to which nothing refers.
        command.arg("--whole-archive").arg(model.kernels).arg("--no-whole-archive");
        command.arg(model.block);
    }
    command.arg(inputs.guest);
    if inputs.kind == GuestKind::Wasi {
        command.arg("-lc");
    }
    command.arg("-o").arg(out).stdin(Stdio::null());
    let output = command.output().map_err(|source| BuildError::Spawn {
        program: toolchain.linker().display().to_string(),
        source,
    })?;
    if !output.status.success() {
        return Err(BuildError::Link { stderr: last_lines(&output.stderr, 20) });
    }
    Ok(())
}

/// Where wasi-libc lies: in rustup's target, else Debian's package `wasi-libc`.
fn wasi_libc(toolchain: &GuestToolchain) -> Result<PathBuf, BuildError> {
    let target = GuestKind::Wasi.target();
    [toolchain.target_libs(target).join("self-contained"), PathBuf::from("/usr/lib/wasm32-wasi")]
        .into_iter()
        .find(|folder| folder.join("crt1-command.o").is_file())
        .ok_or(BuildError::NoGuestToolchain { target })
}
