"""Bugs that are planted on purpose, and the tests that must catch them: `make mutants`, the test of the tests.

Each is one that somebody could make: a check left out, a count off by one, an order turned round. A mutant that
survives means that a promise is not tested.
"""

from __future__ import annotations

from typing import NamedTuple

MODEL = ("tests/lua/test_model.py",)
SIMULATION = ("tests/unit/test_simulation.py",)
NODE = ("tests/unit/test_node_state.py", "tests/unit/test_node_state_workers.py", "tests/unit/test_workers.py")


class Mutant(NamedTuple):
    """`old`, which is in `file` exactly once, becomes `new`; one of `tests` must fail then."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "a finish of an attempt that is over is believed",
        "lua/lib/publish.lua",
        "return record[2] == node and tonumber(record[3]) == attempt",
        "return record[2] == node",
        MODEL,
    ),
    Mutant(
        "a finish of a node that does not have the task is believed",
        "lua/lib/publish.lua",
        "return record[2] == node and tonumber(record[3]) == attempt",
        "return tonumber(record[3]) == attempt",
        MODEL,
    ),
    Mutant(
        "a repeated call is made again",
        "lua/lib/channel.lua",
        "if number <= last then",
        "if number < last then",
        MODEL,
    ),
    Mutant(
        "a missing call is not noticed",
        "lua/lib/channel.lua",
        "if number > last + 1 then",
        "if number > last + 2 then",
        MODEL,
    ),
    Mutant(
        "a process that goes another way now is listened to",
        "lua/lib/channel.lua",
        "if not record[1] or record[2] ~= route then",
        "if not record[1] then",
        MODEL,
    ),
    Mutant(
        "a task starts one argument too early",
        "lua/lib/settle.lua",
        "if tonumber(record[2]) > 1 then",
        "if tonumber(record[2]) > 2 then",
        ("tests/lua/test_task_submit.py", "tests/lua/test_task_finish.py", *MODEL),
    ),
    Mutant(
        "what waits for a value is not woken",
        "lua/lib/settle.lua",
        "    wake_dependents(id)\n",
        "",
        MODEL,
    ),
    Mutant(
        "a finished task keeps its arguments for ever",
        "lua/lib/finish.lua",
        "for _, id in ipairs(pins) do dropped[#dropped + 1] = id end",
        "",
        MODEL,
    ),
    Mutant(
        "refs that a worker keeps are not registered before the arguments go",
        "lua/lib/finish.lua",
        "  keep_borrowed(finish[5], finish[6])\n",
        "",
        MODEL,
    ),
    Mutant(
        "a ref inside a value does not keep its object",
        "lua/lib/references.lua",
        "redis.call('HINCRBY', key, fields.refs, 1)",
        "",
        MODEL,
    ),
    Mutant(
        "retries are never used up",
        "lua/lib/task_record.lua",
        "if retries > 0 then redis.call('HINCRBY', key, fields.retries, -1) end",
        "",
        MODEL,
    ),
    Mutant(
        "the tasks of a dead node are forgotten",
        "lua/node_reap.lua",
        "for _, task in ipairs(tasks) do reap_task(task, id) end",
        "",
        MODEL,
    ),
    Mutant(
        "the copies of a dead node are believed to be there",
        "lua/node_reap.lua",
        "for _, object in ipairs(objects) do lose_copy(object, id) end",
        "",
        MODEL,
    ),
    Mutant(
        "nodes are declared dead because Redis was away",
        "lua/node_reap.lua",
        "if now < grace_until(now) then return {words.GRACE} end",
        "",
        ("tests/lua/test_nodes.py",),
    ),
    Mutant(
        "urgent tasks wait their turn",
        "lua/lib/queue.lua",
        "return (127 - priority) * BAND + ",
        "return 127 * BAND + ",
        ("tests/lua/test_task_claim.py",),
    ),
    Mutant(
        "a worker keeps its resources when it has nothing to do",
        "redray/worker/workers.py",
        "        self.unblock(worker)\n        give(worker.holds, self.free)\n        if worker.gpus:",
        "        self.unblock(worker)\n        if worker.gpus:",
        NODE,
    ),
    Mutant(
        "a blocked worker keeps its CPU",
        "redray/worker/workers.py",
        "            self._add(worker.lent, 1)\n",
        "",
        NODE,
    ),
    Mutant(
        "a node without a fresh lease starts what it has claimed",
        "redray/worker/placing.py",
        "        if not self._node.is_fenced:\n",
        "        if True:\n",
        ("tests/unit/test_node_state_fence.py",),
    ),
    Mutant(
        "a node does not ask for work when it is rung",
        "redray/worker/state.py",
        "    def _rung(self, _event: events.Rung) -> None:\n        self.ask_for_work()",
        "    def _rung(self, _event: events.Rung) -> None:\n        pass",
        (*SIMULATION, *NODE),
    ),
    Mutant(
        "a crash counts against tasks that had not started",
        "redray/worker/state.py",
        "                self.return_to_backlog(attempt)\n\n    def _worker_blocked",
        "                self.book.finish_without_value(attempt, 'CRASHED', '')\n\n    def _worker_blocked",
        (*NODE, *SIMULATION),
    ),
    Mutant(
        "a cancelled task is retried",
        "redray/worker/attempt_book.py",
        "        if attempt.task in self.cancelled:\n            outcome, detail",
        "        if False:\n            outcome, detail",
        (*SIMULATION, *NODE),
    ),
    Mutant(
        "calls of an actor overtake each other",
        "redray/worker/hosted_actors.py",
        "        if attempt.head.sequence <= self.last + 1:",
        "        if True:",
        ("tests/unit/test_hosted_actors.py", "tests/unit/test_node_state_actors.py"),
    ),
    Mutant(
        "memory is given away while somebody reads it",
        "redray/store/index.py",
        "        if entry.state is State.SEALED and object not in self._pins:\n            self._allocator.free",
        "        if entry.state is State.SEALED:\n            self._allocator.free",
        ("tests/unit/test_store_index.py",),
    ),
    Mutant(
        "neighbouring holes are not joined to their size",
        "redray/store/allocator.py",
        "            end += self._remove_hole(end)",
        "            self._remove_hole(end)",
        ("tests/unit/test_store_index.py",),
    ),
    Mutant(
        "messages that were read and not dealt with are gone",
        "redray/gcs/inbox.py",
        "            self._reading = self._position\n            self._entries = 0\n",
        "            self._position = self._reading\n            self._entries = 0\n",
        ("tests/integration/test_inbox.py",),
    ),
)
