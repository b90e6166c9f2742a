"""Words and limits shared by Lua and Python, spelt once, and the lifecycle of a task.

In a script `words.QUEUED` is the text below, `fields.state` a field name, `limits.SLICE` a number.
"""

from __future__ import annotations


class TaskState:
    WAITING = "WAITING"  # for arguments that are not ready
    QUEUED = "QUEUED"  # ready, in a global queue (an actor's call: parked until the actor is alive)
    CLAIMED = "CLAIMED"  # a node has it, it has not started
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"  # a value
    FAILED = "FAILED"  # an error
    CANCELLED = "CANCELLED"


class ObjectState:
    PENDING = "PENDING"
    READY = "READY"
    FAILED = "FAILED"
    LOST = "LOST"


class ActorState:
    PENDING = "PENDING"
    ALIVE = "ALIVE"
    RESTARTING = "RESTARTING"
    DEAD = "DEAD"


class NodeState:
    ALIVE = "ALIVE"
    DRAINING = "DRAINING"
    DEAD = "DEAD"


class JobState:
    RUNNING = "RUNNING"
    ENDED = "ENDED"


class GroupState:
    """Of a placement group."""

    PENDING = "PENDING"
    CREATED = "CREATED"
    RESCHEDULING = "RESCHEDULING"  # it lost bundles with their node
    REMOVED = "REMOVED"


class Outcome:
    """How an attempt ended, as the worker or its node reports it."""

    VALUE = "VALUE"
    ERROR = "ERROR"
    RETRY = "RETRY"  # an error that retry_exceptions names: run again while retries are left
    CRASHED = "CRASHED"  # the worker died
    OUT_OF_MEMORY = "OUT_OF_MEMORY"  # the node killed the worker, because the machine's memory ran out
    CANCELLED = "CANCELLED"
    SETUP_FAILED = "SETUP_FAILED"  # of an actor's creation: its runtime environment could not be set up
    REMOVED = "REMOVED"  # its placement group was: never retried
    HANDED_BACK = "HANDED_BACK"  # never started: back to the queue, no attempt used up


class Reply:
    """First element of what a script returns."""

    OK = "OK"
    REPEAT = "REPEAT"  # this call was made before: nothing was done now
    GAP = "GAP"  # an earlier call is missing: nothing was done
    FENCED = "FENCED"  # this channel is unknown, ended, or goes another way now
    JOB_ENDED = "JOB_ENDED"
    EXISTS = "EXISTS"
    NOT_FOUND = "NOT_FOUND"
    STALE = "STALE"
    REFUSED = "REFUSED"  # it cannot be done to one of this kind
    MORE = "MORE"  # a slice is done, call again
    DONE = "DONE"
    NOT_YET = "NOT_YET"
    GRACE = "GRACE"  # Redis was away: nobody is declared dead yet


class Message:
    """Kinds of inbox entries."""

    VALUE = "value"  # object id, packed value
    FETCH = "fetch"  # object id: the value is in Redis, too large for an inbox
    LOCATED = "located"  # object id, size, nodes (space separated)
    AGAIN = "again"  # the inbox was full: ask for everything you still wait for
    RING = "ring"  # there may be work: claim
    KEEP = "keep"  # object id: its other copies are gone, so this one must not be dropped for room
    FREE = "free"  # object ids whose memory may be reused
    CALL = "call"  # task id, attempt, spec: an actor's call
    CANCEL = "cancel"  # task id, how: "force", "recursive", both or ""
    ITEMS = "items"  # id of a stream's end, how many of its items were published: for a reader that lagged
    TAKEN = "taken"  # task id, how many of its items the reader has taken, or -1: it wants no more
    KILL = "kill"  # actor id
    RETIRE = "retire"  # actor id: no handle is left
    JOB_ENDED = "job_ended"  # job id: its workers must go
    JOINED = "joined"  # node id: there is another node
    RESERVE = "reserve"  # group id, packed (attempt, 1: no other node takes part, {index, demand} pairs)
    COMMIT = "commit"  # group id: what was reserved may be used
    RELEASE = "release"  # group id, indexes of bundles; none: the group was removed
    LOST = "lost"  # the node was declared dead: start again as a new one


def _words() -> dict[str, str]:
    words: dict[str, str] = {}
    for group in (TaskState, ObjectState, ActorState, NodeState, JobState, GroupState, Outcome, Reply):
        words.update({name: text for name, text in vars(group).items() if name.isupper()})
    words.update({"MESSAGE_" + name: text for name, text in vars(Message).items() if name.isupper()})
    return words


WORDS = _words()

_FIELD_NAMES = (
    # task and object
    "state job name node attempt retries refs unready unpinned pins watched value size at contains "
    "actor kind returns alive lineage queue unschedulable "
    # a task that streams: items published, taken by the reader, lost and not computed again yet; that it is to
    # bring no more; that an item lay in shared memory; the attempt that publishes everything anew
    "items taken missing closed large anew "
    # process
    "last reply route former worker pid crashed "
    # actor, job, node
    "class namespace creator detached max_restarts restarts max_task_retries methods "
    "cause init_failed function pickled users parts have "
    # placement group
    "strategy bundles places awaited reserving handle group error draining free_groups asked sequence "
    "driver config started ended address host socket resources free labels version"
)
FIELDS = {name: name for name in _FIELD_NAMES.split()}

LIMITS = {
    "SLICE": 500,  # how many entries one call of a script handles where the number has no other bound
    "INBOX_VALUE": 4096,  # bytes: a larger inline value is fetched, not pushed
    "INBOX_ENTRIES": 4096,  # beyond it a process' inbox holds one "again" mark
    "QUEUES_EXAMINED": 64,  # per claim
    "NEAR_TURNS": 16,  # so much later a node looks at what is nearer to another one, and so much earlier at its own
    "RUNG_MS": 500,  # a node that was rung and has not come after so long cannot be counted on
    "LEASE_MS": 7000,
    "TICK_GAP_MS": 3000,  # nobody renewed for so long: Redis was away
    "LOG_LINES": 2000,
    "HISTORY_TASKS": 10_000,  # attempts that ended, kept for people to look at: about 2 MB
    "HISTORY_BATCH": 200,  # of a node at a time: of more, the last ones
    "TOMBSTONE_S": 3600,
    "WAITING_GROUPS_TRIED": 16,  # whenever room may have appeared
    "REMOVED_GROUPS": 1000,  # kept for people
    "DEAD_NODES": 100,
}

TASK_MOVES: dict[str, tuple[str, ...]] = {
    "": ("WAITING", "QUEUED", "CLAIMED", "RUNNING", "FAILED"),
    "WAITING": ("QUEUED", "FINISHED", "CANCELLED"),
    "QUEUED": ("CLAIMED", "WAITING", "FINISHED", "FAILED", "CANCELLED"),
    "CLAIMED": ("RUNNING", "QUEUED", "WAITING", "FINISHED", "FAILED", "CANCELLED"),
    "RUNNING": ("QUEUED", "WAITING", "FINISHED", "FAILED", "CANCELLED"),
    "FINISHED": ("QUEUED", "WAITING", "FAILED"),  # the value was lost: it is computed again, or cannot be
    "FAILED": (),
    "CANCELLED": (),
}
"""Legal moves of a task's state. The empty state is "does not exist"."""
