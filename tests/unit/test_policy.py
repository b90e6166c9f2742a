"""How far ahead a worker may be given work."""

from __future__ import annotations

import pytest

from redray.worker.policy import AHEAD_US, MOST_AHEAD, ONE_AHEAD_US, RunTimes


def measured(*run_us: int) -> RunTimes:
    times = RunTimes()
    for us in run_us:
        times.record("f", us)
    return times


def test_one_at_a_time_until_measured() -> None:
    assert RunTimes().ahead("f") == 1
    assert measured(10).ahead("another") == 1


@pytest.mark.parametrize(
    ("run_us", "ahead"),
    [(0, MOST_AHEAD), (1, MOST_AHEAD), (1_000, AHEAD_US // 1_000), (AHEAD_US, 1), (AHEAD_US + 1, 1), (10**9, 1)],
)
def test_about_so_much_work(run_us: int, ahead: int) -> None:
    assert measured(run_us).ahead("f") == ahead


def test_one_slow_run_is_believed_at_once() -> None:
    assert measured(10, 10, 10_000).ahead("f") == 1


def test_short_again_only_after_many() -> None:
    assert measured(100_000, 10).ahead("f") == 1
    assert measured(100_000, *[10] * 100).ahead("f") == MOST_AHEAD


def test_settles_at_what_is_measured() -> None:
    """Rounding must not hold it above the truth for ever."""
    assert measured(1_000, *[3] * 200).ahead("f") == MOST_AHEAD


@pytest.mark.parametrize(
    ("run_us", "ahead"), [((AHEAD_US,), 2), ((ONE_AHEAD_US,), 2), ((ONE_AHEAD_US + 1,), 1), ((1_000, 1_000, 20_000), 2)]
)
def test_where_work_is_plenty_one_waits_behind_what_is_short_on_average(run_us: tuple[int, ...], ahead: int) -> None:
    assert measured(*run_us).ahead("f", is_plenty=True) == ahead


def test_one_at_a_time_until_measured_even_where_work_is_plenty() -> None:
    assert RunTimes().ahead("f", is_plenty=True) == 1
