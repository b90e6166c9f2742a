"""Carrying out what the local scheduler decided: frames to workers, signals, and calls to Redis with their answers."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

from redray import messages
from redray.gcs import actors, objects, placement_groups, streams, tasks
from redray.gcs.client import ReplyError
from redray.worker import actions, events
from redray.worker.node_chores import NodeChores
from redray.worker.process_link import ProcessLink
from redray.worker.streams import large_items

REVOKE_S = 0.002  # after which a worker's mark says for sure whether a revoked run had started


class NodeActions(NodeChores):
    """One method per action; `_ACT` at the end of the file is the list."""

    def _act(self) -> None:
        for action in self._state.take_actions():
            _ACT[type(action)](self, action)

    def _report_all(self) -> None:
        """What has ended goes to Redis now, ahead of what follows:
        a finish names what its value contains, a release lets go of it."""
        while self._state.has_more_to_settle():
            self._state.settle()
            self._act()

    # ---- to workers --------------------------------------------------------------------------------------------------
    def _dispatch(self, action: actions.Dispatch) -> None:
        link = self._links.get(action.worker)
        if link is None:
            return
        link.held.append(action)
        if len(link.held) == 1:
            self._send_held(link)

    def _send_held(self, link: ProcessLink) -> None:
        """Runs go out in order; one whose function or job is not known yet holds back those behind it."""
        while link.held:
            action = link.held[0]
            config = self._jobs.known_config(action.job)
            if config is None:
                self._jobs.config(action.job, lambda _: self._send_held(link))
                return
            if link.told_job != action.job:
                link.told_job = link.job = action.job
                self._link.plain(None, "HSET", self._keys.process(link.worker), "job", action.job)
                needs_cache = bool(action.environment or config.get("runtime_env"))
                cache = self.environments.path() if needs_cache else ""
                link.post(messages.JobInfo(action.job, config, action.environment, cache))
            run = action.run
            if action.function not in link.functions and not action.is_call:
                pickled = self._jobs.known_function(action.function)
                if pickled is None and not self._jobs.is_missing(action.function):
                    self._jobs.function(action.function, lambda _: self._send_held(link))
                    return
                link.functions.add(action.function)
                run.function = pickled
            if not action.is_call:  # an actor prints under its class, whatever method runs
                link.name = link.class_name = action.name
            link.held.popleft()
            link.post(run)
            self._dirty.add(link)

    def _send(self, action: actions.Send) -> None:
        link = self._links.get(action.worker)
        if link is not None:
            link.post(action.message)
            self._dirty.add(link)

    def _interrupt(self, action: actions.Interrupt) -> None:
        self._template.interrupt(action.worker, action.task, action.attempt)

    def _look_up(self, action: actions.LookUp) -> None:
        from redray.worker.wedge_lookup import Lookup

        Lookup(self._link, self._keys, action.tasks, lambda waits: self._handle(events.WaitsFound(waits)))

    def _revoke(self, action: actions.Revoke) -> None:
        self._template.revoke(action.worker, action.serial)
        self._revoking.append((time.monotonic() + REVOKE_S, action.worker, action.serial))

    def _read_revoked(self, now: float) -> None:
        while self._revoking and self._revoking[0][0] <= now:
            _, worker, serial = self._revoking.popleft()
            if worker in self._state.workers:
                self._handle(events.Revoked(worker, serial, self._template.mark(worker).started()))

    # ---- to Redis ----------------------------------------------------------------------------------------------------
    def _record_finishes(self, action: actions.RecordFinishes) -> None:
        ended = [finish.task for finish, _ in action.finishes]

        def on_reply(reply: Any) -> None:
            if isinstance(reply, ReplyError):
                raise reply
            stale = {task.decode() for task in reply[1]} if reply[0] == b"OK" else set()
            for task in ended:
                for object in self._large.pop(task, ()):
                    if task in stale:
                        self._objects.free(object)
            if action.limit or reply[0] == b"FENCED":
                self._work_came(reply)

        self._link.call(tasks.finish(action.free, action.rooms, action.limit, action.finishes), on_reply)

    def _record_items(self, action: actions.RecordItems) -> None:
        def on_reply(reply: Any) -> None:
            if isinstance(reply, ReplyError):
                raise reply
            if reply[0] == b"FENCED":
                self._declared_dead()
                return
            if reply[0] != b"OK":  # REPEAT, and the answer was not kept: ask once more
                again = [streams.Yield(items.task, items.attempt, items.first + 1, []) for items, _ in action.yields]
                self._record_items(actions.RecordItems([(items, []) for items in again]))
                return
            answers = []
            for (items, _), answer in zip(action.yields, reply[1], strict=True):
                answers.append((items.task, *answer) if answer[0] >= 0 else (items.task, -1, streams.GONE, 0))
                if answer[0] < 0:
                    self._free_large(actions.FreeLarge(large_items(items)))
            self._handle(events.ItemsPublished(answers))

        self._link.call(streams.publish(action.yields), on_reply)

    def _free_large(self, action: actions.FreeLarge) -> None:
        for object in action.objects:
            self._objects.free(object)

    def _claim(self, action: actions.Claim) -> None:
        self._link.call(tasks.claim(action.free, action.rooms, action.limit), self._work_came)

    def _work_came(self, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            raise reply
        if reply[0] == b"FENCED":
            self._declared_dead()
            return
        work, leftover = (reply[-2], reply[-1]) if reply[0] == b"OK" else (reply[1], [b"-"])  # REPEAT: who knows
        self._handle(events.WorkReceived([_item(item) for item in work], [demand.decode() for demand in leftover]))

    def _cancel_tasks(self, action: actions.CancelTasks) -> None:
        for first in range(0, len(action.tasks), tasks.MOST_CANCELLED):
            some = action.tasks[first : first + tasks.MOST_CANCELLED]
            self._link.call(tasks.cancel(some, action.how, action.parent))

    def _record_actor_started(self, action: actions.RecordActorStarted) -> None:
        def on_reply(reply: Any) -> None:
            outcome = reply[0].decode()
            calls = [_item(item) for item in reply[1]] if outcome in ("OK", "MORE") else []
            pairs = reply[2] if outcome == "OK" else []
            callers = {pairs[i].decode(): int(pairs[i + 1]) for i in range(0, len(pairs), 2)}
            self._handle(events.ActorStartAnswered(action.actor, outcome, calls, callers))

        self._link.call(actors.started(action.actor, action.attempt, action.worker), on_reply)

    def _record_actor_died(self, action: actions.RecordActorDied) -> None:
        self._link.call(
            actors.died(action.actor, action.attempt, action.final, action.cause), lambda _: self._do_chores()
        )


_ACT: dict[type, Callable[[NodeActions, Any], None]] = {
    actions.StartWorker: lambda node, action: node._template.request_fork(
        action.worker, {"REDRAY_NODE_IP": node._config.node_ip_address}
    ),
    actions.Send: NodeActions._send,
    actions.Dispatch: NodeActions._dispatch,
    actions.Interrupt: NodeActions._interrupt,
    actions.CancelTasks: NodeActions._cancel_tasks,
    actions.Revoke: NodeActions._revoke,
    actions.TellWedged: lambda node, action: node._link.plain(
        None, "HSET", node._keys.node(node.id), "wedged", str(int(action.wedged))
    ),
    actions.LookUp: NodeActions._look_up,
    actions.Refuse: lambda node, action: node._link.call(tasks.refuse(action.task, action.reason)),
    actions.Kill: lambda node, action: node._template.signal(action.worker, signal.SIGKILL),
    actions.Learn: lambda node, action: node._link.call(objects.wait(action.objects)),
    actions.RecordFinishes: NodeActions._record_finishes,
    actions.RecordItems: NodeActions._record_items,
    actions.FreeLarge: NodeActions._free_large,
    actions.Claim: NodeActions._claim,
    actions.RecordRunning: lambda node, action: node._link.call(tasks.running(action.tasks)),
    actions.RecordActorStarted: NodeActions._record_actor_started,
    actions.RecordActorDied: NodeActions._record_actor_died,
    actions.RecordGranted: lambda node, action: node._link.call(placement_groups.granted(action.free, action.answers)),
}


def _item(item: list[Any]) -> tuple[int, bytes, dict[str, bytes], list[str]]:
    attempt, spec, news = item
    values, located = {}, []
    for kind, id, data in news:
        if kind == b"value":
            values[id.decode()] = data
        else:
            located.append(id.decode())
    return int(attempt), spec, values, located
