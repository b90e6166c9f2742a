"""What a call of a generator returns: the refs of its items, as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar

from redray import refs
from redray.refs import ObjectRef

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")


class EndOfStream(Exception):
    """Every item was taken, and no other will come."""


class Stream(Protocol):
    """A session's side of one stream of items."""

    handle: bytes  # its object id; counted like a ref, so that the session learns when the generator is gone
    end: ObjectRef[None]

    def take(self, timeout: float | None) -> ObjectRef[Any] | None:
        """The next item's ref, waited for; None when there is none in `timeout` s. Raises EndOfStream."""

    def is_ready(self) -> bool:
        """Whether `take` would not wait."""

    def is_over(self) -> bool:
        """Whether `take` would raise EndOfStream."""

    def future(self) -> Future[None] | None:
        """Done when the stream is ready; None if it is now."""


class ObjectRefGenerator(Generic[T]):
    """Yields one ref for each value that a generator task or method yields, as soon as that value is there.

    An error of the generator, or the loss of its worker, comes as a ref that raises it in `redray.get`; then the
    iteration ends. One thread reads it, in the process that made the call: it cannot be pickled. When it is deleted,
    the items that were not read are freed, and those to come are dropped.
    """

    is_ref_generator = True
    __slots__ = ("__weakref__", "_generator_ref", "_stream")

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._generator_ref = stream.end

    def __iter__(self) -> ObjectRefGenerator[T]:
        return self

    def __next__(self) -> ObjectRef[T]:
        """The ref of the next item; waits until it is there."""
        return self._next_sync()

    def _next_sync(self, timeout_s: float | None = None) -> ObjectRef[T]:
        """As `next`, but a nil ref when there is no item within `timeout_s` seconds; None or -1 wait without end."""
        try:
            ref = self._stream.take(None if timeout_s is None or timeout_s < 0 else timeout_s)
        except EndOfStream:
            raise StopIteration from None
        return ref if ref is not None else ObjectRef.nil()

    def __aiter__(self) -> ObjectRefGenerator[T]:
        return self

    async def __anext__(self) -> ObjectRef[T]:
        import asyncio

        try:
            while (ref := self._stream.take(0)) is None:
                future = self._stream.future()
                if future is not None:
                    await asyncio.wrap_future(future)
        except EndOfStream:
            raise StopAsyncIteration from None
        return ref

    def completed(self) -> ObjectRef[None]:
        """A ref that is ready when the generator has ended. Its value is None; it raises if the task was cancelled, or
        its worker was lost for good."""
        return self._generator_ref

    def next_ready(self) -> bool:
        """Whether `next` would return a ref at once."""
        return self._stream.is_ready() and not self._stream.is_over()

    def is_finished(self) -> bool:
        """Whether all items were read, and no other will come."""
        return self._stream.is_over()

    def send(self, value: Any) -> NoReturn:
        raise NotImplementedError("`gen.send` is not supported.")

    def throw(self, value: Any) -> NoReturn:
        raise NotImplementedError("`gen.throw` is not supported.")

    def close(self) -> NoReturn:
        raise NotImplementedError("`gen.close` is not supported.")

    async def asend(self, value: Any) -> NoReturn:
        raise NotImplementedError("`gen.asend` is not supported.")

    async def athrow(self, value: Any) -> NoReturn:
        raise NotImplementedError("`gen.athrow` is not supported.")

    async def aclose(self) -> NoReturn:
        raise NotImplementedError("`gen.aclose` is not supported.")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "You cannot return or pass a generator to other task. Serializing a ObjectRefGenerator is not allowed."
        )

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self._generator_ref.task_id().hex()})"

    def __del__(self, _append: Callable[[bytes], None] = refs.dropped.append) -> None:
        if hasattr(self, "_stream"):
            _append(self._stream.handle)


class DynamicObjectRefGenerator(Generic[T]):
    """The value of a call with `num_returns="dynamic"`: the refs of everything that the generator yielded, once. An
    error of the generator is the last of them."""

    def __init__(self, found: list[ObjectRef[T]]) -> None:
        self._refs = found

    def __iter__(self) -> Iterator[ObjectRef[T]]:
        while self._refs:
            yield self._refs.pop(0)

    def __len__(self) -> int:
        return len(self._refs)
