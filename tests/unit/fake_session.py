"""A session that remembers what it was asked, and a slot to put it into: the API is tested without a cluster."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

import redray
from redray import current, refs
from redray.exceptions import ActorAlreadyExistsError
from redray.functions import ActorDescription
from redray.ids import ActorID, JobID, NodeID, WorkerID
from redray.refs import ObjectRef
from redray.spec import STREAMING


class FakeSession:
    kind = "driver"
    namespace = "here"

    def __init__(self) -> None:
        self.token = object()
        self.worker_id = WorkerID(b"worker-1")
        self.job_id = JobID(b"worker-1")
        self.node_id: NodeID | None = NodeID(b"the-node")
        self.address_info: dict[str, Any] = {"address": "fake://", "dashboard_url": ""}
        self.calls: list[tuple[Any, ...]] = []
        self.runtime_env: dict[str, Any] = {}
        self.named: dict[tuple[str, str], ActorDescription] = {}
        self.context: Any = None
        self.values: dict[bytes, Any] = {}
        self.closed = False
        self._numbers = itertools.count(1)

    def _refs(self, count: int) -> list[Any]:
        task = self.worker_id.task(next(self._numbers))
        if count == STREAMING:
            return ["the generator"]
        return [ObjectRef(task.object(index)) for index in range(count)]

    def submit_task(self, function: Any, args: Any, kwargs: Any, options: Any) -> list[Any]:
        self.calls.append(("task", function, args, kwargs, options))
        return self._refs(options.num_returns)

    def create_actor(self, cls: Any, args: Any, kwargs: Any, options: Any, methods: Any) -> ActorID:
        self.calls.append(("actor", cls, args, kwargs, options))
        actor_id = ActorID(bytes(self.worker_id.task(next(self._numbers))))
        if options.name:
            key = options.name, options.namespace
            if key in self.named:
                raise ActorAlreadyExistsError(f"{options.name} is taken")
            self.named[key] = ActorDescription(actor_id, cls.name, methods)
        return actor_id

    def submit_actor_call(self, actor_id: Any, method: Any, args: Any, kwargs: Any, options: Any) -> list[Any]:
        self.calls.append(("call", actor_id, method, args, kwargs, options))
        return self._refs(options.num_returns)

    def get(self, refs: list[Any], timeout: float | None) -> list[Any]:
        self.calls.append(("get", refs, timeout))
        return [self.values.get(ref) for ref in refs]

    def put(self, value: Any) -> ObjectRef[Any]:
        (ref,) = self._refs(1)
        self.values[bytes(ref)] = value
        return ref

    def wait(self, refs: list[Any], num_returns: int, timeout: float | None, fetch_local: bool) -> Any:
        self.calls.append(("wait", refs, num_returns, timeout, fetch_local))
        return refs[:num_returns], refs[num_returns:]

    def wait_any(
        self, waitables: list[Any], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> tuple[list[Any], list[Any]]:
        return self.wait(waitables, num_returns, timeout, fetch_local)

    def cancel(self, ref: Any, force: bool, recursive: bool) -> None:
        self.calls.append(("cancel", ref, force, recursive))

    def kill_actor(self, actor_id: Any, no_restart: bool) -> None:
        self.calls.append(("kill", actor_id, no_restart))

    def lookup_actor(self, name: str, namespace: str) -> ActorDescription | None:
        return self.named.get((name, namespace))

    def list_named_actors(self, all_namespaces: bool) -> list[dict[str, str]]:
        return [
            {"name": name, "namespace": space}
            for name, space in self.named
            if all_namespaces or space == self.namespace
        ]

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def task_context(self) -> Any:
        return self.context

    def close(self) -> None:
        self.closed = True


@contextmanager
def empty_slot() -> Iterator[SimpleNamespace]:
    """A slot of this test's own in place of `redray.session`, with no session in it."""
    slot = SimpleNamespace(found=None)

    def put_in(session: Any) -> None:
        slot.found = session
        refs.set_keeper(session if isinstance(session, refs.RefKeeper) else refs.RefKeeper())

    slot.install, slot.uninstall, slot.current_or_none = put_in, lambda: put_in(None), lambda: slot.found
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redray, "session", slot, raising=False)
        patch.setitem(sys.modules, "redray.session", slot)
        patch.setattr(current, "_lookup", slot.current_or_none)
        yield slot
        put_in(None)


@contextmanager
def fake_session() -> Iterator[FakeSession]:
    with empty_slot() as slot:
        session = FakeSession()
        slot.install(session)
        yield session
