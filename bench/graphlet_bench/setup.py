"""Sets up the peers in the cache folder: pinned versions, idempotent, and every step may fail.

A step that fails leaves its reason, which becomes the row of each peer that needs it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from graphlet_bench import machine

OHA_VERSION = "1.16.0"
WASI = "wasm32-wasip1"
# What both wasm peers know how to use; graphlet's own modules use the same.
WASM_FEATURES = "-Ctarget-feature=+simd128,+relaxed-simd"
RUST_PEERS = ("tract-peer", "rten-peer")


class SetupError(Exception):
    """A step failed; the text is the reason."""


@dataclass
class Tools:
    """What has been set up, and why the rest has not."""

    root: Path
    cache: Path
    say: Callable[[str], None]
    #: whether to set up what is missing, or only to use what is there
    install: bool = True
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def bench(self) -> Path:
        """Sources of the peers."""
        return self.root / "bench"

    @property
    def python(self) -> Path:
        """The environment of LiteRT."""
        return self.cache / f"python-{_digest(self.bench / 'requirements.txt')}"

    @property
    def javascript(self) -> Path:
        """The packages from npm, and the peers' own scripts beside them."""
        return self.cache / f"js-{_digest(self.bench / 'js' / 'package-lock.json')}"

    @property
    def rust(self) -> Path:
        """The Rust peers, built."""
        return self.cache / f"rust-{_digest(*_rust_sources(self.bench / 'peers'))}"

    @property
    def rust_target(self) -> Path:
        """Where they are built: as large as they are small."""
        return self.cache / "peers-target"

    @property
    def oha(self) -> Path:
        """The load generator."""
        return self.cache / f"oha-{OHA_VERSION}" / "bin" / "oha"

    def native(self, peer: str) -> Path:
        """A Rust peer for this machine."""
        return self.rust / peer

    def wasm(self, peer: str, suffix: str = "wasm") -> Path:
        """A Rust peer for WASI, as wasm or (``cwasm``) compiled ahead."""
        return self.rust / f"{peer}.{suffix}"

    def set_up(self) -> None:
        """Everything, one step after the other."""
        self.cache.mkdir(parents=True, exist_ok=True)
        self._step("litert", "LiteRT's Python environment", self._litert)
        self._step("node", "packages from npm", self._npm)
        self._step("chromium", "Chromium", self._chromium)
        self._step("rust", "tract and rten, native", self._rust_native)
        self._step("wasi", "tract and rten for wasmtime", self._rust_wasi)
        self._step("oha", f"oha {OHA_VERSION}, the load generator", self._oha)

    def _step(self, name: str, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except (SetupError, OSError, subprocess.SubprocessError) as error:
            self.reasons[name] = str(error)
            self.say(f"{what}: not here ({error})")

    def _missing(self, what: str) -> None:
        """Called before anything is fetched or built."""
        if not self.install:
            raise SetupError("not set up: `make bench` does it")
        self.say(f"setting up {what}")

    def _run(
        self,
        name: str,
        command: Sequence[str],
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        log = self.cache / f"{name}.log"
        with log.open("w") as out:
            done = subprocess.run(
                list(command),
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode != 0:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            said = next((line for line in lines if line.lower().startswith("error")), None)
            reason = said or (lines or ["it said nothing"])[-1]
            raise SetupError(f"{Path(command[0]).name} failed: {reason[:200]} (see {log})")

    # --- steps -----------------------------------------------------------------------------

    def _litert(self) -> None:
        folder = self.python
        if (folder / ".complete").exists():
            return
        self._missing("LiteRT (Python wheels, pinned by hash, 0.1 GB)")
        shutil.rmtree(folder, ignore_errors=True)
        self._run("litert", [sys.executable, "-m", "venv", str(folder)])
        lock = self.bench / "requirements.txt"
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input"]
        checks = ["--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"]
        self._run("litert", [*pip, *checks, "-r", str(lock)])
        (folder / ".complete").touch()

    def _npm(self) -> None:
        for name in ("node", "npm"):
            if shutil.which(name) is None:
                raise SetupError(f"no {name} here: apt-get install nodejs npm")
        folder = self.javascript
        if not (folder / ".complete").exists():
            self._missing("onnxruntime-web, tfjs and LiteRT.js (from npm, 0.3 GB)")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(self.bench / "js" / name, folder)
            flags = ["--ignore-scripts", "--no-audit", "--no-fund"]
            self._run("npm", ["npm", "ci", *flags], folder)
            (folder / ".complete").touch()
        # The scripts find their packages beside them, and change more often than these.
        for script in (self.bench / "js").glob("*.*"):
            if script.suffix in (".mjs", ".html"):
                shutil.copy(script, folder)

    def _chromium(self) -> None:
        if machine.chromium() is None:
            raise SetupError("no Chromium here: apt-get install chromium")

    def _rust_native(self) -> None:
        names = (*RUST_PEERS, "wasi-run")
        if all(self.native(name).exists() for name in names):
            return
        self._missing("tract, rten and a wasmtime runner (release builds, some minutes)")
        manifest = str(self.bench / "peers" / "Cargo.toml")
        command = ["cargo", "build", "--release", "--locked", "--manifest-path", manifest]
        self._run("rust", command, environment={"CARGO_TARGET_DIR": str(self.rust_target)})
        self.rust.mkdir(exist_ok=True)
        for name in names:
            shutil.copy(self.rust_target / "release" / name, self.rust)

    def _rust_wasi(self) -> None:
        if "rust" in self.reasons:
            raise SetupError(self.reasons["rust"])
        if all(self.wasm(name, "cwasm").exists() for name in RUST_PEERS):
            return
        self._missing("tract and rten for wasm32-wasip1 (release builds, some minutes)")
        cargo, environment, flags, program_flags = guest_toolchain()
        manifest = str(self.bench / "peers" / "Cargo.toml")
        command = [cargo, "rustc", "--release", "--locked", "--manifest-path", manifest, *flags]
        environment |= {"CARGO_TARGET_DIR": str(self.rust_target)}
        for name in RUST_PEERS:
            program = ["--target", WASI, "-p", name, "--bin", name, "--", *program_flags]
            self._run("wasi", [*command, *program], environment=environment)
            self.say(f"compiling {name} for this machine, as wasmtime would at its first start")
            shutil.copy(self.rust_target / WASI / "release" / f"{name}.wasm", self.rust)
            runner, code = self.native("wasi-run"), self.wasm(name, "cwasm")
            arguments = ["compile", str(self.wasm(name)), str(code)]
            self._run("wasi", [str(runner), *arguments])
        shutil.rmtree(self.rust_target, ignore_errors=True)

    def _oha(self) -> None:
        if self.oha.exists():
            return
        self._missing(f"oha {OHA_VERSION} (a release build, some minutes)")
        folder = self.oha.parent.parent
        command = ["cargo", "install", "--locked", "--root", str(folder), f"oha@{OHA_VERSION}"]
        target = self.cache / "oha-target"
        self._run("oha", command, environment={"CARGO_TARGET_DIR": str(target)})
        shutil.rmtree(target, ignore_errors=True)


def guest_toolchain() -> tuple[str, dict[str, str], list[str], list[str]]:
    """What builds for WASI: rustup's target, else Debian's packages, as crates/guest-toolchain.

    Cargo, its environment and flags, and flags of the compiler for programs only: a dependency
    that is also a dynamic library (rten) has no ``main`` for the C library's start to call.
    """
    sysroot = machine.output(["rustc", "--print", "sysroot"])
    if sysroot and (Path(sysroot) / "lib/rustlib" / WASI / "lib").is_dir():
        return "cargo", {"CARGO_ENCODED_RUSTFLAGS": WASM_FEATURES}, [], []
    libc = Path("/usr/lib/wasm32-wasi")
    if not (Path("/usr/lib/rustlib/src/rust/library/std").is_dir() and libc.is_dir()):
        raise SetupError(f"no Rust for {WASI} here: scripts/setup brings one")
    flags = [WASM_FEATURES, "-Clink-self-contained=no", "-Clinker=rust-lld", f"-L{libc}"]
    environment = {
        "RUSTC": "/usr/bin/rustc",
        "RUSTC_BOOTSTRAP": "1",
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags),
    }
    start = f"-Clink-arg={libc / 'crt1-command.o'}"
    # Debian's C library has no realpath, which std names: an import that traps when it is called.
    missing = "-Clink-arg=--allow-undefined"
    return "/usr/bin/cargo", environment, ["-Zbuild-std=std,panic_abort"], [start, missing]


def _digest(*files: Path) -> str:
    found = hashlib.sha256(sys.version.encode())
    for path in files:
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def _rust_sources(folder: Path) -> list[Path]:
    return sorted(p for end in ("**/*.rs", "**/Cargo.toml", "Cargo.lock") for p in folder.glob(end))
