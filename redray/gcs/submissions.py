"""Commands that were submitted as jobs: what is asked of them, how they stand, and what they print."""

from __future__ import annotations

import time
from typing import Any, Protocol

import msgspec

from redray.gcs.keys import Keys
from redray.gcs.schema import ActorState

PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED = "PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"
TERMINAL = (STOPPED, SUCCEEDED, FAILED)

KEPT_S = 7 * 24 * 3600  # after the end
LOG_CHUNKS = 2_000
CHUNK = 4_096  # bytes at most: so a log is at most 8 MB
_SLICE = 500


class Reader(Protocol):
    """A connection, or a session's way to ask."""

    def call(self, *command: Any) -> Any: ...
    def pipeline(self, commands: list[tuple[Any, ...]]) -> list[Any]: ...


class Submission(msgspec.Struct, kw_only=True):
    """Times are in ms since the epoch. `state` and what follows change; the rest is as it was submitted."""

    id: str
    entrypoint: str
    metadata: dict[str, str] = {}
    runtime_env: dict[str, Any] = {}
    num_cpus: float | None = None
    num_gpus: float | None = None
    memory: int | None = None
    resources: dict[str, float] | None = None
    submitted: int = 0
    state: str = PENDING
    message: str = ""
    error: str = ""
    started: int | None = None
    ended: int | None = None
    actor: str = ""
    node: str = ""
    exit_code: int | None = None

    @property
    def is_over(self) -> bool:
        return self.state in TERMINAL


class SubmissionTable:
    """All of it is plain commands: one writer each, the submitter first and then the supervisor."""

    def __init__(self, connection: Reader, keys: Keys | None = None) -> None:
        self._connection = connection
        self._keys = keys or Keys()

    def add(self, submission: Submission) -> bool:
        """False: there is one with this id already."""
        key = self._keys.submission(submission.id)
        if not self._connection.call("HSETNX", key, "state", PENDING):
            return False
        submission.submitted = now_ms()
        self._connection.pipeline(
            [
                ("HSET", key, "asked", msgspec.json.encode(submission)),
                ("ZADD", self._keys.submissions, submission.submitted, submission.id),
            ]
        )
        return True

    def get(self, id: str) -> Submission | None:
        """One whose supervisor is dead has failed, whatever it could still say."""
        fields = _pairs(self._connection.call("HGETALL", self._keys.submission(id)))
        if "asked" not in fields:
            return None
        found = msgspec.json.decode(fields.pop("asked"), type=Submission)
        for name in ("state", "message", "error", "actor", "node"):
            setattr(found, name, fields.get(name, getattr(found, name)))
        for name in ("started", "ended", "exit_code"):
            setattr(found, name, int(fields[name]) if name in fields else None)
        if found.actor and not found.is_over and self._is_dead(found.actor):
            return self._lost(found)
        return found

    def all(self) -> list[Submission]:
        ids: list[bytes] = []
        while True:
            more = self._connection.call("ZRANGE", self._keys.submissions, len(ids), len(ids) + _SLICE - 1)
            ids += more
            if len(more) < _SLICE:
                break
        found = [self.get(id.decode()) for id in ids]
        gone = [id for id, submission in zip(ids, found, strict=True) if submission is None]
        if gone:  # kept long enough
            self._connection.call("ZREM", self._keys.submissions, *gone[:_SLICE])
        return [submission for submission in found if submission is not None]

    def update(self, id: str, **fields: Any) -> None:
        """With a terminal `state`, the record and its log expire a week later."""
        key = self._keys.submission(id)
        commands: list[tuple[Any, ...]] = [("HSET", key, *(part for pair in fields.items() for part in pair))]
        if fields.get("state") in TERMINAL:
            commands += [("EXPIRE", key, KEPT_S), ("EXPIRE", self._keys.submission_log(id), KEPT_S)]
        self._connection.pipeline(commands)

    def ask_to_stop(self, id: str) -> None:
        self._connection.call("HSET", self._keys.submission(id), "stop", 1)

    def is_asked_to_stop(self, id: str) -> bool:
        """Also when it was deleted."""
        state, stop = self._connection.call("HMGET", self._keys.submission(id), "state", "stop")
        return state is None or stop is not None

    def stopped_before_it_began(self, id: str) -> None:
        """Its supervisor was killed: if it had begun in the last moment, this is what it came to, too."""
        found = self.get(id)
        if found is not None and found.error in ("", "JOB_SUPERVISOR_ACTOR_DIED"):
            self.update(id, state=STOPPED, ended=now_ms(), error="", message="Job was intentionally stopped.")

    def delete(self, id: str) -> None:
        self._connection.pipeline(
            [
                ("DEL", self._keys.submission(id), self._keys.submission_log(id)),
                ("ZREM", self._keys.submissions, id),
            ]
        )

    # ---- what it prints ----------------------------------------------------------------------------------------------
    def append_log(self, id: str, data: bytes) -> None:
        key = self._keys.submission_log(id)
        self._connection.pipeline(
            [
                ("XADD", key, "MAXLEN", "~", LOG_CHUNKS, "*", "text", data[first : first + CHUNK])
                for first in range(0, len(data), CHUNK)
            ]
        )

    def read_log(self, id: str, after: str = "-") -> tuple[bytes, str]:
        """(what was printed after that position, the new position)."""
        data = b""
        while True:
            start = after if after == "-" else f"({after}"
            entries = self._connection.call("XRANGE", self._keys.submission_log(id), start, "+", "COUNT", _SLICE)
            data += b"".join(fields[1] for _, fields in entries)
            if entries:
                after = entries[-1][0].decode()
            if len(entries) < _SLICE:
                return data, after

    def _is_dead(self, actor: str) -> bool:
        state = self._connection.call("HGET", self._keys.actor(actor), "state")
        return state is None or state.decode() == ActorState.DEAD

    def _lost(self, found: Submission) -> Submission:
        state = self._connection.call("HGET", self._keys.submission(found.id), "state")
        if state is not None and state.decode() in TERMINAL:  # it ended between two looks
            return self.get(found.id) or found
        found.state, found.ended, found.error = FAILED, now_ms(), "JOB_SUPERVISOR_ACTOR_DIED"
        found.message = "Unexpected error occurred: the job's supervisor actor died, with its worker or its node."
        self.update(found.id, state=FAILED, ended=found.ended, error=found.error, message=found.message)
        return found


def now_ms() -> int:
    return int(time.time() * 1000)


def _pairs(flat: list[bytes]) -> dict[str, str]:
    texts = [part.decode("utf-8", "replace") for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))
