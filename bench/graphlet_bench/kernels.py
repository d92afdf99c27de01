"""Kernels beside the core's own 128-bit FMA loop, as crates/operators measures them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

_CLASS = re.compile(r"^(?P<name>\S.*?) all +[0-9.]+ ms +[0-9.]+ G/s +(?P<ratio>[0-9.]+)$")


class KernelError(Exception):
    """The bench of the kernels did not run."""


def command(*arguments: str) -> list[str]:
    """Cargo's command line for that bench."""
    start = ["cargo", "bench", "--quiet", "--locked", "-p", "operators", "--bench", "kernels"]
    return [*start, *(["--", *arguments] if arguments else [])]


def build(root: Path) -> None:
    """Compiles the bench, so that it only runs later; raises KernelError."""
    _run(root, [*command(), "--no-run"])


def measure(root: Path, before: list[str]) -> dict[str, float]:
    """Each class of layers with its share of the native loop; ``before`` pins the bench."""
    found = parse(_run(root, [*before, *command()]))
    if not found:
        raise KernelError("it printed no class of layers")
    return found


def _run(root: Path, arguments: list[str]) -> str:
    done = subprocess.run(arguments, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise KernelError((done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300])
    return done.stdout


def parse(text: str) -> dict[str, float]:
    """The closing line of each class."""
    found = map(_CLASS.match, text.splitlines())
    return {match["name"]: float(match["ratio"]) for match in found if match}
