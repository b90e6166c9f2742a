"""How threads beside a loop talk to it: they leave a function call, and a descriptor tells the loop that one is there.

The tables of a store belong to the node's loop. A transfer thread that needs them asks here, and the loop stays the
only one that touches them.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from redray.exceptions import RaySystemError

Result = TypeVar("Result")


class Mailbox:
    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._questions: set[_Question] = set()
        self._closed = False
        self._out, self._in = socket.socketpair()
        self._out.setblocking(False)
        self._in.setblocking(False)

    # ---- in the loop -------------------------------------------------------------------------------------------------
    def fileno(self) -> int:
        """Readable when there is something to `run`."""
        return self._in.fileno()

    def run(self) -> None:
        """Make the calls that other threads have left, in their order."""
        try:
            self._in.recv(4096)  # before looking: a call left from here on makes the descriptor readable again
        except BlockingIOError:
            pass
        for _ in range(len(self._calls)):
            function, args = self._calls.popleft()
            function(*args)

    def close(self) -> None:
        """The loop ends: whoever waits for an answer gets an error, and calls left from now on are dropped."""
        self._closed = True
        for question in list(self._questions):
            question.fail(RaySystemError("The node is shutting down."))
        self._out.close()
        self._in.close()

    # ---- in other threads --------------------------------------------------------------------------------------------
    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Let the loop call `function(*args)` soon. Exceptions of it are the loop's."""
        self._calls.append((function, args))
        try:
            self._out.send(b"\0")
        except BlockingIOError:
            return  # so many wake-ups wait already that this one is not needed
        except OSError:
            if not self._closed:
                raise

    def ask(self, function: Callable[..., Result], *args: Any, timeout: float = 30.0) -> Result:
        """Let the loop call `function(*args)`, and return what it returns or raise what it raises.

        Raises RaySystemError if the loop has ended or does not get to it within `timeout` seconds.
        """
        question = _Question(function, args)
        self._questions.add(question)
        try:
            if self._closed:
                raise RaySystemError("The node is shutting down.")
            self.post(question.answer)
            if not question.answered.wait(timeout):
                question.fail(RaySystemError(f"The node's loop did not answer within {timeout:g} s."))
                question.answered.wait()
        finally:
            self._questions.discard(question)
        if question.error is not None:
            raise question.error
        return question.result  # type: ignore[no-any-return]


class _Question:
    """Answered once: by the loop, or by whoever gives up on it.

    An answer that came after that would be lost, and with it the pin that it may have taken; so the loop does not even
    begin a question which was given up.
    """

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.function = function
        self.args = args
        self.claim = threading.Lock()
        self.answered = threading.Event()
        self.result: Any = None
        self.error: Exception | None = None

    def answer(self) -> None:
        if not self.claim.acquire(blocking=False):
            return
        try:
            self.result = self.function(*self.args)
        except Exception as error:  # the loop goes on; the one who asked gets it
            self.error = error
        self.answered.set()

    def fail(self, error: Exception) -> None:
        if self.claim.acquire(blocking=False):
            self.error = error
            self.answered.set()
