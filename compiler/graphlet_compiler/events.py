"""What the caller sees while the compiler works: one JSON object a line on standard output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TextIO

from graphlet_compiler.errors import CompileError


class Events:
    """Writes events; ``stream`` belongs to them alone, all other output goes to stderr."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._index = 0
        self._total = 0

    def plan(self, total: int) -> None:
        """Says how many phases are to come."""
        self._index, self._total = 0, total

    def phase(self, name: str) -> None:
        """A phase begins."""
        self._index += 1
        self.emit({"event": "phase", "name": name, "index": self._index, "of": self._total})

    def error(self, error: CompileError) -> None:
        """The command failed. Several mistakes of one kind stand in ``details``."""
        self.emit(
            {
                "event": "error",
                "code": error.code,
                "node": error.node or "",
                "message": error.message,
                "hint": error.hint or "",
                "details": [
                    {"message": d.message, "node": d.node or "", "hint": d.hint or ""}
                    for d in error.details
                ],
            }
        )

    def emit(self, value: Mapping[str, Any]) -> None:
        """Writes one object as one line, at once."""
        self._stream.write(json.dumps(value, ensure_ascii=False) + "\n")
        self._stream.flush()

    def text(self, text: str) -> None:
        """Writes lines that are no events."""
        self._stream.write(text + "\n")
        self._stream.flush()
