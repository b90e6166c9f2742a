"""Every Redis key of a cluster, spelt once. Rendered into the Lua scripts: `keys.task(id)` there is `Keys.task(id)`
here.

All keys of a cluster carry its hash tag, so that one cluster lives in one slot of a Redis Cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

DEFAULT_TAG = "redray"

FAMILIES: dict[str, str] = {
    # family          prefix             type, content, who deletes it
    "task": "task:",  # hash: a task and its first return value; freed with its last reference
    "object": "object:",  # hash: a value put, or a further return value; freed with its last reference
    "spec": "spec:",  # string: a task's packed spec; deleted when the task ends, or with the values it could recompute
    "dependents": "dependents:",  # list: tasks waiting for an object; deleted when it is ready
    "watchers": "watchers:",  # set: processes waiting for an object; deleted when it is ready
    "queue": "queue:",  # zset: ready tasks of one demand, place and job; empty = gone
    "process": "process:",  # hash: channel of a driver, worker or node: last call number, route; deleted by process_end
    "holds": "holds:",  # set: object ids a process holds; emptied by process_end
    "inbox": "inbox:",  # stream: what a process must hear; trimmed by its acknowledgements, deleted by process_end
    "node": "node:",  # hash: a node; deleted when it leaves, kept an hour when it died
    "node_queues": "node_queues:",  # zset: names of the queues that only this node may serve -> their turn
    "node_tasks": "node_tasks:",  # set: tasks claimed by a node
    "node_actors": "node_actors:",  # set: actors living on a node
    "node_objects": "node_objects:",  # set: objects with a copy in a node's shared memory
    "node_processes": "node_processes:",  # set: drivers and workers a node answers for
    "job": "job:",  # hash: a job; expires an hour after its end
    "job_tasks": "job_tasks:",  # set: unfinished tasks of a job
    "job_actors": "job_actors:",  # set: actors of a job that are not dead
    "job_functions": "job_functions:",  # set: functions a job exported
    "fn": "function:",  # hash: a pickled function or class; deleted with its last user
    "job_packages": "job_packages:",  # set: packages of runtime environments that a job uses
    "package": "package:",  # hash: files of a runtime environment, in parts; deleted with its last user
    "actor": "actor:",  # hash: an actor; deleted when dead and without handles
    "created": "created:",  # set: actors that a worker process created; deleted when it ends
    "parked": "parked:",  # zset: calls whose actor is not alive yet, by their number; taken or failed when it is known
    "callers": "callers:",  # hash: caller -> last call number recorded, per actor
    "group": "placement_group:",  # hash: a placement group; the last 1,000 removed ones are kept
    "group_queues": "group_queues:",  # set: queues of tasks that run in a group; deleted when it is removed
    "group_waiters": "group_waiters:",  # set: objects that become ready with a group; emptied then
    "node_groups": "node_groups:",  # set: groups that have bundles on a node
    "job_groups": "job_groups:",  # set: groups that end with a job
    "submission": "submission:",  # hash: a command submitted as a job; kept a week after its end
    "submission_log": "submission_log:",  # stream: what such a command prints; capped, kept a week after its end
    "logs": "logs:",  # stream: lines printed by a job's workers; capped; deleted at job end
}

SINGLETONS: dict[str, str] = {
    "nodes": "nodes",  # set: nodes that are alive or draining
    "dead_nodes": "dead_nodes",  # list: the latest nodes that died or left, for people; their records go earlier
    "leases": "leases",  # zset: node or driver -> end of its lease, ms of the server's clock
    "tick": "tick",  # hash: last renewal of any lease (a gap: Redis was away), until when nobody is declared dead
    "queues": "queues",  # zset: names of the queues that are not empty -> their turn
    "idle": "idle",  # hash: node waiting for work -> its free resources, of how many CPUs, and when it was rung
    "spread": "spread",  # string: counter of tasks that were spread over nodes by turns
    "sequence": "sequence",  # string: counter that keeps queues first in, first out
    "actor_names": "actor_names",  # hash: namespace/name -> actor id
    "jobs": "jobs",  # set: jobs that have not ended
    "chores": "chores",  # list: work in slices, for anybody to do: frees, wake-ups, ends of processes, actors, jobs
    "submissions": "submissions",  # zset: submitted jobs -> ms of their submission
    "history": "history",  # list: attempts that ended lately, for people; capped
    "groups": "groups",  # set: placement groups that were not removed
    "waiting_groups": "waiting_groups",  # zset: groups that lack bundles and found no room, oldest first
    "removed_groups": "removed_groups",  # list: the latest removed groups
    "group_names": "group_names",  # hash: namespace/name -> placement group
    "cluster": "cluster",  # hash: what all processes of the cluster must agree on
}


class Keys:
    """The key names of one cluster: `Keys().task("00ff...")`, `Keys().nodes`."""

    def __init__(self, tag: str = DEFAULT_TAG) -> None:
        self.tag = tag
        self.prefix = "{" + tag + "}:"
        for name, text in SINGLETONS.items():
            setattr(self, name, self.prefix + text)
        for family, text in FAMILIES.items():
            setattr(self, family, (self.prefix + text).__add__)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def of_object(self, object_id: str) -> str:
        """The hash that carries an object's state:
        its task's for a first return value, the actor's for handles, else its own."""
        index = object_id[24:]
        if index == "00000000":
            return f"{self.prefix}task:{object_id[:24]}"
        if index == "fffffffe":
            return f"{self.prefix}actor:{object_id[:24]}"
        return f"{self.prefix}object:{object_id}"
