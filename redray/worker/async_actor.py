"""An actor with `async def` methods: one event loop, in a thread of its own, runs its `__init__` and all its calls.

Sync methods of such an actor run on the loop too, and block it: that is what makes its state safe without locks.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from redray.exit import EXITED, ActorExitRequested
from redray.messages import Done, Run
from redray.spec import TaskHead, unpack_payload
from redray.task_context import TaskContext
from redray.worker import output
from redray.worker.actor_runner import ConcurrentActor
from redray.worker.attempt import (
    Arguments,
    arguments,
    cancelled_done,
    ends_actor,
    error_done,
    exit_code,
    exit_done,
    value_done,
)
from redray.worker.host import Host
from redray.worker.returns import needs_iteration

if TYPE_CHECKING:
    from redray.worker.executor import Executor


class AsyncActor(ConcurrentActor):
    default_concurrency = 1000

    def __init__(self, executor: Executor, host: Host, head: TaskHead, run: Run) -> None:
        super().__init__(executor, host, head, run)
        self._loop = asyncio.new_event_loop()
        self._groups = {name: asyncio.Semaphore(size) for name, size in self.sizes.items()}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._arrived: deque[tuple[TaskHead, int, Coroutine[Any, Any, None]]] = deque()
        self._is_waking = False
        self._will_flush = False
        self._is_made = False
        threading.Thread(target=self._run_loop, name="redray-asyncio", daemon=True).start()

    # ---- in the main thread ------------------------------------------------------------------------------------------
    def construct(self, run: Run) -> Done | None:
        """Prepared here, run on the loop: the main thread must go on serving an `__init__` that waits for other
        tasks."""
        self.executor.mark.start(run.serial)
        try:
            cls = self.host.load_function(self.creation.function, run.function)
            args, kwargs = arguments(self.host, self.creation, unpack_payload(run.spec), run.values)
        except BaseException as error:  # unpickling runs user code
            return error_done(self.creation, run.attempt, error, 0, self.who_creates())
        self._class_name = cls.__name__
        self._submit(self.creation, run.attempt, self._construct(run, cls, args, kwargs))
        return None

    def start(self, run: Run, head: TaskHead, context: TaskContext, group: str) -> None:
        ready: Arguments | None = None
        if all(ref in run.values for ref in head.waits_for):
            ready = arguments(self.host, head, unpack_payload(run.spec), run.values)
        self._submit(head, run.attempt, self._run(run, head, context, group, ready))

    def cancel(self, task: str) -> None:
        super().cancel(task)
        self._loop.call_soon_threadsafe(self._cancel, task)

    def _submit(self, head: TaskHead, attempt: int, coroutine: Coroutine[Any, Any, None]) -> None:
        self._arrived.append((head, attempt, coroutine))
        if not self._is_waking:  # one wake-up of the loop for all calls that arrive before it looks
            self._is_waking = True
            self._loop.call_soon_threadsafe(self._start_arrived)

    # ---- on the loop -------------------------------------------------------------------------------------------------
    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _start_arrived(self) -> None:
        self._is_waking = False
        while self._arrived:
            head, attempt, coroutine = self._arrived.popleft()
            task = self._tasks[head.task] = self._loop.create_task(coroutine)
            task.add_done_callback(partial(self._forget, head, attempt))

    def _forget(self, head: TaskHead, attempt: int, task: asyncio.Task[None]) -> None:
        del self._tasks[head.task]
        if task.cancelled():  # before its first step, so that its own handler was not there yet
            self.finish(cancelled_done(head, attempt, 0), head, attempt, self._send_soon)

    def _cancel(self, name: str) -> None:
        task = self._tasks.get(name)
        if task is not None:
            task.cancel()

    async def _construct(self, run: Run, cls: Callable[..., Any], args: Any, kwargs: Any) -> None:
        head = self.creation
        self.host.set_context(TaskContext(head, run.attempt, run.gpus, is_restarted=self._is_restarted))
        started = perf_counter_ns()
        who = self.who_creates()
        try:
            self.instance = cls(*args, **kwargs)
            self._is_made = True
            done = value_done(self.host, head, run.attempt, None, (perf_counter_ns() - started) // 1000, who)
            done.detail = self.printed_name()
        except ActorExitRequested as request:
            done = exit_done(head, run.attempt, request.reason)
        except SystemExit as error:
            self.leave(None, exit_code(error))
        except BaseException as error:  # user code may raise anything: it is why the actor is dead
            done = error_done(head, run.attempt, error, (perf_counter_ns() - started) // 1000, who)
        output.flush()
        self.host.post(done)
        self.host.flush()

    async def _run(self, run: Run, head: TaskHead, context: TaskContext, group: str, ready: Arguments | None) -> None:
        self.host.set_context(context)
        started = perf_counter_ns()
        try:
            async with self._groups[group]:
                started = perf_counter_ns()
                if context.cancelled:
                    del ready
                    raise asyncio.CancelledError
                outcome = self._outcome(run, head, context, ready)
                del ready  # when the `Done` tells which refs this process keeps, the arguments must be gone
                done = await outcome
        except asyncio.CancelledError:  # while it waited for its turn, or out of the method
            run_us = (perf_counter_ns() - started) // 1000
            done = cancelled_done(head, run.attempt, run_us)  # of what it awaited, if nobody cancelled the call itself
        output.flush()
        self.finish(done, head, run.attempt, self._send_soon)

    async def _outcome(self, run: Run, head: TaskHead, context: TaskContext, ready: Arguments | None) -> Done:
        started = perf_counter_ns()
        if not self._is_made:
            return exit_done(head, run.attempt, "its __init__ failed")
        try:
            if ready is None:  # bytes that must be fetched first: not on the loop, which other calls need
                payload = unpack_payload(run.spec)
                ready = await self._loop.run_in_executor(None, arguments, self.host, head, payload, run.values)
            args, kwargs = ready
            value = self.method(head)(*args, **kwargs)
            if inspect.isawaitable(value):
                value = await value
            if needs_iteration(head, value):
                value = await self.executor.returns.iterate_async(head, run.attempt, value, self.who(head))
            run_us = (perf_counter_ns() - started) // 1000
            if context.cancelled:  # and it caught the CancelledError
                return cancelled_done(head, run.attempt, run_us)
            context.returned = value
            return value_done(self.host, head, run.attempt, value, run_us, self.who(head))
        except asyncio.CancelledError:
            raise
        except ActorExitRequested as request:
            context.exits = True
            return exit_done(head, run.attempt, request.reason)
        except KeyboardInterrupt:  # its caller must not take it for a Ctrl-C of its own
            return cancelled_done(head, run.attempt, (perf_counter_ns() - started) // 1000)
        except SystemExit as error:
            if ends_actor(error, context):
                return exit_done(head, run.attempt, EXITED)
            self.leave(None, exit_code(error))
        except BaseException as error:  # user code may raise anything: it becomes the result
            return error_done(head, run.attempt, error, (perf_counter_ns() - started) // 1000, self.who(head))

    def _send_soon(self, done: Done) -> None:
        """After the callbacks that are ready now, which may bring more results."""
        self.host.post(done)
        if not self._will_flush:
            self._will_flush = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._will_flush = False
        self.host.flush()
