"""The part of the whole-state check that looks at placement groups."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from redray.gcs.schema import GroupState, ObjectState
from redray.gcs.snapshot import Record, Snapshot, words
from redray.resources import group_of


def _living(state: Snapshot) -> dict[str, Record]:
    return {id: record for id, record in state.hashes["group"].items() if record.get("state") != GroupState.REMOVED}


def _lists(state: Snapshot) -> Iterator[str]:
    """Every list that a group stands in says what the group says."""
    living = _living(state)
    removed = state.hashes["group"].keys() - living.keys()
    named = {f"{record['namespace']}/{record['name']}": id for id, record in living.items() if record.get("name")}
    yield from _differ("the list of groups", state.groups, set(living))
    yield from _differ("the list of removed groups", state.removed_groups, set(removed))
    yield from _differ("the table of names", set(state.group_names.items()), set(named.items()))
    ends = {(record["job"], id) for id, record in living.items() if record.get("detached") != "1"}
    yield from _differ("job_groups", _pairs(state, "job_groups"), ends)
    placed = {(node, id) for id, record in living.items() for node in words(record, "places") if node != "-"}
    yield from _differ("node_groups", _pairs(state, "node_groups"), placed)
    queues = {(group, name) for name in state.members["queue"] if (group := group_of(name.partition("|")[0]))}
    yield from _differ("group_queues", _pairs(state, "group_queues"), queues)
    for group, name in queues:
        if group not in living and f"group:{group}" not in state.chores:
            yield f"Queue {name} is of a placement group that is gone, and nobody will end its tasks."


def _pairs(state: Snapshot, family: str) -> set[tuple[str, str]]:
    return {(owner, id) for owner, ids in state.members[family].items() for id in ids}


def _differ(what: str, listed: set[str] | set[tuple[str, str]], said: set[str] | set[tuple[str, str]]) -> Iterator[str]:
    for each in sorted(map(str, listed ^ said)):
        yield f"Placement groups: {what} and the groups themselves disagree about {each}."


def _placing(state: Snapshot) -> Iterator[str]:
    """A group lacks bundles and waits for room, or was promised all and waits for grants, or has them."""
    for id, record in _living(state).items():
        places, awaited = words(record, "places"), words(record, "awaited")
        who = f"Placement group {id} ({record.get('state')})"
        if len(places) != len(msgspec.json.decode(record["bundles"])):
            yield f"{who} has {record['bundles']} in as many places as {places}."
        if ("-" in places) != (id in state.waiting_groups):
            listed = "listed" if id in state.waiting_groups else "not listed"
            yield f"{who} is at {places}, and is {listed} as waiting for room."
        if bool(awaited) != bool(words(record, "reserving")):
            yield f"{who} waits for {awaited} to grant bundles {record.get('reserving')}."
        if not set(awaited) <= set(places):
            yield f"{who} waits for {awaited} to grant bundles, but has them at {places}."
        if record.get("state") == GroupState.CREATED and (awaited or "-" in places):
            yield f"{who} is not complete."
        if record.get("state") != GroupState.CREATED and not awaited and "-" not in places:
            yield f"{who} has every bundle at {places}, and is not said to be complete."


def _waiters(state: Snapshot) -> Iterator[str]:
    """Whoever waits for a group will be told."""
    listed = _pairs(state, "group_waiters")
    pending = {
        (record["group"], id)
        for id, record in state.hashes["object"].items()
        if "group" in record and record.get("state") == ObjectState.PENDING
    }
    yield from _differ("group_waiters", listed, pending)
    for group, object in listed:
        undecided = state.hash("group", group).get("state") in (GroupState.PENDING, GroupState.RESCHEDULING)
        if not undecided and f"waiters:{group}" not in state.chores:
            yield f"Object {object} waits for the placement group {group}, and will never be told."


group_checks = (_lists, _placing, _waiters)
