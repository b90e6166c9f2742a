"""What Redis tells a node: the inbox it reads, and who answers each kind of message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from redray.gcs.schema import Message
from redray.worker import events
from redray.worker.node_workers import NodeWorkers


class NodeMail(NodeWorkers):
    """`_MAIL` at the end of the file is the list of kinds."""

    def _read_inbox(self) -> None:
        got = self._inbox.receive()
        for kind, id, data in got:
            handler = _MAIL.get(kind)
            if handler is not None:
                handler(self, kind, id, data)
        self._inbox.commit()
        self._inbox.prepare()

    def _object_mail(self, kind: str, id: str, data: bytes) -> None:
        if kind == Message.FETCH:
            self._link.plain(
                lambda value: self._object_mail(Message.VALUE, id, value) if isinstance(value, bytes) else None,
                "HGET", self._keys.of_object(id), "value",
            )  # fmt: skip
            return
        self._objects.news(kind, id, data)
        self._handle(events.ObjectNews(id, data if kind == Message.VALUE else None))

    def _has_company(self) -> None:
        self._state.alone = False

    def _job_mail(self, _kind: str, id: str, _data: bytes) -> None:
        self._jobs.ended(id)
        self._handle(events.JobEnded(id))

    def _reserve_mail(self, _kind: str, id: str, data: bytes) -> None:
        attempt, is_alone, bundles = msgspec.msgpack.decode(data)
        self._handle(events.BundlesWanted(id, attempt, bool(is_alone), bundles))

    def _address_of(self, node: str, found: Callable[[tuple[str, int] | None], None]) -> None:
        def on_reply(reply: Any) -> None:
            if not isinstance(reply, bytes):
                found(None)
                return
            host, _, port = reply.decode().rpartition(":")
            found((host, int(port)))

        self._link.plain(on_reply, "HGET", self._keys.node(node), "address")


_MAIL: dict[str, Callable[[NodeMail, str, str, bytes], Any]] = {
    Message.VALUE: NodeMail._object_mail,
    Message.FETCH: NodeMail._object_mail,
    Message.LOCATED: NodeMail._object_mail,
    Message.RING: lambda node, kind, id, data: node._handle(events.Rung()),
    Message.JOINED: lambda node, kind, id, data: node._has_company(),
    Message.KEEP: lambda node, kind, id, data: node._store.promote(id),
    Message.FREE: lambda node, kind, id, data: node._objects.free(id),
    Message.CALL: lambda node, kind, id, data: node._handle(events.CallReceived(int(id), data)),
    Message.CANCEL: lambda node, kind, id, data: node._handle(events.CancelRequested(id, data.decode())),
    Message.TAKEN: lambda node, kind, id, data: node._handle(events.ItemsTaken(id, int(data))),
    Message.KILL: lambda node, kind, id, data: node._handle(events.KillRequested(id, data.decode())),
    Message.RETIRE: lambda node, kind, id, data: node._handle(events.RetireRequested(id)),
    Message.JOB_ENDED: NodeMail._job_mail,
    Message.RESERVE: NodeMail._reserve_mail,
    Message.COMMIT: lambda node, kind, id, data: node._handle(events.BundlesCommitted(id)),
    Message.RELEASE: lambda node, kind, id, data: node._handle(
        events.BundlesReleased(id, [int(index) for index in data.split()])
    ),
    Message.LOST: lambda node, kind, id, data: node._declared_dead(),
}
