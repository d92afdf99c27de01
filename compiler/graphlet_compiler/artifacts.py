"""Writes a compilation's files: all of them, whole, or none."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from graphlet_compiler.errors import from_os_error


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Stages every file beside its place, then moves them in.

    A full disk shows while staging, before anything that was there is touched.
    """
    staging: str | None = None
    created = not folder.exists()
    done = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = tempfile.mkdtemp(prefix=".graphlet-", dir=folder)
        for name, data in files.items():
            (Path(staging) / name).write_bytes(data)
        for name in files:
            (Path(staging) / name).replace(folder / name)
        done = True
    except OSError as error:
        raise from_os_error(error, f"cannot write the artifacts to `{folder.name}`") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        if created and not done:
            shutil.rmtree(folder, ignore_errors=True)
