"""The part of the local scheduler that passes items of streams on: from its workers to Redis, and news back. Pure.

Items are gathered over a turn like finishes, and go out ahead of them, so that a stream's end never overtakes its
items.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from redray.gcs.streams import GONE, Yield
from redray.messages import StreamNews, Yielded
from redray.worker import actions, events

if TYPE_CHECKING:
    from redray.worker.state import NodeState

MOST_ITEMS = 500  # in one call
MOST_BYTES = 1 << 20


class Streams:
    def __init__(self, node: NodeState) -> None:
        self._node = node
        self._yields: deque[tuple[Yield, list[bytes]]] = deque()
        self._last_bytes = 0  # of the last of them

    def has_items(self) -> bool:
        return bool(self._yields)

    def yielded(self, event: events.ItemsYielded) -> None:
        message = event.items
        worker = self._node.workers.get(event.worker)
        attempt = worker.sent.get(message.task) if worker is not None else None
        if attempt is None or attempt.attempt != message.attempt:
            self._free([f"{message.task}{index:08x}" for index in _large(message)])
            return
        values, returns = self._continued(message)
        for offset, item in enumerate(message.items):
            if item.inline is not None:
                values.append(item.inline)
                self._node.recent.add(f"{message.task}{message.first + offset:08x}", item.inline)
            returns.append((item.inline is not None, item.size, item.contains))

    def _continued(self, message: Yielded) -> tuple[list[bytes], list[tuple[bool, int, list[str]]]]:
        """Where to note these items: behind the last ones if those are of the same stream. In a row, they cost less."""
        size = sum(len(item.inline or b"") for item in message.items)
        if self._yields:
            last, values = self._yields[-1]
            ahead = len(last.returns)
            follows = (last.task, last.attempt, last.first + ahead) == (message.task, message.attempt, message.first)
            if follows and 0 < ahead < MOST_ITEMS and self._last_bytes < MOST_BYTES:
                self._last_bytes += size
                return values, last.returns
        begun, none = Yield(message.task, message.attempt, message.first, []), list[bytes]()
        self._yields.append((begun, none))
        self._last_bytes = size
        return none, begun.returns

    def report(self) -> None:
        """Once a turn: what was yielded, as much as is good for one call."""
        taken: list[tuple[Yield, list[bytes]]] = []
        count = size = 0
        while self._yields and count < MOST_ITEMS and size < MOST_BYTES:
            taken.append(self._yields.popleft())
            count += 1 + len(taken[-1][0].returns)
            size += sum(map(len, taken[-1][1]))
        if taken:
            self._node.out.append(actions.RecordItems(taken))

    def published(self, event: events.ItemsPublished) -> None:
        for task, published, taken, missing in event.answers:
            self._tell(task, StreamNews(task, max(0, published), GONE if published < 0 else taken, missing))

    def taken(self, event: events.ItemsTaken) -> None:
        self._tell(event.task, StreamNews(event.task, 0, event.taken, -1))

    def _tell(self, task: str, news: StreamNews) -> None:
        attempt = self._node.attempts.get(task)
        if attempt is not None and attempt.worker:
            self._node.out.append(actions.Send(attempt.worker, news))

    def _free(self, objects: list[str]) -> None:
        if objects:
            self._node.out.append(actions.FreeLarge(objects))


def _large(message: Yielded) -> list[int]:
    return [message.first + offset for offset, item in enumerate(message.items) if item.inline is None]


def large_items(items: Yield) -> list[str]:
    """The ids of those that lie in this node's shared memory."""
    indexes = (items.first + offset for offset, returned in enumerate(items.returns) if not returned[0])
    return [f"{items.task}{index:08x}" for index in indexes]
