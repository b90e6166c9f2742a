"""`ray.timeline()`: what ran when and where, in the format of chrome://tracing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

import redray as ray


@ray.remote
def nap(seconds: float) -> None:
    time.sleep(seconds)


@ray.remote(max_retries=0)
def fail() -> None:
    raise ValueError("on purpose")


@ray.remote
class Sleeper:
    def nap(self) -> None:
        pass


def complete(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event["ph"] == "X" and event["name"] == name]


def test_tasks_and_calls(cluster: None) -> None:
    before = time.time()
    refs = [nap.remote(0.05) for _ in range(3)]
    ray.get(refs)
    sleeper = Sleeper.remote()
    ray.get(sleeper.nap.remote())
    with pytest.raises(ValueError):
        ray.get(fail.remote())
    events: Any = ray.timeline()
    mine = {ref.task_id().hex() for ref in refs}
    naps = [event for event in complete(events, "nap") if event["args"]["task_id"] in mine]
    assert len(naps) == 3
    for event in naps:
        assert event["cat"] == "task::nap"
        assert 50_000 <= event["dur"] < 5_000_000, "microseconds"
        assert before * 1e6 - 1000 <= event["ts"] <= time.time() * 1e6
        assert event["pid"] == ray.nodes()[0]["NodeManagerAddress"]
        assert event["tid"].startswith("worker:")
    assert len(complete(events, "Sleeper.nap")) == len(complete(events, "Sleeper.__init__")) == 1
    assert complete(events, "fail")[0]["args"]["outcome"] == "ERROR"


def test_a_file(cluster: None, tmp_path: Path) -> None:
    ray.get(nap.remote(0))
    path = tmp_path / "timeline.json"
    assert ray.timeline(str(path)) is None
    assert complete(json.loads(path.read_text()), "nap")


def test_the_history_is_capped(cluster: None, address: str) -> None:
    from redray.gcs.client import Connection
    from redray.gcs.keys import Keys
    from redray.gcs.schema import LIMITS

    ray.get([nap.remote(0) for _ in range(2 * LIMITS["HISTORY_BATCH"])])
    assert len(complete(ray.timeline() or [], "nap")) >= LIMITS["HISTORY_BATCH"] / 2
    connection = Connection.open(address)
    connection.pipeline([("RPUSH", Keys().history, *[connection.call("LINDEX", Keys().history, 0)] * 500)] * 21)
    ray.get(nap.remote(0))
    ray.timeline()
    assert connection.call("LLEN", Keys().history) == LIMITS["HISTORY_TASKS"]
    connection.close()
