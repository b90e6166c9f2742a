"""The thread that reads for futures: `await ref` must be fulfilled although nobody calls `get`."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from redray.exceptions import RayError
from redray.refs import ObjectRef

if TYPE_CHECKING:
    from redray.values import Values


class FutureReader:
    """Reads while futures wait. Fulfilling is done by a second thread:
    a large value needs an answer that the first one reads."""

    def __init__(self, session: Values) -> None:
        self._session = session
        self._due: queue.SimpleQueue[tuple[ObjectRef[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._wanted = threading.Event()
        for work in (self._read, self._fulfil):
            threading.Thread(target=work, name=f"redray-futures{work.__name__}", daemon=True).start()

    def wake(self) -> None:
        self._wanted.set()

    def put(self, ref: ObjectRef[Any], future: Future[Any]) -> None:
        self._due.put((ref, future))

    def close(self) -> None:
        self._wanted.set()
        self._due.put(None)

    def _read(self) -> None:
        session = self._session
        while not session.is_closed:
            self._wanted.wait()
            self._wanted.clear()
            try:
                session.read_for_futures()
            except (RayError, ConnectionError, OSError) as error:
                session.fail_futures(error)

    def _fulfil(self) -> None:
        while (due := self._due.get()) is not None:
            self._session.fulfil(*due)


_readers: dict[int, FutureReader] = {}
_lock = threading.Lock()


def ensure_reader(session: Values) -> FutureReader:
    with _lock:
        reader = _readers.get(id(session))
        if reader is None:
            reader = _readers[id(session)] = FutureReader(session)
            session.on_close.append(lambda: _end(session))
    reader.wake()
    return reader


def _end(session: Values) -> None:
    reader = _readers.pop(id(session), None)
    if reader is not None:
        reader.close()
    session.fail_futures(RuntimeError("redray was shut down."))
