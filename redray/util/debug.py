"""Saying something only once."""

from __future__ import annotations

from collections.abc import Hashable

_said: set[Hashable] = set()


def log_once(key: Hashable) -> bool:
    """True at the first call with `key` in this process: `if log_once("slow"): logger.warning(...)`."""
    if key in _said:
        return False
    _said.add(key)
    return True
