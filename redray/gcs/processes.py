"""The process table: every driver, worker and node has a channel, and its end is written down."""

from __future__ import annotations

from redray.gcs.command import Command
from redray.gcs.keys import Keys


def open(
    keys: Keys, worker: str, route: str, now: int, kind: str, job: str, pid: int, namespace: str, config: bytes
) -> Command:
    return Command("process_open", [worker, route, now, kind, job, pid, namespace, config], (keys.process(worker),))


def end(keys: Keys, worker: str, route: str, now: int, crashed: bool) -> Command:
    return Command("process_end", [worker, route, now, int(crashed)], (keys.process(worker),))


def reap_driver(keys: Keys, worker: str, now: int) -> Command:
    return Command("driver_reap", [worker, now], (keys.process(worker),))
