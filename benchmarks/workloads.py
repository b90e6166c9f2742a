"""The rows of the performance goals, each written once against the API that redray and Ray share.

A workload gets the module under test as `ray`, already initialised with `plan.cpus` CPUs, and returns one number in
its row's unit. Remote functions and classes are local on purpose: they travel by value, so no worker needs to
find this package.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from benchmarks.goals import AtLeast, AtMost, Goal, Row, Times
from benchmarks.measure import Plan

Workload = Callable[[ModuleType, Plan], float]

BATCH = 1_000
MANY = 10_000
NUMBERS_IN_100_MB = 100_000_000 // 8
NUMBERS_IN_80_MB = 80_000_000 // 8
NUMBERS_IN_A_PAGE = 4096 // 8

ROWS: dict[str, Row] = {}
WORKLOADS: dict[str, Workload] = {}


def row(name: str, unit: str, *goals: Goal, **more: Any) -> Callable[[Workload], Workload]:
    """Register a workload: the first line of its docstring is the row's title."""

    def register(workload: Workload) -> Workload:
        title = (workload.__doc__ or name).splitlines()[0].rstrip(".")
        ROWS[name] = Row(name, title, unit, goals, **more)
        WORKLOADS[name] = workload
        return workload

    return register


# ---- a fresh process (timed by benchmarks.fresh, from outside) ---------------------------------------------
FRESH_ROWS = (
    Row(
        "first_result",
        "process start to first result",
        "s",
        (AtMost(0.30), Times(15, "ray")),
        higher_is_better=False,
        spine=(AtMost(0.50),),
    ),
    Row("idle_memory", "idle memory beside the driver (PSS)", "MB", (AtMost(70),), higher_is_better=False),
)
ROWS.update({each.name: each for each in FRESH_ROWS})


# ---- tasks -------------------------------------------------------------------------------------------------
def _nothing(ray: ModuleType) -> Any:
    def nothing(*_args: object) -> bytes:
        return b"ok"

    return ray.remote(nothing)


@row("tasks_sync", "/s", Times(8, "ray"), Times(1, "pool"), floor=True, capped=True, spine=(Times(3, "ray"),))
def tasks_sync(ray: ModuleType, plan: Plan) -> float:
    """tasks sync: submit one, get it."""
    nothing = _nothing(ray)
    return plan.rate(lambda: ray.get(nothing.remote()))


@row("tasks_async", "/s", Times(20, "ray"), Times(3, "mpire"), floor=True, spine=(Times(10, "ray"),))
def tasks_async(ray: ModuleType, plan: Plan) -> float:
    """tasks async: 1,000 submitted, then get."""
    nothing = _nothing(ray)
    return plan.rate(lambda: ray.get([nothing.remote() for _ in range(BATCH)]), BATCH)


@row("chain", "/s", Times(8, "ray"), floor=True, capped=True)
def chain(ray: ModuleType, plan: Plan) -> float:
    """dependent chain, 100 deep (tasks per second)."""
    nothing = _nothing(ray)

    def follow() -> None:
        last = nothing.remote()
        for _ in range(99):
            last = nothing.remote(last)
        ray.get(last)

    return plan.rate(follow, 100)


@row("arguments_10kb", "/s", Times(10, "ray"))
def arguments_10kb(ray: ModuleType, plan: Plan) -> float:
    """1,000 tasks with 10 KB arguments."""
    nothing = _nothing(ray)
    argument = b"x" * 10_000
    return plan.rate(lambda: ray.get([nothing.remote(argument) for _ in range(BATCH)]), BATCH)


@row("nested", "/s", Times(10, "ray"))
def nested(ray: ModuleType, plan: Plan) -> float:
    """4 actors each submitting 1,000 nested tasks."""
    nothing = _nothing(ray)

    class Submitter:
        def submit(self, count: int) -> None:
            ray.get([nothing.remote() for _ in range(count)])

    # Submitter closes over the module `ray`, which is pickled by name: the worker imports the same one.
    actors = [ray.remote(Submitter).remote() for _ in range(4)]
    value = plan.rate(lambda: ray.get([actor.submit.remote(BATCH) for actor in actors]), 4 * BATCH)
    _kill(ray, actors)
    return value


@row("wait", "rounds/s", Times(15, "ray"))
def wait(ray: ModuleType, plan: Plan) -> float:
    """wait over 1,000 refs, one at a time."""
    nothing = _nothing(ray)

    def drain() -> None:
        waiting = [nothing.remote() for _ in range(BATCH)]
        while waiting:
            _ready, waiting = ray.wait(waiting)

    return plan.rate(drain)


# ---- actors ------------------------------------------------------------------------------------------------
def _counter(ray: ModuleType) -> Any:
    class Counter:
        def call(self) -> bytes:
            return b"ok"

    return ray.remote(Counter)


def _async_counter(ray: ModuleType) -> Any:
    class AsyncCounter:
        async def call(self) -> bytes:
            return b"ok"

    return ray.remote(AsyncCounter)


def _kill(ray: ModuleType, actors: list[Any]) -> None:
    for actor in actors:
        ray.kill(actor)


def _one_by_one(ray: ModuleType, plan: Plan, actor: Any) -> float:
    value = plan.rate(lambda: ray.get(actor.call.remote()))
    _kill(ray, [actor])
    return value


def _in_batches(ray: ModuleType, plan: Plan, actors: list[Any]) -> float:
    each = BATCH // len(actors)

    def call_all() -> None:
        ray.get([actor.call.remote() for _ in range(each) for actor in actors])

    value = plan.rate(call_all, each * len(actors))
    _kill(ray, actors)
    return value


@row("actor_sync", "/s", Times(5, "ray"), floor=True, capped=True)
def actor_sync(ray: ModuleType, plan: Plan) -> float:
    """1:1 actor calls sync."""
    return _one_by_one(ray, plan, _counter(ray).remote())


@row("actor_async", "/s", Times(8, "ray"), floor=True)
def actor_async(ray: ModuleType, plan: Plan) -> float:
    """1:1 actor calls, 1,000 submitted, then get."""
    return _in_batches(ray, plan, [_counter(ray).remote()])


@row("actors_1_n", "/s", Times(5, "ray"))
def actors_1_n(ray: ModuleType, plan: Plan) -> float:
    """1:n actor calls (4 actors, 1,000 calls in flight)."""
    counter = _counter(ray)
    return _in_batches(ray, plan, [counter.remote() for _ in range(4)])


@row("async_actor_sync", "/s", Times(7, "ray"))
def async_actor_sync(ray: ModuleType, plan: Plan) -> float:
    """async actor calls sync."""
    return _one_by_one(ray, plan, _async_counter(ray).remote())


@row("async_actor_async", "/s", Times(12, "ray"))
def async_actor_async(ray: ModuleType, plan: Plan) -> float:
    """async actor calls, 1,000 submitted, then get."""
    return _in_batches(ray, plan, [_async_counter(ray).remote()])


@row("actor_life", "/s", Times(50, "ray"))
def actor_life(ray: ModuleType, plan: Plan) -> float:
    """actor created, called once, killed."""
    counter = _counter(ray)

    def live() -> None:
        actor = counter.remote()
        ray.get(actor.call.remote())
        ray.kill(actor)

    return plan.rate(live)


# ---- objects -----------------------------------------------------------------------------------------------
@row("put_small", "/s", Times(15, "ray"))
def put_small(ray: ModuleType, plan: Plan) -> float:
    """put of a small value."""
    return plan.rate(lambda: ray.put(0))


@row("get_small", "/s", Times(20, "ray"))
def get_small(ray: ModuleType, plan: Plan) -> float:
    """get of a small value."""
    ref = ray.put(0)
    return plan.rate(lambda: ray.get(ref))


@row("put_large", "GB/s", Times(0.85, "memcpy"))
def put_large(ray: ModuleType, plan: Plan) -> float:
    """put of 80 MB arrays."""
    import numpy

    array = numpy.ones(NUMBERS_IN_80_MB)
    return plan.rate(lambda: ray.put(array), array.nbytes / 1e9)


@row("large_by_ref", "/s", Times(8, "ray"))
def large_by_ref(ray: ModuleType, plan: Plan) -> float:
    """80 MB array by ref to a task."""
    import numpy

    nothing = _nothing(ray)
    ref = ray.put(numpy.ones(NUMBERS_IN_80_MB))
    return plan.rate(lambda: ray.get(nothing.remote(ref)))


@row("large_shared", "s", AtMost(0.06), higher_is_better=False)
def large_shared(ray: ModuleType, plan: Plan) -> float:
    """100 MB array shared with 20 tasks.

    The put is part of it, and so is reading: together the tasks touch each page of the array once.
    """
    import numpy

    def touch(whole: Any, part: int) -> float:
        size = len(whole) // 20
        return float(whole[part * size : (part + 1) * size : NUMBERS_IN_A_PAGE].sum())

    remote = ray.remote(touch)
    array = numpy.ones(NUMBERS_IN_100_MB)

    def share() -> None:
        ref = ray.put(array)
        ray.get([remote.remote(ref, part) for part in range(20)])

    return plan.duration(share)


@row("large_returned", "s", AtMost(0.05), higher_is_better=False)
def large_returned(ray: ModuleType, plan: Plan) -> float:
    """100 MB returned by a task.

    The array is fresh zeros: they cost the task next to nothing to make, so what is timed is the way back.
    """

    def make(numbers: int) -> Any:
        import numpy

        return numpy.zeros(numbers)

    remote = ray.remote(make)
    return plan.duration(lambda: ray.get(remote.remote(NUMBERS_IN_100_MB))[-1])


@row("refs_in_object", "/s", Times(3, "ray"), timeout=120)
def refs_in_object(ray: ModuleType, plan: Plan) -> float:
    """get of one object that holds 10,000 refs."""

    def make(count: int) -> list[Any]:
        return [ray.put(1) for _ in range(count)]

    holder = ray.remote(make).remote(MANY)
    return plan.rate(lambda: ray.get(holder))


@row("placement_group", "/s", Times(5, "ray"))
def placement_group(ray: ModuleType, plan: Plan) -> float:
    """placement group created and removed (100 at a time)."""
    util = import_module(f"{ray.__name__}.util")

    def reserve() -> None:
        groups = [util.placement_group([{"CPU": 0.01}]) for _ in range(100)]
        if not all(group.wait(timeout_seconds=30) for group in groups):
            raise TimeoutError("a placement group was not reserved within 30 s")
        for group in groups:
            util.remove_placement_group(group)

    return plan.rate(reserve, 100)


# ---- many --------------------------------------------------------------------------------------------------
@row("many_arguments", "s", AtMost(1), higher_is_better=False, timeout=180)
def many_arguments(ray: ModuleType, plan: Plan) -> float:
    """10,000 refs as arguments of one task.

    They are put before the clock starts.
    """
    nothing = _nothing(ray)
    refs = [ray.put(number) for number in range(MANY)]
    return plan.duration(lambda: ray.get(nothing.remote(*refs)))


@row("many_returns", "s", AtMost(0.5), higher_is_better=False, timeout=180)
def many_returns(ray: ModuleType, plan: Plan) -> float:
    """3,000 returns of one task."""

    def count(how_many: int) -> list[int]:
        return list(range(how_many))

    remote = ray.remote(count).options(num_returns=3_000)
    return plan.duration(lambda: ray.get(remote.remote(3_000)))


@row("many_objects", "s", AtMost(1), higher_is_better=False, timeout=180)
def many_objects(ray: ModuleType, plan: Plan) -> float:
    """10,000 objects in one get.

    They are put before the clock starts, and got once: a second get could be served from a cache.
    """
    import numpy

    array = numpy.zeros(100)
    refs = [ray.put(array) for _ in range(MANY)]
    return plan.once(lambda: ray.get(refs))


@row("queued", "/s", AtLeast(1_000_000 / 60), timeout=600)
def queued(ray: ModuleType, plan: Plan) -> float:
    """tasks queued, then drained (--queued N).

    The goal is 1,000,000 in 60 s, so only a run with --queued 1000000 shows that it is reached.
    """
    nothing = _nothing(ray)
    ray.get(nothing.remote())

    def drain() -> None:
        refs = [nothing.remote() for _ in range(plan.queued)]
        for start in range(0, len(refs), MANY):
            ray.get(refs[start : start + MANY])

    return plan.queued / plan.once(drain)
