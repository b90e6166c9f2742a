"""A session without a cluster: tasks run inside `.remote()`, in this process, so a debugger stops in them.

What differs from a cluster: nothing runs at the same time, so code in which a task waits for a later one never ends; an
actor shares this process' globals; resources, retries after crashes and runtime environments mean nothing. What stays:
values are pickled on their way, so nobody shares them by accident, and errors arrive at `get`.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any

from redray import exceptions, refs
from redray.exit import ActorExitRequested
from redray.functions import ActorDescription, ExportedFunction
from redray.generators import DynamicObjectRefGenerator, ObjectRefGenerator
from redray.ids import HANDLE_INDEX, PUT_INDEX, ActorID, JobID, NodeID, TaskID, WorkerID
from redray.local_actor import Body, LocalActor
from redray.local_groups import LocalGroups
from redray.local_objects import LocalStream, Objects, Packed, collect, pack, pack_items, pack_some, pack_task_error
from redray.options import DYNAMIC, ActorOptions, MethodOptions, TaskOptions
from redray.refs import ObjectRef
from redray.resources import from_text
from redray.spec import ACTOR_CALL, ACTOR_CREATION, STREAMING, TASK, TaskHead
from redray.store import serialization
from redray.task_context import TaskContext

_NODE = "local mode"


class LocalSession(LocalGroups):
    """Implements `redray.current.Session`."""

    kind = "local"

    def __init__(
        self,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        resources: dict[str, float] | None = None,
        namespace: str | None = None,
    ) -> None:
        super().__init__()
        self.token = object()
        self.worker_id = WorkerID.from_random()
        self.job_id = JobID(bytes(self.worker_id))
        self.node_id = NodeID.from_random()
        self.namespace = namespace or os.urandom(16).hex()
        self.address_info: dict[str, Any] = {
            "address": _NODE,
            "node_id": self.node_id.hex(),
            "dashboard_url": "",
            "session_dir": "",
        }
        wanted = {"CPU": num_cpus if num_cpus is not None else os.cpu_count(), "GPU": num_gpus, **(resources or {})}
        self.runtime_env: dict[str, Any] = {}
        self._resources = {name: float(quantity) for name, quantity in wanted.items() if quantity}
        self._numbers = itertools.count(1)
        self._objects = Objects()
        self._actors: dict[ActorID, LocalActor] = {}
        self._context: ContextVar[TaskContext | None] = ContextVar("redray_local_task", default=None)
        self._loop: Any = None

    # ---- tasks -------------------------------------------------------------------------------------------------------
    def submit_task(
        self, function: ExportedFunction, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> list[Any]:
        head = self._head(TASK, options.name, options.demand, options.num_returns)
        retries = itertools.count() if options.max_retries < 0 else range(options.max_retries)
        more: Iterator[int] = iter(retries if options.retry_exceptions else ())
        while True:
            returns = self._run(head, function.target, args, kwargs, options.name, None)
            if not (_may_repeat(returns, options.retry_exceptions) and next(more, None) is not None):
                return self._refs(head, returns)

    def _head(self, kind: int, name: str, demand: str, num_returns: int, **more: Any) -> TaskHead:
        self._sweep()
        outer = self._context.get()
        task = self.worker_id.task(next(self._numbers)).hex()
        return TaskHead(
            task=task,
            kind=kind,
            job=self.job_id.hex(),
            name=name,
            demand=demand,
            num_returns=num_returns,
            max_retries=0,
            waits_for=[],
            keeps=[],
            depth=outer.head.depth + 1 if outer is not None else 0,
            priority=0,
            parent=outer.task if outer is not None else "",
            function=name,
            **more,
        )

    def _run(
        self,
        head: TaskHead,
        body: Body,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str,
        actor: LocalActor | None,
    ) -> list[Packed]:
        """Call `body`, and pack what it returns or raises, one value per return."""
        count = 1 if head.kind == ACTOR_CREATION else head.num_returns
        failed, args, kwargs = self._arguments(args, kwargs, name)
        if failed is not None:
            return [failed] * (1 if count < 0 else count)
        instance = actor.instance if actor is not None else None
        try:
            with self._running(head, actor):
                value = self._settle(body(*args, **kwargs))
                return self._pack_returns(value, count, name)
        except (ActorExitRequested, SystemExit) as leaving:
            return [self._left(leaving, head, actor)] * (1 if count < 0 else count)
        except KeyboardInterrupt:  # of the person at the debugger
            raise
        except BaseException as error:  # user code may raise anything: it becomes the result
            return [pack_task_error(error, name, instance, head.actor)] * (1 if count < 0 else count)

    @contextmanager
    def _running(self, head: TaskHead, actor: LocalActor | None) -> Iterator[None]:
        gpus = list(range(-(-from_text(head.demand).get("GPU", 0) // 10_000)))
        context = TaskContext(head, 0, gpus, actor.creation if actor is not None else None)
        token = self._context.set(context)
        try:
            yield
        finally:
            self._context.reset(token)

    def _arguments(self, args: Any, kwargs: Any, name: str) -> tuple[Packed | None, Any, Any]:
        """A copy of the arguments with values for top-level refs; or first the error of one of those."""
        try:
            packed = serialization.pack(serialization.serialize((args, kwargs)))
        except TypeError as error:
            raise TypeError(f"Could not serialize the arguments of {name}: {error}") from error
        args, kwargs = serialization.deserialize(packed)
        found: list[Any] = []
        for value in (*args, *kwargs.values()):
            if isinstance(value, ObjectRef):
                stored = self._objects.read(value)
                is_error, value = serialization.load(stored.data)
                if is_error:
                    return stored, (), {}
            found.append(value)
        return None, tuple(found[: len(args)]), dict(zip(kwargs, found[len(args) :], strict=True))

    def _settle(self, value: Any) -> Any:
        """The end of a coroutine; everything else as it is. Async generators become plain ones."""
        if hasattr(value, "__aiter__") and hasattr(value, "asend"):
            value = collect(value)
        if not hasattr(value, "cr_await"):
            return value
        import asyncio

        if asyncio._get_running_loop() is None:
            self._loop = self._loop or asyncio.new_event_loop()
            return self._loop.run_until_complete(value)
        # A coroutine of another actor calls this one, and its loop cannot be entered twice.
        ended: Future[Any] = Future()

        def run() -> None:
            try:
                ended.set_result(asyncio.run(value))
            except BaseException as error:  # passed on to the caller
                ended.set_exception(error)

        threading.Thread(target=copy_context().run, args=(run,)).start()
        return ended.result()

    def _pack_returns(self, value: Any, count: int, name: str) -> list[Packed]:
        if count < 0 and not isinstance(value, Generator):
            raise ValueError(f"{name}() is to run as a generator, but returned no generator: {type(value).__name__}.")
        if count == STREAMING:
            return list(pack_items(value, name))
        if count == DYNAMIC:
            return [pack(DynamicObjectRefGenerator([self._put(item) for item in pack_items(value, name)]))]
        if isinstance(value, Generator) and count > 0:
            return pack_some(value, count, name)
        if count == 1:
            return [pack(value)]
        if count == 0:
            return []
        values = list(value) if isinstance(value, (tuple, list)) else [value]
        if len(values) != count:
            raise ValueError(f"{name}() returned {len(values)} values, but num_returns={count}.")
        return [pack(one) for one in values]

    def _refs(self, head: TaskHead, returns: list[Packed]) -> list[Any]:
        task = TaskID.from_hex(head.task)
        if head.num_returns == STREAMING:
            returns = [pack(None), *returns]
        made = [self._objects.add(task.object(index), packed) for index, packed in enumerate(returns)]
        return [ObjectRefGenerator(LocalStream(made[0], made[1:]))] if head.num_returns == STREAMING else made

    # ---- actors ------------------------------------------------------------------------------------------------------
    def create_actor(
        self,
        cls: ExportedFunction,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: ActorOptions,
        methods: dict[str, MethodOptions],
    ) -> ActorID:
        self._sweep()
        if options.name and self.lookup_actor(options.name, options.namespace or self.namespace) is not None:
            raise exceptions.ActorAlreadyExistsError(
                f"The name {options.name} is taken in the namespace {options.namespace}: choose another one, or get"
                f" that actor with redray.get_actor('{options.name}')."
            )
        more = {"name": options.name, "demand_held": options.demand_held, "is_async": options.is_async}
        head = self._head(ACTOR_CREATION, cls.name, options.demand_to_place, 0, options=more)
        head.actor = head.task
        actor_id = ActorID.from_hex(head.task)
        actor = self._actors[actor_id] = LocalActor(actor_id, cls.name, head, options, methods)
        self._objects.count(refs.handle_id(actor_id))
        (created,) = self._run(head, actor.make(cls.target), args, kwargs, f"{cls.name}.__init__", actor)
        is_error, cause = serialization.load(created.data)
        if is_error and not actor.is_dead:
            actor.fail(cause)
        return actor_id

    def submit_actor_call(
        self, actor_id: ActorID, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: MethodOptions
    ) -> list[Any]:
        actor = self._actors.get(actor_id)
        if actor is None:
            raise exceptions.ActorHandleNotFoundError(f"There is no actor {actor_id.hex()} in this session.")
        name = f"{actor.class_name}.{method}"
        head = self._head(ACTOR_CALL, options.name or name, "-", options.num_returns, actor=actor_id.hex())
        if actor.death is not None:
            return self._refs(head, [actor.death] * (1 if options.num_returns < 0 else options.num_returns))
        return self._refs(head, self._run(head, actor.method(method), args, kwargs, name, actor))

    def _left(self, leaving: BaseException, head: TaskHead, actor: LocalActor | None) -> Packed:
        if actor is None:
            text = f"{head.name}() ended its worker process with {leaving!r}."
            return Packed(serialization.pack_system_error("WorkerCrashedError", text))
        return actor.end("its worker process has died: it called exit_actor() or sys.exit()")

    def kill_actor(self, actor_id: ActorID, no_restart: bool) -> None:
        actor = self._actors.get(actor_id)
        if actor is not None and not actor.is_dead:
            actor.end("it was killed by `ray.kill`")

    def lookup_actor(self, name: str, namespace: str) -> ActorDescription | None:
        self._sweep()
        for actor in self._actors.values():
            if (actor.name, actor.namespace) == (name, namespace) and not actor.is_dead:
                return actor.describe()
        return None

    def describe_actor(self, actor_id: ActorID) -> ActorDescription | None:
        actor = self._actors.get(actor_id)
        return actor.describe() if actor is not None else None

    def list_named_actors(self, all_namespaces: bool) -> list[dict[str, str]]:
        self._sweep()
        return [
            {"name": actor.name, "namespace": actor.namespace}
            for actor in self._actors.values()
            if actor.name and not actor.is_dead and (all_namespaces or actor.namespace == self.namespace)
        ]

    # ---- objects -----------------------------------------------------------------------------------------------------
    def put(self, value: Any) -> ObjectRef[Any]:
        self._sweep()
        return self._put(pack(value))

    def _put(self, packed: Packed) -> ObjectRef[Any]:
        return self._objects.add(TaskID(self._next_id()).object(PUT_INDEX), packed)

    def _next_id(self) -> bytes:
        return self.worker_id.task(next(self._numbers))

    def get(self, refs: list[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        self._sweep()
        return [self._value(ref) for ref in refs]

    def _value(self, ref: ObjectRef[Any]) -> Any:
        is_error, value = serialization.load(self._objects.read(ref).data)
        if not is_error:
            return value
        raise value.as_instanceof_cause() if isinstance(value, exceptions.RayTaskError) else value

    def wait(
        self, refs: list[ObjectRef[Any]], num_returns: int, timeout: float | None, fetch_local: bool
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        return refs[:num_returns], refs[num_returns:]  # all ran when they were submitted

    wait_any = wait

    def future(self, ref: ObjectRef[Any]) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(self._value(ref))
        except BaseException as error:  # the future raises it
            future.set_exception(error)
        return future

    def object_locations(self, refs: list[ObjectRef[Any]]) -> list[dict[str, Any] | None]:
        return [{"node_ids": [], "object_size": len(self._objects.read(ref).data)} for ref in refs]

    def cancel(self, ref: ObjectRef[Any], force: bool, recursive: bool) -> None:
        """Whatever could be cancelled has finished, and that is left alone."""

    def count(self, object_id: bytes) -> None:
        self._objects.count(object_id)

    pin = count  # one that nobody discounts

    def _sweep(self) -> None:
        """Discount the refs that died: objects go, and actors without handles end."""
        while refs.dropped:
            object_id = refs.dropped.popleft()
            if self._objects.discount(object_id) and object_id[12:] == HANDLE_INDEX.to_bytes(4, "big"):
                actor = self._actors.get(ActorID(object_id[:12]))
                if actor is not None and not actor.options.detached:
                    del self._actors[actor.id]

    # ---- the cluster -------------------------------------------------------------------------------------------------
    def nodes(self) -> list[dict[str, Any]]:
        names = {"NodeManagerAddress": "127.0.0.1", "NodeManagerHostname": "localhost"}
        return [{"NodeID": self.node_id.hex(), "Alive": True, **names, "Resources": self._resources, "Labels": {}}]

    def cluster_resources(self) -> dict[str, float]:
        return dict(self._resources)

    available_resources = cluster_resources

    def task_context(self) -> TaskContext | None:
        return self._context.get()

    def close(self) -> None:
        if self._loop is not None:
            self._loop.close()
        self._actors.clear()


def _may_repeat(returns: list[Packed], wanted: bool | tuple[type[BaseException], ...]) -> bool:
    if not wanted or not returns:
        return False
    is_error, error = serialization.load(returns[-1].data)
    classes = wanted if isinstance(wanted, tuple) else (Exception,)
    return is_error and isinstance(error, exceptions.RayTaskError) and isinstance(error.cause, classes)
