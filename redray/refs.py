"""ObjectRef: the name of a value, counted per process.

A ref is 16 bytes and is hashed and compared in C, since `wait` over a thousand refs hashes a thousand refs a round.
`__del__` only appends to a deque (it may run in the middle of anything, the garbage collector included); the session
drains it in its next turn.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from redray.ids import HANDLE_INDEX, ActorID, JobID, ObjectID, TaskID

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

dropped: deque[bytes] = deque()
"""Ids of refs (and of actor handles, see `handle_id`) whose Python object died and which the session has not yet
discounted."""


class RefKeeper:
    """What the current session does when refs appear in this process. The default, without a session, does nothing."""

    def count(self, object_id: bytes) -> None:
        """One more Python object names `object_id` in this process."""

    def pin(self, object_id: bytes) -> None:
        """A ref was pickled by hand, outside any value that redray counts:
        it may come back at any time, so hold it for good."""

    def future(self, ref: ObjectRef[T]) -> Future[T]:
        raise RuntimeError("redray is not initialized: call redray.init() first.")


keeper = RefKeeper()


def set_keeper(new: RefKeeper) -> None:
    global keeper
    keeper = new


class _Collector(threading.local):
    found: dict[bytes, None] | None = None


_collector = _Collector()


@contextmanager
def collecting() -> Iterator[dict[bytes, None]]:
    """Within this context pickling a ref (or an actor handle) in this thread notes its object id, in first-seen
    order."""
    found: dict[bytes, None] = {}
    outer, _collector.found = _collector.found, found
    try:
        yield found
    finally:
        _collector.found = outer


def note_pickled(object_id: bytes) -> None:
    """Called by `__reduce__` of whatever holds an object id."""
    found = _collector.found
    if found is None:
        keeper.pin(object_id)
    else:
        found[object_id] = None


_NOT_THE_VALUE = "It only names a value: redray.get() fetches it."


class ObjectRef(ObjectID, Generic[T_co]):
    """A reference to a value that is, or will be, somewhere in the cluster. Await it, or give it to `redray.get`."""

    __slots__ = ()

    def __new__(cls, binary: bytes) -> ObjectRef[T_co]:
        ref = ObjectID.__new__(cls, binary)
        keeper.count(bytes(ref))
        return ref

    def __del__(self, _append: Callable[[bytes], None] = dropped.append) -> None:
        _append(self[:])

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        binary = self[:]
        note_pickled(binary)
        return _arrive, (binary,)

    def __copy__(self) -> ObjectRef[T_co]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ObjectRef[T_co]:
        return self

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:  # its bytes are nobody's business
        raise TypeError(f"object of type 'ObjectRef' has no len(). {_NOT_THE_VALUE}")

    def __iter__(self) -> NoReturn:
        raise TypeError(f"'ObjectRef' object is not iterable. {_NOT_THE_VALUE}")

    def __contains__(self, item: object) -> NoReturn:
        raise TypeError(f"argument of type 'ObjectRef' is not iterable. {_NOT_THE_VALUE}")

    def __add__(self, other: object) -> NoReturn:
        raise TypeError(f"unsupported operand: an ObjectRef has no arithmetic. {_NOT_THE_VALUE}")

    __mul__ = __rmul__ = __mod__ = __add__

    @classmethod
    def nil(cls) -> ObjectRef[T_co]:
        return cls(b"\xff" * cls.SIZE)

    def task_id(self) -> TaskID:
        return self.task()

    def job_id(self) -> JobID:
        """The id of the process that made the ref, which is the job's id when a driver made it."""
        return JobID(self[:8])

    def future(self) -> Future[T_co]:
        """A `concurrent.futures.Future` of the value."""
        return keeper.future(self)

    def as_future(self) -> asyncio.Future[T_co]:
        """An asyncio future of the value, for the running loop."""
        import asyncio

        return asyncio.wrap_future(self.future())

    def _on_completed(self, callback: Callable[[Any], Any]) -> None:
        """Call `callback`, in another thread, with the value or with the exception that `get` would raise."""
        self.future().add_done_callback(lambda future: callback(future.exception() or future.result()))

    def call_site(self) -> str:
        """Ray's name for where the ref was made; not recorded here."""
        return ""

    def owner_address(self) -> bytes:
        """Ray's name for the process a value depends on; here it depends on none."""
        return b""

    def __await__(self) -> Generator[Any, None, T_co]:
        return self.as_future().__await__()


_bytes_new = bytes.__new__


def counted(object_id: bytes) -> ObjectRef[Any]:
    """The ref of an id that the session has just counted itself: the hot path of `.remote()`."""
    return _bytes_new(ObjectRef, object_id)


def _arrive(object_id: bytes) -> ObjectRef[Any]:
    """A ref that comes out of a value. There may be thousands in one: nothing is checked of what `__reduce__` wrote."""
    keeper.count(object_id)
    return _bytes_new(ObjectRef, object_id)


def handle_id(actor_id: ActorID) -> bytes:
    """The object id under which the handles of an actor are counted."""
    return actor_id[:] + HANDLE_INDEX.to_bytes(4, "big")
