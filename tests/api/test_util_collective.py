"""`ray.util.collective`: operations that the members of a group do together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import redray as ray
from redray.util import collective as col
from redray.util.collective.types import ReduceOp

SIZE = 3


@ray.remote(num_cpus=0)
class Member:
    def init(self, rank: int, group: str = "default", size: int = SIZE) -> int:
        col.init_collective_group(size, rank, backend="gloo", group_name=group)
        return col.get_rank(group)

    def leave(self, group: str = "default") -> None:
        col.destroy_collective_group(group)

    def facts(self, group: str = "default") -> tuple[bool, int, int]:
        return col.is_group_initialized(group), col.get_rank(group), col.get_collective_group_size(group)

    def allreduce(self, value: float, op: ReduceOp = ReduceOp.SUM, size: int = 4) -> Any:
        tensor = np.full(size, value)
        col.allreduce(tensor, op=op)
        return tensor

    def reduce(self, value: float, root: int) -> Any:
        tensor = np.full(2, value)
        col.reduce(tensor, dst_rank=root)
        return tensor

    def broadcast(self, value: float, root: int) -> Any:
        tensor = np.full(2, value)
        col.broadcast(tensor, src_rank=root)
        return tensor

    def allgather(self, value: float) -> Any:
        tensors = [np.zeros(2) for _ in range(SIZE)]
        col.allgather(tensors, np.full(2, value))
        return [float(tensor[0]) for tensor in tensors]

    def reducescatter(self, value: float) -> Any:
        tensor = np.zeros(2)
        col.reducescatter(tensor, [np.full(2, value * (place + 1)) for place in range(SIZE)])
        return float(tensor[0])

    def send(self, values: list[float], to: int) -> None:
        for value in values:
            col.send(np.full(2, value), to)

    def recv(self, count: int, source: int) -> list[float]:
        found = []
        for _ in range(count):
            tensor = np.zeros(2)
            col.recv(tensor, source)
            found.append(float(tensor[0]))
        return found

    def barrier(self) -> None:
        col.barrier()


@pytest.fixture
def members(cluster: None) -> Iterator[list[Any]]:
    members = [Member.remote() for _ in range(SIZE)]
    assert ray.get([member.init.remote(rank) for rank, member in enumerate(members)]) == list(range(SIZE))
    yield members
    ray.get([member.leave.remote() for member in members])


def test_allreduce(members: list[Any]) -> None:
    for op, expected in ((ReduceOp.SUM, 6), (ReduceOp.PRODUCT, 6), (ReduceOp.MIN, 1), (ReduceOp.MAX, 3)):
        results = ray.get([member.allreduce.remote(rank + 1.0, op) for rank, member in enumerate(members)])
        assert all((result == expected).all() for result in results)


def test_large_arrays(members: list[Any]) -> None:
    results = ray.get([member.allreduce.remote(1.0, size=100_000) for member in members])
    assert all(result.shape == (100_000,) and (result == SIZE).all() for result in results)


def test_reduce_and_broadcast(members: list[Any]) -> None:
    results = ray.get([member.reduce.remote(rank + 1.0, 1) for rank, member in enumerate(members)])
    assert [float(result[0]) for result in results] == [1, 6, 3]
    results = ray.get([member.broadcast.remote(rank + 1.0, 2) for rank, member in enumerate(members)])
    assert [float(result[0]) for result in results] == [3, 3, 3]


def test_allgather_and_reducescatter(members: list[Any]) -> None:
    assert ray.get([member.allgather.remote(rank + 1.0) for rank, member in enumerate(members)]) == [[1, 2, 3]] * SIZE
    assert ray.get([member.reducescatter.remote(1.0) for member in members]) == [3, 6, 9]


def test_send_and_recv_keep_the_order(members: list[Any]) -> None:
    received = members[1].recv.remote(3, 0)
    ray.get(members[0].send.remote([1.0, 2.0, 3.0], 1))
    assert ray.get(received) == [1, 2, 3]
    with pytest.raises(RuntimeError, match="self"):
        ray.get(members[0].send.remote([1.0], 0))
    with pytest.raises(ValueError):
        ray.get(members[0].send.remote([1.0], SIZE))


def test_barrier(members: list[Any]) -> None:
    early = [member.barrier.remote() for member in members[:2]]
    assert ray.wait(early, num_returns=1, timeout=0.2)[0] == []
    ray.get([*early, members[2].barrier.remote()])


def test_members_that_do_different_things_fail(members: list[Any]) -> None:
    refs = [members[0].barrier.remote(), members[1].allgather.remote(1.0)]
    for ref in refs:
        with pytest.raises(RuntimeError, match="barrier|allgather"):
            ray.get(ref)
    with pytest.raises(RuntimeError):
        ray.get(members[2].barrier.remote())


def test_facts_of_groups(members: list[Any]) -> None:
    assert ray.get(members[1].facts.remote()) == (True, 1, SIZE)
    assert ray.get(members[1].facts.remote("other")) == (False, -1, -1)
    with pytest.raises(RuntimeError, match="already"):
        ray.get(members[1].init.remote(1))
    with pytest.raises(RuntimeError, match="not initialized"):
        col.barrier("nobody's")


def test_a_rank_is_taken_once(members: list[Any]) -> None:
    stranger = Member.remote()
    with pytest.raises(RuntimeError, match="Rank 1"):
        ray.get(stranger.init.remote(1))


def test_a_group_that_somebody_else_declares(cluster: None) -> None:
    members = [Member.remote() for _ in range(SIZE)]
    col.create_collective_group(members, SIZE, [2, 1, 0])
    assert [rank for _, rank, _ in ray.get([member.facts.remote() for member in members])] == [2, 1, 0]
    assert ray.get([member.allgather.remote(float(n)) for n, member in enumerate(members)]) == [[2, 1, 0]] * SIZE
    ray.get([member.leave.remote() for member in members])
    with pytest.raises(RuntimeError, match="permutation"):
        col.create_collective_group(members, SIZE, [0, 0, 1])
    with pytest.raises(RuntimeError, match="one rank"):
        col.create_collective_group(members, SIZE, [0])


def test_a_name_is_free_again_when_all_have_left(members: list[Any]) -> None:
    for _ in range(3):
        ray.get([member.init.remote(rank, "again") for rank, member in enumerate(members)])
        ray.get([member.leave.remote("again") for member in members])


def test_backends() -> None:
    assert col.is_backend_available("gloo") and not col.is_backend_available("smoke")
    assert not col.nccl_available()
    with pytest.raises(ValueError, match="smoke"):
        col.init_collective_group(1, 0, backend="smoke")
