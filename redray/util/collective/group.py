"""One member's view of a group: its operations, in numpy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from redray import api
from redray.exceptions import RayActorError, RayTaskError
from redray.util.collective.types import ReduceOp

if TYPE_CHECKING:
    import numpy as np

NAMESPACE = "_redray_collective"


def meeting_name(group: str) -> str:
    return f"collective_{group}"


class Group:
    """Member `rank` of `world_size`. Tensors are numpy arrays, or what numpy can see as an array and write into
    (CPU tensors of torch); results are written into them."""

    def __init__(self, name: str, world_size: int, rank: int, timeout_ms: int) -> None:
        self.name, self.world_size, self.rank = name, world_size, rank
        self._timeout = timeout_ms / 1000
        self._meeting = self._meet()
        self._operations = 0
        self._sent = [0] * world_size
        self._received = [0] * world_size

    def _meet(self) -> Any:
        from redray.util.collective.meeting import Meeting

        maker = api.remote(Meeting).options(
            name=meeting_name(self.name), namespace=NAMESPACE, get_if_exists=True, num_cpus=0, lifetime="detached",
            max_concurrency=max(1000, 4 * self.world_size),
        )  # fmt: skip
        deadline = time.monotonic() + self._timeout
        while True:
            meeting = maker.remote(self.world_size)
            try:
                refused = api.get(meeting.join.remote(self.rank, self.world_size), timeout=self._timeout)
                break
            except RayActorError:  # that of a group of the same name which has just been destroyed
                if time.monotonic() > deadline:
                    raise
        if refused:
            raise RuntimeError(f"{refused} (group {self.name!r})")
        return meeting

    def leave(self) -> None:
        """The last one switches off the light."""
        if api.get(self._meeting.leave.remote(self.rank)):
            api.kill(self._meeting)

    # ---- operations --------------------------------------------------------------------------------------------------
    def barrier(self) -> None:
        self._exchange("barrier", None)

    def allreduce(self, tensor: Any, op: ReduceOp) -> None:
        _write(tensor, _reduced(self._arrays("allreduce", tensor), op))

    def reduce(self, tensor: Any, root: int, op: ReduceOp) -> None:
        self._check_rank(root)
        brought = self._exchange(f"reduce to {root}", [api.put(_array(tensor))])
        if self.rank == root:
            _write(tensor, _reduced(_fetched(brought), op))

    def broadcast(self, tensor: Any, root: int) -> None:
        self._check_rank(root)
        mine = [api.put(_array(tensor))] if self.rank == root else None
        brought = self._exchange(f"broadcast from {root}", mine)
        if self.rank != root:
            _write(tensor, _fetched([brought[root]])[0])

    def allgather(self, tensors: Sequence[Any], tensor: Any) -> None:
        self._check_list(tensors)
        for place, found in zip(tensors, self._arrays("allgather", tensor), strict=True):
            _write(place, found)

    def reducescatter(self, tensor: Any, tensors: Sequence[Any], op: ReduceOp) -> None:
        self._check_list(tensors)
        brought = self._exchange("reducescatter", [api.put(_array(part)) for part in tensors])
        _write(tensor, _reduced(_fetched([[parts[self.rank]] for parts in brought]), op))

    def send(self, tensor: Any, target: int) -> None:
        self._check_other(target)
        self._sent[target] += 1
        api.get(self._meeting.send.remote(self.rank, target, self._sent[target], [api.put(_array(tensor))]))

    def recv(self, tensor: Any, source: int) -> None:
        self._check_other(source)
        self._received[source] += 1
        letter = self._meeting.receive.remote(source, self.rank, self._received[source])
        _write(tensor, _fetched([api.get(letter)])[0])

    # ---- inside ------------------------------------------------------------------------------------------------------
    def _arrays(self, operation: str, tensor: Any) -> list[np.ndarray[Any, Any]]:
        return _fetched(self._exchange(operation, [api.put(_array(tensor))]))

    def _exchange(self, operation: str, brought: Any) -> list[Any]:
        self._operations += 1
        try:
            found: list[Any] = api.get(self._meeting.exchange.remote(operation, self._operations, self.rank, brought))
        except RayTaskError as error:
            raise RuntimeError(str(getattr(error, "cause", error))) from None
        return found

    def _check_rank(self, rank: int) -> None:
        if not 0 <= rank < self.world_size:
            raise ValueError(f"rank {rank} must be less than world size {self.world_size}, and at least 0.")

    def _check_other(self, rank: int) -> None:
        self._check_rank(rank)
        if rank == self.rank:
            raise RuntimeError(f"The destination rank '{rank}' is self.")

    def _check_list(self, tensors: Any) -> None:
        if not isinstance(tensors, (list, tuple)) or len(tensors) != self.world_size:
            raise RuntimeError(f"The list of tensors has one for each of the {self.world_size} members.")


def _array(tensor: Any) -> np.ndarray[Any, Any]:
    import numpy as np

    found: np.ndarray[Any, Any] = tensor.detach().numpy() if hasattr(tensor, "detach") else np.asarray(tensor)
    if found.dtype == object:
        raise RuntimeError(f"Collective operations are for arrays of numbers, not for {type(tensor).__name__}.")
    return found


def _write(tensor: Any, value: np.ndarray[Any, Any]) -> None:
    """Into the memory of `tensor`. Raises RuntimeError if the shapes differ."""
    place = _array(tensor)
    if place.shape != value.shape:
        raise RuntimeError(f"An array of shape {value.shape} does not fit into one of shape {place.shape}.")
    place[...] = value


def _fetched(brought: list[Any]) -> list[np.ndarray[Any, Any]]:
    return list(api.get([refs[0] for refs in brought]))


def _reduced(arrays: list[np.ndarray[Any, Any]], op: ReduceOp) -> np.ndarray[Any, Any]:
    import numpy as np

    functions: dict[ReduceOp, Any] = {
        ReduceOp.SUM: np.add,
        ReduceOp.PRODUCT: np.multiply,
        ReduceOp.MIN: np.minimum,
        ReduceOp.MAX: np.maximum,
    }
    total: np.ndarray[Any, Any] = arrays[0].copy()  # what comes from the store is read-only
    for array in arrays[1:]:
        if array.shape != total.shape:
            raise RuntimeError(f"Arrays of shapes {total.shape} and {array.shape} cannot be reduced.")
        functions[op](total, array, out=total)
    return total
