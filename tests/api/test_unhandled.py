"""Errors that nobody fetches: spec line 24."""

from __future__ import annotations

import gc
import logging
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray.exceptions import WorkerCrashedError
from tests.helpers import Journal, Signal, run_driver, wait_until

pytestmark = pytest.mark.usefixtures("cluster")

REPORT = "Unhandled error"


@ray.remote(max_retries=0)
def fail(text: str, signal: Signal | None = None) -> None:
    if signal is not None:
        signal.wait()
    raise ValueError(text)


@ray.remote
def echo(value: Any) -> Any:
    return value


def reports(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if REPORT in record.getMessage()]


def reported(caplog: pytest.LogCaptureFixture, text: str) -> None:
    wait_until(lambda: any(text in line for line in reports(caplog)), what=f"a report about {text}")


def nothing_but_the_last(caplog: pytest.LogCaptureFixture) -> None:
    """What was dropped before is reported before: once this one is, nothing more is to come."""
    ref = fail.remote("the last one")
    ray.wait([ref])
    del ref
    reported(caplog, "the last one")
    assert len(reports(caplog)) == 1, reports(caplog)


def test_024_an_error_that_is_never_fetched_is_logged_when_its_ref_goes(caplog: pytest.LogCaptureFixture) -> None:
    ref = fail.remote("not fetched")
    ray.wait([ref])
    assert reports(caplog) == [], "nothing is said while somebody may still fetch it"
    del ref
    reported(caplog, "not fetched")
    (report,) = reports(caplog)
    assert "ValueError: not fetched" in report and "fail()" in report and "IGNORE_UNHANDLED_ERRORS=1" in report
    assert caplog.records[-1].levelno == logging.ERROR


def test_024_the_error_of_a_call_whose_ref_is_not_kept_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    fail.remote("fire and forget")
    reported(caplog, "fire and forget")


def test_024_a_ref_dropped_before_the_task_fails(caplog: pytest.LogCaptureFixture, signal: Signal) -> None:
    ref = fail.remote("afterwards", signal)
    del ref
    ray.get(echo.remote(1))
    assert reports(caplog) == []
    signal.set()
    reported(caplog, "afterwards")


def test_024_a_crash_that_nobody_asks_about_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    @ray.remote(max_retries=0)
    def crash() -> None:
        import os

        os._exit(7)

    ref = crash.remote()
    ray.wait([ref])
    del ref
    reported(caplog, "exited with code 7")


@pytest.mark.parametrize("how", ["get", "get of a list", "future", "argument", "inside an argument", "stored"])
def test_024_an_error_that_was_seen_or_passed_on_is_not_logged(caplog: pytest.LogCaptureFixture, how: str) -> None:
    ref: Any = fail.remote("seen elsewhere")
    kept: list[Any] = []
    if how == "get":
        with pytest.raises(ValueError):
            ray.get(ref)
    elif how == "get of a list":
        with pytest.raises(ValueError):
            ray.get([ref, fail.remote("its neighbour")])
    elif how == "future":
        assert isinstance(ref.future().exception(timeout=30), ValueError)
    elif how == "argument":
        with pytest.raises(ValueError):
            ray.get(echo.remote(ref))
    elif how == "inside an argument":
        ray.get(echo.remote([ref]))
    elif how == "stored":
        kept.append(ray.put([ref]))
    ray.wait([ref])
    del ref
    gc.collect()
    nothing_but_the_last(caplog)


@pytest.mark.parametrize(
    "name",
    [
        "RAY_IGNORE_UNHANDLED_ERRORS",
        pytest.param("REDRAY_IGNORE_UNHANDLED_ERRORS", marks=pytest.mark.differs_from_ray("redray's own spelling")),
        None,
    ],
)
def test_024_the_environment_suppresses_it(tmp_path: Path, name: str | None) -> None:
    output = run_driver(
        tmp_path,
        f"""
        import os
        os.environ.update({dict.fromkeys([name], "1") if name else {}})
        import redray as ray
        @ray.remote
        def fail():
            raise ValueError("on its own")
        ray.init("local", num_cpus=1, include_dashboard=False)
        ref = fail.remote()
        ray.wait([ref])
        del ref
        ray.get(ray.put(1))
        ray.shutdown()
        """,
    )
    assert (REPORT in output) is (name is None), output


def test_024_a_cancelled_task_is_no_unhandled_error(caplog: pytest.LogCaptureFixture, signal: Signal) -> None:
    ref = fail.remote("never", signal)
    ray.cancel(ref)
    ray.wait([ref])
    del ref
    signal.set()
    nothing_but_the_last(caplog)


def test_024_a_retried_task_that_succeeds_says_nothing(caplog: pytest.LogCaptureFixture, journal: Journal) -> None:
    @ray.remote(max_retries=3)
    def crash_once() -> int:
        attempt = journal.add("attempt")
        if attempt == 1:
            import os

            os._exit(1)
        return attempt

    try:
        assert ray.get(crash_once.remote()) == 2
    except WorkerCrashedError:
        raise AssertionError("it was to be retried") from None
    nothing_but_the_last(caplog)
