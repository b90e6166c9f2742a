"""One process' connection to its cluster, and the only "current" slot.

A session is built in floors, each a file: `sending` (the channel and the batch), `hearing` (who reads, who waits),
`values` (put, get, wait), `submission` (tasks and actors); and here, what is asked of the cluster as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from redray import refs
from redray.critical import unguard
from redray.exceptions import RaySystemError
from redray.functions import ActorDescription
from redray.gcs import actors, tasks
from redray.gcs.address import Address
from redray.gcs.schema import ActorState, Reply
from redray.ids import ActorID
from redray.refs import ObjectRef
from redray.store import serialization
from redray.submission import Submission

_current: Session | None = None


def current_or_none() -> Session | None:
    return _current


def install(session: Session) -> None:
    global _current
    _current = session
    refs.set_keeper(session)


def uninstall() -> None:
    global _current
    _current = None
    refs.set_keeper(refs.RefKeeper())


class Session(Submission):
    """Public methods are those of `redray.current.Session`."""

    def cancel(self, ref: ObjectRef[Any], force: bool, recursive: bool) -> None:
        self._check_usable()
        self._check_known((ref,))
        how = " ".join(word for word, is_asked in (("force", force), ("recursive", recursive)) if is_asked)
        with self._lock:
            self._flush_batch()
            number = self._call(tasks.cancel([ref.task().hex()], how), wants_reply=force)
            self._send_out()
        if force and self._await_reply(number)[0] == Reply.REFUSED:
            raise ValueError("force=True is not supported for actor tasks: it would kill the actor. There is kill().")

    def kill_actor(self, actor_id: ActorID, no_restart: bool) -> None:
        self._check_usable()
        cause = "The actor is dead because it was killed by `ray.kill`."
        with self._lock:
            self._flush_batch()
            number = self._call(actors.kill(actor_id.hex(), no_restart, cause), wants_reply=True)
            self._send_out()
        self._await_reply(number)

    # ---- what the cluster is asked -----------------------------------------------------------------------------------
    def lookup_actor(self, name: str, namespace: str) -> ActorDescription | None:
        self._sync()
        id = self.query([("HGET", self._keys.actor_names, f"{namespace}/{name}")])[0]
        return self.describe_actor(ActorID(bytes.fromhex(id.decode()))) if id is not None else None

    def describe_actor(self, actor_id: ActorID) -> ActorDescription | None:
        self._check_usable()
        state, class_name, methods = self.query(
            [("HMGET", self._keys.actor(actor_id.hex()), "state", "class", "methods")]
        )[0]
        if state is None or state.decode() == ActorState.DEAD:
            return None
        return ActorDescription(actor_id, class_name.decode(), serialization.deserialize(methods))

    def object_locations(self, refs: list[ObjectRef[Any]]) -> list[dict[str, Any] | None]:
        from redray.cluster_view import object_locations

        self._sync()
        return object_locations(self.query, self._keys, [ref.hex() for ref in refs])

    def list_named_actors(self, all_namespaces: bool) -> list[dict[str, str]]:
        self._sync()
        names = self.query([("HKEYS", self._keys.actor_names)])[0]
        pairs = [name.decode().rpartition("/")[::2] for name in names]
        return [
            {"name": name, "namespace": space} for space, name in pairs if all_namespaces or space == self.namespace
        ]

    def nodes(self) -> list[dict[str, Any]]:
        from redray.cluster_view import nodes

        return nodes(self.query, self._keys)

    def cluster_resources(self) -> dict[str, float]:
        from redray.cluster_view import total_resources

        return total_resources(self.query, self._keys)

    def available_resources(self) -> dict[str, float]:
        from redray.cluster_view import free_resources

        return free_resources(self.query, self._keys)

    @property
    def redis_address(self) -> Address:
        """With its password: not for people."""
        return self._address

    @property
    def node_folder(self) -> str:
        """The private directory of the node that this process goes through, "" without one."""
        welcome = self._channel.welcome
        return os.path.dirname(welcome.arena) if welcome is not None else ""

    def reader(self) -> Callable[[list[tuple[Any, ...]]], list[Any]]:
        """`query`, once everything that this process has said so far has arrived: it wants to see what it did."""
        self._sync()
        return self.query

    def timeline(self) -> list[dict[str, Any]]:
        """Of the whole cluster, as far as its history goes back."""
        import time

        from redray.chrome_trace import chrome_events
        from redray.gcs import history

        time.sleep(2 * history.WRITE_S)  # nodes write what ended that late: what this program has seen shall be in it
        return chrome_events(history.decoded(self.query(history.read(self._keys))))

    # ---- the end -----------------------------------------------------------------------------------------------------
    def close(self) -> None:
        if self._closed:
            return
        try:
            if self._lost is None and os.getpid() == self._pid:
                self._flush()
                self._unhandled.report()
        except (ConnectionError, RaySystemError):
            pass  # nobody is left to say goodbye to
        self._closed = True
        unguard()
        self._unsent.set()
        for act in self.on_close:
            act()
        self._channel.close()
        self._inbox.close()
        if self._query is not None:
            self._query.close()
        if self._reader is not None:
            self._reader.close()
