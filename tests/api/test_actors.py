"""Actors at work: resources, order of calls, async and threaded actors: spec lines 62 to 69, 76, 80 and 102."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import redray as ray
from redray.exceptions import ActorDiedError, PendingCallsLimitExceeded, RayActorError
from tests.helpers import PATIENCE, Journal, Signal, schedulable, wait_until

pytestmark = pytest.mark.usefixtures("cluster")


def free(resource: str) -> float:
    return schedulable(ray.available_resources()).get(resource, 0)


@ray.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def held(self) -> dict[str, float]:
        return dict(ray.get_runtime_context().get_assigned_resources())


@ray.remote
def when(signal: Signal, value: Any = None) -> Any:
    signal.wait()
    return value


def test_062_an_actor_keeps_state_between_calls() -> None:
    counter = Counter.remote(10)
    assert ray.get([counter.add.remote(), counter.add.remote(5), counter.add.remote()]) == [11, 16, 17]
    other = Counter.remote()
    assert ray.get(other.add.remote()) == 1, "each actor has state of its own"


def test_062_a_default_actor_holds_nothing_so_many_fit() -> None:
    counters = [Counter.remote(number) for number in range(6)]  # on 2 CPUs
    assert ray.get([counter.add.remote() for counter in counters]) == [1, 2, 3, 4, 5, 6]
    wait_until(lambda: free("CPU") == 2, what="the CPUs the actors needed to start")


def test_062_explicit_resources_are_held_for_life() -> None:
    counter = Counter.options(num_cpus=1, resources={"disk": 2}).remote()
    ray.get(counter.add.remote())
    wait_until(lambda: (free("CPU"), free("disk")) == (1, 0), what="the actor's resources to be held")
    del counter
    wait_until(lambda: (free("CPU"), free("disk")) == (2, 2), what="the dead actor's resources to be free")


def test_062_only_gpus_given_holds_a_cpu_too() -> None:
    counter = Counter.options(num_gpus=1).remote()
    assert ray.get(counter.held.remote()) == {"CPU": 1, "GPU": 1}
    wait_until(lambda: (free("CPU"), free("GPU")) == (1, 1), what="a CPU and a GPU to be held")


def test_062_memory_alone_reserves_no_cpu() -> None:
    counter = Counter.options(memory=1_000_000).remote()
    assert "CPU" not in ray.get(counter.held.remote())
    wait_until(lambda: free("CPU") == 2, what="the CPU the actor needed to start")


def test_064_assigned_resources_are_told_to_the_code() -> None:
    @ray.remote
    def held() -> dict[str, float]:
        return dict(ray.get_runtime_context().get_assigned_resources())

    assert ray.get(held.remote()) == {"CPU": 1}
    assert ray.get(held.options(num_cpus=0.5, num_gpus=1).remote()) == {"CPU": 0.5, "GPU": 1}
    counter = Counter.remote()
    assert ray.get(counter.held.remote()) == {}


@ray.remote
class Log:
    def __init__(self) -> None:
        self.entries: list[Any] = []

    def write(self, entry: Any) -> None:
        self.entries.append(entry)

    def read(self) -> list[Any]:
        return self.entries


def test_065_calls_of_one_caller_run_in_order() -> None:
    log = Log.remote()
    for number in range(200):
        log.write.remote(number)
    assert ray.get(log.read.remote()) == list(range(200))


def test_065_a_call_that_waits_for_its_argument_holds_back_later_ones(signal: Signal) -> None:
    log = Log.remote()
    log.write.remote("first")
    log.write.remote(when.remote(signal, "late"))
    log.write.remote("last")
    entries = log.read.remote()
    assert ray.wait([entries], timeout=0) == ([], [entries])
    signal.set()
    assert ray.get(entries) == ["first", "late", "last"]


def test_065_a_waiting_call_does_not_hold_back_other_callers(signal: Signal) -> None:
    @ray.remote
    def write_and_read(log: Any) -> list[Any]:
        ray.get(log.write.remote("other caller"))
        return list(ray.get(log.read.remote()))

    log = Log.remote()
    log.write.remote(when.remote(signal, "late"))
    assert ray.get(write_and_read.remote(log)) == ["other caller"]
    signal.set()
    assert ray.get(log.read.remote()) == ["other caller", "late"]


def test_102_each_caller_of_a_shared_handle_keeps_its_own_order() -> None:
    @ray.remote
    def write_many(log: Any, name: str) -> None:
        ray.get([log.write.remote((name, number)) for number in range(50)])

    log = Log.remote()
    names = ["a", "b", "c", "d"]
    ray.get([write_many.remote(log, name) for name in names])
    entries = ray.get(log.read.remote())
    assert len(entries) == 200
    for name in names:
        assert [number for who, number in entries if who == name] == list(range(50))


def test_102_a_handle_inside_an_object_works_wherever_it_arrives() -> None:
    @ray.remote
    def use(holder: dict[str, Any]) -> int:
        return int(ray.get(holder["counter"].add.remote(5)))

    @ray.remote
    class Owner:
        def __init__(self, refs: list[Any]) -> None:
            self.counter = ray.get(refs[0])["counter"]

        def add(self) -> Any:
            return ray.get(self.counter.add.remote())

    counter = Counter.remote()
    assert ray.get(use.remote({"counter": counter})) == 5
    assert ray.get(Owner.remote([ray.put({"counter": counter})]).add.remote()) == 6


def test_066_a_threaded_actor_runs_calls_at_once() -> None:
    @ray.remote(max_concurrency=3)
    class Meeting:
        def __init__(self) -> None:
            self.barrier = threading.Barrier(3)

        def join(self) -> str:
            self.barrier.wait(PATIENCE)
            return threading.current_thread().name

    meeting = Meeting.remote()
    assert len(set(ray.get([meeting.join.remote() for _ in range(3)]))) == 3


@pytest.mark.parametrize("is_async", [False, True])
def test_066_concurrent_actors_do_not_wait_for_an_earlier_call(is_async: bool, signal: Signal) -> None:
    @ray.remote(max_concurrency=2)
    class Threaded:
        def echo(self, value: str) -> str:
            return value

    @ray.remote
    class Async:
        async def echo(self, value: str) -> str:
            return value

    actor = (Async if is_async else Threaded).remote()
    parked = actor.echo.remote(when.remote(signal, "late"))
    assert ray.get(actor.echo.remote("quick")) == "quick"
    assert ray.wait([parked], timeout=0) == ([], [parked])
    signal.set()
    assert ray.get(parked) == "late"


def test_066_asking_for_order_and_concurrency_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="allow_out_of_order_execution"):
        Counter.options(max_concurrency=2, allow_out_of_order_execution=False).remote()


def test_067_a_plain_actor_runs_one_call_at_a_time(journal: Journal) -> None:
    @ray.remote
    class Plain:
        def __init__(self) -> None:
            self.busy = threading.Lock()

        def work(self) -> bool:
            alone = self.busy.acquire(blocking=False)
            journal.add("work")
            if alone:
                self.busy.release()
            return alone

    plain = Plain.remote()

    @ray.remote
    def call(actor: Any) -> list[bool]:
        return list(ray.get([actor.work.remote() for _ in range(25)]))

    assert ray.get([call.remote(plain), call.remote(plain)]) == [[True] * 25] * 2


def test_067_an_async_actor_runs_hundreds_of_calls_at_once() -> None:
    @ray.remote
    class Crowd:
        def __init__(self) -> None:
            self.inside = 0
            self.full = asyncio.Event()

        async def enter(self, wanted: int) -> int:
            self.inside += 1
            if self.inside == wanted:
                self.full.set()
            await asyncio.wait_for(self.full.wait(), PATIENCE)
            return self.inside

    crowd = Crowd.remote()
    assert ray.get([crowd.enter.remote(200) for _ in range(200)]) == [200] * 200


def test_067_max_concurrency_limits_an_async_actor() -> None:
    @ray.remote(max_concurrency=3)
    class Limited:
        def __init__(self) -> None:
            self.inside = 0
            self.most = 0

        async def work(self) -> int:
            self.inside += 1
            self.most = max(self.most, self.inside)
            await asyncio.sleep(0.01)
            self.inside -= 1
            return self.most

    limited = Limited.remote()
    assert max(ray.get([limited.work.remote() for _ in range(20)])) == 3


def test_067_concurrency_groups_have_limits_of_their_own() -> None:
    @ray.remote(concurrency_groups={"io": 2})
    class Grouped:
        def __init__(self) -> None:
            self.gate = threading.Event()
            self.pair = threading.Barrier(2)

        def blocked(self) -> str:
            self.gate.wait(PATIENCE)
            return "default group"

        @ray.method(concurrency_group="io")
        def meet(self) -> str:
            self.pair.wait(PATIENCE)
            return "io group"

        def named_at_the_call(self) -> str:
            self.gate.set()
            return "io group, too"

    actor = Grouped.remote()
    blocked = actor.blocked.remote()
    assert ray.get([actor.meet.remote(), actor.meet.remote()]) == ["io group"] * 2
    assert ray.get(actor.named_at_the_call.options(concurrency_group="io").remote()) == "io group, too"
    assert ray.get(blocked) == "default group"


def test_068_one_async_method_makes_every_method_share_the_loop() -> None:
    @ray.remote
    class Mixed:
        def __init__(self) -> None:
            self.steps: list[str] = []

        async def asynchronous(self) -> int:
            return threading.get_ident()

        def synchronous(self) -> tuple[int, bool]:
            return threading.get_ident(), asyncio.get_running_loop().is_running()

    mixed = Mixed.remote()
    thread = ray.get(mixed.asynchronous.remote())
    assert ray.get(mixed.synchronous.remote()) == (thread, True)


def test_068_a_sync_method_blocks_the_loop_while_it_runs(signal: Signal) -> None:
    @ray.remote
    class Mixed:
        def __init__(self) -> None:
            self.ticks = 0

        async def tick(self) -> None:
            self.ticks += 1

        def block(self, started: Signal) -> int:
            before = self.ticks
            started.set()
            signal.wait()
            return self.ticks - before

    mixed = Mixed.remote()
    started = Signal(signal.path + "-started")
    blocked = mixed.block.remote(started)
    started.wait()
    ticks = [mixed.tick.remote() for _ in range(5)]
    assert ray.wait(ticks, timeout=0.2)[0] == []
    signal.set()
    assert ray.get(blocked) == 0
    ray.get(ticks)


def test_068_async_methods_raise_like_others() -> None:
    @ray.remote
    class Async:
        async def fail(self) -> None:
            await asyncio.sleep(0)
            raise KeyError("awaited")

        async def answer(self) -> int:
            return 1

    actor = Async.remote()
    with pytest.raises(KeyError, match="awaited"):
        ray.get(actor.fail.remote())
    assert ray.get(actor.answer.remote()) == 1


def test_069_a_failing_constructor_fails_every_call_with_its_text() -> None:
    @ray.remote
    class Broken:
        def __init__(self, text: str) -> None:
            raise ValueError(text)

        def method(self) -> None:
            pass

    broken = Broken.remote("constructor says no")  # does not raise
    for _ in range(2):
        with pytest.raises(RayActorError, match="constructor says no") as caught:
            ray.get(broken.method.remote())
        assert isinstance(caught.value, ActorDiedError)
        assert caught.value.actor_init_failed


def test_069_a_failing_dependency_of_the_constructor_fails_every_call() -> None:
    @ray.remote
    def fail() -> None:
        raise ValueError("no argument")

    counter = Counter.remote(fail.remote())
    with pytest.raises(RayActorError, match="no argument"):
        ray.get(counter.add.remote())


def test_076_a_one_line_actor_lives_until_its_call_is_done() -> None:
    assert ray.get(Counter.remote(41).add.remote()) == 42
    refs = [Counter.remote(number).add.remote() for number in range(4)]
    assert ray.get(refs) == [1, 2, 3, 4]


def test_077_an_unknown_method_is_an_attribute_error() -> None:
    counter = Counter.remote()
    with pytest.raises(AttributeError, match="subtract"):
        counter.subtract.remote()


def test_077_handles_are_equal_and_hash_by_actor() -> None:
    @ray.remote
    def same(handles: list[Any]) -> tuple[list[Any], bool]:
        return handles, len(set(handles)) == 2

    one, two = Counter.remote(), Counter.remote()
    (first, again, other), distinct = ray.get(same.remote([one, one, two]))
    assert distinct
    assert first == again == one and hash(first) == hash(one)
    assert other == two and other != one
    assert ray.get(first.add.remote()) == 1 and ray.get(one.add.remote()) == 2


def test_077_actors_inherit_from_plain_classes() -> None:
    class Base:
        factor = 2

        def doubled(self, value: int) -> int:
            return self.scale(value)

        def scale(self, value: int) -> int:
            return value * self.factor

        @staticmethod
        def fixed() -> str:
            return "static"

        @classmethod
        def named(cls) -> str:
            return cls.__name__

    @ray.remote
    class Derived(Base):
        factor = 3

        def scale(self, value: int) -> int:
            return super().scale(value) + 1

    actor = Derived.remote()
    assert ray.get(actor.doubled.remote(5)) == 16
    assert ray.get(actor.fixed.remote()) == "static"
    assert ray.get(actor.named.remote()) == "Derived"


def test_077_an_actor_class_cannot_be_subclassed() -> None:
    with pytest.raises(TypeError, match="(?i)inherit"):

        class Derived(Counter):  # type: ignore[misc, valid-type]
            pass


def test_077_an_actor_can_hand_out_its_own_handle() -> None:
    @ray.remote
    class Parent:
        def __init__(self) -> None:
            self.reports: list[str] = []

        def spawn(self) -> str:
            @ray.remote
            def child(parent: Any) -> None:
                ray.get(parent.report.remote("from the child"))

            child.remote(ray.get_runtime_context().current_actor)
            return "spawned"

        def report(self, text: str) -> None:
            self.reports.append(text)

        def read(self) -> list[str]:
            return self.reports

    parent = Parent.remote()
    ray.get(parent.spawn.remote())
    wait_until(lambda: ray.get(parent.read.remote()) == ["from the child"], what="the child's report")


def test_080_max_pending_calls_refuses_one_more(signal: Signal) -> None:
    @ray.remote(max_pending_calls=2)
    class Busy:
        def work(self) -> int:
            signal.wait()
            return 1

    busy = Busy.remote()
    accepted = [busy.work.remote(), busy.work.remote()]
    with pytest.raises(PendingCallsLimitExceeded):
        for _ in range(3):
            accepted.append(busy.work.remote())
    signal.set()
    assert set(ray.get(accepted)) == {1}
    assert ray.get(busy.work.remote()) == 1
