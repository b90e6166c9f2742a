"""What a node does from time to time: its lease, the dead it finds by it, the cluster's chores, and its own drain."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from redray.gcs import history, nodes, placement_groups, processes
from redray.gcs.client import ReplyError
from redray.gcs.schema import Reply
from redray.store.janitor import sweep
from redray.worker import events
from redray.worker.memory import resident
from redray.worker.node_shell import NodeShell

STOP_STARTING_S = 5.0  # after the last renewal was sent
TELL_FREE_S = 0.05
JUDGE_S = 30.0  # what some node can run today may wait for ever once that one has gone
DRAIN_S = 30.0


class NodeChores(NodeShell):
    """Leases are renewed by each node for all: whoever renews is told who has not."""

    # ---- leases ------------------------------------------------------------------------------------------------------
    def _renew(self, now: float) -> None:
        if not self._link.is_up:
            return
        free = "" if self._state.bundles.has_answers() else self._free_text()
        command = nodes.renew(self._keys, f"node:{self.id}", 0, free)
        self._link.run(command, lambda reply: self._renewed_at(now, reply))

    def _renewed_at(self, sent: float, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            raise reply
        if reply[0] == Reply.FENCED.encode():
            self._declared_dead()
            return
        self._renewed = sent
        expired = reply[1].decode()
        if expired.startswith("node:"):
            self._reap(expired[5:], leaving=False)
        elif expired:
            self._link.run(processes.reap_driver(self._keys, expired[7:], 0))
        if reply[2]:
            self._do_chores()
        self._state.alone = reply[4] <= 1
        if reply[5]:
            from redray.worker.infeasible_groups import warn_of_groups

            warn_of_groups(self._link, self._keys)
        if reply[3]:
            self._check_queues()
        if reply[6]:
            self._state.ask_for_work()  # whoever was rung for it has not come

    def _may_start(self) -> bool:
        """Self-fencing: without a fresh lease nothing new is started,
        because somebody may be doing it elsewhere by now."""
        return time.monotonic() - self._renewed < STOP_STARTING_S

    def _declared_dead(self) -> None:
        """This incarnation is over. What its workers did not report is done elsewhere: they must not go on."""
        self._stop("the cluster has declared it dead, because its lease ran out")

    def _tell_free(self, now: float) -> None:
        """For people and `available_resources`, who see this a moment late.
        Work is placed by what this node knows itself."""
        if self._state.bundles.has_answers():
            return  # in the next turn: before its answers, this would be misread
        if not self._is_told() and self._link.is_up and now >= self._next_free:
            self._told_free, self._next_free = dict(self._state.ledger.free), now + TELL_FREE_S
            ledger = self._state.ledger
            told = placement_groups.tell_free(self._keys, self.id, ledger.free_text(), ledger.group_text())
            self._link.run(told)

    def _write_history(self, now: float) -> None:
        due = self._history.due()
        if due is not None and now >= due and self._link.is_up:
            for command in history.append(self._keys, self._history.take()):
                self._link.plain(lambda _: None, *command)  # a Redis that is full refuses it: nobody depends on it

    # ---- chores ------------------------------------------------------------------------------------------------------
    def _reap(self, node: str, leaving: bool, then: Callable[[], None] | None = None) -> None:
        def on_reply(reply: Any) -> None:
            if not isinstance(reply, ReplyError) and reply[0] == Reply.MORE.encode():
                self._reap(node, leaving, then)
            elif then is not None:
                then()
            else:
                # The dead node may have lived on this machine. In a thread: memory that is given back takes its time.
                threading.Thread(target=sweep, name="redray-janitor", daemon=True).start()
            self._do_chores()

        self._link.run(nodes.reap(self._keys, node, 0, leaving), on_reply)

    def _do_chores(self) -> None:
        def on_reply(reply: Any) -> None:
            if not isinstance(reply, ReplyError) and reply[0] == Reply.MORE.encode():
                self._do_chores()

        self._link.run(nodes.do_chore(self._keys, 0), on_reply)

    def _check_queues(self) -> None:
        """Warn the jobs whose tasks no node of the cluster can ever run."""
        from redray.worker.infeasible import warn_of_infeasible

        now = time.monotonic()
        if now >= self._judge_again:
            self._judge_again = now + JUDGE_S
            self._judged.clear()
        warn_of_infeasible(self._link, self._keys, self._judged)

    # ---- memory ------------------------------------------------------------------------------------------------------
    def _check_memory(self, now: float) -> None:
        if not self._memory.is_due(now):
            return
        shortage = self._memory.shortage()
        if shortage:
            sizes = resident(link.pid for link in self._links.values() if link.kind == "worker")
            by_worker = {link.worker: sizes[link.pid] for link in self._links.values() if link.pid in sizes}
            self._handle(events.MemoryShort(shortage, by_worker))

    # ---- drain -------------------------------------------------------------------------------------------------------
    def _drain(self) -> None:
        if self._state.draining:
            return
        self._state.drain()
        self._link.plain(None, "HDEL", self._keys.idle, self.id)
        self._link.plain(None, "HSET", self._keys.node(self.id), "draining", "1")
        self._drain_until = time.monotonic() + DRAIN_S
        self._next_tick = 0.0

    def _drain_on(self, now: float) -> None:
        if (self._state.is_at_rest() or now > self._drain_until) and self._link.in_flight == 0 and not self._leaving():
            self._reap(self.id, leaving=True, then=lambda: self._stop("it was asked to"))

    def _leaving(self) -> bool:
        left, self._has_left = getattr(self, "_has_left", False), True
        return left
