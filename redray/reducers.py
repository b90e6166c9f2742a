"""How values of certain classes are pickled here, as the user registered it. For this process only, as in Ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

registered: dict[type, Callable[[Any], tuple[Any, ...]]] = {}
"""Exact type -> what `__reduce__` would return."""
