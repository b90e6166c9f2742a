"""How an actor asks to end, in words that both the API (which raises) and the worker (which obeys) know."""

from __future__ import annotations

EXITED = "it called exit_actor() or sys.exit(0)"  # which mean the same in an actor


class ActorExitRequested(BaseException):
    """Raised by `exit_actor()` in a method. `TaskContext.exits` is what counts: an `except BaseException` in user code
    can catch this, not undo that."""

    def __init__(self, reason: str = "it called exit_actor()") -> None:
        super().__init__(reason)
        self.reason = reason


class ThisProcess:
    """What a thread that belongs to no call knows: whether an actor lives here, and that it is to end after the call
    that runs now."""

    hosts_actor = False
    must_end = False
