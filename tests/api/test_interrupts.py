"""Ctrl-C at any moment is only a KeyboardInterrupt: what was submitted comes, and the session goes on."""

from __future__ import annotations

import math
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import redray as ray

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.differs_from_ray("an interrupt never lands in the middle of the bookkeeping"),
    # What Python says of an interrupt that it swallows, in a `__del__` or in the callback that hypothesis gives `gc`.
    pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"),
]
ROUNDS = 12
PATIENCE_S = 30
PRESS_AGAIN_S = 0.5


@ray.remote
def echo(value: Any) -> Any:
    return value


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def call(self, value: Any) -> Any:
        self.calls += 1
        return value


@pytest.fixture
def interrupt_soon() -> Iterator[Callable[[], object]]:
    """Call it, and SIGINT comes a few milliseconds later."""
    seeded = random.Random(7)
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    yield lambda: signal.setitimer(signal.ITIMER_REAL, seeded.uniform(0.002, 0.03))
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def repeat_until_interrupted(step: Callable[[], object], interrupt_soon: Callable[[], object]) -> None:
    """Python swallows an interrupt that lands in a `__del__`: as a person would, press again after a while."""
    with pytest.raises(KeyboardInterrupt):
        pressed = -math.inf
        while True:
            if time.monotonic() - pressed > PRESS_AGAIN_S:
                interrupt_soon()
                pressed = time.monotonic()
            step()


def add(made: list[Any], make: Callable[[int], Any]) -> None:
    made.append(make(len(made)))


def test_interrupted_submissions_all_come(interrupt_soon: Callable[[], object]) -> None:
    for _ in range(ROUNDS):
        made: list[Any] = []
        repeat_until_interrupted(partial(add, made, lambda number: echo.remote(number)), interrupt_soon)
        assert ray.get(made, timeout=PATIENCE_S) == list(range(len(made)))


def test_interrupted_calls_of_an_actor_all_come(interrupt_soon: Callable[[], object]) -> None:
    counter: Any = ray.remote(Counter).remote()
    for _ in range(ROUNDS):
        made: list[Any] = []
        repeat_until_interrupted(partial(add, made, lambda number: counter.call.remote(number)), interrupt_soon)
        assert ray.get(made, timeout=PATIENCE_S) == list(range(len(made)))


def test_after_interrupted_gets_the_next_one_answers(interrupt_soon: Callable[[], object]) -> None:
    for number in range(ROUNDS):
        repeat_until_interrupted(lambda: ray.get(echo.remote(1)), interrupt_soon)
        assert ray.get(echo.remote(number), timeout=PATIENCE_S) == number


@pytest.mark.parametrize("size", [10, 200_000])
def test_interrupted_puts_leave_readable_values(size: int, interrupt_soon: Callable[[], object]) -> None:
    for _ in range(ROUNDS):
        made: list[Any] = []
        repeat_until_interrupted(partial(add, made, lambda _: ray.put(b"x" * size)), interrupt_soon)
        assert all(len(value) == size for value in ray.get(made, timeout=PATIENCE_S))
