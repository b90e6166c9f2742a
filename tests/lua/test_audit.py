"""The whole-state check: says nothing of a cluster in order, and names every thing that was put out of order."""

from __future__ import annotations

from typing import Any

import pytest

from redray.gcs import packages, tasks
from redray.gcs.actors import ActorRecord
from redray.gcs.audit import audit
from tests.lua.builders import (
    DRIVER,
    FUNCTION,
    LARGE,
    NODE,
    NODE2,
    WORKER,
    Cluster,
    call,
    finish,
    handle,
    packed,
    put_id,
    returned,
    task_id,
)

QUEUED, RUNNING, WAITING, STORED, SEVERAL = (task_id(number) for number in range(1, 6))
ALIVE, PENDING, PARKED = task_id(10), task_id(11), task_id(12)
INNER, OUTER = put_id(20), put_id(21)


@pytest.fixture
def busy(cluster: Cluster) -> Cluster:
    """One of everything."""
    cluster.worker(WORKER)
    cluster.call(DRIVER, tasks.export(FUNCTION, DRIVER, "f", b"pickle", []))
    cluster.call(DRIVER, packages.begin("ab" * 20, DRIVER, 3))
    cluster.put(INNER)
    cluster.put(OUTER, node=NODE, contains=[INNER])
    cluster.submit(packed(STORED, keeps=[INNER]), packed(SEVERAL, num_returns=2))
    cluster.create_actor(ALIVE, record=ActorRecord("name", "space", "A", 0, 0, 0))
    cluster.claim()
    cluster.finish(finish(STORED, [LARGE]), finish(SEVERAL, [b"V", b"V"]))
    cluster.start_actor(ALIVE)
    cluster.submit(packed(RUNNING))
    cluster.claim()
    cluster.create_actor(PENDING, demand="GPU:1")
    cluster.submit(
        packed(QUEUED, demand="GPU:1"), packed(WAITING, waits_for=[returned(RUNNING)]), call(PARKED, PENDING, 1)
    )
    return cluster


def test_a_cluster_in_order_has_no_findings(busy: Cluster) -> None:
    assert audit(busy.connection, busy.keys) == []


def test_at_rest_nothing_may_be_left(busy: Cluster) -> None:
    findings = audit(busy.connection, busy.keys, at_rest=True)
    for family, id in (("task", QUEUED), ("object", OUTER), ("actor", ALIVE), ("queue", ""), ("holds", DRIVER)):
        assert any(finding.startswith(f"{family} {id}") for finding in findings), family
    busy.end(DRIVER)
    busy.chores()
    busy.finish(finish(RUNNING))
    busy.end(WORKER)
    busy.chores()
    assert audit(busy.connection, busy.keys, at_rest=True) == []


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("SET", "tsak:1", "x"), "belongs to no family"),
        (("ZREM", f"queue:GPU:1|{DRIVER}", QUEUED), "is in nowhere"),
        (("SADD", f"node_tasks:{NODE2}", RUNNING), "belongs in node_tasks"),
        (("SADD", f"node_tasks:{NODE2}", STORED), "is FINISHED: it belongs in no list"),
        (("SADD", f"node_tasks:{NODE2}", task_id(99)), "has no record"),
        (("HSET", f"task:{RUNNING}", "node", NODE2), f"belongs in node_tasks {NODE2}"),
        (("HINCRBY", f"task:{WAITING}", "unready", 1), "waits for 2 arguments, but 1 objects know"),
        (("HSET", f"task:{WAITING}", "state", "QUEUED"), "QUEUED with 1 arguments"),
        (("DEL", f"dependents:{returned(RUNNING)}"), "0 objects know that it does"),
        (("SADD", f"watchers:{INNER}", WORKER), "its watchers were not told"),
        (("SADD", f"watchers:{put_id(99)}", WORKER), "its watchers are still listed"),
        (("DEL", f"spec:{QUEUED}"), "its spec is missing"),
        (("SET", f"spec:{task_id(99)}", packed(task_id(99))), "the task has no record"),
        (("HSET", f"task:{QUEUED}", "retries", -2), "-2 retries left"),
        (("SREM", f"job_tasks:{DRIVER}", RUNNING), "does not list it"),
        (("SADD", f"job_tasks:{DRIVER}", STORED), "listed as unfinished in job"),
        (("HINCRBY", f"object:{INNER}", "refs", 1), "counts 4 references, but 3 exist"),
        (("HINCRBY", f"actor:{PENDING}", "refs", -1), "counts 1 references, but 2 exist"),
        (("SREM", f"holds:{DRIVER}", OUTER), "counts 1 references, but 0 exist: none"),
        (("DEL", f"object:{INNER}"), f"Object {INNER} is counted on by"),
        (("SADD", f"holds:{WORKER}", put_id(99)), "is counted on by process"),
        (("HSET", f"object:{put_id(99)}", "state", "READY", "refs", 0), "it was not freed"),
        (("HINCRBY", f"task:{SEVERAL}", "alive", 1), "says that 3 of its values live, but 2 do"),
        (("SREM", f"node_objects:{NODE}", OUTER), "which the node's list does not"),
        (("SADD", f"node_objects:{NODE2}", OUTER), "which does not say so"),
        (("ZADD", "queues", 0, f"CPU:9|{DRIVER}"), "has a turn, but is empty"),
        (("ZREM", "queues", f"GPU:1|{DRIVER}"), "nobody will ever look into it"),
        (("HDEL", "actor_names", "space/name"), "disagree about 'space/name'"),
        (("SADD", f"job_actors:{DRIVER}", task_id(99)), "job_actors"),
        (("SREM", f"node_actors:{NODE}", ALIVE), f"node_actors {NODE} lacks {ALIVE}"),
        (("HSET", f"callers:{task_id(99)}", DRIVER, 1), "its callers are still listed"),
        (("SET", f"inbox:{'9' * 16}", "x"), "its inbox key is left"),
        (("HSET", f"process:{WORKER}", "state", "ENDED"), "nobody will release what it held"),
        (("ZREM", "leases", f"driver:{DRIVER}"), "nobody will notice its end"),
        (("ZREM", "leases", f"node:{NODE}"), "nobody will notice its death"),
        (("SREM", "nodes", NODE), "which the list of nodes denies"),
        (("HSET", "idle", "9" * 16, "CPU:1"), "is listed, but has no record"),
        (("SREM", f"node_processes:{NODE}", WORKER), f"lacks {WORKER}"),
        (("SREM", "jobs", DRIVER), "runs, but is not listed"),
        (("HSET", f"job:{DRIVER}", "state", "ENDED"), "nobody will clean up after it"),
        (("HINCRBY", f"function:{FUNCTION}", "users", 1), "counts 2 jobs that use it, but 1 do"),
        (("HINCRBY", f"package:{'ab' * 20}", "users", 1), "Package abab"),
        (("SREM", f"job_packages:{DRIVER}", "ab" * 20), "counts 1 jobs that use it, but 0 do"),
        (("RPUSH", "chores", "sing:1"), "is of a kind"),
    ],
)
def test_whatever_is_out_of_order_is_named(busy: Cluster, command: tuple[Any, ...], sentence: str) -> None:
    busy.audited = False
    busy.connection.call(command[0], busy.keys.prefix + command[1], *command[2:])
    findings = audit(busy.connection, busy.keys)
    assert any(sentence in finding for finding in findings), findings


def test_it_only_reads(busy: Cluster) -> None:
    before = busy.dump()
    audit(busy.connection, busy.keys, at_rest=True)
    assert busy.dump() == before


def test_the_holders_of_an_actor_are_its_handles_and_calls(busy: Cluster) -> None:
    assert busy.object(handle(PENDING))["refs"] == "2"
