"""Generators whose worker or node dies, and generators that are not streamed: spec lines 15, 45 to 47 and 91."""

from __future__ import annotations

import os
import signal as os_signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import redray as ray
from redray.cluster_utils import Cluster
from redray.exceptions import ObjectLostError, RayTaskError, WorkerCrashedError
from tests.api.test_generators import count, drain, nothing_is_left
from tests.helpers import Journal, Signal, wait_until

__all__ = ["nothing_is_left"]

CLUSTER_OPTIONS = {"object_store_memory": 120_000_000}
LARGE = 50_000  # float64 values: 400 kB, above what travels inline


@ray.remote
def crash_once(journal: Journal, n: int, at: int, size: int = 1) -> Iterator[Any]:
    """Yields n arrays; its first attempt dies before item `at`."""
    attempt = journal.add("attempt")
    for number in range(n):
        if attempt == 1 and number == at:
            os.kill(os.getpid(), os_signal.SIGKILL)
        yield np.full(size, number)


def numbers(refs: Any) -> list[int]:
    return [int(ray.get(ref)[0]) for ref in refs]


@pytest.mark.usefixtures("cluster")
class TestAttempts:
    @pytest.mark.parametrize("size", [1, LARGE])
    @pytest.mark.parametrize("at", [0, 3])
    def test_045_a_crash_in_the_middle_goes_unnoticed(self, journal: Journal, size: int, at: int) -> None:
        assert numbers(crash_once.remote(journal, 6, at, size)) == list(range(6))
        assert journal.lines() == ["attempt"] * 2

    def test_045_items_that_were_read_and_dropped_stay_freed(
        self, journal: Journal, signal: Signal, nothing_is_left: Callable[[], None]
    ) -> None:
        @ray.remote
        def crash() -> Iterator[int]:
            attempt = journal.add("attempt")
            yield 0
            yield 1
            signal.wait()
            if attempt == 1:
                os.kill(os.getpid(), os_signal.SIGKILL)
            yield 2

        generator = crash.remote()
        assert [ray.get(next(generator)), ray.get(next(generator))] == [0, 1]
        signal.set()
        assert drain(generator) == [2]
        assert len(journal.lines()) == 2
        del generator
        nothing_is_left()

    def test_045_without_retries_left_the_items_before_the_crash_are_there(self, journal: Journal) -> None:
        generator = crash_once.options(max_retries=0).remote(journal, 6, 3)
        refs = list(generator)
        assert numbers(refs[:-1]) == [0, 1, 2]
        with pytest.raises(WorkerCrashedError):
            ray.get(refs[-1])

    def test_045_a_retried_generator_under_back_pressure(self, journal: Journal) -> None:
        generator = crash_once.options(_generator_backpressure_num_objects=1).remote(journal, 6, 3)
        assert numbers(generator) == list(range(6))
        assert len(journal.lines()) == 2

    def test_045_a_retry_for_a_reader_that_is_gone(
        self, journal: Journal, signal: Signal, nothing_is_left: Callable[[], None]
    ) -> None:
        @ray.remote(_generator_backpressure_num_objects=1)
        def crash() -> Iterator[int]:
            attempt = journal.add("attempt")
            yield 0
            if attempt == 1:
                signal.wait()
                os.kill(os.getpid(), os_signal.SIGKILL)
            yield 1
            journal.add("end")

        generator = crash.remote()
        ray.get(next(generator))
        del generator
        signal.set()
        wait_until(lambda: journal.lines()[-1] == "end", what="the second attempt to end")
        nothing_is_left()

    def test_046_an_error_that_is_retried_is_no_item(self, journal: Journal) -> None:
        @ray.remote(retry_exceptions=[ValueError], max_retries=1)
        def flaky(always: bool) -> Iterator[int]:
            attempt = journal.add("attempt")
            yield 1
            if always or attempt == 1:
                raise ValueError("once")
            yield 2

        assert drain(flaky.remote(False)) == [1, 2]
        assert len(journal.lines()) == 2
        assert drain(flaky.remote(True)) == [1, ValueError]
        assert len(journal.lines()) == 4

    def test_052_a_call_of_a_restarted_actor(self, journal: Journal) -> None:
        @ray.remote(max_restarts=1, max_task_retries=1)
        class Actor:
            def items(self) -> Iterator[int]:
                attempt = journal.add("attempt")
                yield 0
                if attempt == 1:
                    os.kill(os.getpid(), os_signal.SIGKILL)
                yield 1

        actor = Actor.remote()
        assert drain(actor.items.remote()) == [0, 1]
        assert len(journal.lines()) == 2

    def test_sys_exit_in_a_generator_is_a_crash(self) -> None:
        @ray.remote(max_retries=0)
        def leave() -> Iterator[int]:
            yield 1
            raise SystemExit(3)

        assert drain(leave.remote()) == [1, WorkerCrashedError]

    # ---- 15: fixed numbers of returns --------------------------------------------------------------------------------
    def test_015_a_generator_with_a_fixed_number_of_returns(self) -> None:
        refs = count.options(num_returns=3).remote(3)
        assert isinstance(refs, list)
        assert ray.get(refs) == [0, 1, 2]
        assert ray.get(count.options(num_returns=2).remote(5)) == [0, 1]
        assert ray.get(count.options(num_returns=1).remote(5)) == 0
        assert count.options(num_returns=0).remote(5) is None

    def test_015_returns_that_a_generator_does_not_come_to_are_its_error(self) -> None:
        first, second, third = count.options(num_returns=3).remote(3, 1)
        assert ray.get(first) == 0
        for missing in (second, third):
            with pytest.raises(ValueError, match="no 1") as caught:
                ray.get(missing)
            assert isinstance(caught.value, RayTaskError)

    def test_015_too_few_items_are_a_value_error(self) -> None:
        first, second = count.options(num_returns=2).remote(1)
        assert ray.get(first) == 0
        with pytest.raises(ValueError, match="Task returned 1 objects, but num_returns=2"):
            ray.get(second)
        with pytest.raises(ValueError, match="Task returned 0 objects, but num_returns=1"):
            ray.get(count.options(num_returns=1).remote(0))

    def test_dynamic_returns_are_one_ref_of_refs(self, nothing_is_left: Callable[[], None]) -> None:
        ref = count.options(num_returns="dynamic").remote(3)
        assert isinstance(ref, ray.ObjectRef)
        found = ray.get(ref)
        assert isinstance(found, ray.DynamicObjectRefGenerator)
        assert len(found) == 3
        assert drain(found) == [0, 1, 2]
        assert list(found) == []
        assert drain(ray.get(count.options(num_returns="dynamic").remote(3, 2))) == [0, 1, ValueError]
        del ref, found
        nothing_is_left()

    def test_dynamic_returns_can_be_passed_on(self) -> None:
        @ray.remote
        def total(refs: Any) -> int:
            return sum(ray.get(list(refs)))

        assert ray.get(total.remote(count.options(num_returns="dynamic").remote(4))) == 6


class TestNodes:
    """A head without CPUs, on which the driver is, and a node that dies."""

    @pytest.fixture
    def room(self) -> Iterator[Any]:
        ray.shutdown()
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        try:
            self.doomed = cluster.add_node(num_cpus=1)
            ray.init(cluster.address, log_to_driver=False)
            cluster.wait_for_nodes()
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()

    def replace(self, room: Any) -> None:
        """The node dies, and another one comes."""
        room.remove_node(self.doomed, allow_graceful=False)
        room.add_node(num_cpus=1)

    @pytest.mark.parametrize("size", [1, LARGE])
    def test_047_a_node_dies_in_the_middle_of_a_stream(
        self, room: Any, journal: Journal, signal: Signal, size: int
    ) -> None:
        @ray.remote
        def items() -> Iterator[Any]:
            journal.add("attempt")
            for number in range(6):
                if number == 3:
                    signal.wait()
                yield np.full(size, number)

        generator = items.remote()
        refs = [next(generator) for _ in range(3)]
        self.replace(room)
        signal.set()
        refs += list(generator)
        assert numbers(refs) == list(range(6))
        assert len(journal.lines()) >= 2

    def test_047_items_of_a_stream_that_has_ended_are_computed_again(self, room: Any, journal: Journal) -> None:
        @ray.remote
        def items() -> Iterator[Any]:
            journal.add("attempt")
            for number in range(4):
                yield np.full(LARGE, number)

        generator = items.remote()
        refs = [next(generator) for _ in range(2)]
        ray.get(generator.completed())
        self.replace(room)
        assert numbers(refs[1:]) == [1]
        assert numbers(generator) == [2, 3]
        assert numbers(refs) == [0, 1]

    def test_the_node_of_the_reader_dies_in_the_middle(self, journal: Journal, signal: Signal) -> None:
        """The driver goes on without a node."""
        ray.shutdown()
        with Cluster() as cluster:
            near = cluster.add_node(num_cpus=0)
            cluster.add_node(num_cpus=1)
            ray.init(cluster.address, log_to_driver=False)

            @ray.remote(_generator_backpressure_num_objects=4)
            def items() -> Iterator[Any]:
                for number in range(6):
                    if number == 3:
                        signal.wait()
                    yield np.full(LARGE if number % 2 else 1, number)

            generator = items.remote()
            refs = [next(generator) for _ in range(2)]
            cluster.remove_node(near, allow_graceful=False)
            signal.set()
            assert numbers([*refs, *generator]) == list(range(6))
            ray.shutdown()

    def test_047_without_retries_lost_items_are_lost(self, room: Any) -> None:
        @ray.remote(max_retries=0)
        def items() -> Iterator[Any]:
            yield 0
            yield np.ones(LARGE)

        small, large = list(items.remote())
        self.replace(room)
        assert ray.get(small) == 0
        with pytest.raises(ObjectLostError):
            ray.get(large)
