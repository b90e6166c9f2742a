"""Words of the collective operations."""

from __future__ import annotations

from enum import Enum


class ReduceOp(Enum):
    SUM = 0
    PRODUCT = 1
    MIN = 2
    MAX = 3


class Backend:
    """All names mean the same here: arrays travel through the object store, whatever the backend is called."""

    GLOO = "gloo"
    NCCL = "nccl"
    NUMPY = "numpy"
    UNRECOGNIZED = "unrecognized"

    def __new__(cls, name: str = "") -> str:  # type: ignore[misc]  # as Ray's, it makes plain text
        backend = str(name).lower()
        if backend == "torch_gloo":
            backend = cls.GLOO
        if backend not in (cls.GLOO, cls.NUMPY):
            raise ValueError(f"Unsupported backend {name!r}: redray has 'gloo' (and 'numpy', which is the same).")
        return backend
