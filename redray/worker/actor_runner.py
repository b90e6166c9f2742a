"""An actor inside its worker: made once, then called by method name.

    sync       one call at a time, in the main thread, in the order they arrive
    threaded   `max_concurrency` > 1 or concurrency groups: a thread pool per group
    async      any `async def` method: one event loop in a thread of its own, a semaphore per group (`async_actor`)

While threads or the loop run user code, the main thread goes on taking calls from the node.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NoReturn

from redray.exit import EXITED, ActorExitRequested, ThisProcess
from redray.gcs.schema import Outcome
from redray.messages import ActorExit, Done, Run
from redray.spec import TaskHead, unpack_payload
from redray.task_context import TaskContext
from redray.worker import output, shutdown
from redray.worker.attempt import (
    Who,
    arguments,
    cancelled_done,
    ends_actor,
    error_done,
    exit_code,
    exit_done,
    safe_repr,
    value_done,
)
from redray.worker.host import Host
from redray.worker.returns import needs_iteration

if TYPE_CHECKING:
    from redray.worker.executor import Executor

TERMINATE, READY, CALL = "__ray_terminate__", "__ray_ready__", "__ray_call__"
DEFAULT_GROUP = ""


def create(executor: Executor, host: Host, run: Run, head: TaskHead) -> tuple[Done | None, Actor | None]:
    """Make the actor that `run` describes. No `Done` yet: its `__init__` still runs on the event loop, which will post
    it. No actor: the `Done` says why `__init__` failed."""
    actor = _kind(head)(executor, host, head, run)
    done = actor.construct(run)
    return done, actor if done is None or done.outcome == Outcome.VALUE else None


def _kind(head: TaskHead) -> type[Actor]:
    options = head.options
    if options.get("is_async"):
        from redray.worker.async_actor import AsyncActor

        return AsyncActor
    if int(options.get("max_concurrency") or 1) > 1 or options.get("concurrency_groups"):
        return ThreadedActor
    return Actor


class Actor:
    """A sync actor, and what the other two have in common."""

    def __init__(self, executor: Executor, host: Host, head: TaskHead, run: Run) -> None:
        self.instance: Any = None
        self.executor = executor
        self.host = host
        self.creation = head
        self.running: dict[str, TaskContext] = {}
        self._class_name = head.name
        self._gpus = run.gpus
        self._is_restarted = run.attempt > 1
        ThisProcess.hosts_actor = True
        self._leaving = threading.Lock()

    # ---- what the executor calls -------------------------------------------------------------------------------------
    def construct(self, run: Run) -> Done | None:
        """Load the class and call its `__init__`, in the main thread."""
        context = TaskContext(self.creation, run.attempt, run.gpus, is_restarted=self._is_restarted)
        return self.executor.attempt(run, self.creation, context, partial(self.make, run), self.who_creates())

    def make(self, run: Run, /, *args: Any, **kwargs: Any) -> None:
        cls = self.host.load_function(self.creation.function, run.function)
        self._class_name = cls.__name__
        self.instance = cls(*args, **kwargs)

    def call(self, run: Run, head: TaskHead) -> None:
        context = self.begin(run, head)
        done = self.executor.attempt(run, head, context, self.method(head), self.who(head))
        self.finish(done, head, run.attempt, self.executor.hold)

    def cancel(self, task: str) -> None:
        """Tell the call, if it has not ended. Sync and threaded methods have to look at `is_canceled()` themselves."""
        context = self.running.get(task)
        if context is not None:
            context.cancel(self.host.last_submitted())

    def retire(self) -> bool:
        """The node wants the actor to end. True: the main thread may leave now. False: it goes on serving calls that
        have begun, and the process ends by itself after them."""
        return True

    # ---- steps of a call, used by all kinds --------------------------------------------------------------------------
    def begin(self, run: Run, head: TaskHead) -> TaskContext:
        context = self.running[head.task] = TaskContext(
            head, run.attempt, run.gpus or self._gpus, self.creation, self._is_restarted
        )
        context.body = type(self.instance)
        return context

    def method(self, head: TaskHead) -> Callable[..., Any]:
        """What to call. A name that does not exist raises when called, so that the error is that of the call."""
        name = head.function
        if name == CALL:
            return self._call_function
        if name == READY:
            return _ready
        if name == TERMINATE:
            return self._terminate
        try:
            method: Callable[..., Any] = getattr(self.instance, name)
        except Exception as error:  # a missing name, or a property or __getattr__ of the user's that raises
            return partial(_raise, error)
        return method

    def printed_name(self) -> str:
        """What stands before its prints: what its class says of itself; "" is the class's name."""
        says_nothing = getattr(type(self.instance), "__repr__", None) is object.__repr__
        return "" if says_nothing else safe_repr(self.instance)

    def who_creates(self) -> Who:
        return Who(f"{self._class_name}.__init__", self.creation.actor)

    def who(self, head: TaskHead) -> Who:
        return Who(f"{self._class_name}.{head.function}", self.creation.actor, self.instance)

    def finish(self, done: Done, head: TaskHead, attempt: int, send: Callable[[Done], None]) -> None:
        context = self.running.pop(head.task, None)
        if context is not None:
            done.submitted = context.submitted
        if context is not None and context.exits:
            reason = "it ended itself" if head.function == TERMINATE else EXITED
            self.exit(exit_done(head, attempt, reason), ActorExit(reason))
            return
        send(done)
        if context is not None:
            context.returned = None
        if ThisProcess.must_end:
            self.exit(None, ActorExit(EXITED))

    def exit(self, last: Done | None, farewell: ActorExit) -> None:
        """A call asked for the end; `last` is what its caller is told."""
        if last is not None:
            self.host.post(last)
        self.leave(farewell)

    def leave(self, farewell: ActorExit | None, code: int = 0) -> NoReturn:
        """End the process from whichever thread this is: the main thread may be waiting for the node."""
        self._leaving.acquire()  # for ever: a second caller waits here for the end
        if farewell is not None:
            for context in list(self.running.values()):
                self.host.post(exit_done(context.head, context.attempt, "it ended before this call did"))
            self.host.post(farewell)
        try:
            shutdown.graceful(self.host, self, code)
        except BaseException:  # a hook or an atexit function raised: the process ends all the same
            sys.excepthook(*sys.exc_info())
        finally:
            output.flush()
            os._exit(code)

    def _call_function(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return function(self.instance, *args, **kwargs)

    def _terminate(self) -> None:
        raise ActorExitRequested("it ended itself")


def _ready() -> bool:
    return True


def _raise(error: Exception, *_args: Any, **_kwargs: Any) -> None:
    raise error


def group_sizes(head: TaskHead, default: int) -> dict[str, int]:
    """Calls at once in each concurrency group; the default group is `max_concurrency`."""
    sizes = {str(name): int(size) for name, size in (head.options.get("concurrency_groups") or {}).items()}
    sizes[DEFAULT_GROUP] = int(head.options.get("max_concurrency") or default)
    return sizes


def group_of(head: TaskHead, sizes: dict[str, int]) -> str:
    group = str(head.options.get("concurrency_group") or DEFAULT_GROUP)
    if group not in sizes:
        known = sorted(name for name in sizes if name)
        raise ValueError(f"The actor has no concurrency group {group!r}, only {known}.")
    return group


class ConcurrentActor(Actor):
    """Calls run outside the main thread. What ends the actor has to wait for them outside the main thread, too."""

    default_concurrency = 1

    def __init__(self, executor: Executor, host: Host, head: TaskHead, run: Run) -> None:
        super().__init__(executor, host, head, run)
        self.sizes = group_sizes(head, self.default_concurrency)
        self._some_ended = threading.Condition()

    def call(self, run: Run, head: TaskHead) -> None:
        self.executor.mark.start(run.serial)
        if head.function == TERMINATE:
            self._leave_after_all(ActorExit("it ended itself"), exit_done(head, run.attempt, "it ended itself"))
            return
        context = self.begin(run, head)
        try:
            self.start(run, head, context, group_of(head, self.sizes))
        except BaseException as error:  # unpickling an argument runs user code
            self.finish(error_done(head, run.attempt, error, 0, self.who(head)), head, run.attempt, self.send)

    def start(self, run: Run, head: TaskHead, context: TaskContext, group: str) -> None:
        """Have the call run in `group`, in another thread, which hands its `Done` to `finish`."""
        raise NotImplementedError

    def send(self, done: Done) -> None:
        self.host.post(done)
        self.host.flush()

    def retire(self) -> bool:
        self._leave_after_all(None, None)
        return False

    def finish(self, done: Done, head: TaskHead, attempt: int, send: Callable[[Done], None]) -> None:
        super().finish(done, head, attempt, send)
        with self._some_ended:
            self._some_ended.notify_all()

    def _leave_after_all(self, farewell: ActorExit | None, last: Done | None, patience: float | None = None) -> None:
        arguments = (farewell, last, patience)
        threading.Thread(target=self._wait_and_leave, args=arguments, name="redray-leave", daemon=True).start()

    def _wait_and_leave(self, farewell: ActorExit | None, last: Done | None, patience: float | None) -> None:
        with self._some_ended:
            self._some_ended.wait_for(lambda: not self.running, patience)
        if last is not None:
            self.host.post(last)
        self.leave(farewell)


class ThreadedActor(ConcurrentActor):
    def __init__(self, executor: Executor, host: Host, head: TaskHead, run: Run) -> None:
        from concurrent.futures import ThreadPoolExecutor

        super().__init__(executor, host, head, run)
        self._is_exiting = False
        self._pools = {
            name: ThreadPoolExecutor(size, thread_name_prefix=f"actor-{name}".rstrip("-"))
            for name, size in self.sizes.items()
        }

    def start(self, run: Run, head: TaskHead, context: TaskContext, group: str) -> None:
        self._pools[group].submit(self._run, run, head, context)

    def exit(self, last: Done | None, farewell: ActorExit) -> None:
        """Other calls may be in the middle of something: they have half a minute, and what has not begun never does."""
        if not self._is_exiting or last is not None:
            self._is_exiting = True
            self._leave_after_all(farewell, last, shutdown.GRACE_S)

    def _run(self, run: Run, head: TaskHead, context: TaskContext) -> None:
        """In a thread of the pool."""
        if context.cancelled or self._is_exiting:  # while it waited for a thread
            never = cancelled_done(head, run.attempt, 0) if context.cancelled else exit_done(head, run.attempt, EXITED)
            self.finish(never, head, run.attempt, self.send)
            return
        self.host.set_context(context)
        done = self._outcome(run, head, context)
        self.host.set_context(None)
        output.flush()
        self.finish(done, head, run.attempt, self.send)

    def _outcome(self, run: Run, head: TaskHead, context: TaskContext) -> Done:
        """Apart from `_run`: arguments and value must be gone when the `Done` tells which refs this process keeps."""
        started = perf_counter_ns()
        who = self.who(head)
        try:
            try:
                args, kwargs = arguments(self.host, head, unpack_payload(run.spec), run.values)
                value = self.method(head)(*args, **kwargs)
                if needs_iteration(head, value):
                    value = self.executor.returns.iterate(head, run.attempt, value, who)
            finally:
                if self.executor.is_fork:
                    self.executor.end_fork()
            run_us = (perf_counter_ns() - started) // 1000
            if context.cancelled:
                return cancelled_done(head, run.attempt, run_us)
            context.returned = value
            return value_done(self.host, head, run.attempt, value, run_us, who)
        except ActorExitRequested as request:
            context.exits = True
            return exit_done(head, run.attempt, request.reason)
        except KeyboardInterrupt:  # as in a call that runs alone; its caller must not take it for a Ctrl-C of its own
            return cancelled_done(head, run.attempt, (perf_counter_ns() - started) // 1000)
        except SystemExit as error:
            if ends_actor(error, context):
                return exit_done(head, run.attempt, EXITED)
            self.leave(None, exit_code(error))
        except BaseException as error:  # user code may raise anything: it becomes the result
            return error_done(head, run.attempt, error, (perf_counter_ns() - started) // 1000, who)
