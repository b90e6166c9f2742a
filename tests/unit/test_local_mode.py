"""Local mode: an ordinary program runs in this process, with the results and errors that a cluster gives."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import redray as ray
from redray.exceptions import (
    ActorAlreadyExistsError,
    ActorDiedError,
    ActorHandleNotFoundError,
    ObjectLostError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)
from redray.local_mode import LocalSession
from redray.refs import ObjectRef
from redray.util import ActorPool, list_named_actors
from redray.util.queue import Empty, Full, Queue
from tests.unit.fake_session import empty_slot


@pytest.fixture(autouse=True)
def local() -> Iterator[LocalSession]:
    with empty_slot() as slot:
        ray.init(local_mode=True, num_cpus=2, num_gpus=1, resources={"disk": 1}, namespace="here")
        yield slot.found
        ray.shutdown()


@ray.remote
def add(a: int, b: int = 1) -> int:
    return a + b


@ray.remote
def fail(text: str = "bad") -> None:
    raise ValueError(text)


@ray.remote
class Counter:
    def __init__(self, value: int = 0) -> None:
        self.value = value

    def add(self, by: int = 1) -> int:
        self.value += by
        return self.value

    def fail(self) -> None:
        raise KeyError("of the actor")

    def leave(self) -> None:
        ray.actor.exit_actor()

    def exit(self) -> None:
        sys.exit(1)

    def me(self) -> Any:
        return ray.get_runtime_context().current_actor

    def __repr__(self) -> str:
        return f"Counter({self.value})"


def test_tasks_run_at_once_in_this_process() -> None:
    @ray.remote
    def here() -> tuple[int, int]:
        return os.getpid(), threading.get_ident()

    assert ray.get(here.remote()) == (os.getpid(), threading.get_ident())
    assert ray.get([add.remote(1), add.remote(1, b=5)]) == [2, 6]


def test_001_top_level_refs_become_values_and_inner_ones_stay_refs() -> None:
    @ray.remote
    def look(one: Any, many: Any, *, key: Any) -> tuple[Any, bool, Any]:
        return one, isinstance(many[0], ObjectRef), key

    ref = ray.put(7)
    assert ray.get(look.remote(ref, [ref], key=ref)) == (7, True, 7)


def test_values_are_copied_on_their_way() -> None:
    @ray.remote
    def same(value: list[int]) -> list[int]:
        value.append(2)
        return value

    mine = [1]
    ref = same.remote(mine)
    assert mine == [1]
    ray.get(ref).append(3)
    assert ray.get(ref) == [1, 2]


def test_005_an_argument_that_cannot_be_pickled_is_refused() -> None:
    with pytest.raises(TypeError, match="(?is)serializ.*lock"):
        add.remote(threading.Lock())


@pytest.mark.parametrize("count", [0, 2])
def test_014_several_returns(count: int) -> None:
    @ray.remote(num_returns=count)
    def several() -> tuple[int, ...] | None:
        return tuple(range(count)) or None

    found: Any = several.remote()
    assert found is None if count == 0 else ray.get(found) == [0, 1]


def test_015_a_wrong_number_of_returns_is_an_error_in_each() -> None:
    @ray.remote(num_returns=3)
    def two() -> tuple[int, int]:
        return 1, 2

    found: Any = two.remote()
    for ref in found:
        with pytest.raises(ValueError, match="2 values, but num_returns=3"):
            ray.get(ref)


def test_018_errors_arrive_at_get_as_both_classes() -> None:
    ref = fail.remote("text")
    with pytest.raises(ValueError, match="text") as caught:
        ray.get(ref)
    assert isinstance(caught.value, RayTaskError)
    assert str(caught.value).startswith(f"ray::fail() (pid={os.getpid()}, ip=127.0.0.1)")
    with pytest.raises(KeyError) as caught_of_actor:
        ray.get(Counter.remote(3).fail.remote())
    assert "ray::Counter.fail()" in str(caught_of_actor.value) and "repr=Counter(3)" in str(caught_of_actor.value)


def test_003_a_failed_argument_is_the_result() -> None:
    ran = []

    @ray.remote
    def depends(value: Any) -> None:
        ran.append(value)

    with pytest.raises(ValueError, match="bad"):
        ray.get(depends.remote(fail.remote()))
    assert not ran


def test_022_sys_exit_is_a_crash() -> None:
    @ray.remote
    def leave() -> None:
        sys.exit(3)

    with pytest.raises(WorkerCrashedError):
        ray.get(leave.remote())
    counter = Counter.remote()
    for _ in range(2):
        with pytest.raises(RayActorError):
            ray.get(counter.exit.remote())


def test_an_interrupt_reaches_the_debugger() -> None:
    @ray.remote
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted.remote()


def test_046_retry_exceptions_repeats_within_max_retries() -> None:
    attempts = []

    def flaky() -> int:
        attempts.append(1)
        if len(attempts) % 3:
            raise OSError("again")
        return len(attempts)

    # Not its global: a copy of the function would count for itself.
    task = ray.remote(flaky)
    assert ray.get(task.options(retry_exceptions=[OSError], max_retries=2).remote()) == 3
    for options in ({"retry_exceptions": [KeyError]}, {"retry_exceptions": True, "max_retries": 0}, {}):
        attempts[:] = []
        with pytest.raises(OSError):
            ray.get(task.options(**options).remote())
        assert len(attempts) == 1


def test_generators_run_to_their_end() -> None:
    @ray.remote
    def items(count: int) -> Iterator[int]:
        yield from range(count)
        raise ValueError("at the end")

    found: Any = items.remote(2)
    refs = list(found)
    assert ray.get(refs[:2]) == [0, 1] and len(refs) == 3
    with pytest.raises(ValueError, match="at the end"):
        ray.get(refs[2])
    assert ray.get(found) is found

    async def first() -> Any:
        generator: Any = items.remote(1)
        async for ref in generator:
            return await ref

    assert asyncio.run(first()) == 0


def test_generators_are_read_as_in_a_cluster() -> None:
    @ray.remote
    def items(count: int) -> Iterator[int]:
        yield from range(count)

    found: Any = items.remote(2)
    assert isinstance(found, ray.ObjectRefGenerator)
    assert ray.wait([found], timeout=0) == ([found], [])
    assert ray.get(found.completed()) is None
    assert not found.is_finished() and found.next_ready()
    assert len(list(found)) == 2 and found.is_finished()
    with pytest.raises(TypeError, match="generator"):
        ray.put(found)


def test_generators_with_other_returns() -> None:
    @ray.remote
    def items(count: int) -> Iterator[int]:
        yield from range(count)
        raise ValueError("at the end")

    static: Any = items.options(num_returns=2)
    assert ray.get(static.remote(5)) == [0, 1]
    first, second = static.remote(1)
    assert ray.get(first) == 0
    with pytest.raises(ValueError, match="at the end"):
        ray.get(second)
    dynamic: Any = ray.get(items.options(num_returns="dynamic").remote(2))
    assert isinstance(dynamic, ray.DynamicObjectRefGenerator)
    *fine, failed = dynamic
    assert ray.get(fine) == [0, 1]
    with pytest.raises(ValueError, match="at the end"):
        ray.get(failed)


def test_async_generators_keep_the_items_before_an_error() -> None:
    @ray.remote
    class Actor:
        async def items(self) -> Any:
            yield 1
            raise ValueError("after one")

    first, second = Actor.remote().items.remote()
    assert ray.get(first) == 1
    with pytest.raises(ValueError, match="after one"):
        ray.get(second)


def test_actors_keep_state_and_can_be_named() -> None:
    counter = Counter.options(name="one").remote(5)
    assert ray.get([counter.add.remote(), counter.add.remote(2)]) == [6, 8]
    assert ray.get_actor("one") == counter == ray.get(counter.me.remote())
    assert list_named_actors() == ["one"]
    with pytest.raises(ActorAlreadyExistsError):
        Counter.options(name="one").remote()
    assert Counter.options(name="one", get_if_exists=True).remote() == counter


def test_069_a_failing_constructor_fails_the_calls() -> None:
    @ray.remote
    class Broken:
        def __init__(self) -> None:
            raise ValueError("constructor says no")

        def method(self) -> None: ...

    broken = Broken.remote()
    for _ in range(2):
        with pytest.raises(ActorDiedError, match="constructor says no") as caught:
            ray.get(broken.method.remote())
        assert caught.value.actor_init_failed


def test_070_an_actor_ends_with_its_last_handle(local: LocalSession) -> None:
    handle = Counter.options(name="one").remote()
    outer = ray.put([handle])
    del handle
    gc.collect()
    assert list_named_actors() == ["one"], "the stored list holds it"
    del outer
    gc.collect()
    assert list_named_actors() == []
    assert not local._actors


def test_072_a_detached_actor_stays() -> None:
    Counter.options(name="one", lifetime="detached").remote()
    gc.collect()
    assert ray.get(ray.get_actor("one").add.remote()) == 1


@pytest.mark.parametrize("end", ["kill", "leave", "__ray_terminate__"])
def test_079_the_reason_of_a_death(end: str) -> None:
    counter = Counter.options(name="one").remote()
    if end == "kill":
        ray.kill(counter)
    else:
        with pytest.raises(RayActorError):
            ray.get(getattr(counter, end).remote())
    with pytest.raises(ActorDiedError, match=r"killed by `ray\.kill`" if end == "kill" else "exit_actor"):
        ray.get(counter.add.remote())
    assert list_named_actors() == []
    assert ray.get(Counter.options(name="one").remote().add.remote()) == 1


def test_async_actors_and_calls_between_them() -> None:
    @ray.remote
    class Async:
        def __init__(self, other: Any = None) -> None:
            self.other = other
            self.event = asyncio.Event()

        async def double(self, value: int) -> int:
            await asyncio.sleep(0)
            if self.other is not None:
                return int(await self.other.double.remote(value))
            return 2 * value

        async def fails(self) -> None:
            raise KeyError("async")

        async def items(self) -> AsyncIterator[int]:
            yield 1
            yield 2

    inner = Async.remote()
    assert ray.get(inner.double.remote(2)) == ray.get(Async.remote(inner).double.remote(2)) == 4
    with pytest.raises(KeyError):
        ray.get(inner.fails.remote())
    items: Any = inner.items.remote()
    assert ray.get(list(items)) == [1, 2]


def test_what_every_actor_understands() -> None:
    counter = Counter.remote(4)
    assert ray.get(counter.__ray_ready__.remote()) is True
    assert ray.get(counter.__ray_call__.remote(lambda self, x: self.value + x, 3)) == 7


def test_the_runtime_context_tells_who_runs() -> None:
    @ray.remote(num_gpus=1)
    def look(depth: int = 1) -> Any:
        context = ray.get_runtime_context()
        seen = SimpleNamespace(
            task=context.get_task_id(),
            name=context.get_task_name(),
            held=context.get_assigned_resources(),
            gpus=ray.get_gpu_ids(),
            actor=context.get_actor_id(),
            inner=ray.get(look.remote(0)) if depth else None,
        )
        return seen

    seen = ray.get(look.options(name="named").remote())
    assert (seen.name, seen.held, seen.gpus, seen.actor) == ("named", {"CPU": 1.0, "GPU": 1.0}, [0], None)
    assert seen.inner.name == "look" and seen.inner.task != seen.task
    assert ray.get_runtime_context().get_task_id() is None

    @ray.remote
    class Who:
        def look(self) -> tuple[Any, ...]:
            context = ray.get_runtime_context()
            return (
                context.get_actor_id(),
                context.get_actor_name(),
                context.get_assigned_resources(),
                context.is_canceled(),
            )

    who = Who.options(name="who").remote()
    assert ray.get(who.look.remote()) == (who._actor_id.hex(), "who", {}, False)


def test_038_values_go_with_their_last_ref(local: LocalSession) -> None:
    inner = ray.put("inner")
    outer = ray.put([inner])
    inner_id = bytes(inner)
    del inner
    (again,) = ray.get(outer)
    assert bytes(again) == inner_id and ray.get(again) == "inner"
    del outer, again
    gc.collect()
    ray.put(None)
    assert len(local._objects) <= 1
    with pytest.raises(ObjectLostError):
        ray.get(ObjectRef(inner_id))


def test_wait_finds_all_ready() -> None:
    refs = [add.remote(number) for number in range(3)]
    assert ray.wait(refs, num_returns=2) == (refs[:2], refs[2:])
    ray.cancel(refs[0])
    assert ray.get(refs[0]) == 1


def test_refs_can_be_awaited() -> None:
    async def both() -> tuple[Any, Any]:
        return await add.remote(1), await asyncio.wrap_future(add.remote(2).future())

    assert asyncio.run(both()) == (2, 3)
    with pytest.raises(ValueError):
        fail.remote().future().result()


def test_the_cluster_of_one() -> None:
    assert ray.cluster_resources() == ray.available_resources() == {"CPU": 2.0, "GPU": 1.0, "disk": 1.0}
    (node,) = ray.nodes()
    assert node["Alive"] and node["NodeID"] == ray.get_runtime_context().get_node_id()
    assert ray.get_runtime_context().get_node_labels() == {}


def test_a_handle_does_not_outlive_its_session() -> None:
    counter = Counter.remote()
    ray.shutdown()
    ray.init(local_mode=True)
    with pytest.raises(ActorHandleNotFoundError):
        counter.add.remote()


# ---- utilities, on top of it -----------------------------------------------------------------------------------------
def test_an_actor_pool_maps_in_order() -> None:
    pool = ActorPool([Counter.remote(), Counter.remote(100)])
    assert list(pool.map(lambda actor, value: actor.add.remote(value), [])) == []
    assert sorted(pool.map_unordered(lambda actor, value: actor.add.remote(value), [1, 1, 1])) in (
        [1, 101, 102],
        [1, 2, 101],
        [101, 102, 103],
        [1, 2, 3],
    )
    assert not pool.has_next() and pool.has_free()
    for take in (pool.get_next, pool.get_next_unordered):
        with pytest.raises(StopIteration):
            take()


def test_an_actor_pool_lends_its_actors() -> None:
    only = Counter.remote()
    pool = ActorPool([only])
    with pytest.raises(ValueError, match="already belongs"):
        pool.push(only)
    pool.submit(lambda actor, value: actor.add.remote(value), 1)
    pool.submit(lambda actor, value: actor.add.remote(value), 2)
    assert not pool.has_free() and pool.pop_idle() is None
    assert [pool.get_next(), pool.get_next()] == [1, 3]
    assert pool.pop_idle() == only and pool.pop_idle() is None
    pool.submit(lambda actor, value: actor.add.remote(value), 4)
    assert not pool.has_next()
    pool.push(only)
    assert pool.get_next(timeout=1) == 7


def test_an_actor_pool_goes_on_after_an_error() -> None:
    pool = ActorPool([Counter.remote()])
    pool.submit(lambda actor, value: actor.fail.remote(), 0)
    pool.submit(lambda actor, value: actor.add.remote(), 0)
    with pytest.raises(KeyError):
        pool.get_next()
    assert pool.get_next() == 1


def test_an_actor_pool_gives_up_after_a_timeout(monkeypatch: pytest.MonkeyPatch, local: LocalSession) -> None:
    pool = ActorPool([Counter.remote()])
    pool.submit(lambda actor, value: actor.add.remote(value), 1)
    monkeypatch.setattr(local, "wait", lambda refs, *_: ([], refs))
    for take in (pool.get_next, pool.get_next_unordered):
        with pytest.raises(TimeoutError):
            take(timeout=0)
        assert pool.has_next()
    with pytest.raises(TimeoutError, match="ignored"):
        pool.get_next(timeout=0, ignore_if_timedout=True)
    assert not pool.has_next() and pool.has_free()


def test_a_queue_is_first_in_first_out() -> None:
    queue = Queue(maxsize=2)
    assert queue.empty() and not queue.full()
    queue.put(1)
    queue.put_nowait(2)
    assert queue.full() and len(queue) == queue.qsize() == 2
    with pytest.raises(Full):
        queue.put(3, block=False)
    with pytest.raises(Full) as caught:
        queue.put(3, timeout=0.001)
    assert type(caught.value) is Full
    assert [queue.get(), queue.get_nowait()] == [1, 2]
    with pytest.raises(Empty):
        queue.get(block=False)
    with pytest.raises(Empty) as nothing:
        queue.get(timeout=0.001)
    assert type(nothing.value) is Empty


def test_a_queue_takes_and_gives_whole_batches() -> None:
    queue = Queue(maxsize=3)
    queue.put_nowait_batch(range(2))
    with pytest.raises(Full):
        queue.put_nowait_batch([2, 3])
    with pytest.raises(Empty):
        queue.get_nowait_batch(3)
    assert queue.get_nowait_batch(2) == [0, 1] and queue.empty()
    wrong: Any
    for wrong, error in (("1", TypeError), (-1, ValueError)):
        with pytest.raises(error):
            queue.get_nowait_batch(wrong)
    wrong = 3
    with pytest.raises(TypeError):
        queue.put_nowait_batch(wrong)
    for use in (lambda: queue.put(1, timeout=-1), lambda: queue.get(timeout=-1)):
        with pytest.raises(ValueError, match="timeout"):
            use()


def test_a_queue_can_be_passed_on_awaited_and_shut_down() -> None:
    queue = Queue(actor_options={"name": "jobs"})

    @ray.remote
    def produce(queue: Queue) -> None:
        queue.put("from a task")

    async def exchange() -> Any:
        await queue.put_async(1)
        with pytest.raises(Empty):
            await Queue().get_async(block=False)
        return await queue.get_async()

    ray.get(produce.remote(queue))
    assert queue.get() == "from a task"
    assert asyncio.run(exchange()) == 1
    queue.shutdown()
    queue.shutdown(force=True)
    assert queue.actor is None and list_named_actors() == []
