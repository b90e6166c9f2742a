"""Collective operations among actors or tasks: allreduce, broadcast, send and recv, ...

Each member calls `init_collective_group` (or one process `create_collective_group` for a list of actors), and then
all of them the same operations in the same order. Arrays travel from store to store; results are written in place.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from redray import api
from redray.util.collective.group import Group
from redray.util.collective.types import Backend, ReduceOp

__all__ = [
    "Backend",
    "ReduceOp",
    "allgather",
    "allreduce",
    "barrier",
    "broadcast",
    "create_collective_group",
    "destroy_collective_group",
    "get_collective_group_size",
    "get_group_handle",
    "get_rank",
    "gloo_available",
    "init_collective_group",
    "is_backend_available",
    "is_group_initialized",
    "nccl_available",
    "recv",
    "reduce",
    "reducescatter",
    "send",
]

_groups: dict[str, Group] = {}  # of this process
_lock = threading.Lock()


def nccl_available() -> bool:
    """False: arrays travel through the object store."""
    return False


def gloo_available() -> bool:
    return True


def is_backend_available(backend: str) -> bool:
    try:
        Backend(backend)
    except ValueError:
        return False
    return True


# ---- groups ----------------------------------------------------------------------------------------------------------
def is_group_initialized(group_name: str) -> bool:
    """Whether this process is a member of the group."""
    return group_name in _groups


def init_collective_group(
    world_size: int, rank: int, backend: str = "gloo", group_name: str = "default", gloo_timeout: int = 30_000
) -> None:
    """Make this process member `rank` of a group of `world_size`.

    Args:
        backend: "gloo"; the name is all that is asked of it.
        gloo_timeout: ms to wait for the place where members meet.

    Raises:
        RuntimeError: this process, or another one with this rank, is in the group already.
        ValueError: no such backend, no name, or a rank out of range.
    """
    Backend(backend)
    if not group_name:
        raise ValueError(f"group_name '{group_name}' needs to be a string.")
    _check_world(world_size, [rank])
    with _lock:
        if group_name in _groups:
            raise RuntimeError(f"The group '{group_name}' is initialized in this process already.")
        _groups[group_name] = Group(group_name, world_size, rank, gloo_timeout)


def create_collective_group(
    actors: Sequence[Any],
    world_size: int,
    ranks: Sequence[int],
    backend: str = "gloo",
    group_name: str = "default",
    gloo_timeout: int = 30_000,
) -> None:
    """Make each of `actors` the member of the group that its place in `ranks` says; for who is no member."""
    Backend(backend)
    if len(ranks) != len(actors):
        raise RuntimeError(
            f"Each actor should correspond to one rank. Got '{len(ranks)}' ranks but '{len(actors)}' actors"
        )
    if set(ranks) != set(range(len(ranks))):
        raise RuntimeError(f"Ranks must be a permutation from 0 to '{len(ranks)}'. Got '{ranks}'.")
    _check_world(world_size, ranks)
    joins = [
        actor.__ray_call__.remote(_join, world_size, rank, backend, group_name, gloo_timeout)
        for actor, rank in zip(actors, ranks, strict=True)
    ]
    api.get(joins)


def _join(_actor: Any, *arguments: Any) -> None:
    init_collective_group(*arguments)


def destroy_collective_group(group_name: str = "default") -> None:
    """Leave the group. When all have left, another one may have its name."""
    with _lock:
        group = _groups.pop(group_name, None)
    if group is not None:
        group.leave()


def get_rank(group_name: str = "default") -> int:
    """Of this process; -1 if it is no member."""
    group = _groups.get(group_name)
    return group.rank if group is not None else -1


def get_collective_group_size(group_name: str = "default") -> int:
    """-1 if this process is no member."""
    group = _groups.get(group_name)
    return group.world_size if group is not None else -1


def get_group_handle(group_name: str = "default") -> Group:
    """Raises RuntimeError if this process is no member."""
    group = _groups.get(group_name)
    if group is None:
        raise RuntimeError(f"The collective group '{group_name}' is not initialized in the process.")
    return group


# ---- operations ------------------------------------------------------------------------------------------------------
def allreduce(tensor: Any, group_name: str = "default", op: ReduceOp = ReduceOp.SUM) -> None:
    """`tensor` becomes the sum (or what `op` says) of all members' tensors."""
    get_group_handle(group_name).allreduce(tensor, op)


def reduce(tensor: Any, dst_rank: int = 0, group_name: str = "default", op: ReduceOp = ReduceOp.SUM) -> None:
    """As `allreduce`, for member `dst_rank` alone."""
    get_group_handle(group_name).reduce(tensor, dst_rank, op)


def broadcast(tensor: Any, src_rank: int = 0, group_name: str = "default") -> None:
    """`tensor` becomes that of member `src_rank`."""
    get_group_handle(group_name).broadcast(tensor, src_rank)


def allgather(tensor_list: list[Any], tensor: Any, group_name: str = "default") -> None:
    """`tensor_list[i]` becomes the tensor of member i."""
    get_group_handle(group_name).allgather(tensor_list, tensor)


def reducescatter(
    tensor: Any, tensor_list: list[Any], group_name: str = "default", op: ReduceOp = ReduceOp.SUM
) -> None:
    """`tensor` becomes the sum (or what `op` says) of what all members have at this member's place in `tensor_list`."""
    get_group_handle(group_name).reducescatter(tensor, tensor_list, op)


def send(tensor: Any, dst_rank: int, group_name: str = "default") -> None:
    """To the next `recv` of member `dst_rank` from this one. Does not wait for it."""
    get_group_handle(group_name).send(tensor, dst_rank)


def recv(tensor: Any, src_rank: int, group_name: str = "default") -> None:
    """`tensor` becomes what member `src_rank` sends next to this one."""
    get_group_handle(group_name).recv(tensor, src_rank)


def barrier(group_name: str = "default") -> None:
    """Wait until all members are here."""
    get_group_handle(group_name).barrier()


def _check_world(world_size: int, ranks: Sequence[int]) -> None:
    if world_size <= 0:
        raise RuntimeError(f"World size must be greater than zero. Got '{world_size}'.")
    for rank in ranks:
        if not 0 <= rank < world_size:
            raise RuntimeError(f"Ranks must be between 0 and the world size, {world_size}. Got '{rank}'.")
