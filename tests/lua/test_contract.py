"""What holds for every script: its header is its contract, and a call out of order changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from redray.gcs import actors, nodes, objects, packages, placement_groups, processes, streams, tasks
from redray.gcs.client import ReplyError
from redray.gcs.command import Command
from redray.gcs.schema import WORDS
from redray.gcs.scripts import load_scripts
from tests.lua.builders import (
    DRIVER,
    FUNCTION,
    LATER,
    NODE,
    NOW,
    OTHER,
    WORKER,
    Cluster,
    creation,
    finish,
    packed,
    put_id,
    returned,
    task_id,
    text,
)

SCRIPTS = load_scripts()
ENVELOPE = ["worker", "route", "number", "seen", "now"]
T, A = task_id(1), task_id(9)
RECORD = actors.ActorRecord("name", "space", "A", 0, 0, 0)
G = task_id(40)
GROUP = placement_groups.GroupRecord("", "space", "PACK", 0, ["CPU:1"])

# One call of every numbered script, by the process that makes it.
NUMBERED: dict[str, tuple[str, Command]] = {
    "task_submit": (DRIVER, tasks.submit("-", [packed(task_id(30))])),
    "task_claim": (NODE, tasks.claim("CPU:1", {}, 5)),
    "task_finish": (NODE, tasks.finish("CPU:1", {}, 5, [finish(T)])),
    "task_yield": (NODE, streams.publish([(streams.Yield(T, 1, 1, [(True, 1, [])]), [b"V"])])),
    "task_consume": (DRIVER, streams.consume(T, 1, 1)),
    "task_running": (NODE, tasks.running([T])),
    "task_cancel": (DRIVER, tasks.cancel([T], "recursive")),
    "task_refuse": (NODE, tasks.refuse(T, "no process is left")),
    "function_export": (DRIVER, tasks.export(FUNCTION, DRIVER, "f", b"pickle", [put_id(1)])),
    "package_open": (DRIVER, packages.begin("ab" * 20, DRIVER, 3)),
    "object_put": (DRIVER, objects.put(put_id(1), b"V", 1, "", [])),
    "object_wait": (DRIVER, objects.wait([returned(T)])),
    "object_hold": (DRIVER, objects.hold([returned(T)])),
    "object_release": (DRIVER, objects.release([returned(T)])),
    "object_located": (NODE, objects.located(True, [returned(T)])),
    "actor_create": (DRIVER, actors.create(creation(task_id(31)), RECORD, b"methods")),
    "actor_started": (NODE, actors.started(A, 1, WORKER)),
    "actor_died": (NODE, actors.died(A, 1, 0, "boom")),
    "actor_kill": (DRIVER, actors.kill(A, True, "killed")),
    "placement_group_create": (DRIVER, placement_groups.create(G, put_id(41), DRIVER, GROUP, b"Vgroup")),
    "placement_group_ready": (DRIVER, placement_groups.ready(G, put_id(42))),
    "placement_group_granted": (NODE, placement_groups.granted("CPU:1", [(G, 1, True)])),
    "placement_group_remove": (DRIVER, placement_groups.remove(G)),
}
# Scripts without a number may be repeated at will; they name their keys themselves.
FREE: dict[str, Callable[[Any], Command]] = {
    "process_open": lambda keys: processes.open(keys, OTHER, "direct", NOW, "driver", OTHER, 1, "space", b""),
    "process_end": lambda keys: processes.end(keys, DRIVER, "direct", NOW, False),
    "driver_reap": lambda keys: processes.reap_driver(keys, DRIVER, LATER),
    "node_register": lambda keys: nodes.register(keys, NODE, NOW, 1, {}),
    "node_reap": lambda keys: nodes.reap(keys, NODE, LATER, False),
    "lease_renew": lambda keys: nodes.renew(keys, f"node:{NODE}", NOW, "CPU:1"),
    "package_write": lambda keys: packages.write(keys, "ab" * 20, 0, b"abc"),
    "chore_do": lambda keys: nodes.do_chore(keys, NOW),
    "node_free": lambda keys: placement_groups.tell_free(keys, NODE, "CPU:1", "-"),
}
REFUSED_WITHOUT_MEMORY = {
    *("task_submit", "object_put", "actor_create", "function_export", "package_open"),
    *("placement_group_create", "placement_group_ready"),
}


def test_every_script_is_in_these_tables() -> None:
    assert set(SCRIPTS) == set(NUMBERED) | set(FREE)


@pytest.mark.parametrize("verb", sorted(NUMBERED))
def test_what_python_sends_is_what_the_header_names(verb: str) -> None:
    _, command = NUMBERED[verb]
    header = [parameter.name for parameter in SCRIPTS[verb].argv]
    assert command.verb == verb
    assert header[:5] == ENVELOPE
    assert [key.name for key in SCRIPTS[verb].keys] == ["channel"]
    assert_fits(verb, len(command.args) + 5)


@pytest.mark.parametrize("verb", sorted(FREE))
def test_scripts_without_a_number_name_keys_and_arguments(verb: str, bare: Cluster) -> None:
    command = FREE[verb](bare.keys)
    assert command.verb == verb
    assert len(command.keys) == len(SCRIPTS[verb].keys)
    assert_fits(verb, len(command.args))


def assert_fits(verb: str, count: int) -> None:
    argv = SCRIPTS[verb].argv
    if argv and argv[-1].type == "rest":
        assert count >= len(argv) - 1
    else:
        assert count == len(argv)


@pytest.mark.parametrize("verb", sorted(SCRIPTS))
def test_outcomes_are_words_of_the_schema(verb: str) -> None:
    assert set(SCRIPTS[verb].returns) <= set(WORDS.values())


@pytest.mark.parametrize("verb", sorted(NUMBERED))
def test_the_header_names_the_outcomes_of_every_numbered_call(verb: str) -> None:
    assert {"OK", "REPEAT", "GAP", "FENCED"} <= set(SCRIPTS[verb].returns)


@pytest.mark.parametrize("verb", sorted(NUMBERED))
def test_too_few_arguments_are_refused_before_anything_is_written(verb: str, cluster: Cluster) -> None:
    before = cluster.dump()
    with pytest.raises(ReplyError, match=f"{verb} takes"):
        cluster.send(verb, [cluster.keys.process(DRIVER)], [DRIVER, "direct", 1, ""])
    assert cluster.dump() == before


@pytest.mark.parametrize("verb", sorted(NUMBERED))
def test_a_call_ahead_of_its_turn_changes_nothing(verb: str, cluster: Cluster) -> None:
    process, command = NUMBERED[verb]
    before = cluster.dump()
    assert text(cluster.call(process, command, number=3)) == ["GAP", 0]
    assert cluster.dump() == before


@pytest.mark.parametrize("verb", sorted(NUMBERED))
def test_a_call_by_another_route_changes_nothing(verb: str, cluster: Cluster) -> None:
    process, command = NUMBERED[verb]
    cluster.routes[process] = "9" * 16
    before = cluster.dump()
    assert text(cluster.call(process, command)) == ["FENCED"]
    assert cluster.dump() == before


@pytest.mark.parametrize("verb", sorted(NUMBERED))
def test_a_call_of_an_unknown_process_changes_nothing(verb: str, cluster: Cluster) -> None:
    _, command = NUMBERED[verb]
    cluster.routes[OTHER] = "direct"
    before = cluster.dump()
    assert text(cluster.call(OTHER, command)) == ["FENCED"]
    assert cluster.dump() == before


@pytest.mark.parametrize("verb", sorted(NUMBERED))
def test_sent_twice_it_is_done_once(verb: str, cluster: Cluster) -> None:
    """In a cluster where every one of these calls has something to do."""
    cluster.create_actor(A)
    cluster.submit(packed(T), packed(task_id(2), waits_for=[returned(T)]))
    cluster.claim()
    process, command = NUMBERED[verb]
    cluster.call(process, command)
    before = cluster.dump()
    cluster.send_again()
    assert cluster.dump() == before


@pytest.mark.parametrize("verb", sorted(set(FREE) - {"chore_do"}))
def test_without_a_number_it_may_be_repeated(verb: str, cluster: Cluster) -> None:
    cluster.create_actor(A)
    cluster.submit(packed(T))
    cluster.claim()
    cluster.run(FREE[verb](cluster.keys))
    before = cluster.dump()
    cluster.send_again()
    assert cluster.dump() == before


@pytest.mark.parametrize("verb", sorted(SCRIPTS))
def test_what_frees_memory_works_without_memory(verb: str, cluster: Cluster) -> None:
    """Submissions are refused at maxmemory and write nothing; all that leads to freeing goes on."""
    cluster.create_actor(A)
    cluster.submit(packed(T))
    cluster.claim()
    before = cluster.dump()
    cluster.connection.call("CONFIG", "SET", "maxmemory", "1mb")
    try:
        if verb not in REFUSED_WITHOUT_MEMORY:
            send(cluster, verb)
        else:
            with pytest.raises(ReplyError, match="OOM|maxmemory"):
                send(cluster, verb)
            assert cluster.dump() == before
    finally:
        cluster.connection.call("CONFIG", "SET", "maxmemory", "0")


def send(cluster: Cluster, verb: str) -> Any:
    if verb in FREE:
        return cluster.run(FREE[verb](cluster.keys))
    process, command = NUMBERED[verb]
    return cluster.call(process, command, seen="1-1")


def test_a_lost_script_cache_is_invisible(cluster: Cluster) -> None:
    cluster.submit(packed(T))
    cluster.connection.call("SCRIPT", "FLUSH")
    assert cluster.claimed() == [T]


def test_the_inbox_is_trimmed_by_what_the_reader_has_seen(cluster: Cluster) -> None:
    cluster.wait(put_id(1))
    cluster.wait(put_id(2))
    (first, _), (second, _) = cluster.connection.call("XRANGE", cluster.keys.inbox(DRIVER), "-", "+")
    cluster.call(DRIVER, objects.wait([put_id(3)]), seen=second.decode())
    left = [id for id, _ in cluster.connection.call("XRANGE", cluster.keys.inbox(DRIVER), "-", "+")]
    assert first not in left
    assert left[0] == second
