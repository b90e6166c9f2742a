"""The whole-state check: everything in Redis must add up. `redray doctor` runs it, and scheduler tests at their end.

Read-only, and not atomic: of a cluster at work, believe what two audits in a row both find. At rest every finding is a
bug.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from redray import spec as specs
from redray.gcs.client import Connection
from redray.gcs.group_audit import group_checks
from redray.gcs.keys import Keys
from redray.gcs.schema import ActorState, JobState, NodeState, ObjectState, TaskState
from redray.gcs.snapshot import Record, Snapshot, words

_PLACED = (TaskState.CLAIMED, TaskState.RUNNING)
_UNFINISHED = (TaskState.WAITING, TaskState.QUEUED, *_PLACED)
_FINAL = (TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELLED, ObjectState.READY, ObjectState.LOST)
_AT_REST = frozenset(
    (
        "nodes leases tick idle sequence spread jobs cluster history node process inbox node_processes job"
        " job_functions fn job_packages package logs group removed_groups dead_nodes"
        " submission submission_log submissions"
    ).split()
)


def audit(connection: Connection, keys: Keys, at_rest: bool = False) -> list[str]:
    """One sentence for each thing that does not add up. `at_rest` also demands that no work, value or actor is left."""
    return judge(Snapshot(connection, keys), at_rest)


def judge(state: Snapshot, at_rest: bool = False) -> list[str]:
    findings = [sentence for check in CHECKS for sentence in check(state)]
    if at_rest:
        findings += [f"{family} {id or 'key'} is left over." for family, id in state.names if family not in _AT_REST]
    return sorted(set(findings))


# ---- the checks ----------------------------------------------------------------------------------------------------
def _known_keys(state: Snapshot) -> Iterator[str]:
    for name in state.unknown:
        yield f"Key {name} belongs to no family that this release knows."


def _places(state: Snapshot) -> Iterator[str]:
    """Every unfinished task is in exactly one place, the one that its state names; nothing else is in any."""
    places: dict[str, list[str]] = {}
    for family in ("queue", "node_tasks", "parked"):
        for owner, members in state.members[family].items():
            for task in members:
                places.setdefault(task, []).append(f"{family} {owner}")
    for task, found in places.items():
        if task not in state.hashes["task"]:
            yield f"Task {task} is in {', '.join(found)}, but has no record."
    for task, record in state.hashes["task"].items():
        expected = _expected_places(state, task, record)
        actual = places.get(task, [])
        if sorted(actual) != expected:
            where = " and ".join(actual) or "nowhere"
            right = " and ".join(expected) or "no list"
            yield f"Task {task} is {record.get('state')}: it belongs in {right}, but is in {where}."


def _expected_places(state: Snapshot, task: str, record: Record) -> list[str]:
    if record.get("state") in _PLACED:
        return [f"node_tasks {record.get('node')}"]
    head = state.heads.get(task)
    if record.get("state") != TaskState.QUEUED or head is None:
        return []
    if f"place:{task}" in state.chores:
        return []
    return [f"parked {head.actor}" if head.kind == specs.ACTOR_CALL else f"queue {record.get('queue') or _plain(head)}"]


def _plain(head: specs.TaskHead) -> str:
    return f"{head.demand}|{head.job}"


def _waiting(state: Snapshot) -> Iterator[str]:
    entries = Counter(task for members in state.members["dependents"].values() for task in set(members))
    for task, record in state.hashes["task"].items():
        unready = int(record.get("unready", 0))
        if (record.get("state") == TaskState.WAITING) != (unready > 0):
            yield f"Task {task} is {record.get('state')} with {unready} arguments that are not ready."
        if record.get("state") == TaskState.WAITING and entries[task] != unready:
            yield f"Task {task} waits for {unready} arguments, but {entries[task]} objects know that it does."
    for family in ("dependents", "watchers"):
        for id in state.ids(family):
            record = state.of_object(id)
            if not record:
                yield f"Object {id} is gone, but its {family} are still listed."
            elif record.get("state") in _FINAL and f"wake:{id}" not in state.chores:
                yield f"Object {id} is {record.get('state')}, but its {family} were not told."


def _specs(state: Snapshot) -> Iterator[str]:
    for task in state.heads:
        if task not in state.hashes["task"]:
            yield f"The spec of task {task} is kept, but the task has no record."
    for task, record in state.hashes["task"].items():
        living = state.hash("actor", task).get("state") not in (None, ActorState.DEAD)
        needed = record.get("state") in _UNFINISHED or "lineage" in record or living
        if needed != (task in state.heads):
            yield f"Task {task} is {record.get('state')} and its spec is {'missing' if needed else 'kept for nothing'}."
        if int(record.get("attempt", 0)) < 1 or int(record.get("retries", -2)) < -1:
            yield f"Task {task} has attempt {record.get('attempt')} and {record.get('retries')} retries left."


def _job_tasks(state: Snapshot) -> Iterator[str]:
    listed = {task: job for job, tasks in state.members["job_tasks"].items() for task in tasks}
    for task, job in listed.items():
        record = state.hash("task", task)
        if record.get("state") not in _UNFINISHED or record.get("job") != job:
            yield f"Task {task} is listed as unfinished in job {job}, but is {record.get('state', 'gone')}."
    for task, record in state.hashes["task"].items():
        running = state.hash("job", record.get("job", "")).get("state") == JobState.RUNNING
        if record.get("state") in _UNFINISHED and running and task not in listed:
            yield f"Task {task} is {record.get('state')}, but its job {record.get('job')} does not list it."


def _holders(state: Snapshot) -> dict[str, list[str]]:
    """Object id -> everything that counts on it."""
    found: dict[str, list[str]] = {}

    def count(ids: Iterable[str], holder: str) -> None:
        for id in ids:
            found.setdefault(id, []).append(holder)

    for process, ids in state.members["holds"].items():
        count(ids, f"process {process}")
    for task, head in state.heads.items():
        record = state.hash("task", task)
        pins = [*head.waits_for, *head.keeps]
        if head.kind == specs.ACTOR_CALL:
            pins.append(head.actor + "fffffffe")
        if "lineage" not in record:
            unpinned = set(words(record, "unpinned"))
            count((id for id in pins if id not in unpinned), f"task {task}")
    for task, record in state.hashes["task"].items():
        count(words(record, "lineage"), f"the lineage of {task}")
    for family in ("task", "object", "fn"):
        for id, record in state.hashes[family].items():
            count(words(record, "contains"), f"{family} {id}")
    for actor, record in state.hashes["actor"].items():
        if record.get("detached") == "1" and record.get("state") != ActorState.DEAD:
            count([actor + "fffffffe"], "the cluster")
    count((chore for chore in state.chore_list if ":" not in chore), "a chore")
    return found


def _references(state: Snapshot) -> Iterator[str]:
    holders = _holders(state)
    for id in holders:
        if not state.of_object(id):
            yield f"Object {id} is counted on by {', '.join(holders[id])}, but is gone."
    for id, record in _objects(state):
        held = holders.get(id, [])
        if int(record["refs"]) != len(held):
            yield f"Object {id} counts {record['refs']} references, but {len(held)} exist: {', '.join(held) or 'none'}."
        ended = _FINAL if not id.endswith("fffffffe") else (ActorState.DEAD,)
        if not held and record.get("state") in ended and not _is_creation(state, id):
            yield f"Object {id} is {record.get('state')} and nothing counts on it, but it was not freed."


def _objects(state: Snapshot) -> Iterator[tuple[str, Record]]:
    for index, family in (("00000000", "task"), ("", "object"), ("fffffffe", "actor")):
        for id, record in state.hashes[family].items():
            if "refs" in record:
                yield id + index, record


def _is_creation(state: Snapshot, id: str) -> bool:
    return state.hash("task", id[:24]).get("kind") == str(specs.ACTOR_CREATION) and id[:24] in state.heads


def _returns(state: Snapshot) -> Iterator[str]:
    siblings = Counter(id[:24] for id in state.hashes["object"] if id[24:] != "ffffffff")
    for task, record in state.hashes["task"].items():
        alive = siblings[task] + ("refs" in record)
        if int(record.get("alive", 1)) != max(alive, 1) or ("alive" not in record and siblings[task]):
            yield f"Task {task} says that {record.get('alive', 1)} of its values live, but {alive} do."
    for task in siblings.keys() - state.hashes["task"].keys():
        yield f"Values of task {task} live, but the task has no record."


def _streams(state: Snapshot) -> Iterator[str]:
    missing: Counter[str] = Counter()
    for id, record in state.hashes["object"].items():
        stream = state.hash("task", id[:24])
        if "items" in stream and id[24:] != "ffffffff":
            missing[id[:24]] += record.get("state") == ObjectState.PENDING
            if int(id[24:], 16) > int(stream["items"]):
                yield f"Object {id} is an item of a stream that says it has {stream['items']}."
    for task, record in state.hashes["task"].items():
        if int(record.get("missing", 0)) != missing[task]:
            yield f"Task {task} says that {record.get('missing')} of its items are missing, but {missing[task]} are."


def _locations(state: Snapshot) -> Iterator[str]:
    said = {(node, id) for id, record in _objects(state) for node in words(record, "at")}
    listed = {(node, id) for node, ids in state.members["node_objects"].items() for id in ids}
    for node, id in sorted(said ^ listed):
        if (node, id) in said:
            yield f"Object {id} says that node {node} has it, which the node's list does not."
        else:
            yield f"Node {node} lists object {id}, which does not say so."


def _queues(state: Snapshot) -> Iterator[str]:
    own = [name for names in state.members["node_queues"].values() for name in names]
    listed = state.queues | set(own)
    for node, names in state.members["node_queues"].items():
        if node not in state.nodes and f"node:{node}" not in state.leases and f"node:{node}" not in state.chores:
            yield f"Node {node} is gone, and {', '.join(names)} will wait for it for ever."
    for task, record in state.hashes["task"].items():
        if "queue" in record and record.get("state") != TaskState.QUEUED:
            yield f"Task {task} is {record.get('state')}, and says that it is in queue {record['queue']}."
    for name in sorted(listed ^ set(state.members["queue"])):
        if name in listed:
            yield f"Queue {name} has a turn, but is empty."
        else:
            yield f"Queue {name} has tasks, but no turn: nobody will ever look into it."


def _actors(state: Snapshot) -> Iterator[str]:
    living = {
        id: record for id, record in state.hashes["actor"].items() if record and record.get("state") != ActorState.DEAD
    }
    named = {f"{r.get('namespace')}/{r['name']}": id for id, r in living.items() if r.get("name")}
    for name in sorted(set(state.actor_names.items()) ^ set(named.items())):
        yield f"Actor {name[1]} and the table of names disagree about '{name[0]}'."
    yield from _lists_agree("job_actors", state, {(r["job"], id) for id, r in living.items()})
    alive = {(r["node"], id) for id, r in living.items() if r.get("state") == ActorState.ALIVE}
    yield from _lists_agree("node_actors", state, alive)
    for process, actors in state.members["created"].items():
        for actor in actors:
            if actor not in living:
                yield f"Process {process} is said to have created {actor}, which is dead."
    for family in ("callers", "parked"):
        for actor in state.ids(family):
            record = state.hash("actor", actor)
            if not record and f"parked:{actor}" not in state.chores:
                yield f"Actor {actor} is gone, but its {family} are still listed."
            elif family == "parked" and record.get("state") == ActorState.ALIVE:
                yield f"Actor {actor} is alive, but calls are parked for it."


def _lists_agree(family: str, state: Snapshot, said: set[tuple[str, str]]) -> Iterator[str]:
    listed = {(owner, id) for owner, ids in state.members[family].items() for id in ids}
    for owner, id in sorted(said ^ listed):
        word = "lacks" if (owner, id) in said else "wrongly has"
        yield f"{family} {owner} {word} {id}."


def _processes(state: Snapshot) -> Iterator[str]:
    known = state.hashes["process"]
    for family in ("holds", "inbox", "created"):
        for id in state.ids(family):
            if id not in known and f"process:{id}" not in state.chores:
                yield f"Process {id} is gone, but its {family} key is left."
    for id, record in known.items():
        if record.get("state") == "ENDED" and f"process:{id}" not in state.chores:
            yield f"Process {id} has ended, but nobody will release what it held."
        if record.get("kind") == "driver" and record.get("route") == "direct" and f"driver:{id}" not in state.leases:
            yield f"Driver {id} has neither a node nor a lease: nobody will notice its end."
    routes = {(r["route"], id) for id, r in known.items() if r.get("route", "direct") not in ("direct", "")}
    yield from _lists_agree("node_processes", state, routes)
    for member in sorted(state.leases):
        kind, _, id = member.partition(":")
        if id not in known:
            yield f"The {kind} {id} has a lease, but no channel."


def _nodes(state: Snapshot) -> Iterator[str]:
    for id, record in state.hashes["node"].items():
        lives = record.get("state") != NodeState.DEAD
        if lives != (id in state.nodes):
            yield f"Node {id} is {record.get('state')}, which the list of nodes denies."
        if lives and f"node:{id}" not in state.leases:
            yield f"Node {id} has no lease: nobody will notice its death."
        if not lives and f"node:{id}" not in state.leases and not state.has_time_to_live("node", id):
            yield f"Node {id} is dead, and its record will stay for ever."
    for id in sorted((state.nodes | state.idle) - state.hashes["node"].keys()):
        yield f"Node {id} is listed, but has no record."
    for id in sorted(state.nodes & state.dead_nodes):
        yield f"Node {id} is listed both as alive and as dead."
    for family in ("node_tasks", "node_objects", "node_actors", "node_processes", "node_groups"):
        for id in state.ids(family):
            if id not in state.nodes and f"node:{id}" not in state.leases:
                yield f"Node {id} is dead and taken apart, but its {family} are not empty."


def _jobs(state: Snapshot) -> Iterator[str]:
    for id, record in state.hashes["job"].items():
        running = record.get("state") == JobState.RUNNING
        if running and id not in state.jobs:
            yield f"Job {id} runs, but is not listed."
        if not running and id in state.jobs and f"job:{id}" not in state.chores:
            yield f"Job {id} has ended, but nobody will clean up after it."
        if id not in state.jobs and not state.has_time_to_live("job", id):
            yield f"Job {id} is over, and its record will stay for ever."
    for family in ("job_tasks", "job_actors", "job_functions", "job_packages", "job_groups", "logs"):
        for id in state.ids(family):
            if id not in state.jobs:
                yield f"Job {id} is over, but its {family} key is left."
    for family, sets in (("fn", "job_functions"), ("package", "job_packages")):
        users = Counter(id for used in state.members[sets].values() for id in used)
        for id in sorted(users.keys() | state.hashes[family].keys()):
            counted = state.hash(family, id).get("users", 0)
            if users[id] != int(counted):
                what = {"fn": "Function", "package": "Package"}[family]
                yield f"{what} {id} counts {counted} jobs that use it, but {users[id]} do."


_CHORES = "wake process job actor parked place node group waiters unread lost".split()


def _chores(state: Snapshot) -> Iterator[str]:
    for chore in sorted(state.chores):
        kind, colon, _ = chore.partition(":")
        if colon and kind not in _CHORES:
            yield f"Chore '{chore}' is of a kind that this release does not know."


CHECKS: tuple[Callable[[Snapshot], Iterator[str]], ...] = (
    _known_keys, _places, _waiting, _specs, _job_tasks, _references, _returns, _locations, _queues, _actors, _processes,
    _nodes, _jobs, _chores, _streams, *group_checks,
)  # fmt: skip
