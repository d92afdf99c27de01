"""A static library around one object, the same bytes every time: no clock, user, or mode."""

from __future__ import annotations

_MAGIC = b"!<arch>\n"


def archive(name: str, data: bytes) -> bytes:
    """An `ar` archive with one member.

    It has no symbol index: the functions of a graph register themselves when the module starts
    and nothing refers to them by name, so the library is linked with ``--whole-archive``.
    """
    header = f"{name + '/':<16}{0:<12}{0:<6}{0:<6}{'644':<8}{len(data):<10}`\n".encode()
    padding = b"\n" if len(data) % 2 else b""
    return _MAGIC + header + data + padding
