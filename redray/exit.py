"""How an actor asks to end, in words that both the API (which raises) and the worker (which obeys) know."""

from __future__ import annotations


class ActorExitRequested(BaseException):
    """Raised by `exit_actor()`. Being made is what counts: an `except BaseException` in user code can catch it, not
    undo it."""

    requested = False  # of this process, which hosts one actor and ends after the call that made the first instance

    def __init__(self, reason: str = "the actor called exit_actor()") -> None:
        super().__init__(reason)
        self.reason = reason
        ActorExitRequested.requested = True
