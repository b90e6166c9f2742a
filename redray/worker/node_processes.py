"""The processes of a node: who they are, what they say, and how they end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from redray import messages
from redray.gcs import processes
from redray.gcs.client import ReplyError
from redray.gcs.schema import Outcome
from redray.worker import events
from redray.worker.node_actions import NodeActions
from redray.worker.process_link import ProcessLink


class NodeProcesses(NodeActions):
    """One method per message; `_TAKE` at the end of the file is the list."""

    # ---- links -------------------------------------------------------------------------------------------------------
    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            self._attach(ProcessLink(sock))

    def _attach(self, link: ProcessLink) -> None:
        self._watch(link.fileno(), lambda: self._read_process(link))

    def _read_process(self, link: ProcessLink) -> None:
        try:
            for body in link.read():
                self._take(link, body)
        except msgspec.MsgspecError as error:  # whoever sends such a thing is cut off, and harms nobody else
            sys.stderr.write(f"The {link.kind or 'guest'} {link.worker} sent what cannot be read: {error}\n")
            link.at_end = True
        if link.at_end:
            self._process_closed(link)

    def _take(self, link: ProcessLink, body: bytes) -> None:
        message = messages.decode_to_node(body)
        _TAKE[type(message)](self, link, message)
        self._dirty.add(link)

    def _process_closed(self, link: ProcessLink) -> None:
        self._unwatch(link.fileno())
        if link.kind == "driver":
            link.close()
            if self._links.get(link.worker) is link:
                del self._links[link.worker]
                self._end_process(link)
                if self._config.session_directory and self._config.owner_pid == link.pid:
                    self._stop("its driver has closed the connection")
        elif link.kind == "worker":
            # Its template tells how it ended; if it only closed the channel it must not live on.
            self._template.signal(link.worker, signal.SIGKILL)
        else:
            link.close()

    def _end_process(self, link: ProcessLink, crashed: bool = False) -> None:
        """Behind what its last tasks came to: a result may contain refs that only this process held."""
        self._report_all()
        self._objects.release_process(link.worker)
        self._link.run(processes.end(self._keys, link.worker, self.id, 0, crashed), lambda _: self._do_chores())

    # ---- messages ----------------------------------------------------------------------------------------------------
    def _hello(self, link: ProcessLink, message: messages.Hello) -> None:
        link.kind, link.worker, link.pid = message.kind, message.worker, message.pid
        link.job = message.job
        old = self._links.get(message.worker)
        if old is not None and old is not link:
            self._unwatch(old.fileno())
            old.close()
            link.taken, link.acked = old.taken, old.acked
        else:
            link.taken = message.last
        self._links[message.worker] = link
        self._link.run(
            processes.open(
                self._keys,
                message.worker,
                self.id,
                0,
                message.kind,
                message.job,
                message.pid,
                message.namespace,
                message.config,
            )
        )
        if message.config:
            self._jobs.learn(message.job, message.config)
        link.post(
            messages.Welcome(
                self.id,
                link.taken,
                str(self._store.path),
                self._store.capacity,
                {"redis": self._address.url(), "tag": self._config.tag},
            )
        )
        if message.kind == "worker":
            self._handle(events.WorkerReady(message.worker))

    def _call(self, link: ProcessLink, call: messages.Call) -> None:
        if call.number <= link.taken:
            return  # sent again after a reconnect, and taken before it
        link.taken = call.number
        args = call.args
        if call.verb == "task_submit" and not args[0]:  # else it comes again, from a process that lost its node
            claims = self._handle(events.Submitted(link.worker, args[1:]))
            args = [claims.encode(), *args[1:]]
            self._act()
            self._flush_processes()  # the worker first: it starts while this node writes to Redis
        elif call.verb == "object_put":
            self._put(link, args)
        elif call.verb == "object_release" and link.kind == "worker":
            self._report_all()
        elif call.verb == "placement_group_remove":
            # What its process does next must find it gone, before Redis can say so.
            self._handle(events.BundlesReleased(args[0].decode(), []))
        elif call.verb == "function_export":
            self._jobs.learn_function(args[0].decode(), args[3])
        self._link.relay(
            link.worker, call.number, call.seen, call.verb, args, lambda reply: self._answered(link, call, reply)
        )

    def _put(self, link: ProcessLink, args: list[bytes]) -> None:
        object, inline, node = args[0].decode(), args[1], args[3].decode()
        if node == self.id:
            self._objects.seal(object, link.worker)
        elif inline:
            self._state.recent.add(object, inline)

    def _answered(self, link: ProcessLink, call: messages.Call, reply: Any) -> None:
        link = self._links.get(link.worker, link)
        failure = None
        if isinstance(reply, ReplyError):
            failure = (call.number, "ERROR", str(reply))
            sys.stderr.write(f"Redis refused {call.verb} of {link.kind} {link.worker}: {reply}\n")
        elif reply[0] not in (b"OK", b"REPEAT") and not call.wants_reply:
            failure = (call.number, reply[0].decode(), "")
        if call.wants_reply:
            link.post(
                messages.CallReply(call.number, failure[2] if failure and failure[1] == "ERROR" else _plain(reply))
            )
        link.acknowledge(call.number, failure)
        self._dirty.add(link)

    def _done(self, link: ProcessLink, message: messages.Done) -> None:
        large = [
            f"{message.task}{index:08x}" for index, returned in enumerate(message.returns) if returned.inline is None
        ]
        if large:
            self._large[message.task] = large
            for object in large:
                self._objects.seal(object, link.worker)
        if message.detail and message.outcome == Outcome.VALUE:
            link.name = message.detail  # an actor that says what it prints as
        attempt = self._state.attempts.get(message.task)
        if attempt is not None:
            self._history.note(attempt, message.outcome, link.worker, link.pid, link.class_name, message.run_us)
        self._handle(events.TaskDone(link.worker, message))

    def _yielded(self, link: ProcessLink, message: messages.Yielded) -> None:
        for offset, item in enumerate(message.items):
            if item.inline is None:
                self._objects.seal(f"{message.task}{message.first + offset:08x}", link.worker)
        self._handle(events.ItemsYielded(link.worker, message))

    def _get_function(self, link: ProcessLink, message: messages.GetFunction) -> None:
        def found(pickled: bytes | None) -> None:
            if pickled is None:
                text = (
                    f"Function {message.function} is not in the cluster any more: the job that exported it has ended."
                )
                link.post(messages.Reply(message.request, None, "RaySystemError", text))
            else:
                link.post(messages.Reply(message.request, pickled))
            self._dirty.add(link)

        self._jobs.function(message.function, found)


_TAKE: dict[type, Callable[[NodeProcesses, ProcessLink, Any], Any]] = {
    messages.Hello: NodeProcesses._hello,
    messages.Call: NodeProcesses._call,
    messages.Done: NodeProcesses._done,
    messages.Yielded: NodeProcesses._yielded,
    messages.Blocked: lambda node, link, message: node._handle(
        events.WorkerBlocked(link.worker, message.returned, message.waits_for)
    ),
    messages.Unblocked: lambda node, link, message: node._handle(events.WorkerUnblocked(link.worker)),
    messages.HandedBack: lambda node, link, message: node._handle(events.HandedBackTasks(link.worker, message.serials)),
    messages.ActorExit: lambda node, link, message: node._handle(events.ActorExiting(link.worker, message.reason)),
    messages.Allocate: lambda node, link, message: node._objects.allocate(link, message),
    messages.Locate: lambda node, link, message: node._objects.locate(link, message),
    messages.Unpin: lambda node, link, message: node._objects.unpin(link, message.objects),
    messages.GetFunction: NodeProcesses._get_function,
}


def _plain(reply: Any) -> Any:
    """A Redis reply as text and numbers, for a frame."""
    if isinstance(reply, list):
        return [_plain(part) for part in reply]
    return reply.decode(errors="replace") if isinstance(reply, bytes) else reply
