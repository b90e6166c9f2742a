"""Replies as redis-cli shows them in a terminal: so that what the documentation shows is what a reader sees."""

from __future__ import annotations

from typing import Any


def formatted(reply: Any) -> str:
    """`(integer) 3`, `"text"`, `(nil)`, or a numbered list, without the final line break."""
    if reply is None:
        return "(nil)"
    if isinstance(reply, int):
        return f"(integer) {reply}"
    if isinstance(reply, (bytes, str)):
        return _quoted(reply if isinstance(reply, bytes) else reply.encode())
    if not reply:
        return "(empty array)"
    width = len(str(len(reply)))
    lines = []
    for number, item in enumerate(reply, 1):
        label = f"{number:>{width}}) "
        lines.append(label + formatted(item).replace("\n", "\n" + " " * len(label)))
    return "\n".join(lines)


_ESCAPES = {ord("\\"): "\\\\", ord('"'): '\\"', 10: "\\n", 13: "\\r", 9: "\\t", 7: "\\a", 8: "\\b"}


def _quoted(text: bytes) -> str:
    shown = (_ESCAPES.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}") for byte in text)
    return f'"{"".join(shown)}"'
