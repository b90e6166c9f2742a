"""What a worker process does: takes runs from its node, executes them, tells how they ended.
 Plain tasks and the calls of a sync actor run here, in the main thread, one after the other; threaded and async actors
run in `actor_runner`, while this thread goes on taking calls. A `Done` is held back only while the next run, already
here, is known to be short: 1 ms at most, and a watchdog thread sends it if the guess was wrong.
"""

from __future__ import annotations

import os
import signal
import sys
from time import perf_counter_ns
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from redray.exit import EXITED, ActorExitRequested
from redray.messages import Cancel, Done, Exit, HandedBack, JobInfo, Run
from redray.spec import ACTOR_CALL, TASK, TaskHead, unpack_head, unpack_payload
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
    setup_failed_done,
    value_done,
)
from redray.worker.environment import Environment
from redray.worker.host import Host
from redray.worker.marks import Mark
from redray.worker.returns import Returns, needs_iteration
from redray.worker.watchdog import FlushWatchdog

if TYPE_CHECKING:
    from redray.worker.actor_runner import Actor

SHORT_US = 1000  # a run expected to be shorter lets the results before it wait
_MOST_HELD = 32


class Leave(Exception):
    """Ends the worker process: `code` is its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def main(host: Host, mark: Mark) -> int:
    """Run a worker until its node or its user's code ends it. Returns the exit code."""
    executor = Executor(host, mark)
    try:
        executor.serve()
        return shutdown.graceful(host, executor.actor)
    except Leave as leave:
        return shutdown.graceful(host, executor.actor, leave.code)


class _Calm:
    """While this is entered an interrupt waits: what is said to the node is said whole, or not at all."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def __enter__(self) -> None:
        self._executor._interruptible = False

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._executor._interruptible = True
            if self._executor.mark.has_cancel():
                self._executor._on_interrupt()


class Executor:
    def __init__(self, host: Host, mark: Mark) -> None:
        self.actor: Actor | None = None
        self._host = host
        self.mark = mark
        self._environment = Environment()
        self._context: TaskContext | None = None
        self._interruptible = False
        self._expected_us: dict[str, int] = {}  # by function or method: the longest run lately, fading
        self._calls: dict[str, int] = {}  # function -> runs, where max_calls bounds them
        self._held = 0  # results posted and not sent
        self._held_since = 0
        self._watchdog = FlushWatchdog(host.flush)
        self.returns = Returns(host)
        self._calm = _Calm(self)
        self._handler = self._on_interrupt
        self.is_fork = False
        os.register_at_fork(after_in_child=self._note_fork)

    def serve(self) -> None:
        """Returns after an `Exit`, raises `Leave` when user code ends the process."""
        self._mend()
        while True:
            work = self._host.next_run(wait=False)
            if work is None:
                self._send()
                self._mend()
                work = self._host.next_run(wait=True)
            if type(work) is Run:
                self._take(work)
            elif type(work) is Cancel:
                self._cancel(work.task)
            elif type(work) is JobInfo:
                self._environment.enter(work, self._host)
            elif type(work) is Exit:
                self._send()
                if self.actor is None or self.actor.retire():
                    return

    # ---- one run -----------------------------------------------------------------------------------------------------
    def _take(self, run: Run) -> None:
        head = unpack_head(run.spec)
        if self._held and self._must_send(head):
            self._send()
        if self._environment.failure and head.kind != ACTOR_CALL:
            if self._environment.may_be_better_now():
                raise Leave(0)  # unstarted, so the node gives it to another worker
            self.hold(setup_failed_done(head, run.attempt, self._environment.failure))
        elif head.kind == TASK:
            self.mark.start(run.serial)
            if run.serial <= self.mark.revoked():  # after the mark: see Mark.revoke
                self._host.post(HandedBack([run.serial]))
                return
            done = self._run_task(run, head)
            self.hold(done)
            self._end_after_max_calls(head)
        elif head.kind == ACTOR_CALL and self.actor is not None:
            self.actor.call(run, head)
        else:
            self._create_actor(run, head)

    def _run_task(self, run: Run, head: TaskHead) -> Done:
        self._environment.prepare(head, run.gpus)
        context = TaskContext(head, run.attempt, run.gpus)
        done = self.attempt(run, head, context, None, Who(head.name))
        done.submitted = context.submitted
        return done

    def attempt(self, run: Run, head: TaskHead, context: TaskContext, body: Any, who: Who) -> Done:
        """Execute in the main thread, interruptible by the node. `body` None means the function that the head names."""
        self.mark.start(run.serial)
        self._context = context
        self._host.set_context(context)
        started = perf_counter_ns()
        try:
            try:
                self._interruptible = True
                if self.mark.has_cancel():  # its SIGINT may have come before this task did
                    self._on_interrupt()
                    if context.cancelled:
                        return cancelled_done(head, run.attempt, 0)
                if body is None:
                    body = context.body = self._host.load_function(head.function, run.function)
                args, kwargs = arguments(self._host, head, unpack_payload(run.spec), run.values)
                value = body(*args, **kwargs)
                if needs_iteration(head, value):
                    value = self.returns.iterate(head, run.attempt, value, who, self._calm)
            finally:
                self._interruptible = False
                if self.is_fork:
                    self.end_fork()
            run_us = (perf_counter_ns() - started) // 1000
            expected = self._expected_us.get(head.function, SHORT_US)
            self._expected_us[head.function] = max(run_us, expected - (expected >> 3))
            if context.cancelled and head.kind == ACTOR_CALL:  # it looked at its flag, or did not
                return cancelled_done(head, run.attempt, run_us)
            return value_done(self._host, head, run.attempt, value, run_us, who)
        except KeyboardInterrupt:
            return cancelled_done(head, run.attempt, (perf_counter_ns() - started) // 1000)
        except ActorExitRequested as request:
            context.exits = True
            return exit_done(head, run.attempt, request.reason)
        except SystemExit as error:
            if ends_actor(error, context):
                return exit_done(head, run.attempt, EXITED)
            raise Leave(exit_code(error)) from None
        except BaseException as error:  # user code may raise anything: it becomes the result
            self._mend()
            return error_done(head, run.attempt, error, (perf_counter_ns() - started) // 1000, who)
        finally:
            self._context = None
            self._host.set_context(None)
            output.flush(ends_task=head.kind == TASK)

    def _on_interrupt(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """SIGINT: the node asks to cancel the attempt that it wrote into shared memory. Anything else that runs here is
        left alone."""
        target = self.mark.cancelled()
        if target is None:
            return
        if self.actor is not None:
            self.actor.cancel(target[0])
            return
        context = self._context
        if self._interruptible and context is not None and target == (context.head.task, context.attempt):
            context.cancel(self._host.last_submitted())
            self._interruptible = False  # once: the code that makes an outcome of it must not be hit by another
            raise KeyboardInterrupt

    def _mend(self) -> None:
        """Undo what user code did to the process: its streams, its SIGINT. 2 us: too slow for after each short task."""
        output.check()
        if signal.getsignal(signal.SIGINT) is not self._handler:
            signal.signal(signal.SIGINT, self._handler)

    def _note_fork(self) -> None:
        self.is_fork = True

    def end_fork(self) -> NoReturn:
        """User code forked, and its child has come back to where only the parent may go on: two would speak on one
        channel."""
        output.flush()
        os._exit(0 if sys.exc_info()[0] is None else 1)

    # ---- actors ------------------------------------------------------------------------------------------------------
    def _create_actor(self, run: Run, head: TaskHead) -> None:
        from redray.worker import actor_runner

        if head.kind == ACTOR_CALL:
            self.hold(exit_done(head, run.attempt, "it does not live in this process"))
            return
        self._environment.prepare(head, run.gpus)
        done, self.actor = actor_runner.create(self, self._host, run, head)
        if done is not None and self.actor is not None:
            done.detail = self.actor.printed_name()
        if done is not None:
            self.hold(done)

    def _cancel(self, task: str) -> None:
        if self.actor is not None:
            self.actor.cancel(task)

    # ---- results -----------------------------------------------------------------------------------------------------
    def hold(self, done: Done) -> None:
        """Post a result of this thread; it is sent before this thread blocks, or begins something long."""
        self._host.post(done)
        if not self._held:
            self._held_since = perf_counter_ns()
        self._held += 1

    def _must_send(self, head: TaskHead) -> bool:
        """Whether the results held back must go before `head` starts."""
        if self._held >= _MOST_HELD or self._expected_us.get(head.function, SHORT_US) >= SHORT_US:
            return True
        if perf_counter_ns() - self._held_since > SHORT_US * 1000:
            return True
        self._watchdog.hold()
        return False

    def _send(self) -> None:
        self._host.flush()
        self._held = 0

    def _end_after_max_calls(self, head: TaskHead) -> None:
        """Leave when this worker has run the function `max_calls` times. What waits in the queue goes back,
        unstarted."""
        most = head.options.get("max_calls") if head.options else 0
        if not most:
            return
        calls = self._calls[head.function] = self._calls.get(head.function, 0) + 1
        if calls < most:
            return
        waiting: list[int] = []
        while (work := self._host.next_run(wait=False)) is not None:
            if type(work) is Run:
                waiting.append(work.serial)
        if waiting:
            self._host.post(HandedBack(waiting))
        raise Leave(0)
