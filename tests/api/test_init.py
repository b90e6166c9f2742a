"""init, shutdown and what happens without them: spec part 1 section 1, lines 63, 77, 94 and 95."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray.exceptions import ActorHandleNotFoundError, RaySystemError
from tests.helpers import Driver, Signal, is_alive, run_driver, wait_until

Start = Callable[..., Any]


@ray.remote
def pid() -> int:
    return os.getpid()


@ray.remote
class Actor:
    def pid(self) -> int:
        return os.getpid()


def test_094_init_twice_is_a_runtime_error(start: Start) -> None:
    start(num_cpus=1)
    with pytest.raises(RuntimeError, match="twice"):
        start(num_cpus=1)
    assert ray.get(pid.remote()) > 0, "the first session goes on"


def test_094_ignore_reinit_error_keeps_the_first_session(start: Start) -> None:
    start(num_cpus=1)
    ref = ray.put(1)
    start(num_cpus=3, ignore_reinit_error=True)
    assert ray.cluster_resources()["CPU"] == 1
    assert ray.get(ref) == 1


def test_094_shutdown_may_be_repeated_and_undone(start: Start) -> None:
    assert not ray.is_initialized()
    ray.shutdown()
    for cpus in (1, 2):
        start(num_cpus=cpus)
        assert ray.is_initialized()
        assert ray.cluster_resources()["CPU"] == cpus
        ray.shutdown()
        ray.shutdown()
        assert not ray.is_initialized()


def test_094_shutdown_ends_every_process_of_the_cluster(start: Start) -> None:
    start(num_cpus=2)
    actor = Actor.remote()
    pids = [ray.get(pid.remote()), ray.get(actor.pid.remote())]
    assert all(map(is_alive, pids))
    ray.shutdown()
    wait_until(lambda: not any(map(is_alive, pids)), what="the workers to end with their cluster")


def test_094_init_returns_a_context(start: Start) -> None:
    context = start(num_cpus=1)
    assert isinstance(context, Mapping)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Ray would rather have context.address_info
        assert context["address"] == context.address_info["address"]
    with context:
        assert ray.get(pid.remote()) > 0
    assert not ray.is_initialized(), "leaving the context shuts down"


def test_094_everything_but_the_address_is_a_keyword(no_cluster: None) -> None:
    with pytest.raises(TypeError):
        ray.init("local", 2)
    assert not ray.is_initialized()


@pytest.mark.parametrize("option", ["num_of_cpus", "redis_port"])
def test_094_an_unknown_option_is_a_runtime_error(option: str, no_cluster: None) -> None:
    with pytest.raises(RuntimeError, match=option):
        ray.init("local", **{option: 1})
    assert not ray.is_initialized()


def test_094_auto_finds_no_cluster(no_cluster: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("REDRAY_ADDRESS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # where a cluster started by hand would be noted down
    with pytest.raises(ConnectionError):
        ray.init("auto")
    assert not ray.is_initialized()


def auto_get() -> None:
    with pytest.raises(ValueError, match="list|ObjectRef"):
        ray.get(1)


def auto_wait() -> None:
    assert ray.wait([]) == ([], [])


def auto_get_actor() -> None:
    with pytest.raises(ValueError, match="nobody"):
        ray.get_actor("nobody")


AUTOMATIC: dict[str, Callable[[], Any]] = {
    "remote": lambda: ray.get(pid.remote()),
    "actor": lambda: ray.get(Actor.remote().pid.remote()),
    "put": lambda: ray.put(1),
    "wait": auto_wait,
    "get": auto_get,
    "get_actor": auto_get_actor,
}


@pytest.mark.parametrize("name", AUTOMATIC)
def test_094_these_start_a_cluster_by_themselves(name: str, no_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    AUTOMATIC[name]()
    assert ray.is_initialized()


@pytest.mark.parametrize("name", ["nodes", "cluster_resources", "available_resources"])
def test_094_these_need_an_init_before(name: str, no_cluster: None) -> None:
    with pytest.raises((RaySystemError, RuntimeError), match=r"init"):
        getattr(ray, name)()
    assert not ray.is_initialized()


def test_077_a_handle_of_an_ended_session_is_not_found(start: Start) -> None:
    start(num_cpus=1)
    actor = Actor.remote()
    ray.get(actor.pid.remote())
    ray.shutdown()
    start(num_cpus=1)
    with pytest.raises(ActorHandleNotFoundError):
        ray.kill(actor)


def test_063_a_default_actor_never_starts_without_a_cpu(start: Start) -> None:
    start(num_cpus=0)
    default = Actor.remote()
    answer = default.pid.remote()
    free = Actor.options(num_cpus=0).remote()
    assert ray.get(free.pid.remote()) > 0, "one that asks for none starts"
    assert ray.wait([answer], timeout=0.3) == ([], [answer])


OWNER = """
import sys
import redray as ray
from tests.helpers import Signal
context = ray.init("local", num_cpus=1, resources={"mine": 1}, include_dashboard=False)
print("address:", context.address_info["address"], flush=True)
Signal(sys.argv[1]).wait()
"""


@pytest.fixture
def foreign_address(tmp_path: Path, signal: Signal, no_cluster: None) -> Any:
    """The address of a cluster that another process started."""
    owner = Driver(tmp_path, OWNER, [signal.path], name="owner.py")
    try:
        output = owner.wait_for_output("address:")
        wait_until(lambda: "\n" in owner.output.partition("address:")[2], what="the whole line")
        output = owner.output
        yield output.partition("address:")[2].split()[0]
        ray.shutdown()
        signal.set()
        owner.finish()  # a second driver that came and went has done no harm
    finally:
        ray.shutdown()
        owner.kill()


def test_095_options_of_a_new_cluster_are_refused_for_a_running_one(foreign_address: str) -> None:
    for option in ({"num_cpus": 1}, {"num_gpus": 1}, {"resources": {"x": 1}}, {"object_store_memory": 10**8}):
        with pytest.raises(ValueError, match=next(iter(option))):
            ray.init(foreign_address, **option)
        assert not ray.is_initialized()
    with pytest.raises(ValueError, match="labels"):
        ray.init(foreign_address, labels={"zone": "a"})
    assert not ray.is_initialized()


def test_095_shutdown_of_a_second_driver_only_disconnects(foreign_address: str) -> None:
    for _ in range(2):
        ray.init(foreign_address)
        assert ray.cluster_resources()["mine"] == 1
        assert ray.get(pid.remote()) > 0
        ray.shutdown()


def test_095_the_address_comes_from_the_environment(foreign_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", foreign_address)
    ray.init()
    assert ray.cluster_resources()["mine"] == 1
    ray.shutdown()
    assert ray.get(pid.remote()) > 0, "init by itself uses it, too"
    assert ray.cluster_resources()["mine"] == 1


@pytest.mark.differs_from_ray("redray's own variable")
def test_095_redray_address_goes_before_ray_address(foreign_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDRAY_ADDRESS", foreign_address)
    monkeypatch.setenv("RAY_ADDRESS", "redis://127.0.0.1:1")
    ray.init()
    assert ray.cluster_resources()["mine"] == 1


def test_095_local_always_starts_a_new_cluster(foreign_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", foreign_address)
    ray.init("local", num_cpus=1, include_dashboard=False)
    assert "mine" not in ray.cluster_resources()


def test_094_a_program_without_shutdown_ends_by_itself(tmp_path: Path) -> None:
    output = run_driver(
        tmp_path,
        """
        import os
        import redray as ray
        ray.init("local", num_cpus=1, include_dashboard=False)
        @ray.remote
        def pid():
            return os.getpid()
        @ray.remote
        class Actor:
            def pid(self):
                return os.getpid()
        actor = Actor.remote()
        print("pids:", ray.get(pid.remote()), ray.get(actor.pid.remote()))
        """,
    )
    pids = [int(number) for number in output.partition("pids:")[2].split()[:2]]
    wait_until(lambda: not any(map(is_alive, pids)), what="the workers to end with their driver")


def test_094_a_killed_driver_takes_its_cluster_along(tmp_path: Path, signal: Signal) -> None:
    driver = Driver(
        tmp_path,
        """
        import os, sys
        import redray as ray
        from tests.helpers import Signal
        ray.init("local", num_cpus=1, include_dashboard=False)
        @ray.remote
        def work(signal):
            print("pid:", os.getpid(), flush=True)
            signal.wait()
        ray.get(work.remote(Signal(sys.argv[1])))
        """,
        [signal.path],
    )
    try:
        driver.wait_for_output("pid: ")
        worker = int(driver.output.partition("pid: ")[2].split()[0])
        assert is_alive(worker)
        driver.kill()
        wait_until(lambda: not is_alive(worker), what="the busy worker of the killed driver to end")
    finally:
        driver.kill()
