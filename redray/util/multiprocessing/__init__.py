"""`multiprocessing.Pool` whose processes are actors, on every node of the cluster."""

from __future__ import annotations

from multiprocessing import JoinableQueue, TimeoutError

from redray.util.multiprocessing.pool import Pool

__all__ = ["JoinableQueue", "Pool", "TimeoutError"]
