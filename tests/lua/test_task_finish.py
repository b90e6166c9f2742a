"""task_finish: one visible end per task, said by the node whose attempt it is."""

from __future__ import annotations

import pytest

from redray import spec as specs
from redray.gcs import tasks
from redray.gcs.actors import ActorRecord
from redray.gcs.client import ReplyError
from redray.gcs.schema import LIMITS, Outcome
from tests.lua.builders import (
    DRIVER,
    LARGE,
    NODE,
    NODE2,
    WORKER,
    Cluster,
    call,
    failure,
    finish,
    handle,
    packed,
    put_id,
    returned,
    task_id,
    text,
)

T1, T2, T3, ACTOR = task_id(1), task_id(2), task_id(3), task_id(100)


def start(cluster: Cluster, *packed_specs: bytes, node: str = NODE) -> None:
    cluster.submit(*packed_specs)
    cluster.claim(node)


def test_an_inline_return_without_its_value_is_refused(cluster: Cluster) -> None:
    start(cluster, packed(T1))
    end, _ = finish(T1)
    before = cluster.dump()
    with pytest.raises(ReplyError, match="lacks the value"):
        cluster.call(NODE, tasks.finish("-", {}, 0, [(end, [])]))
    assert cluster.dump() == before


def test_a_value_is_published_and_told_to_the_submitter(cluster: Cluster) -> None:
    start(cluster, packed(T1))
    assert cluster.finish(finish(T1, [b"Vhello"])) == [b"OK", [], [], []]
    assert cluster.task(T1)["state"] == "FINISHED"
    assert cluster.task(T1)["value"] == "Vhello"
    assert cluster.inbox(DRIVER) == [("value", returned(T1), "Vhello")]
    assert cluster.names() == {"task", "holds"}
    cluster.release(returned(T1))
    assert cluster.names() == set()


def test_a_value_too_large_for_the_inbox_is_announced(cluster: Cluster) -> None:
    start(cluster, packed(T1))
    cluster.finish(finish(T1, [b"V" * (LIMITS["INBOX_VALUE"] + 1)]))
    assert cluster.inbox(DRIVER) == [("fetch", returned(T1), "")]


def test_a_large_value_is_located_and_its_lineage_kept(cluster: Cluster) -> None:
    cluster.put(put_id(7))
    start(cluster, packed(T1, waits_for=[put_id(7)]))
    cluster.finish(finish(T1, [LARGE]))
    assert cluster.inbox(DRIVER)[-1] == ("located", returned(T1), f"1000000 {NODE}")
    assert cluster.members(cluster.keys.node_objects(NODE)) == {returned(T1)}
    assert cluster.task(T1)["lineage"] == put_id(7)
    cluster.release(put_id(7))
    assert cluster.object(put_id(7))["refs"] == "1"
    cluster.release(returned(T1))
    assert cluster.heard(NODE, "free") == [(returned(T1), "")]
    assert cluster.names() == set()


@pytest.mark.parametrize("released", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("large", [(), (0,), (2,), (0, 1, 2)])
def test_several_returns_go_one_by_one(cluster: Cluster, released: tuple[int, ...], large: tuple[int, ...]) -> None:
    """Whatever was released before the end and whatever after, nothing is left, in Redis or in shared memory."""
    cluster.put(put_id(7))
    start(cluster, packed(T1, num_returns=3, waits_for=[put_id(7)]))
    cluster.release(*(returned(T1, index) for index in released), put_id(7))
    cluster.finish(finish(T1, [LARGE if index in large else b"V" for index in range(3)]))
    for index in range(3):
        state = cluster.object(returned(T1, index)).get("state")
        if index in released:
            assert index == 0 or state is None
        else:
            assert state == ("FINISHED" if index == 0 else "READY")
    cluster.release(*(returned(T1, index) for index in range(3) if index not in released))
    assert cluster.names() == set()
    assert sorted(id for id, _ in cluster.heard(NODE, "free")) == [returned(T1, index) for index in large]


def test_the_first_of_several_returns_cannot_be_revived(cluster: Cluster) -> None:
    """Its record lives on for its siblings; counting a reference on it again would free them twice."""
    cluster.worker(WORKER)
    start(cluster, packed(T1, num_returns=2))
    cluster.finish(finish(T1, [b"Va", b"Vb"]))
    cluster.release(returned(T1))
    cluster.hold(returned(T1))
    cluster.wait(returned(T1))
    assert "ObjectLostError" in cluster.inbox(DRIVER)[-1][2]
    cluster.release(returned(T1), by=WORKER)
    assert cluster.object(returned(T1, 1))["value"] == "Vb"
    cluster.release(returned(T1, 1))
    assert cluster.names() == set()


@pytest.mark.parametrize("values", [[b"Vx"], [LARGE]])
def test_a_value_nobody_holds_is_freed_at_once(cluster: Cluster, values: list[bytes | None]) -> None:
    start(cluster, packed(T1))
    cluster.release(returned(T1))
    assert cluster.task(T1)["refs"] == "0"
    cluster.finish(finish(T1, values))
    assert cluster.names() == set()
    assert len(cluster.heard(NODE, "free")) == (values == [LARGE])


@pytest.mark.parametrize(
    "late",
    ["another attempt", "another node", "again"],
)
def test_a_finish_that_is_not_this_attempts_is_stale(cluster: Cluster, late: str) -> None:
    start(cluster, packed(T1))
    if late == "again":
        cluster.finish(finish(T1))
    before = cluster.task(T1)
    end = finish(T1, [b"Vlate"], attempt=2 if late == "another attempt" else 1)
    reply = cluster.finish(end, node=NODE2 if late == "another node" else NODE)
    assert text(reply[1]) == [T1]
    assert cluster.task(T1) == before


def test_a_finish_of_an_unknown_task_is_stale(cluster: Cluster) -> None:
    assert text(cluster.finish(finish(T3))[1]) == [T3]
    assert cluster.names() == set()


def test_what_waited_is_queued_when_its_last_argument_is_ready(cluster: Cluster) -> None:
    start(cluster, packed(T1), packed(T2), packed(T3, waits_for=[returned(T1), returned(T2)]))
    cluster.finish(finish(T1))
    assert cluster.task(T3)["unready"] == "1"
    cluster.finish(failure(T2, Outcome.ERROR))  # an error is a value, too: the task that needs it says so
    assert cluster.state(T3) == "QUEUED"
    assert "unready" not in cluster.task(T3)


def test_more_dependents_than_a_slice_are_woken_by_chores(cluster: Cluster) -> None:
    ids = [task_id(number) for number in range(10, 10 + 3 * LIMITS["SLICE"])]
    start(cluster, packed(T1))
    cluster.submit(*(packed(id, waits_for=[returned(T1)]) for id in ids))
    cluster.finish(finish(T1))
    assert {cluster.state(id) for id in ids} == {"QUEUED", "WAITING"}
    cluster.chores()
    assert {cluster.state(id) for id in ids} == {"QUEUED"}


def test_an_error_the_worker_packed_is_the_value(cluster: Cluster) -> None:
    start(cluster, packed(T1, num_returns=2))
    cluster.finish(finish(T1, [b"Eboom", b"Eboom"], outcome=Outcome.ERROR))
    assert (cluster.state(T1), cluster.object(returned(T1, 1))["state"]) == ("FAILED", "FAILED")
    assert cluster.inbox(DRIVER) == [("value", returned(T1), "Eboom"), ("value", returned(T1, 1), "Eboom")]


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.CRASHED])
def test_retries_are_counted_down_and_every_attempt_is_new(cluster: Cluster, outcome: str) -> None:
    start(cluster, packed(T1, max_retries=1))
    cluster.finish(failure(T1, outcome))
    assert {key: cluster.task(T1)[key] for key in ("state", "attempt", "retries", "node")} == {
        "state": "QUEUED",
        "attempt": "2",
        "retries": "0",
        "node": "",
    }
    assert cluster.members(cluster.keys.node_tasks(NODE)) == set()
    assert cluster.claim()[1][0][0] == 2
    assert text(cluster.finish(finish(T1))[1]) == [T1]  # the first attempt's word comes too late
    cluster.finish(failure(T1, outcome, attempt=2, detail="again"))
    assert cluster.state(T1) == "FAILED"
    assert "again" in str(cluster.inbox(DRIVER))


def test_retries_without_end(cluster: Cluster) -> None:
    start(cluster, packed(T1, max_retries=-1))
    for attempt in (1, 2, 3):
        cluster.finish(failure(T1, Outcome.CRASHED, attempt=attempt))
        cluster.claim()
    assert (cluster.task(T1)["attempt"], cluster.task(T1)["retries"]) == ("4", "-1")


def test_an_error_after_the_last_retry_is_the_value(cluster: Cluster) -> None:
    start(cluster, packed(T1, max_retries=0))
    cluster.finish(finish(T1, [b"Elast"], outcome=Outcome.RETRY))
    assert (cluster.state(T1), cluster.task(T1)["value"]) == ("FAILED", "Elast")


def test_a_task_handed_back_has_used_no_attempt(cluster: Cluster) -> None:
    start(cluster, packed(T1, max_retries=0), packed(T2))
    cluster.finish(failure(T1, Outcome.HANDED_BACK))
    assert (cluster.state(T1), cluster.task(T1)["attempt"], cluster.task(T1)["retries"]) == ("QUEUED", "1", "0")
    assert cluster.claimed(NODE2) == [T1]


@pytest.mark.parametrize(
    ("outcome", "state", "error"),
    [
        (Outcome.CRASHED, "FAILED", "WorkerCrashedError"),
        (Outcome.CANCELLED, "CANCELLED", "TaskCancelledError"),
        (Outcome.ERROR, "FAILED", "RaySystemError"),
    ],
)
def test_an_end_without_values_is_an_error_for_every_return(
    cluster: Cluster, outcome: str, state: str, error: str
) -> None:
    start(cluster, packed(T1, num_returns=2, max_retries=0))
    cluster.finish(failure(T1, outcome, detail="because"))
    assert cluster.state(T1) == state
    assert cluster.object(returned(T1, 1))["state"] == "FAILED"
    assert [error in data and "because" in data for _, _, data in cluster.inbox(DRIVER)] == [True, True]
    cluster.release(returned(T1), returned(T1, 1))
    assert cluster.names() == set()


@pytest.mark.parametrize("outcome", [Outcome.RETRY, Outcome.CRASHED, Outcome.HANDED_BACK])
def test_nothing_runs_again_for_a_job_that_has_ended(cluster: Cluster, outcome: str) -> None:
    start(cluster, packed(T1))
    cluster.end(DRIVER)
    cluster.chores()
    cluster.finish(failure(T1, outcome))
    assert cluster.names() == set()


def test_refs_inside_a_value_live_by_it(cluster: Cluster) -> None:
    cluster.worker(WORKER)
    cluster.put(put_id(5, WORKER), by=WORKER)
    start(cluster, packed(T1))
    cluster.finish(finish(T1, contains={0: [put_id(5, WORKER)]}))
    cluster.release(put_id(5, WORKER), by=WORKER)
    assert cluster.object(put_id(5, WORKER))["refs"] == "1"
    cluster.release(returned(T1))
    assert cluster.names() == set()


def test_a_ref_inside_a_value_that_was_gone_before_is_not_let_go_of_later(cluster: Cluster) -> None:
    start(cluster, packed(T1))
    cluster.finish(finish(T1, contains={0: [put_id(5)]}))
    cluster.put(put_id(5))
    cluster.release(returned(T1))
    assert cluster.object(put_id(5))["refs"] == "1"


def test_refs_the_worker_keeps_outlive_the_arguments_pin(cluster: Cluster) -> None:
    cluster.worker(WORKER)
    cluster.put(put_id(7))
    start(cluster, packed(T1, keeps=[put_id(7)]))
    cluster.release(put_id(7))
    cluster.finish(finish(T1, borrower=WORKER, kept=[put_id(7)]))
    assert cluster.members(cluster.keys.holds(WORKER)) == {put_id(7)}
    cluster.release(put_id(7), by=WORKER)
    assert cluster.object(put_id(7)) == {}


def test_a_worker_that_has_ended_keeps_nothing(cluster: Cluster) -> None:
    cluster.worker(WORKER)
    cluster.put(put_id(7))
    start(cluster, packed(T1, keeps=[put_id(7)]))
    cluster.release(put_id(7))
    cluster.end(WORKER)
    cluster.finish(finish(T1, borrower=WORKER, kept=[put_id(7)]))
    cluster.chores()
    assert cluster.object(put_id(7)) == {}


def test_the_same_call_hands_out_what_it_made_ready(cluster: Cluster) -> None:
    start(cluster, packed(T1), packed(T2, waits_for=[returned(T1)]))
    reply = cluster.finish(finish(T1), limit=3, free="CPU:1")
    assert [specs.unpack_head(item[1]).task for item in reply[2]] == [T2]
    assert cluster.members(cluster.keys.node_tasks(NODE)) == {T2}


def test_a_long_batch(cluster: Cluster) -> None:
    ids = [task_id(number) for number in range(1, 1201)]
    for first in (0, 400, 800):
        cluster.submit(*(packed(id) for id in ids[first : first + 400]))
        cluster.claim(free="CPU:500", limit=500)
    cluster.finish(*(finish(id) for id in ids))
    cluster.release(*(returned(id) for id in ids))
    cluster.chores()
    assert cluster.names() == set()


# ---- calls of actors -------------------------------------------------------------------------------------------------
def living_actor(cluster: Cluster, **record: int) -> None:
    cluster.create_actor(ACTOR, record=ActorRecord("", "space", "A", 0, record.get("max_restarts", 0), 0))
    cluster.claim()
    cluster.start_actor(ACTOR)


def test_a_call_lets_go_of_its_actor_when_it_ends(cluster: Cluster) -> None:
    living_actor(cluster)
    cluster.submit(call(T1, ACTOR, 1))
    assert cluster.object(handle(ACTOR))["refs"] == "2"
    cluster.finish(finish(T1))
    assert cluster.object(handle(ACTOR))["refs"] == "1"


def test_a_call_handed_back_by_the_actors_own_node_stays_with_it(cluster: Cluster) -> None:
    living_actor(cluster)
    cluster.submit(call(T1, ACTOR, 1))
    cluster.finish(failure(T1, Outcome.HANDED_BACK))
    assert cluster.state(T1) == "CLAIMED"
    assert cluster.members(cluster.keys.node_tasks(NODE)) == {T1}
    assert len(cluster.heard(NODE, "call")) == 2


def test_calls_of_a_restarting_actor_are_parked_in_their_order(cluster: Cluster) -> None:
    living_actor(cluster, max_restarts=1)
    cluster.submit(*(call(task_id(n), ACTOR, n) for n in (1, 2, 3, 4)))
    cluster.actor_died(ACTOR)
    cluster.submit(call(task_id(5), ACTOR, 5, max_retries=1))
    cluster.finish(*(failure(task_id(n), Outcome.HANDED_BACK) for n in (2, 4, 1, 3)))
    assert cluster.claimed(NODE2) == [ACTOR]
    reply = cluster.start_actor(ACTOR, NODE2, attempt=2)
    assert [specs.unpack_head(item[1]).task for item in reply[1]] == [task_id(n) for n in (1, 2, 3, 4, 5)]


def test_a_call_that_died_with_its_actor_says_so(cluster: Cluster) -> None:
    living_actor(cluster)
    cluster.submit(call(T1, ACTOR, 1))
    cluster.actor_died(ACTOR, cause="segfault")
    cluster.finish(failure(T1, Outcome.CRASHED))
    assert "ActorDiedError" in cluster.inbox(DRIVER)[-1][2]
    assert "segfault" in cluster.inbox(DRIVER)[-1][2]


def test_a_call_whose_actor_restarts_is_unavailable(cluster: Cluster) -> None:
    living_actor(cluster, max_restarts=1)
    cluster.submit(call(T1, ACTOR, 1))
    cluster.actor_died(ACTOR)
    cluster.finish(failure(T1, Outcome.CRASHED))
    assert "ActorUnavailableError" in cluster.inbox(DRIVER)[-1][2]


def test_a_call_with_retries_is_made_again(cluster: Cluster) -> None:
    living_actor(cluster, max_restarts=1)
    cluster.submit(call(T1, ACTOR, 1, max_retries=1))
    cluster.actor_died(ACTOR)
    cluster.finish(failure(T1, Outcome.CRASHED))
    assert (cluster.state(T1), cluster.task(T1)["attempt"]) == ("QUEUED", "2")
    cluster.claim()
    assert cluster.start_actor(ACTOR, attempt=2)[1][0][0] == 2
    cluster.finish(finish(T1, attempt=2))
    assert cluster.task(T1)["value"] == "Vx"
