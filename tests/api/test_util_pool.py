"""`ray.util.multiprocessing.Pool`: the interface of `multiprocessing.Pool`, with actors for processes."""

from __future__ import annotations

import itertools
import os
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import redray as ray
from redray.util.multiprocessing import Pool, TimeoutError
from tests.helpers import PATIENCE, Signal, is_alive, run_driver, wait_until


def square(x: int) -> int:
    return x * x


def add(x: int, y: int = 0) -> int:
    return x + y


def fail_at_3(x: int) -> int:
    if x == 3:
        raise KeyError(f"no {x}")
    return x


def pid_of(_: object = None) -> int:
    return os.getpid()


def hold(path: str) -> str:
    Signal(path).wait()
    return "through"


@pytest.fixture
def pool(cluster: None) -> Iterator[Pool]:
    pool = Pool(2)
    yield pool
    pool.terminate()
    pool.join()


def test_apply(pool: Pool) -> None:
    assert pool.apply(add, (1,), {"y": 2}) == 3
    assert pool.apply(lambda: "no arguments") == "no arguments"
    with pytest.raises(KeyError, match="no 3"):
        pool.apply(fail_at_3, (3,))
    assert pool.apply(add, (1,)) == 1, "an error of a call is not the end of its process"


def test_map_keeps_the_order_and_makes_chunks(pool: Pool) -> None:
    assert pool.map(square, range(100)) == [x * x for x in range(100)]
    assert pool.map(square, iter([3]), chunksize=10) == [9]
    assert pool.map(square, []) == []
    assert pool.starmap(add, [(1, 2), (3, 4)]) == [3, 7]
    assert pool.starmap_async(add, zip([1, 2], [3, 4], strict=True)).get() == [4, 6]
    with pytest.raises(KeyError, match="no 3"):
        pool.map(fail_at_3, range(10))
    with pytest.raises(TypeError):
        pool.map(square, 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        pool.map(square, [1], chunksize=0)


def test_work_is_spread_over_the_processes(pool: Pool) -> None:
    pids = set(pool.map(pid_of, range(50), chunksize=1))
    assert os.getpid() not in pids
    assert len(pids) == 2


def test_a_slow_call_does_not_hold_up_the_others(pool: Pool, signal: Signal) -> None:
    slow = pool.apply_async(hold, (signal.path,))
    assert pool.map(square, range(20), chunksize=1) == [x * x for x in range(20)]
    assert not slow.ready()
    signal.set()
    assert slow.get(PATIENCE) == "through"


def test_async_results(pool: Pool, signal: Signal) -> None:
    result = pool.apply_async(hold, (signal.path,))
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    with pytest.raises(TimeoutError):
        result.get(timeout=0.01)
    assert not result.ready()
    signal.set()
    result.wait(PATIENCE)
    assert result.ready() and result.successful()
    failed = pool.map_async(fail_at_3, range(5))
    failed.wait()
    assert failed.ready() and not failed.successful()
    with pytest.raises(KeyError):
        failed.get()


def test_callbacks(pool: Pool) -> None:
    good: list[Any] = []
    bad: list[BaseException] = []
    pool.apply_async(square, (3,), callback=good.append, error_callback=bad.append).get()
    pool.map_async(square, range(3), callback=good.append, error_callback=bad.append).wait()
    pool.starmap_async(add, [(1, 1)], callback=good.append).wait()
    assert good == [9, [0, 1, 4], [2]]
    pool.apply_async(fail_at_3, (3,), callback=good.append, error_callback=bad.append).wait()
    pool.map_async(fail_at_3, range(5), callback=good.append, error_callback=bad.append).wait()
    assert len(good) == 3
    assert [type(error).__name__ for error in bad] == ["KeyError", "KeyError"]


def test_imap(pool: Pool) -> None:
    assert list(pool.imap(square, range(30))) == [x * x for x in range(30)]
    assert list(pool.imap(square, range(31), chunksize=4)) == [x * x for x in range(31)]
    assert sorted(pool.imap_unordered(square, range(30), chunksize=3)) == [x * x for x in range(30)]
    assert list(pool.imap(square, [])) == []
    with pytest.raises(TypeError):
        pool.imap(square, 7)  # type: ignore[arg-type]


def test_imap_reads_an_endless_iterator_as_results_are_taken(pool: Pool) -> None:
    counted = itertools.count()
    results = pool.imap(square, counted)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert next(counted) < 100


def test_imap_goes_on_after_an_error(pool: Pool) -> None:
    results = pool.imap(fail_at_3, range(5))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(results)
    assert list(results) == [4]


def test_an_error_of_the_arguments_comes_in_its_turn(pool: Pool) -> None:
    def arguments() -> Iterator[int]:
        yield 1
        yield 2
        raise LookupError("the arguments ran out")

    results = pool.imap(square, arguments())
    assert [next(results), next(results)] == [1, 4]
    with pytest.raises(LookupError, match="ran out"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_imap_unordered_gives_what_is_ready_first(pool: Pool, signal: Signal) -> None:
    def wait_for_first(x: int) -> int:
        if x == 0:
            signal.wait()
        return x

    results = pool.imap_unordered(wait_for_first, range(4))
    first = [next(results) for _ in range(3)]
    assert sorted(first) == [1, 2, 3]
    with pytest.raises(TimeoutError):
        results.next(timeout=0.01)
    signal.set()
    assert next(results) == 0


def test_an_initializer_in_every_process(cluster: None, tmp_path: Any) -> None:
    from tests.helpers import Journal

    journal = Journal(tmp_path / "started")

    def note(*words: str) -> None:
        journal.add(" ".join(words))

    with Pool(2, note, ("hello", "there")):
        assert journal.lines() == ["hello there"] * 2


def test_an_initializer_that_fails(cluster: None) -> None:
    with pytest.raises(ray.exceptions.RayActorError, match="not today"):
        Pool(1, initializer=lambda: (_ for _ in ()).throw(ValueError("not today")))


def test_globals_that_the_initializer_of_a_program_sets(no_cluster: None, tmp_path: Any) -> None:
    program = """
    from redray.util.multiprocessing import Pool
    base = 0
    def begin(value):
        global base
        base = value
    def above(x):
        return base + x
    with Pool(2, begin, (100,)) as pool:
        print(pool.map(above, range(3)), pool.apply(above, (7,)))
    """
    assert "[100, 101, 102] 107" in run_driver(tmp_path, program)


def test_maxtasksperchild(cluster: None) -> None:
    with Pool(1, maxtasksperchild=2) as pool:
        pids = [pool.apply(pid_of) for _ in range(6)]
    assert len(set(pids)) == 3, pids
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_a_process_that_dies_fails_its_call_and_is_replaced(pool: Pool) -> None:
    results = [pool.apply_async(os._exit, (3,)) for _ in range(2)]
    for result in results:
        with pytest.raises(ray.exceptions.RayActorError):
            result.get(PATIENCE)
    assert pool.map(square, range(4)) == [0, 1, 4, 9]


def test_close_and_join(cluster: None, signal: Signal) -> None:
    pool = Pool(1)
    pid = pool.apply(pid_of)
    results = [pool.apply_async(hold, (signal.path,)) for _ in range(3)]
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    pool.close()
    for call in (
        lambda: pool.apply(square, (1,)),
        lambda: pool.map(square, [1]),
        lambda: pool.imap(square, [1]),
        pool.__enter__,
    ):
        with pytest.raises(ValueError, match="not running"):
            call()
    signal.set()
    pool.join()
    assert [result.get(0) for result in results] == ["through"] * 3
    wait_until(lambda: not is_alive(pid), what="the pool's process to end")


def test_terminate_ends_what_runs(cluster: None, signal: Signal) -> None:
    with Pool(1) as pool:
        results = [pool.apply_async(hold, (signal.path,)) for _ in range(2)]
    for result in results:
        with pytest.raises(ray.exceptions.RayActorError):
            result.get(PATIENCE)
    pool.join()
    pool.terminate()  # again, and nothing happens


def test_how_many_processes(cluster: None) -> None:
    with Pool() as pool:
        assert pool._processes == 2
    with pytest.raises(ValueError, match="must be >0"):
        Pool(0)
    with pytest.raises(ValueError, match="only 2 CPUs"):
        Pool(3)
    with pytest.raises(ValueError):
        Pool(1, maxtasksperchild=0)


def test_a_pool_begins_a_cluster_when_there_is_none(no_cluster: None) -> None:
    with Pool(3) as pool:
        assert ray.cluster_resources()["CPU"] == 3
        assert pool.map(square, range(3)) == [0, 1, 4]


def test_options_of_the_actors(cluster: None) -> None:
    with Pool(1, ray_remote_args={"num_cpus": 1}):
        wait_until(lambda: ray.available_resources().get("CPU") == 1, what="the pool to hold one CPU")


def test_remote_functions_are_called_as_tasks(pool: Pool) -> None:
    task = ray.remote(square)
    assert pool.map(task, range(4)) == [0, 1, 4, 9]
    assert pool.apply(task, (5,)) == 25


def test_a_pool_cannot_be_pickled(pool: Pool) -> None:
    with pytest.raises(NotImplementedError, match="cannot be passed between processes"):
        pickle.dumps(pool)


def test_a_pool_in_a_task(cluster: None) -> None:
    @ray.remote(num_cpus=0)
    def outer() -> list[int]:
        with Pool(2) as pool:
            return pool.map(square, range(5))

    assert ray.get(outer.remote()) == [0, 1, 4, 9, 16]


def test_arguments_that_cannot_be_pickled_fail_the_call(pool: Pool) -> None:
    with pytest.raises(TypeError, match="pickle"):
        pool.apply(square, (threading.Lock(),))
    assert pool.apply(square, (2,)) == 4


def test_a_pool_after_shutdown(no_cluster: None) -> None:
    pool = Pool(2)
    assert pool.apply(square, (2,)) == 4
    ray.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        pool.apply(square, (2,))
    pool.terminate()
    pool.join()
    assert not ray.is_initialized()
