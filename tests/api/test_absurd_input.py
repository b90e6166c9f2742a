"""Numbers, sizes and flags that cannot be meant: one typed error in one sentence, at the call; nothing is harmed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import redray as ray

pytestmark = pytest.mark.differs_from_ray("redray says at the call what Ray says later, or not at all")

HUGE = 10**40
NOT_SECONDS = ["1", [1], True, object(), 1 + 0j, b"1"]


@ray.remote
def echo(value: Any = None) -> Any:
    return value


@ray.remote
class Actor:
    def echo(self, value: Any = None) -> Any:
        return value


def one_sentence(error: BaseException) -> bool:
    return "\n" not in str(error) and len(str(error)) < 400


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("timeout", NOT_SECONDS, ids=repr)
def test_a_timeout_that_is_no_number(timeout: Any) -> None:
    ref = ray.put(1)
    calls: list[Callable[[], Any]] = [lambda: ray.get(ref, timeout=timeout), lambda: ray.wait([ref], timeout=timeout)]
    for call in calls:
        with pytest.raises(TypeError, match="timeout.*seconds") as caught:
            call()
        assert one_sentence(caught.value)
    assert ray.get(ref) == 1


@pytest.mark.usefixtures("cluster")
def test_timeouts_at_the_edge() -> None:
    ref = ray.put(1)
    for call in (lambda: ray.get(ref, timeout=math.nan), lambda: ray.wait([ref], timeout=math.nan)):
        with pytest.raises(ValueError, match="NaN"):
            call()
    with pytest.raises(ValueError, match="timeout"):
        ray.wait([ref], timeout=-math.inf)
    for timeout in (math.inf, 1e300, HUGE, 10**400):
        assert ray.get(echo.remote(1), timeout=timeout) == 1
        assert ray.wait([ref], timeout=timeout) == ([ref], [])


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    "option, value",
    [
        ("num_cpus", True),
        ("num_gpus", False),
        ("memory", True),
        ("resources", {"disk": True}),
        ("num_returns", True),
        ("max_retries", False),
        ("priority", True),
    ],
)
def test_a_bool_is_no_number(option: str, value: Any) -> None:
    with pytest.raises(TypeError, match=option):
        echo.options(**{option: value})


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    "option, value",
    [
        ("num_cpus", math.nan),
        ("num_cpus", math.inf),
        ("num_cpus", HUGE),
        ("memory", HUGE),
        ("resources", {"disk": math.nan}),
        ("resources", {"disk": HUGE}),
        ("num_returns", 10**9),
        ("max_retries", HUGE),
        ("priority", -HUGE),
        ("name", "\ud800"),
    ],
)
def test_a_number_or_text_beyond_all_measure(option: str, value: Any) -> None:
    with pytest.raises(ValueError) as caught:
        echo.options(**{option: value}).remote()
    assert one_sentence(caught.value)
    assert ray.get(echo.remote(7)) == 7


@pytest.mark.usefixtures("cluster")
def test_flags_that_are_texts() -> None:
    ref, actor = echo.remote(1), Actor.remote()
    for call, flag in (
        (lambda: ray.cancel(ref, force="no"), "force"),
        (lambda: ray.cancel(ref, recursive="no"), "recursive"),
        (lambda: ray.kill(actor, no_restart="no"), "no_restart"),
    ):
        with pytest.raises(TypeError, match=flag):
            call()
    assert ray.get([ref, actor.echo.remote(2)]) == [1, 2]


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("filename", [3, ["events.json"], 1.5], ids=repr)
def test_a_timeline_goes_to_a_path(filename: Any) -> None:
    with pytest.raises(TypeError, match="filename"):
        ray.timeline(filename)
    assert ray.get(echo.remote(1)) == 1


@pytest.mark.parametrize(
    "option, value, error",
    [
        ("object_store_memory", 10**15, ValueError),
        ("object_store_memory", -5, ValueError),
        ("object_store_memory", 0, ValueError),
        ("object_store_memory", "1G", TypeError),
        ("object_store_memory", True, TypeError),
        ("num_cpus", True, TypeError),
        ("num_cpus", math.nan, ValueError),
        ("num_cpus", HUGE, ValueError),
        ("num_gpus", 1.5, ValueError),
        ("resources", {"disk": "two"}, TypeError),
        ("resources", {"disk": True}, TypeError),
        ("local_mode", "no", TypeError),
        ("log_to_driver", "no", TypeError),
        ("include_dashboard", "no", TypeError),
        ("ignore_reinit_error", "no", TypeError),
        ("logging_level", "LOUD", ValueError),
        ("logging_level", [], TypeError),
        ("namespace", 3, TypeError),
        ("runtime_env", 3, TypeError),
    ],
)
def test_init_refuses_before_it_starts_anything(
    no_cluster: None, option: str, value: Any, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        ray.init("local", **{option: value})
    assert one_sentence(caught.value)
    assert not ray.is_initialized()
