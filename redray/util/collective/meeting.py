"""The actor where the members of a group meet: it hands what each of them brings to those who wait for it."""

from __future__ import annotations

import asyncio
from typing import Any


class Meeting:
    """Async, so that all members can wait in it at once. What they bring are refs in lists: the bytes of an array go
    between stores and never through this actor."""

    def __init__(self, world_size: int) -> None:
        self._size = world_size
        self._joined: set[int] = set()
        self._left: set[int] = set()
        self._rounds: dict[int, _Round] = {}
        self._letters: dict[tuple[int, int, int], asyncio.Future[Any]] = {}

    def join(self, rank: int, world_size: int) -> str:
        """An error to raise, or ""."""
        if world_size != self._size:
            return f"The group has {self._size} members, not {world_size}."
        if rank in self._joined:
            return f"Rank {rank} is in the group already."
        self._joined.add(rank)
        return ""

    def leave(self, rank: int) -> bool:
        """Whether everybody has left."""
        self._left.add(rank)
        return len(self._left) == self._size

    async def exchange(self, operation: str, number: int, rank: int, brought: Any) -> list[Any]:
        """What everybody brought to the operation of this number, by rank, once all have come.

        Members count their operations, so a round is told apart from the next one of its kind; a member that does
        another operation than the rest makes it fail for all, instead of letting them wait for ever.
        """
        round = self._rounds.setdefault(number, _Round(operation))
        if round.operation != operation:
            text = (
                f"Operation {number} of the group is {round.operation} for some of its members, {operation} for others."
            )
            if not round.done.done():
                round.done.set_exception(RuntimeError(text))
            raise RuntimeError(text)
        round.brought[rank] = brought
        if len(round.brought) == self._size and not round.done.done():
            round.done.set_result([round.brought[rank] for rank in range(self._size)])
        try:
            return list(await asyncio.shield(round.done))
        finally:
            round.taken += 1
            if round.taken == self._size:
                del self._rounds[number]

    def send(self, source: int, target: int, number: int, brought: Any) -> None:
        self._letter(source, target, number).set_result(brought)

    async def receive(self, source: int, target: int, number: int) -> Any:
        try:
            return await self._letter(source, target, number)
        finally:
            self._letters.pop((source, target, number), None)

    def _letter(self, source: int, target: int, number: int) -> asyncio.Future[Any]:
        key = (source, target, number)
        if key not in self._letters:
            self._letters[key] = asyncio.get_running_loop().create_future()
        return self._letters[key]


class _Round:
    def __init__(self, operation: str) -> None:
        self.operation = operation
        self.brought: dict[int, Any] = {}
        self.done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.taken = 0
