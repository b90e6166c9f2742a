"""What one attempt has submitted, so that its cancellation can follow. Pure."""

from __future__ import annotations

from array import array


class Children:
    """A task's id is its maker's id and a number: of the children of one attempt, which all have the same maker, the
    numbers are enough. Four bytes each, because a parent may have a million, and nobody says when they have ended."""

    __slots__ = ("_maker", "_numbers", "_taken")

    def __init__(self, maker: str) -> None:
        self._maker = maker
        self._numbers = array("I")
        self._taken = 0

    def add(self, task: str) -> None:
        if task.startswith(self._maker):  # else somebody else's, who says that it belongs here
            self._numbers.append(int(task[len(self._maker) :], 16))

    def take(self, last: int | None = None) -> list[str]:
        """Ids of those added since the last `take`; with `last`, only up to that number."""
        new = self._numbers[self._taken :]
        self._taken = len(self._numbers)
        return [f"{self._maker}{number:08x}" for number in new if last is None or number <= last]
