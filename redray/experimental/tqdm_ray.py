"""`tqdm` for tasks and actors: the bars of all of them are drawn by the driver, without getting in each other's way."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from redray import current, progress

T = TypeVar("T")

DEFAULT_FLUSH_INTERVAL_SECONDS = 0.2


def safe_print(*args: Any, **kwargs: Any) -> None:
    """`print`, above the bars of this process."""
    text = kwargs.get("sep", " ").join(map(str, args)) + kwargs.get("end", "\n")
    if kwargs.get("file") in (None, sys.stdout, sys.stderr):
        progress.write(kwargs.get("file") or sys.stdout, text)
    else:
        kwargs["file"].write(text)


class tqdm(Generic[T]):
    """A progress bar, with the part of `tqdm.tqdm` that makes sense from afar.

    Args:
        iterable: what to go through; None: call `update`.
        desc: stands in front of the bar.
        total: how many steps there are; None: as `iterable` says, if it does.
        unit: of a step.
        position: for compatibility, ignored: the driver orders the bars.
        flush_interval_s: seconds between two updates.
    """

    def __init__(
        self,
        iterable: Iterable[T] | None = None,
        desc: str | None = None,
        total: int | None = None,
        unit: str | None = None,
        position: int | None = None,
        flush_interval_s: float | None = None,
    ) -> None:
        self._iterable = iterable
        self._desc = desc or ""
        if total is None and hasattr(iterable, "__len__"):
            total = len(iterable)  # type: ignore[arg-type]
        self.total, self.n = total, 0
        self._unit = unit or "it"
        self._interval = DEFAULT_FLUSH_INTERVAL_SECONDS if flush_interval_s is None else flush_interval_s
        self._id = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._last = float("-inf")
        self._closed = False
        self.refresh()

    def __iter__(self) -> Iterator[T]:
        if self._iterable is None:
            raise ValueError("No iterable provided")
        try:
            for item in self._iterable:
                yield item
                self.update(1)
        finally:
            self.close()

    def __enter__(self) -> tqdm[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_description(self, desc: str) -> None:
        self._desc = desc
        self._show()

    def update(self, n: int = 1) -> None:
        """So many steps are done."""
        self.n += n
        self._show()

    def refresh(self) -> None:
        """Show it as it is now, however short ago it was shown."""
        self._last = float("-inf")
        self._show()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.refresh()

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._last < self._interval:
            return
        self._last = now
        line = progress.pack(
            {
                "id": self._id,
                "desc": self._desc,
                "n": self.n,
                "total": self.total,
                "unit": self._unit,
                "closed": self._closed,
            }
        )
        session = current.current_or_none()
        if session is not None and session.kind == "worker":
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        else:
            progress.show_update(line)
