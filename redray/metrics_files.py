"""Metrics of a node's processes: each writes its own file in the node's private directory, the exporter adds them up.

A file is written by `os.replace`, so a reader sees all of it or the one before. Counters and histograms of a process
that has ended are kept by the exporter, so they never go backwards; its gauges go with it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

FOLDER = "metrics"
COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


class Series(msgspec.Struct, array_like=True):
    """One set of tags of a metric. `values` is one number, or of a histogram the count in each bucket (the last one is
    without end) and then the sum."""

    tags: dict[str, str]
    values: list[float]


class Metric(msgspec.Struct, array_like=True):
    name: str
    kind: str
    description: str
    boundaries: list[float]
    series: list[Series]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Metric]).decode


def write(folder: Path, worker: str, metrics: list[Metric]) -> None:
    """Called by the process `worker`. The directory above is the node's, and open to its user alone."""
    folder.mkdir(mode=0o700, exist_ok=True)
    new = folder / f".{os.getpid()}-{worker}"
    new.write_bytes(_encode(metrics))
    os.replace(new, folder / f"{os.getpid()}-{worker}")


class Collection:
    """What the exporter of a node knows."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._past: list[Metric] = []  # counters and histograms of processes that have ended

    def collect(self) -> list[Metric]:
        """All processes' metrics, those of one name and its tags added up; gauges say which process they are of."""
        now: list[Metric] = []
        for path in sorted(self._folder.glob("[0-9]*")) if self._folder.is_dir() else []:
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                metrics = _decode(path.read_bytes())
                pid = path.name.partition("-")[0]
                if os.path.exists(f"/proc/{pid}"):
                    now += [_of_process(metric, pid) for metric in metrics]
                else:
                    path.unlink()
                    self._past = _added(self._past + [metric for metric in metrics if metric.kind != GAUGE])
        return _added(self._past + now)


def _of_process(metric: Metric, pid: str) -> Metric:
    if metric.kind != GAUGE:
        return metric
    series = [Series({**series.tags, "Pid": pid}, series.values) for series in metric.series]
    return Metric(metric.name, metric.kind, metric.description, metric.boundaries, series)


def _added(metrics: Iterable[Metric]) -> list[Metric]:
    found: dict[tuple[str, str], Metric] = {}
    sums: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[float]] = {}
    for metric in metrics:
        kept = found.setdefault(
            (metric.name, metric.kind), Metric(metric.name, metric.kind, metric.description, metric.boundaries, [])
        )
        if kept.boundaries != metric.boundaries:
            continue  # two programs mean different things by it: the first one counts
        for series in metric.series:
            key = (metric.name, metric.kind, tuple(sorted(series.tags.items())))
            values = sums.get(key)
            if values is None:
                sums[key] = list(series.values)
                kept.series.append(Series(series.tags, sums[key]))
            else:
                values[:] = [one + other for one, other in zip(values, series.values, strict=True)]
    return list(found.values())


def exposition(metrics: Iterable[Metric], tags: dict[str, str]) -> str:
    """Prometheus' text format, version 0.0.4. Names get the prefix `ray_`, counters also the suffix `_total`; every
    series gets `tags`."""
    lines = []
    for metric in metrics:
        name = f"ray_{metric.name}"
        if metric.kind == COUNTER and not name.endswith("_total"):
            name += "_total"
        text = metric.description.replace("\\", "\\\\").replace("\n", "\\n")
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {metric.kind}"]
        for series in metric.series:
            lines += _lines(name, metric, Series({**series.tags, **tags}, series.values))
    return "".join(f"{line}\n" for line in lines)


def _lines(name: str, metric: Metric, series: Series) -> list[str]:
    if metric.kind != HISTOGRAM:
        return [f"{name}{_labels(series.tags)} {series.values[0]!r}"]
    lines, count = [], 0.0
    for bound, number in zip([*metric.boundaries, float("inf")], series.values, strict=False):
        count += number
        edge = "+Inf" if bound == float("inf") else repr(float(bound))
        lines.append(f"{name}_bucket{_labels({**series.tags, 'le': edge})} {count!r}")
    return [
        *lines,
        f"{name}_sum{_labels(series.tags)} {series.values[-1]!r}",
        f"{name}_count{_labels(series.tags)} {count!r}",
    ]


def _labels(tags: dict[str, str]) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in sorted(tags.items())) + "}" if tags else ""
