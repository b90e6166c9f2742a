"""Identifiers: bytes values that know the process which made them.

Every process (driver, worker, node) draws one random `WorkerID` when it starts and numbers what it makes from 1
upwards. So an id costs no entropy per task, says which channel and which number made it, and can be compared and hashed
in C, being plain bytes.

    WorkerID   8 bytes   random
    TaskID    12 bytes   worker id + number (big endian)
    ActorID   12 bytes   the id of the actor's creation task
    ObjectID  16 bytes   task id + index: 0.. a return value, PUT_INDEX a value put, HANDLE_INDEX an actor's handles,
                         STREAM_INDEX a generator of items, known to its own process only
"""

from __future__ import annotations

import os
import struct
from typing import TypeVar

PUT_INDEX = 0xFFFFFFFF
HANDLE_INDEX = 0xFFFFFFFE
STREAM_INDEX = 0xFFFFFFFD

_U32 = struct.Struct(">I")
_Id = TypeVar("_Id", bound="BaseID")


class BaseID(bytes):
    """A fixed-size identifier. Equality, order and hash are those of its bytes."""

    __slots__ = ()
    SIZE = 0

    def __new__(cls: type[_Id], binary: bytes) -> _Id:
        if type(binary) is not bytes and not isinstance(binary, (bytes, bytearray, memoryview)):
            raise TypeError(f"{cls.__name__} takes bytes, not {type(binary).__name__}.")
        if len(binary) != cls.SIZE:
            raise ValueError(f"{cls.__name__} takes {cls.SIZE} bytes, not {len(binary)}.")
        return bytes.__new__(cls, binary)

    @classmethod
    def from_hex(cls: type[_Id], text: str) -> _Id:
        try:
            return cls(bytes.fromhex(text))
        except ValueError as error:
            raise ValueError(f"{text!r:.80} is no {cls.__name__} in hexadecimal: {error}") from None

    @classmethod
    def from_binary(cls: type[_Id], binary: bytes) -> _Id:
        return cls(binary)

    @classmethod
    def from_random(cls: type[_Id]) -> _Id:
        return cls(os.urandom(cls.SIZE))

    @classmethod
    def nil(cls: type[_Id]) -> _Id:
        return cls(b"\xff" * cls.SIZE)

    @classmethod
    def size(cls) -> int:
        return cls.SIZE

    def binary(self) -> bytes:
        return bytes(self)

    def is_nil(self) -> bool:
        return bytes(self) == b"\xff" * self.SIZE

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.hex()})"

    __str__ = __repr__

    def __reduce__(self) -> tuple[type, tuple[bytes]]:
        return type(self), (bytes(self),)


class WorkerID(BaseID):
    __slots__ = ()
    SIZE = 8

    def task(self, number: int) -> TaskID:
        return TaskID(self + _U32.pack(number))


class NodeID(BaseID):
    """Drawn anew at each start of a node process: it is also the incarnation that fences a node's late writes."""

    __slots__ = ()
    SIZE = 8


class JobID(BaseID):
    """The id of the driver that started the job."""

    __slots__ = ()
    SIZE = 8


class TaskID(BaseID):
    __slots__ = ()
    SIZE = 12

    def worker(self) -> WorkerID:
        return WorkerID(self[:8])

    def object(self, index: int) -> bytes:
        return self + _U32.pack(index)


class ActorID(BaseID):
    __slots__ = ()
    SIZE = 12


class ObjectID(BaseID):
    __slots__ = ()
    SIZE = 16

    def task(self) -> TaskID:
        return TaskID(self[:12])


class PlacementGroupID(BaseID):
    __slots__ = ()
    SIZE = 12


class FunctionID(BaseID):
    """The first 16 bytes of the SHA-256 of a pickled function or class."""

    __slots__ = ()
    SIZE = 16


class UniqueID(BaseID):
    """Ray's name for ids of no kind of their own."""

    __slots__ = ()
    SIZE = 16


class ActorClassID(UniqueID):
    __slots__ = ()


class ClusterID(UniqueID):
    __slots__ = ()
