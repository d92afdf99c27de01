"""What the figures were measured on: without it they mean nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any


def describe(root: Path, binary: Path) -> dict[str, Any]:
    """Processor, memory, kernel, load, the binary's commit, and versions of what runs peers."""
    info = _processor()
    memory = _field(Path("/proc/meminfo"), "MemTotal")
    return {
        "processor": info.get("model name", platform.processor()),
        "cores": len(os.sched_getaffinity(0)),
        "flags": sorted({"avx2", "fma", "avx512f", "avx512_vnni"} & set(info["flags"].split())),
        "memory_gb": round(int(memory.split()[0]) / 1e6, 1) if memory else None,
        "system": platform.platform(),
        "load_before": round(os.getloadavg()[0], 2),
        "commit": built_from(root, binary),
        "changed_files": len(_changes(root)),
        "rust": output(["rustc", "--version"]),
        "node": output(["node", "--version"]),
        "chromium": output([chromium() or "chromium", "--version"]),
    }


def built_from(root: Path, binary: Path) -> str | None:
    """The last commit before a binary was built: later ones are not in it, and may be others'."""
    try:
        built = int(binary.stat().st_mtime)
    except OSError:
        return None
    command = ["git", "-C", str(root), "log", "-1", "--abbrev=12", "--format=%h"]
    return output([*command, f"--before=@{built}"]) or output(command)


def chromium() -> str | None:
    """The browser, under the names that systems give it."""
    names = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


def output(command: list[str]) -> str | None:
    """What a command prints, without the space around; ``None`` when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def succeeds(command: list[str]) -> bool:
    """Whether a command is there and ends with code 0."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _changes(root: Path) -> list[str]:
    status = output(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"])
    return (status or "").splitlines()


def _processor() -> dict[str, str]:
    found = {"flags": ""}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if not line.strip():
            break
        found[name.strip()] = value.strip()
    return found


def _field(path: Path, name: str) -> str | None:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return None
