"""What Ray calls experimental, where Ray has it."""

from __future__ import annotations

from redray.experimental.locations import get_object_locations

__all__ = ["get_object_locations"]
