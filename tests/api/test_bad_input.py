"""Bad input of every public function: a typed error in one sentence, at once, with nothing half done."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray.exceptions import RayError, RaySystemError, RayTaskError
from tests.helpers import PATIENCE, Driver, Journal, Signal, wait_until

NOT_A_REF = [None, 1, 1.5, "ref", b"0" * 16, b"0" * 28, {}, object(), int]


@ray.remote
def echo(value: Any = None) -> Any:
    return value


@ray.remote
class Actor:
    def echo(self, value: Any = None) -> Any:
        return value


class TestWrongTypes:
    """Everything here fails in the caller, before anything is sent."""

    pytestmark = pytest.mark.usefixtures("cluster")

    @pytest.mark.parametrize("stranger", NOT_A_REF, ids=repr)
    def test_get(self, stranger: object) -> None:
        with pytest.raises((TypeError, ValueError)):
            ray.get(stranger)
        with pytest.raises(TypeError):
            ray.get([stranger])

    @pytest.mark.parametrize("stranger", [*NOT_A_REF, ()], ids=repr)
    def test_wait(self, stranger: object) -> None:
        with pytest.raises(TypeError):
            ray.wait(stranger)
        with pytest.raises(TypeError):
            ray.wait([stranger])

    @pytest.mark.parametrize("stranger", NOT_A_REF, ids=repr)
    def test_cancel(self, stranger: object) -> None:
        with pytest.raises(TypeError):
            ray.cancel(stranger)

    @pytest.mark.parametrize("stranger", NOT_A_REF, ids=repr)
    def test_kill(self, stranger: object) -> None:
        with pytest.raises(ValueError):
            ray.kill(stranger)

    @pytest.mark.differs_from_ray("Ray says so later, or not at all")
    @pytest.mark.parametrize("name", [1, b"name", ["name"]], ids=repr)
    def test_get_actor(self, name: object) -> None:
        with pytest.raises(TypeError):
            ray.get_actor(name)
        with pytest.raises(TypeError):
            ray.get_actor("name", namespace=3)

    @pytest.mark.differs_from_ray("Ray takes a text for a number too large")
    @pytest.mark.parametrize("timeout", ["1", [1]], ids=repr)
    def test_timeouts_of_the_wrong_type(self, timeout: object) -> None:
        ref = ray.put(1)
        with pytest.raises(TypeError):
            ray.get(ref, timeout=timeout)
        with pytest.raises(TypeError):
            ray.wait([ref], timeout=timeout)

    def test_negative_timeout_of_wait(self) -> None:
        with pytest.raises(ValueError, match="timeout"):
            ray.wait([ray.put(1)], timeout=-0.5)

    @pytest.mark.differs_from_ray("Ray takes a negative timeout of get for no timeout")
    def test_negative_timeout_of_get(self) -> None:
        with pytest.raises(ValueError, match="timeout"):
            ray.get(ray.put(1), timeout=-0.5)

    @pytest.mark.parametrize("count", ["1", None], ids=repr)
    def test_num_returns_of_wait(self, count: object) -> None:
        with pytest.raises((TypeError, ValueError)):
            ray.wait([ray.put(1), ray.put(2)], num_returns=count)

    def test_unknown_keywords(self) -> None:
        ref = ray.put(1)
        calls: list[Callable[[], object]] = [
            lambda: ray.get(ref, patience=1),
            lambda: ray.put(1, patience=1),
            lambda: ray.wait([ref], patience=1),
            lambda: ray.kill(ref, patience=1),
            lambda: ray.get_actor("name", patience=1),
            lambda: ray.nodes(patience=1),
            lambda: ray.cluster_resources(patience=1),
            lambda: ray.available_resources(patience=1),
            lambda: ray.shutdown(patience=1),
        ]
        for call in calls:
            with pytest.raises(TypeError, match="patience"):
                call()
        assert ray.get(ref) == 1


class TestActorOptions:
    pytestmark = pytest.mark.usefixtures("cluster")

    @pytest.mark.parametrize(
        "option, value",
        [
            ("max_restarts", -2),
            ("max_task_retries", -2),
            ("max_concurrency", -1),
            ("lifetime", "for ever"),
            ("num_cpus", -1),
            ("num_gpus", -0.5),
            ("resources", {"disk": -1}),
            ("resources", {"GPU": 1}),
            ("memory", -1),
            ("max_pending_calls", -2),
        ],
    )
    def test_out_of_range(self, option: str, value: object) -> None:
        with pytest.raises(ValueError):
            Actor.options(**{option: value}).remote()

    @pytest.mark.differs_from_ray("Ray starts an actor that will never run anything")
    def test_no_concurrency_at_all(self) -> None:
        with pytest.raises(ValueError, match="max_concurrency"):
            Actor.options(max_concurrency=0).remote()

    @pytest.mark.parametrize(
        "option, value",
        [
            ("max_restarts", "many"),
            ("max_concurrency", "all"),
            ("lifetime", 3),
            ("num_cpus", "two"),
            ("resources", [1]),
            ("name", 1.5),
            ("namespace", 3),
            ("get_if_exists", "yes"),
        ],
    )
    def test_wrong_type(self, option: str, value: object) -> None:
        options = {"name": "typed", option: value}
        with pytest.raises(TypeError):
            Actor.options(**options).remote()

    def test_nothing_is_left_of_a_refused_actor(self) -> None:
        with pytest.raises(ValueError):
            Actor.options(name="refused", max_restarts=-2).remote()
        with pytest.raises(ValueError, match="refused"):
            ray.get_actor("refused")
        actor = Actor.options(name="refused").remote()
        assert ray.get(actor.echo.remote(1)) == 1

    def test_an_unknown_option_of_a_method(self) -> None:
        actor = Actor.remote()
        with pytest.raises((TypeError, ValueError), match="num_of_returns"):
            actor.echo.options(num_of_returns=2).remote()
        assert ray.get(actor.echo.remote(1)) == 1


class TestResources:
    pytestmark = pytest.mark.usefixtures("cluster")

    def test_an_unknown_resource_waits_and_harms_nobody(self) -> None:
        never = echo.options(resources={"unobtainable": 0.5}).remote(1)
        assert ray.get(echo.remote(2)) == 2
        with pytest.raises(ray.exceptions.GetTimeoutError):
            ray.get(never, timeout=0.1)
        ray.cancel(never)

    def test_a_fraction_below_a_ten_thousandth_is_refused_or_rounded_up(self) -> None:
        try:
            ref = echo.options(num_cpus=0.00001).remote(1)
        except ValueError:
            return
        assert ray.get(ref) == 1


class NotPicklable:
    def __reduce__(self) -> Any:
        raise TypeError("this object refuses to be pickled")


class BreaksOnArrival:
    def __reduce__(self) -> Any:
        return _break_on_arrival, ()


def _break_on_arrival() -> None:
    raise RuntimeError("broken on arrival")


class TestValues:
    pytestmark = pytest.mark.usefixtures("cluster")

    @pytest.mark.parametrize("value", [threading.Lock(), NotPicklable(), (n for n in [1])], ids=["lock", "own", "gen"])
    def test_an_unpicklable_value_is_refused_in_the_caller(self, value: object, journal: Journal) -> None:
        @ray.remote
        def run(*values: object) -> None:
            journal.add("ran")

        with pytest.raises(TypeError):
            run.remote(value)
        with pytest.raises(TypeError):
            ray.put(value)
        actor = Actor.remote()
        with pytest.raises(TypeError):
            actor.echo.remote(value)
        assert ray.get(actor.echo.remote("alive")) == "alive"
        assert journal.lines() == []

    def test_an_unpicklable_result_is_a_task_error(self) -> None:
        @ray.remote
        def make() -> object:
            return threading.Lock()

        @ray.remote
        class Maker:
            def make(self) -> object:
                return threading.Lock()

            def answer(self) -> int:
                return 1

        with pytest.raises(TypeError, match="(?i)pickle|serializ") as caught:
            ray.get(make.remote())
        assert isinstance(caught.value, RayTaskError)
        maker = Maker.remote()
        with pytest.raises(TypeError, match="(?i)pickle|serializ"):
            ray.get(maker.make.remote())
        assert ray.get(maker.answer.remote()) == 1

    def test_one_unpicklable_value_of_several_fails_and_the_worker_lives(self) -> None:
        @ray.remote(num_returns=2)
        def make() -> tuple[object, object]:
            return 1, threading.Lock()

        refs = make.remote()
        with pytest.raises(TypeError):
            ray.get(refs[1])
        assert ray.get(echo.remote(3)) == 3

    def test_an_argument_that_breaks_on_arrival_is_a_task_error(self) -> None:
        for ref in (echo.remote(BreaksOnArrival()), echo.remote([BreaksOnArrival()])):
            with pytest.raises(RayError, match="broken on arrival"):
                ray.get(ref)
        assert ray.get(echo.remote(1)) == 1

    def test_a_value_that_breaks_on_arrival_breaks_get(self) -> None:
        ref = ray.put(BreaksOnArrival())
        with pytest.raises((RuntimeError, RayError), match="broken on arrival"):
            ray.get(ref)
        assert ray.get(echo.remote(1)) == 1

    def test_a_deep_recursion_is_an_error_of_its_task(self) -> None:
        @ray.remote
        def deep(number: int = 0) -> int:
            def down(number: int) -> int:
                return down(number + 1)

            return down(number)

        with pytest.raises(RecursionError):
            ray.get(deep.remote())

    def test_a_value_too_deep_to_pickle_is_refused_in_the_caller(self) -> None:
        nested: list[Any] = []
        for _ in range(100_000):
            nested = [nested]
        with pytest.raises((RecursionError, TypeError, pickle.PicklingError)):
            ray.put(nested)
        while nested:  # taken apart by hand: its destructor recurses, too
            nested = nested[0]
        assert ray.get(ray.put(1)) == 1


class TestOutsideOfASession:
    """Use after shutdown, refs and handles of a cluster that is gone, init with nonsense."""

    @pytest.fixture
    def start_again(self, start: Callable[..., Any]) -> Iterator[Callable[[], None]]:
        def again() -> None:
            ray.shutdown()
            start(num_cpus=1)

        start(num_cpus=1)
        yield again

    def test_a_ref_of_an_ended_cluster_is_refused(self, start_again: Callable[[], None]) -> None:
        ref = ray.put(1)
        unfinished = echo.remote(2)
        start_again()
        for foreign in (ref, unfinished):
            begin = time.monotonic()
            with pytest.raises((RayError, ValueError)):
                ray.get(foreign, timeout=PATIENCE)
            assert time.monotonic() - begin < PATIENCE, "refused, not waited for"

    @pytest.mark.differs_from_ray("Ray waits for ever")
    def test_a_ref_of_an_ended_cluster_is_refused_everywhere(self, start_again: Callable[[], None]) -> None:
        foreign = ray.put(1)
        start_again()
        actor = Actor.remote()
        calls: list[Callable[[], Any]] = [
            lambda: ray.wait([foreign]),
            lambda: ray.get(echo.remote(foreign)),
            lambda: ray.get(echo.remote([foreign])),
            lambda: ray.get(ray.put([foreign])),
            lambda: ray.get(actor.echo.remote(foreign)),
            lambda: ray.cancel(foreign),
        ]
        for call in calls:
            with pytest.raises((RayError, ValueError)):
                call()
        assert ray.get(echo.remote(1)) == 1

    def test_a_handle_of_an_ended_cluster_is_refused(self, start_again: Callable[[], None]) -> None:
        actor = Actor.remote()
        assert ray.get(actor.echo.remote(1)) == 1
        start_again()
        with pytest.raises((RayError, ValueError)):
            ray.kill(actor)

    @pytest.mark.differs_from_ray("Ray raises a bare Exception")
    def test_a_call_on_a_handle_of_an_ended_cluster_is_refused(self, start_again: Callable[[], None]) -> None:
        actor = Actor.remote()
        start_again()
        with pytest.raises((RayError, ValueError)):
            ray.get(actor.echo.remote(2), timeout=PATIENCE)

    def test_functions_and_classes_are_used_again_after_shutdown(self, start_again: Callable[[], None]) -> None:
        assert ray.get(echo.remote(1)) == 1
        start_again()
        assert ray.get(echo.remote(2)) == 2
        assert ray.get(Actor.remote().echo.remote(3)) == 3

    def test_information_after_shutdown_is_a_system_error(self, start_again: Callable[[], None]) -> None:
        ray.shutdown()
        for function in (ray.nodes, ray.cluster_resources, ray.available_resources):
            with pytest.raises((RaySystemError, RuntimeError), match="init"):
                function()

    def test_dropping_refs_after_shutdown_is_harmless(self, start_again: Callable[[], None]) -> None:
        refs = [ray.put(1), echo.remote(2)]
        actor = Actor.remote()
        ray.shutdown()
        refs.clear()
        del actor
        start_again()
        assert ray.get(echo.remote(3)) == 3

    @pytest.mark.parametrize(
        "options",
        [{"num_cpus": -1}, {"num_gpus": -1}, {"resources": {"disk": -1}}, {"object_store_memory": -5}],
        ids=lambda options: next(iter(options)),
    )
    def test_init_with_negative_numbers(self, options: dict[str, Any], no_cluster: None) -> None:
        with pytest.raises((ValueError, RayError)):
            ray.init("local", include_dashboard=False, **options)
        assert not ray.is_initialized()

    @pytest.mark.differs_from_ray("Ray finds out in a process it starts, or not at all")
    @pytest.mark.parametrize(
        "options",
        [
            {"num_cpus": "two"},
            {"num_gpus": []},
            {"resources": ["disk"]},
            {"resources": {"disk": "much"}},
            {"resources": {"CPU": 1}},
            {"object_store_memory": "1 GB"},
            {"namespace": 3},
            {"labels": ["a"]},
            {"address": 3},
            {"address": ""},
            {"address": "http://localhost"},
            {"address": "localhost:notaport"},
        ],
        ids=repr,
    )
    def test_init_with_nonsense(self, options: dict[str, Any], no_cluster: None) -> None:
        with pytest.raises((TypeError, ValueError)):
            ray.init(**{"address": "local", "include_dashboard": False, **options})
        assert not ray.is_initialized()

    @pytest.mark.differs_from_ray("Ray tries for minutes")
    def test_init_where_nobody_listens(self, no_cluster: None, tmp_path: Path) -> None:
        with pytest.raises((ConnectionError, RayError, RuntimeError, ValueError)):
            ray.init(address="127.0.0.1:9")
        assert not ray.is_initialized()

    @pytest.mark.differs_from_ray("addresses of redray")
    @pytest.mark.parametrize("address", ["redis://127.0.0.1:9", "unix:///nowhere/redis.sock", "rediss://127.0.0.1:9"])
    def test_init_where_no_redis_listens(self, address: str, no_cluster: None) -> None:
        with pytest.raises(ConnectionError) as caught:
            ray.init(address)
        assert not ray.is_initialized()
        message = str(caught.value)
        assert "127.0.0.1:9" in message or "/nowhere/redis.sock" in message
        assert "\n" not in message.strip(), "one sentence"


class TestClusterGone:
    def test_a_cluster_that_dies_is_an_error_and_no_hang(
        self, no_cluster: None, tmp_path: Path, signal: Signal
    ) -> None:
        owner = Driver(
            tmp_path,
            """
            import sys
            import redray as ray
            from tests.helpers import Signal
            context = ray.init("local", num_cpus=1, include_dashboard=False)
            print("address:", context.address_info["address"], "ready", flush=True)
            Signal(sys.argv[1]).wait()
            """,
            [signal.path],
        )
        guest = Driver(
            tmp_path,
            """
            import sys, time
            import redray as ray
            from redray.exceptions import RayError
            from tests.helpers import Signal
            ray.init(sys.argv[1])
            @ray.remote
            def work(signal):
                signal.wait()
            ref = work.remote(Signal(sys.argv[2]))
            print("connected", flush=True)
            try:
                ray.get(ref)
            except (RayError, ConnectionError) as error:
                print("error:", type(error).__name__, flush=True)
            """,
            [owner.wait_for_output("ready").partition("address:")[2].split()[0], signal.path],
            name="guest.py",
        )
        try:
            guest.wait_for_output("connected")
            owner.kill()
            wait_until(lambda: guest.process.poll() is not None, 2 * PATIENCE, "the guest to notice")
            assert "error:" in guest.output or guest.process.returncode != 0, guest.output
        finally:
            guest.kill()
            owner.kill()
