"""Counters, gauges and histograms of tasks and actors, for Prometheus.

A process writes its metrics down for its node about once a second; a node that was started with
`--metrics-export-port` serves those of all its processes.
"""

from __future__ import annotations

import atexit
import contextlib
import re
import threading
from bisect import bisect_left
from pathlib import Path
from typing import Any

from redray import current, metrics_files
from redray.metrics_files import COUNTER, GAUGE, HISTOGRAM, Series

__all__ = ["Counter", "Gauge", "Histogram"]

WRITE_S = 1.0
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")

_lock = threading.Lock()
_metrics: dict[tuple[str, str], Metric] = {}  # of one name there may be several objects, which count together
_changed = threading.Event()
_writer: threading.Thread | None = None


class Metric:
    """What the three kinds share.

    Args:
        name: letters, digits, underscores and colons.
        description: for people.
        tag_keys: names of the tags that each value may be given with.
    """

    kind = ""

    def __init__(
        self, name: str, description: str = "", tag_keys: tuple[str, ...] | None = None, boundaries: Any = ()
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError("Empty name is not allowed. Please provide a metric name.")
        if not _NAME.match(name):
            raise ValueError(f"Invalid metric name: {name}. It consists of letters, digits, underscores and colons.")
        if not isinstance(tag_keys, (tuple, type(None))):
            raise TypeError(f"tag_keys should be a tuple type, got: {type(tag_keys)}")
        for key in tag_keys or ():
            if not isinstance(key, str):
                raise TypeError(f"Tag keys must be str, got {type(key)}.")
        self._name, self._description = name, description
        self._tag_keys = tuple(tag_keys or ())
        self._default_tags: dict[str, str] = {}
        self._boundaries = [float(bound) for bound in boundaries]
        with _lock:
            known = _metrics.setdefault((name, self.kind), self)
            self._values: dict[tuple[tuple[str, str], ...], list[float]] = {} if known is self else known._values

    @property
    def info(self) -> dict[str, Any]:
        return {
            "name": self._name,
            "description": self._description,
            "tag_keys": self._tag_keys,
            "default_tags": self._default_tags,
        }

    def set_default_tags(self, default_tags: dict[str, str]) -> Metric:
        """Tags of values that are given without them. Returns the metric.

        Raises:
            ValueError: a tag that is none of `tag_keys`.
            TypeError: a value that is no text.
        """
        for key, value in default_tags.items():
            if key not in self._tag_keys:
                raise ValueError(f"Unrecognized tag key {key}.")
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)}.")
        self._default_tags = dict(default_tags)
        return self

    def _tags(self, tags: dict[str, str] | None) -> tuple[tuple[str, str], ...]:
        for key, value in (tags or {}).items():
            if key not in self._tag_keys:
                raise ValueError(f"Unrecognized tag key {key}.")
            if not isinstance(value, str):
                raise TypeError(f"Tag values must be str, got {type(value)}.")
        found = {**self._default_tags, **(tags or {})}
        missing = [key for key in self._tag_keys if key not in found]
        if missing:
            raise ValueError(f"Missing value for tag key(s): {','.join(missing)}.")
        return tuple(sorted(found.items()))

    def __reduce__(self) -> Any:
        """In another process it counts for that process."""
        return _again, (type(self), self._name, self._description, self._tag_keys, self._boundaries, self._default_tags)

    def _snapshot(self) -> metrics_files.Metric:
        series = [Series(dict(tags), list(values)) for tags, values in self._values.items()]
        return metrics_files.Metric(self._name, self.kind, self._description, self._boundaries, series)


class Counter(Metric):
    """A number that only grows."""

    kind = COUNTER

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        """Raises ValueError unless `value` is above 0."""
        if not isinstance(value, (int, float)):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        if value <= 0:
            raise ValueError(f"value must be >0, got {value}")
        key = self._tags(tags)
        with _lock:
            self._values.setdefault(key, [0.0])[0] += value
        _notice()


class Gauge(Metric):
    """A number that goes up and down."""

    kind = GAUGE

    def set(self, value: float | None, tags: dict[str, str] | None = None) -> None:
        """None changes nothing."""
        if value is None:
            return
        if not isinstance(value, (int, float)):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        key = self._tags(tags)
        with _lock:
            self._values[key] = [float(value)]
        _notice()


class Histogram(Metric):
    """How many observations are at most how large.

    Args:
        boundaries: upper ends of the buckets, above 0 and ascending; one without end is added.
    """

    kind = HISTOGRAM

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: list[float] | None = None,
        tag_keys: tuple[str, ...] | None = None,
    ) -> None:
        if not boundaries:
            raise ValueError(
                "boundaries argument should be provided when using the Histogram class, such as boundaries=[1.0]."
            )
        for number, bound in enumerate(boundaries):
            if bound <= 0:
                raise ValueError(f"Invalid `boundaries` argument at index {number}, {bound}. Use positive values.")
        if sorted(boundaries) != list(boundaries):
            raise ValueError(f"`boundaries` must ascend, and do not: {boundaries}.")
        super().__init__(name, description, tag_keys, boundaries)

    def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
        if not isinstance(value, (int, float)):
            raise TypeError(f"value must be int or float, got {type(value)}.")
        key = self._tags(tags)
        with _lock:
            values = self._values.setdefault(key, [0.0] * (len(self._boundaries) + 2))
            values[bisect_left(self._boundaries, value)] += 1
            values[-1] += value
        _notice()

    @property
    def info(self) -> dict[str, Any]:
        return {**super().info, "boundaries": self._boundaries}


def _again(kind: Any, name: str, description: str, tags: tuple[str, ...], bounds: list[float], default: Any) -> Metric:
    if kind is Histogram:
        metric: Metric = Histogram(name, description, bounds, tags)
    else:
        metric = kind(name, description, tags)
    return metric.set_default_tags(default)


# ---- on their way ----------------------------------------------------------------------------------------------------
def _notice() -> None:
    global _writer
    _changed.set()
    if _writer is None:
        with _lock:
            if _writer is None:
                _writer = threading.Thread(target=_write_now_and_then, name="redray-metrics", daemon=True)
                _writer.start()
                atexit.register(_write)


def _write_now_and_then() -> None:
    stopped = threading.Event()  # never set: a sleep that an interpreter at its end does not wait for
    while True:
        _changed.wait()
        _changed.clear()
        with contextlib.suppress(OSError):
            _write()
        stopped.wait(WRITE_S)


def _write() -> None:
    """Nothing without a node: a program that is connected to Redis alone has nobody who would serve them."""
    session: Any = current.current_or_none()
    folder: str = getattr(session, "node_folder", "")
    if folder:
        with _lock:
            metrics = [metric._snapshot() for metric in _metrics.values()]
        with contextlib.suppress(OSError):
            metrics_files.write(Path(folder) / metrics_files.FOLDER, session.worker_id.hex(), metrics)
