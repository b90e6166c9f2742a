"""The first code of a forked worker: a session over the channel it was given, then the executor."""

from __future__ import annotations

from redray.worker import executor
from redray.worker.template import WorkerStart
from redray.worker.worker_session import WorkerSession


def worker_main(start: WorkerStart) -> int:
    session = WorkerSession(start.worker, start.channel)
    try:
        return executor.main(session, start.mark)
    finally:
        session.close()
