"""task_yield and task_consume: items of a stream are published once, for the reader, by the attempt that runs."""

from __future__ import annotations

import pytest

from redray.gcs import streams
from redray.gcs.client import ReplyError
from redray.gcs.schema import LIMITS, Outcome
from redray.gcs.streams import GONE
from tests.lua.builders import (
    DRIVER,
    LARGE,
    NODE,
    NODE2,
    OTHER,
    WORKER,
    Cluster,
    failure,
    finish,
    items,
    packed,
    put_id,
    returned,
    task_id,
)

T = task_id(1)
END = returned(T)


def item(index: int) -> str:
    return returned(T, index)


def start(cluster: Cluster, node: str = NODE, **head: object) -> None:
    cluster.submit(packed(T, num_returns=-1, **head))
    assert cluster.claimed(node) == [T]


def publish(cluster: Cluster, first: int, *values: bytes | None, attempt: int = 1, node: str = NODE) -> list[int]:
    reply = cluster.call(node, streams.publish([items(T, first, values, attempt=attempt)]))
    assert reply[0] == b"OK"
    (answer,) = reply[1]
    return list(answer)


def consume(cluster: Cluster, taken: int, heard: int = 0, by: str = DRIVER) -> None:
    assert cluster.call(by, streams.consume(T, taken, heard)) == [b"OK"]


def test_items_are_published_held_and_told_in_order(cluster: Cluster) -> None:
    start(cluster)
    assert publish(cluster, 1, b"Vone", LARGE) == [2, 0, 0]
    assert publish(cluster, 3, b"Vthree") == [3, 0, 0]
    assert cluster.inbox(DRIVER) == [
        ("value", item(1), "Vone"),
        ("located", item(2), f"1000000 {NODE}"),
        ("value", item(3), "Vthree"),
    ]
    assert cluster.members(cluster.keys.holds(DRIVER)) == {END, item(1), item(2), item(3)}
    assert cluster.task(T)["items"] == "3"
    cluster.finish(finish(T, [b"Vnone"]))
    assert cluster.inbox(DRIVER)[-1] == ("value", END, "Vnone")
    cluster.release(END, item(1), item(2), item(3))
    assert cluster.names() == set()


def test_without_items_it_only_asks(cluster: Cluster) -> None:
    start(cluster)
    assert publish(cluster, 1) == [0, 0, 0]
    publish(cluster, 1, b"Vone")
    consume(cluster, 1)
    assert publish(cluster, 1) == [1, 1, 0]


@pytest.mark.parametrize("how", ["attempt", "node", "ended", "other kind"])
def test_items_of_somebody_else_are_stale(cluster: Cluster, how: str) -> None:
    start(cluster)
    task, attempt, node = T, 1, NODE
    if how == "attempt":
        attempt = 2
    elif how == "node":
        node = NODE2
    elif how == "ended":
        cluster.finish(finish(T, [b"Vnone"]))
    else:
        task = task_id(2)
        cluster.submit(packed(task))
        cluster.claim(NODE)
    before = cluster.dump(but_inboxes=True)
    reply = cluster.call(node, streams.publish([items(task, 1, [b"Vlate", LARGE], attempt=attempt)]))
    assert reply == [b"OK", [[-1]]]
    after = cluster.dump(but_inboxes=True)
    key = cluster.keys.process(node)
    assert {k: v for k, v in after.items() if k != key} == {k: v for k, v in before.items() if k != key}


def test_an_inline_item_without_its_value_is_refused(cluster: Cluster) -> None:
    start(cluster)
    published, _ = items(T, 1, [b"Vone"])
    before = cluster.dump()
    with pytest.raises(ReplyError, match="lacks the value"):
        cluster.call(NODE, streams.publish([(published, [])]))
    assert cluster.dump() == before


def test_a_repeated_call_gets_the_same_answer(cluster: Cluster) -> None:
    start(cluster)
    cluster.call(NODE, streams.publish([items(T, 1, [b"Vone"])]))
    before = cluster.dump()
    assert cluster.send_again() == [b"OK", [[1, 0, 0]]]
    assert cluster.dump() == before


def test_a_later_attempt_passes_over_what_was_published(cluster: Cluster) -> None:
    start(cluster)
    publish(cluster, 1, b"Vone", b"Vtwo")
    cluster.release(item(1))
    cluster.finish(failure(T, Outcome.CRASHED))
    cluster.claim(NODE2)
    assert publish(cluster, 1, attempt=2, node=NODE2) == [2, 0, 0]
    heard = len(cluster.inbox(DRIVER))
    assert publish(cluster, 1, b"Vagain", LARGE, b"Vthree", attempt=2, node=NODE2) == [3, 0, 0]
    assert cluster.inbox(DRIVER)[heard:] == [("value", item(3), "Vthree")]
    assert cluster.object(item(1)) == {}
    assert cluster.object(item(2))["value"] == "Vtwo"
    assert cluster.heard(NODE2, "free") == [(item(2), "")], "its bytes are wanted no more"


def test_an_error_of_the_body_is_an_item_and_the_end_is_none(cluster: Cluster) -> None:
    start(cluster)
    publish(cluster, 1, b"Vone")
    cluster.finish(finish(T, [b"Vnone", b"Eboom"], outcome=Outcome.ERROR))
    assert cluster.task(T)["state"] == "FAILED"
    assert cluster.inbox(DRIVER)[-2:] == [("value", item(2), "Eboom"), ("value", END, "Vnone")]


def test_an_error_that_is_retried_is_no_item(cluster: Cluster) -> None:
    start(cluster)
    cluster.finish(finish(T, [b"Vnone", b"Eboom"], outcome=Outcome.RETRY))
    assert cluster.state(T) == "QUEUED"
    assert cluster.inbox(DRIVER) == []


@pytest.mark.parametrize("outcome", [Outcome.CRASHED, Outcome.CANCELLED])
def test_a_lost_attempt_is_the_error_of_the_end(cluster: Cluster, outcome: str) -> None:
    start(cluster, max_retries=0)
    publish(cluster, 1, b"Vone")
    cluster.finish(failure(T, outcome))
    kind, id, error = cluster.inbox(DRIVER)[-1]
    assert (kind, id) == ("value", END) and error.startswith("S")
    assert cluster.object(item(1))["value"] == "Vone"


def test_refs_inside_an_item_live_with_it(cluster: Cluster) -> None:
    cluster.put(put_id(7))
    start(cluster)
    cluster.call(NODE, streams.publish([items(T, 1, [b"Vbox"], contains=[put_id(7)])]))
    cluster.release(put_id(7))
    assert cluster.object(put_id(7))["refs"] == "1"
    cluster.release(item(1))
    assert cluster.object(put_id(7)) == {}


# ---- the reader ------------------------------------------------------------------------------------------------------
def test_what_the_reader_has_taken_is_told_to_the_node(cluster: Cluster) -> None:
    start(cluster)
    publish(cluster, 1, b"Vone")
    consume(cluster, 1)
    assert cluster.heard(NODE, "taken") == [(T, "1")]
    assert publish(cluster, 2, b"Vtwo") == [2, 1, 0]


def test_only_the_reader_is_listened_to(cluster: Cluster) -> None:
    cluster.driver(OTHER)
    start(cluster)
    consume(cluster, 5, by=OTHER)
    consume(cluster, GONE, by=OTHER)
    assert publish(cluster, 1, b"Vone") == [1, 0, 0]
    assert cluster.heard(NODE, "taken") == []


def test_a_closed_stream_takes_no_items(cluster: Cluster) -> None:
    start(cluster)
    publish(cluster, 1, b"Vone")
    consume(cluster, GONE, heard=1)
    assert cluster.heard(NODE, "taken") == [(T, str(GONE))]
    assert publish(cluster, 2, b"Vtwo", LARGE) == [1, GONE, 0]
    assert cluster.heard(NODE, "free") == [(item(3), "")]
    cluster.release(END, item(1))
    cluster.finish(finish(T, [b"Vnone"]))
    assert cluster.names() == set()


def test_items_that_a_closed_stream_had_not_told_of_are_freed_in_slices(cluster: Cluster) -> None:
    start(cluster)
    count = 2 * LIMITS["SLICE"] + 7
    for first in range(1, count + 1, 100):
        publish(cluster, first, *[b"Vx"] * min(100, count + 1 - first))
    consume(cluster, GONE, heard=3)
    cluster.chores()
    assert cluster.members(cluster.keys.holds(DRIVER)) == {END, item(1), item(2), item(3)}
    cluster.release(END, item(1), item(2), item(3))
    cluster.finish(finish(T, [b"Vnone"]))
    assert cluster.names() == set()


def test_a_reader_that_has_ended_gets_nothing_more(cluster: Cluster) -> None:
    worker = cluster.worker(WORKER)
    task = task_id(5, worker)
    cluster.submit(packed(task, num_returns=-1, job=DRIVER), by=worker)
    cluster.claim(NODE)
    cluster.end(worker)
    reply = cluster.call(NODE, streams.publish([items(task, 1, [b"Vone"])]))
    assert reply == [b"OK", [[0, GONE, 0]]]
    cluster.chores()
    cluster.finish(finish(task, [b"Vnone"]))
    assert cluster.names() == set()


def test_a_reader_that_lagged_learns_how_many_there_are(cluster: Cluster) -> None:
    start(cluster)
    publish(cluster, 1, b"Vone", b"Vtwo")
    cluster.wait(END)
    assert cluster.heard(DRIVER, "items") == [(END, "2")]


# ---- items that are lost ---------------------------------------------------------------------------------------------
def lose_first_item(cluster: Cluster) -> None:
    """An item lies on a node that dies after its stream has ended: the task runs again, on the other node."""
    start(cluster)
    publish(cluster, 1, LARGE, b"Vtwo")
    cluster.finish(finish(T, [b"Vnone"]))
    cluster.reap(NODE)
    assert cluster.state(T) == "QUEUED"
    cluster.claim(NODE2)


def test_a_lost_item_is_brought_by_another_attempt(cluster: Cluster) -> None:
    lose_first_item(cluster)
    assert publish(cluster, 1, attempt=2, node=NODE2) == [2, GONE, 1]
    assert publish(cluster, 1, b"Vnew", b"Vold", b"Vmore", attempt=2, node=NODE2) == [2, GONE, 0]
    cluster.finish(finish(T, [b"Vnone"], attempt=2), node=NODE2)
    assert cluster.object(item(1))["value"] == "Vnew"
    assert cluster.object(item(2))["value"] == "Vtwo"
    assert cluster.object(item(3)) == {}


def test_an_item_that_the_attempt_does_not_bring_is_given_up(cluster: Cluster) -> None:
    lose_first_item(cluster)
    publish(cluster, 1, attempt=2, node=NODE2)
    cluster.finish(finish(T, [b"Vnone"], attempt=2), node=NODE2)
    cluster.chores()
    assert cluster.object(item(1))["state"] == "LOST"
    assert cluster.task(T)["missing"] == "0"


def test_a_task_that_passed_a_lost_item_over_runs_once_more(cluster: Cluster) -> None:
    start(cluster)
    publish(cluster, 1, LARGE)
    cluster.finish(failure(T, Outcome.CRASHED))
    cluster.claim(NODE2)
    assert publish(cluster, 1, attempt=2, node=NODE2) == [1, 0, 0]
    cluster.reap(NODE)  # only now: the second attempt does not send the first item
    assert publish(cluster, 2, b"Vtwo", attempt=2, node=NODE2) == [2, 0, 1]
    cluster.finish(finish(T, [b"Vnone"], attempt=2), node=NODE2)
    assert cluster.state(T) == "QUEUED"
    cluster.claim(NODE2)
    assert publish(cluster, 1, attempt=3, node=NODE2) == [2, 0, 1]
    publish(cluster, 1, b"Vone", b"Vtwo", attempt=3, node=NODE2)
    cluster.finish(finish(T, [b"Vnone"], attempt=3), node=NODE2)
    assert cluster.state(T) == "FINISHED"
    assert cluster.inbox(DRIVER)[-2:] == [("value", item(1), "Vone"), ("value", END, "Vnone")]


def test_without_retries_it_ends_and_the_lost_item_is_given_up(cluster: Cluster) -> None:
    start(cluster, max_retries=1)
    publish(cluster, 1, LARGE)
    cluster.finish(failure(T, Outcome.CRASHED))
    cluster.claim(NODE2)
    publish(cluster, 1, attempt=2, node=NODE2)
    cluster.reap(NODE)
    cluster.finish(finish(T, [b"Vnone"], attempt=2), node=NODE2)
    assert cluster.state(T) == "FINISHED"
    cluster.chores()
    assert cluster.object(item(1))["state"] == "LOST"
