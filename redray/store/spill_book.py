"""Which objects lie on disk, and where in which file. Pure: names and numbers in, names and numbers out.

Objects are written many to a file: one file each would cost a system call storm for small ones. A file goes when the
last object in it does.
"""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """`checksum` is the CRC-32 of the bytes: what comes back from a disk is checked."""

    file: str
    offset: int
    size: int
    checksum: int


class SpillBook:
    def __init__(self) -> None:
        self.bytes = 0
        self._places: dict[str, Place] = {}
        self._alive: dict[str, int] = {}  # file -> objects in it that are not freed

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, object: str) -> bool:
        return object in self._places

    def place(self, object: str) -> Place | None:
        return self._places.get(object)

    def add(self, object: str, place: Place) -> None:
        """Raises ValueError if it is on disk already."""
        if object in self._places:
            raise ValueError(f"Object {object} is on disk already, in {self._places[object].file}.")
        self._places[object] = place
        self._alive[place.file] = self._alive.get(place.file, 0) + 1
        self.bytes += place.size

    def free(self, object: str) -> str | None:
        """Forget it. Returns the file that holds nothing any more, if that is so."""
        place = self._places.pop(object, None)
        if place is None:
            return None
        self.bytes -= place.size
        self._alive[place.file] -= 1
        if self._alive[place.file]:
            return None
        del self._alive[place.file]
        return place.file
