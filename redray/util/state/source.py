"""Where the state API reads: through this process' session, or a connection of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from redray import current
from redray.exceptions import RaySystemError
from redray.gcs.address import Address
from redray.gcs.client import Connection, ReplyError
from redray.gcs.inspect import Inspector
from redray.util.state.exception import RayStateApiException, ServerUnavailable


class _Session:
    """The session's connection for questions."""

    def __init__(self, query: Any) -> None:
        self._query = query

    def call(self, *command: Any) -> Any:
        return self._query([command])[0]

    def pipeline(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        replies: list[Any] = self._query(commands) if commands else []
        return replies


@contextlib.contextmanager
def inspector(address: str | None = None, timeout: float = 30) -> Iterator[Inspector]:
    """The cluster at `address`; without one that of the session, else the one that `redray.init()` would join.

    Raises:
        ServerUnavailable: there is none, or it does not answer.
        RayStateApiException: it could not say what was asked.
    """
    with contextlib.ExitStack() as stack:
        session = current.current_or_none()
        reader = getattr(session, "reader", None)
        try:
            if session is not None and reader is None:
                raise RaySystemError(f"This session ({session.kind}) has no cluster whose state could be read.")
            if reader is not None and address in (None, "auto"):
                yield Inspector(_Session(reader()))
                return
            where = _resolve(address)
            connection = stack.enter_context(contextlib.closing(Connection.open(where, timeout, "redray-state")))
            yield Inspector(connection)
        except (ConnectionError, TimeoutError) as error:
            raise ServerUnavailable(str(error)) from error
        except ReplyError as error:
            raise RayStateApiException(str(error)) from error


def _resolve(address: str | None) -> Address:
    from redray.bootstrap import find_local_cluster
    from redray.config import settings
    from redray.local_cluster import with_password

    named = address if address not in (None, "auto") else settings().address or find_local_cluster()
    if not named:
        raise ConnectionError("No cluster was found: call redray.init() first, or name one with `address`.")
    return with_password(Address.parse(named))
