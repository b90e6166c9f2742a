"""Whose call may go to the actor next: property tests of the order that callers see."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from redray.spec import unpack_head
from redray.worker.hosted_actors import Caller, HostedActor
from redray.worker.workers import Attempt
from tests.unit.bench import DRIVER, OTHER, call, creation


def attempt_of(packed: bytes, number: int = 1) -> Attempt:
    return Attempt(packed, unpack_head(packed), number, {})


def hosted(**options: object) -> HostedActor:
    return HostedActor(attempt_of(creation(1, **options)), "w")


def numbered(*sequences: int, maker: str = DRIVER) -> list[Attempt]:
    return [attempt_of(call(sequence, sequence, maker=maker)) for sequence in sequences]


def sequences(calls: list[Attempt]) -> list[int]:
    return [attempt.head.sequence for attempt in calls]


@given(some.lists(some.tuples(some.booleans(), some.integers(0, 2)), max_size=12))
def test_a_caller_sees_its_order_whatever_way_calls_take(steps: list[tuple[bool, int]]) -> None:
    """A short-way call is here at once, one through Redis later; each step says which, and how many arrive."""
    actor = hosted()
    caller = actor.caller(DRIVER)
    started: list[Attempt] = []
    on_their_way: list[Attempt] = []
    for attempt, (is_short, arriving) in zip(numbered(*range(1, len(steps) + 1)), steps, strict=True):
        if is_short:
            caller.line_up_local(attempt)
        else:
            on_their_way.append(attempt)
        for late in on_their_way[:arriving]:
            caller.line_up(late)
        del on_their_way[:arriving]
        started += list(actor.sendable(lambda attempt: True))
    for late in on_their_way:
        caller.line_up(late)
    started += list(actor.sendable(lambda attempt: True))
    assert sequences(started) == list(range(1, len(steps) + 1))
    assert actor.is_quiet()


def test_an_unready_call_holds_back_its_caller_only() -> None:
    actor = hosted()
    mine, theirs = numbered(1, 2), numbered(1, 2, maker=OTHER)
    for attempt in mine:
        actor.caller(DRIVER).line_up(attempt)
    for attempt in theirs:
        actor.caller(OTHER).line_up(attempt)
    assert list(actor.sendable(lambda attempt: attempt is not mine[0])) == theirs
    assert list(actor.sendable(lambda attempt: True)) == mine


def test_what_was_sent_before_is_not_waited_for() -> None:
    caller = Caller(7)
    caller.line_up_local(*numbered(8))
    assert sequences(list(caller.line)) == [8]


def test_a_retried_call_does_not_turn_the_count_back() -> None:
    caller = Caller(7)
    caller.line_up(*numbered(3))
    caller.line_up_local(*numbered(8))
    assert sequences(list(caller.line)) == [3, 8]


def test_coming_alive_puts_each_caller_in_order() -> None:
    actor = hosted()
    for attempt in numbered(4, 2, 3):
        actor.caller(DRIVER).line_up(attempt)
    actor.come_alive()
    assert sequences(list(actor.sendable(lambda attempt: True))) == [2, 3, 4]


def test_draining_takes_everything_in_order() -> None:
    actor = hosted()
    caller = actor.caller(DRIVER)
    caller.line_up_local(*numbered(1))
    for sequence in (5, 3):
        caller.line_up_local(*numbered(sequence))
    assert not actor.is_quiet()
    assert sequences(actor.drain()) == [1, 3, 5]
    assert actor.is_quiet()


def test_without_order_a_ready_call_passes_and_callers_still_take_turns() -> None:
    actor = hosted(out_of_order=True)
    mine, theirs = numbered(1, 2, 3), numbered(1, 2, maker=OTHER)
    for attempt in mine:
        actor.caller(DRIVER).line_up(attempt)
    for attempt in theirs:
        actor.caller(OTHER).line_up(attempt)
    assert actor.serial and not actor.ordered
    assert list(actor.sendable(lambda attempt: attempt is not mine[0])) == [mine[1], theirs[0], mine[2], theirs[1]]
    assert list(actor.sendable(lambda attempt: True)) == [mine[0]]


def test_ordered_unless_it_runs_several_at_once() -> None:
    assert hosted().ordered
    assert hosted(max_concurrency=1).ordered
    assert not hosted(max_concurrency=2).ordered
    assert not hosted(is_async=True).ordered
    assert not hosted(concurrency_groups={"io": 2}).ordered
