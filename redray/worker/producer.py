"""What a worker does with the items of a generator: each is sent when it is yielded, and numbered from 1.

The generator runs ahead of its reader, unless `_generator_backpressure_num_objects` bounds that; and at most a window
of items ahead of Redis, so that neither this process nor its node piles up what the cluster cannot take so fast.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from redray.gcs.streams import GONE
from redray.messages import StreamNews, Yielded
from redray.spec import TaskHead
from redray.worker.host import Host

WINDOW_ITEMS = 500  # that Redis may not have yet
WINDOW_BYTES = 4 << 20


class Producer:
    """One attempt's stream. An item is sent before its generator goes on: it outlives a crash in the next line."""

    def __init__(self, host: Host, head: TaskHead, attempt: int) -> None:
        self.task = head.task
        self.limit = int(head.options.get("backpressure") or 0)  # items ahead of the reader, 0: no bound
        self.wake: Callable[[], object] | None = None  # called in any thread when there is news
        self._host = host
        self._attempt = attempt
        self._count = 0  # items yielded
        self._unpublished: deque[tuple[int, int]] = deque()  # (number, bytes) of items on their way
        # One is written by the generator's thread, the other by the thread that hears: no update can be lost.
        self._sent_bytes = 0
        self._published_bytes = 0
        self._known = 0  # items that an earlier attempt published: they are not sent again
        self._published = 0
        self._taken = 0
        self._is_gone = False
        self._is_open = attempt == 1

    def open(self) -> None:
        """A later attempt asks what an earlier one has published: `may_go_on` when that is known."""
        if not self._is_open:
            self._host.post(Yielded(self.task, self._attempt, 1, []))
            self._host.flush()

    def hear(self, news: StreamNews) -> None:
        """From the node, in the thread that reads."""
        if not self._is_open and news.missing >= 0:  # else it speaks of the reader only
            self._is_open = True
            self._known = news.published if not news.missing else 0
        while self._unpublished and self._unpublished[0][0] <= news.published:
            self._published_bytes += self._unpublished.popleft()[1]
        self._published = max(self._published, news.published)
        if news.taken == GONE:
            self._is_gone = True
        else:
            self._taken = max(self._taken, news.taken)
        if self.wake is not None:
            self.wake()

    def add(self, value: Any) -> None:
        """Send the next item. Raises what storing it raises: that is an error of the generator's."""
        self._count += 1
        if self._count <= self._known or (self._is_gone and self._count > self._published):
            return
        item = self._host.store_return(self.task, self._count, value)
        size = len(item.inline) if item.inline is not None else 0
        self._unpublished.append((self._count, size))
        self._sent_bytes += size
        self._host.post(Yielded(self.task, self._attempt, self._count, [item]))
        self._host.flush()

    def must_wait(self) -> bool:
        return not self.may_go_on()

    def may_go_on(self) -> bool:
        """Whether the generator may be asked for its next item."""
        if not self._is_open or self._is_gone:
            return self._is_open
        size = self._sent_bytes - self._published_bytes
        return not self.is_ahead() and len(self._unpublished) < WINDOW_ITEMS and size < WINDOW_BYTES

    def is_ahead(self) -> bool:
        """Whether it is the reader that must go on first."""
        return 0 < self.limit <= self._count - self._taken and not self._is_gone
