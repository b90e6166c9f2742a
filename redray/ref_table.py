"""Which objects this process holds: how many Python refs name each, and what Redis must be told of that.

An id is registered in Redis once per process: by the submission or put that made it, or by a hold when a ref came out
of a value. It is released when its last Python ref here is gone.
"""

from __future__ import annotations

from collections import deque

from redray import refs


class RefTable:
    """Not thread safe by itself: the session's lock is held around every call but `count`, which may come from
    unpickling anywhere, thousands of times in a row: it only appends, and `settle` counts."""

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}
        self._unregistered: dict[bytes, None] = {}
        self._uncounted: deque[bytes] = deque()
        self.count = self._uncounted.append

    def add_own(self, object_id: bytes) -> None:
        """An id that this process makes: the call that makes it registers it."""
        self._counts[object_id] = self._counts.get(object_id, 0) + 1

    @property
    def is_settled(self) -> bool:
        return not self._uncounted

    def settle(self) -> None:
        counts, uncounted = self._counts, self._uncounted
        while uncounted:
            object_id = uncounted.popleft()
            known = counts.get(object_id)
            if known is None:
                counts[object_id] = 1
                self._unregistered[object_id] = None
            else:
                counts[object_id] = known + 1

    def __contains__(self, object_id: bytes) -> bool:
        return object_id in self._counts

    def __len__(self) -> int:
        return len(self._counts)

    def take_holds(self) -> list[bytes]:
        """Ids to be registered: they came out of values since the last call."""
        self.settle()
        if not self._unregistered:
            return []
        holds, self._unregistered = list(self._unregistered), {}
        return holds

    def take_releases(self) -> list[bytes]:
        """Ids whose last ref here is gone. Holds must be taken before,
        or an id could be released and never registered."""
        releases = []
        dropped = refs.dropped
        due = len(dropped)  # these were counted before they were dropped: the settling finds them
        self.settle()
        for _ in range(due):
            object_id = dropped.popleft()
            count = self._counts.get(object_id)
            if count is None:
                continue
            if count > 1:
                self._counts[object_id] = count - 1
                continue
            del self._counts[object_id]
            releases.append(object_id)
        return releases

    def ids(self) -> list[bytes]:
        self.settle()
        return list(self._counts)
