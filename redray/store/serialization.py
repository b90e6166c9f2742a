"""Values to bytes and back: one pickle stream, and large buffers beside it that are copied once and never copied back.

    byte 0     b"V" a value, b"E" an exception, b"S" a system error: msgpack of [class name in redray.exceptions,
               message] or [class name, message, {field: value}]
    byte 1     0: the pickle stream follows and is all there is
               1: then 6 zero bytes | u64 size of the stream | u64 number of buffers | u64 size of each buffer
               | stream | buffers, each at a multiple of 64 (a small one: of 16) counted from byte 0

Plain data never pays for cloudpickle (43 ms to import, seven times slower per call): the C pickler goes first, and
cloudpickle has the last word on what it refuses and on what it would pickle by a name in `__main__`, which other
processes do not have. So a `__reduce__` may run twice for one value.
"""

from __future__ import annotations

import pickle
import struct
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from redray import exceptions, refs
from redray.reducers import registered

VALUE, EXCEPTION, SYSTEM_ERROR = b"V", b"E", b"S"

_PROTOCOL = 5
_FIXED = struct.Struct("<8sQQ")
_ALIGNMENT = 64
_SMALL_ALIGNMENT = 16
_SMALL = 1024  # below this size the padding to a cache line would outweigh the buffer
_LARGE_BYTES = 4096  # from here on bytes-like values travel as a buffer: 200 ns more to pickle, one copy less
_ATOMS = frozenset({int, str, bytes, float, bool, type(None)})

reducers = registered  # the serializers that the user registered

dumps, loads = pickle.dumps, pickle.loads


class CorruptedValueError(ValueError):
    """The bytes are not a packed value: they were cut, or something wrote over them."""


class Serialized:
    """A pickle stream, the raw buffers that belong to it, and the ids of the refs inside, in first-seen order.

    The buffers are views of the value's own memory: write them out before the value can change.
    """

    __slots__ = ("buffers", "contains", "head")

    def __init__(self, head: bytes, buffers: list[memoryview], contains: list[bytes]) -> None:
        self.head = head
        self.buffers = buffers
        self.contains = contains

    @property
    def size(self) -> int:
        """Bytes that `pack` returns and `write` needs."""
        if not self.buffers:
            return 2 + len(self.head)
        *_, (end, _last) = _ends(self)
        return end

    def __repr__(self) -> str:
        return f"Serialized({len(self.head)} bytes, {len(self.buffers)} buffers, {len(self.contains)} refs)"


def serialize(value: Any) -> Serialized:
    """Pickle `value`. Raises TypeError, naming the part at fault, if it cannot be pickled."""
    if _is_plain(value):
        return Serialized(dumps(value, _PROTOCOL), [], [])
    value = _made_contiguous(value)
    result = _dump_fast(value)
    if result is None:
        from redray.store import byvalue

        result = byvalue.dump(value)
    return Serialized(*result)


def pack(serialized: Serialized, tag: bytes = VALUE) -> bytes:
    """The inline form: header, stream and buffers in one bytes object."""
    if not serialized.buffers:
        return tag + b"\0" + serialized.head
    packed = bytearray(serialized.size)
    write(serialized, memoryview(packed), tag)
    return bytes(packed)


def write(serialized: Serialized, target: memoryview, tag: bytes = VALUE) -> int:
    """Lay the value out in `target`, which has room for `serialized.size` bytes, and return that size."""
    end = 0
    for start, piece in pieces(serialized, tag):
        end = start + len(piece)
        target[start:end] = piece
    return end


def pieces(serialized: Serialized, tag: bytes = VALUE) -> Iterator[tuple[int, bytes | memoryview]]:
    """What to copy where: (position, bytes). For those who know a better way to copy than `write`."""
    if not serialized.buffers:
        yield 0, tag + b"\0" + serialized.head
        return
    buffers = serialized.buffers
    header = _FIXED.pack(tag + b"\1", len(serialized.head), len(buffers))
    yield 0, header + struct.pack(f"<{len(buffers)}Q", *map(len, buffers)) + serialized.head
    for end, buffer in _ends(serialized):
        if buffer:
            yield end - len(buffer), buffer


def deserialize(packed: bytes | bytearray | memoryview) -> Any:
    """The value, or the exception as an object. Arrays in it are read-only views of `packed`, which they keep alive."""
    return load(packed)[1]


def load(packed: bytes | bytearray | memoryview) -> tuple[bool, Any]:
    """(is it an error, the value or the exception). Whatever unpickling raises passes through."""
    if len(packed) < 2:
        raise CorruptedValueError(f"A packed value has at least 2 bytes, not {len(packed)}.")
    tag = packed[0]
    if tag == 83:  # S
        return True, _system_error(packed)
    if tag != 86 and tag != 69:  # V, E
        raise CorruptedValueError(f"A packed value starts with V, E or S, not with {bytes(packed[:1])!r}.")
    if packed[1] == 0:
        return tag == 69, loads(packed[2:] if len(packed) < _LARGE_BYTES else memoryview(packed)[2:])
    head, buffers = _split(memoryview(packed).toreadonly())
    return tag == 69, loads(head, buffers=buffers)


def is_error(packed: bytes | bytearray | memoryview) -> bool:
    return packed[0] != 86


def pack_error(error: BaseException) -> bytes:
    """An exception as a value. One that cannot be pickled, or read back, becomes a system error that quotes it.

    It is read back here once, since exceptions whose `__init__` wants more than their `args` fail only then.
    """
    try:
        packed = pack(serialize(error), EXCEPTION)
        if isinstance(load(packed)[1], BaseException):
            return packed
        reason = "it comes back as something else"
    except Exception as failure:
        reason = f"{type(failure).__name__}: {failure}"
    return pack_system_error("UnserializableException", f"{_quote(error)} (it could not be sent: {reason})")


def pack_system_error(class_name: str, message: str, **fields: Any) -> bytes:
    """An error that the system made, see `exceptions.system_error` for the names and fields."""
    return SYSTEM_ERROR + msgspec.msgpack.encode([class_name, message, fields] if fields else [class_name, message])


def _is_plain(value: Any, depth: int = 4) -> bool:
    """Whether `value` is small and of exact built-in types only: such data holds no ref, no buffer and no class."""
    kind = type(value)
    if kind in _ATOMS:
        return kind is not bytes or len(value) < _LARGE_BYTES
    if kind is tuple or kind is list:
        parts = value
    elif kind is dict:
        parts = [*value, *value.values()] if len(value) <= 8 else ()
    else:
        return False
    if not parts:
        return not value
    if depth == 0 or len(parts) > 16:
        return False
    for part in parts:  # not all(map()): the check of the atoms is inlined, this runs at every call of a task
        if type(part) not in _ATOMS or type(part) is bytes:
            if not _is_plain(part, depth - 1):
                return False
    return True


def _made_contiguous(value: Any) -> Any:
    """The same value in a form that pickles into one buffer, where that is known: an array's slice, or bytes."""
    kind = type(value)
    if kind is bytes or kind is bytearray:
        return LargeBytes(value) if len(value) >= _LARGE_BYTES else value
    numpy = sys.modules.get("numpy")
    if numpy is not None and kind is numpy.ndarray and not (value.flags.forc or value.dtype.hasobject):
        return numpy.ascontiguousarray(value)
    return value


class LargeBytes:
    """Pickles bytes or a bytearray as a buffer beside the stream. It comes back as what it wraps."""

    __slots__ = ("value",)

    def __init__(self, value: bytes | bytearray) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self.value), (pickle.PickleBuffer(self.value),)


def _dump_fast(value: Any) -> tuple[bytes, list[memoryview], list[bytes]] | None:
    """With the C pickler; None if the value is a matter for cloudpickle."""
    cloudpickle = sys.modules.get("cloudpickle")
    if reducers or (cloudpickle is not None and cloudpickle.list_registry_pickle_by_value()):
        return None
    buffers: list[pickle.PickleBuffer] = []
    try:
        with refs.collecting() as found:
            head = dumps(value, _PROTOCOL, buffer_callback=buffers.append)
        if b"__main__" in head:
            return None
        return head, [buffer.raw() for buffer in buffers], list(found)
    except MemoryError:
        raise
    except Exception:
        # Not lost: cloudpickle tries the same value next, and either it succeeds or its exception is the one to show.
        return None


def _ends(serialized: Serialized) -> Iterator[tuple[int, memoryview]]:
    """Where each buffer ends in the packed form."""
    end = _FIXED.size + 8 * len(serialized.buffers) + len(serialized.head)
    for buffer in serialized.buffers:
        end = _aligned(end, len(buffer)) + len(buffer)
        yield end, buffer


def _aligned(position: int, size: int) -> int:
    alignment = _ALIGNMENT if size >= _SMALL else _SMALL_ALIGNMENT
    return -(-position // alignment) * alignment


def _split(packed: memoryview) -> tuple[memoryview, list[memoryview]]:
    """The pickle stream and the buffers. Sizes are checked here: a short slice would unpickle into a wrong value."""
    try:
        _, head_size, count = _FIXED.unpack_from(packed)
        sizes = struct.unpack_from(f"<{count}Q", packed, _FIXED.size) if count * 8 <= len(packed) else None
    except struct.error:
        sizes = None
    if sizes is None:
        raise CorruptedValueError(f"The header of a packed value of {len(packed)} bytes is cut.")
    start = _FIXED.size + 8 * count
    end = start + head_size
    head = packed[start:end]
    buffers = []
    for size in sizes:
        start = _aligned(end, size)
        end = start + size
        buffers.append(packed[start:end])
    if end > len(packed):
        raise CorruptedValueError(f"A packed value of {end} bytes has only {len(packed)}.")
    return head, buffers


def _system_error(packed: bytes | bytearray | memoryview) -> BaseException:
    """Made of a name and a text by Lua or a node: never a pickle, and only redray's own exceptions are looked up."""
    try:
        name, message, *more = msgspec.msgpack.decode(memoryview(packed)[1:], type=list[Any])
        return exceptions.system_error(name, message, *more)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise CorruptedValueError(f"A system error is [class name, message, fields] in msgpack: {error}.") from error


def _quote(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception as failure:  # a hostile __str__
        return f"{type(error).__name__} (its text cannot be shown: {type(failure).__name__})"
