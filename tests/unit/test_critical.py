"""SIGINT inside a shield waits for its end."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Iterator

import pytest

from redray import critical


@pytest.fixture(autouse=True)
def guarded() -> Iterator[None]:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    critical.guard()
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_an_interrupt_waits_for_the_end_of_the_shield() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), critical.shield:
        signal.raise_signal(signal.SIGINT)
        done = True
    assert done


def test_an_interrupt_waits_for_the_outermost_shield() -> None:
    lock = critical.CriticalLock()
    done = False
    with pytest.raises(KeyboardInterrupt), critical.shield:
        with lock, lock:
            signal.raise_signal(signal.SIGINT)
        done = True
    assert done


def test_a_second_interrupt_does_not_wait() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), critical.shield:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done = True
    assert not done


def test_a_second_interrupt_on_the_way_into_a_shield_waits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raised there, nobody would count that shield's end, and the session would be deaf to Ctrl-C from then on."""
    lock = critical.CriticalLock()
    monkeypatch.setattr(lock, "_lock", InterruptedLock)
    done = False
    with pytest.raises(KeyboardInterrupt), critical.shield:
        signal.raise_signal(signal.SIGINT)
        with lock:
            done = True
    assert done
    with pytest.raises(KeyboardInterrupt), critical.shield:
        signal.raise_signal(signal.SIGINT)


class InterruptedLock:
    acquire = functools.partial(signal.raise_signal, signal.SIGINT)  # in C, as a lock is

    @staticmethod
    def release() -> None: ...


def test_after_an_interrupt_the_lock_is_free() -> None:
    lock = critical.CriticalLock()
    with pytest.raises(KeyboardInterrupt), lock:
        signal.raise_signal(signal.SIGINT)
    took = threading.Event()

    def take() -> None:
        with lock:
            took.set()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join(10)
    assert took.is_set()


def test_outside_of_a_shield_an_interrupt_is_what_it_was() -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_handler_that_somebody_else_set_is_asked() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: heard.append(number))
    critical.guard()
    with critical.shield:
        signal.raise_signal(signal.SIGINT)
        assert heard == []
    assert heard == [signal.SIGINT]


def test_the_handler_is_given_back() -> None:
    critical.unguard()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_that_took_the_place_is_left_there() -> None:
    def mine(_number: int, _frame: object) -> None: ...

    signal.signal(signal.SIGINT, mine)
    critical.unguard()
    assert signal.getsignal(signal.SIGINT) is mine


def test_other_threads_are_not_shielded_and_set_no_handler() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=critical.guard)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
