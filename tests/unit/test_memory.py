"""How much memory is in use, and which worker goes when it runs out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from redray.config import Settings
from redray.gcs.schema import Outcome
from redray.spec import pack, unpack_head
from redray.worker import actions, events
from redray.worker.memory import CHECK_S, MemoryWatch, resident
from redray.worker.shortage import FIRST_DELAY_MS, MOST_DELAY_MS
from tests.unit.bench import ACTOR, Bench, born, call, of, task, task_id

GIB = 1 << 30


# ---- the watch -------------------------------------------------------------------------------------------------------
@pytest.fixture
def system(tmp_path: Path) -> Path:
    (tmp_path / "memory").mkdir()
    return tmp_path


def watch(system: Path, threshold: float = 0.9) -> MemoryWatch:
    return MemoryWatch(Settings(memory_usage_threshold=threshold, procfs=str(system), cgroupfs=str(system)))


def machine(system: Path, available_gib: float) -> None:
    (system / "meminfo").write_text(
        f"MemTotal:       {10 * GIB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {int(available_gib * GIB) // 1024} kB\n"
    )


def test_the_machine(system: Path) -> None:
    machine(system, 2)
    assert watch(system).shortage() == ""
    machine(system, 0.5)
    assert "9.5 of 10.0 GiB are in use (95%), more than the 90%" in watch(system).shortage()


@pytest.mark.parametrize(
    ("usage", "limit", "stat", "cache"),
    [
        ("memory.current", "memory.max", "memory.stat", "inactive_file"),
        (
            "memory/memory.usage_in_bytes",
            "memory/memory.limit_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ],
)
def test_a_control_group_with_a_limit(system: Path, usage: str, limit: str, stat: str, cache: str) -> None:
    machine(system, 9)
    (system / usage).write_text(str(int(1.9 * GIB)))
    (system / limit).write_text(f"{2 * GIB}\n")
    (system / stat).write_text("anon 5\n")
    assert "1.9 of 2.0 GiB" in watch(system).shortage()
    (system / stat).write_text(f"anon 5\n{cache} {GIB}\n")  # the page cache gives way
    assert watch(system).shortage() == ""
    (system / stat).write_text(f"anon 5\n{cache.replace('inactive', 'active')} {GIB}\n")
    assert watch(system).shortage() == ""
    (system / limit).write_text("max\n")
    (system / stat).unlink()
    assert watch(system).shortage() == ""


def test_a_system_that_does_not_tell(system: Path) -> None:
    assert watch(system).shortage() == ""


def test_it_looks_four_times_a_second_unless_it_is_off(system: Path) -> None:
    looks = watch(system)
    assert [looks.is_due(now) for now in (1.0, 1.0 + CHECK_S / 2, 1.0 + CHECK_S)] == [True, False, True]
    assert not watch(system, threshold=1.0).is_due(1.0)


def test_a_process_has_memory_of_its_own() -> None:
    before = resident([os.getpid(), 1 << 30])[os.getpid()]
    held = bytearray(os.urandom(1)) * (64 << 20)
    assert resident([os.getpid()])[os.getpid()] - before > 48 << 20
    del held


# ---- who goes --------------------------------------------------------------------------------------------------------
@pytest.fixture
def node() -> Bench:
    return Bench.with_workers(3)


def without_retries(number: int) -> bytes:
    head = unpack_head(task(number))
    head.max_retries = 0
    return pack(head, b"payload")


def short(node: Bench, **sizes: int) -> list[actions.Kill]:
    """`sizes` of the workers of tasks: t1=5 is five bytes of the one that runs task 1."""
    resident = {node.worker_of(int(name[1:])): size for name, size in sizes.items()}
    node.handle(events.MemoryShort("all is in use", resident))
    return of(actions.Kill, node.settle())


def test_the_largest_of_those_that_may_run_again(node: Bench) -> None:
    node.submit(task(1), task(2), without_retries(3))
    assert short(node, t1=5, t2=6, t3=7) == [actions.Kill(node.worker_of(2))]
    assert short(node, t1=5, t2=6, t3=7) == [], "the first has not gone yet"


def test_else_the_largest(node: Bench) -> None:
    node.submit(without_retries(1), without_retries(2))
    assert short(node, t1=5, t2=6) == [actions.Kill(node.worker_of(2))]


def test_049_a_task_that_may_not_run_again_fails(node: Bench) -> None:
    node.submit(without_retries(1))
    short(node, t1=5)
    node.gone(node.worker_of(1), started=1)
    assert node.finished(node.settle()) == {1: Outcome.OUT_OF_MEMORY}


def test_048_others_wait_longer_each_time(node: Bench) -> None:
    for delay in (FIRST_DELAY_MS, 2 * FIRST_DELAY_MS, 4 * FIRST_DELAY_MS):
        node.receive(task(1))
        short(node, t1=5)
        node.gone(node.worker_of(1), started=1)
        assert node.finished(node.tick(delay - 1)) == {}
        assert node.finished(node.tick(1)) == {1: Outcome.OUT_OF_MEMORY}
        node.workers(1)
    node.state.shortage._kills[task_id(1)] = 99
    node.receive(task(1))
    short(node, t1=5)
    node.gone(node.worker_of(1), started=1)
    assert node.finished(node.tick(MOST_DELAY_MS)) == {1: Outcome.OUT_OF_MEMORY}


def test_a_task_that_waits_can_be_cancelled(node: Bench) -> None:
    node.submit(task(1))
    short(node, t1=5)
    node.gone(node.worker_of(1), started=1)
    node.handle(events.CancelRequested(task_id(1), ""))
    assert node.finished(node.settle()) == {1: Outcome.CANCELLED}
    assert node.finished(node.tick(FIRST_DELAY_MS)) == {}


def test_nobody_waits_on_a_node_that_leaves(node: Bench) -> None:
    node.submit(task(1))
    short(node, t1=5)
    node.gone(node.worker_of(1), started=1)
    node.state.drain()
    assert node.finished(node.tick(1)) == {1: Outcome.OUT_OF_MEMORY}


def test_what_had_not_begun_is_not_touched(node: Bench) -> None:
    node.submit(task(1))
    short(node, t1=5)
    node.gone(node.worker_of(1), started=None)
    out = node.settle()
    assert node.finished(out) == {} and node.dispatched(out) == [1]


def test_an_actor_goes_with_its_calls(node: Bench) -> None:
    worker = born(node)
    node.submit(call(2, 1))
    node.handle(events.MemoryShort("all is in use", {worker: 9}))
    assert of(actions.Kill, node.settle()) == [actions.Kill(worker)]
    node.gone(worker, started=2)
    out = node.settle()
    assert node.finished(out) == {2: Outcome.OUT_OF_MEMORY}
    (died,) = of(actions.RecordActorDied, out)
    assert died.actor == ACTOR and died.final == 0 and "ran out of memory" in died.cause
