"""The commands that look at a cluster at work, and those for jobs, as somebody types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from tests.helpers import PATIENCE, REPOSITORY, Signal, wait_until

Redray = Callable[..., tuple[int, str, str]]


@pytest.fixture
def redray(cluster: None, address: str) -> Redray:
    """Runs a command for the module's cluster: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "REDRAY_ADDRESS": address}
        done = subprocess.run(
            [sys.executable, "-m", "redray.cli", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


@ray.remote
class Counter:
    def say(self, text: str) -> None:
        print(text)


def test_get(redray: Redray) -> None:
    actor = Counter.remote()
    ray.get(actor.say.remote("hello"))
    code, out, _ = redray("get", "actors", actor._actor_id.hex())
    assert code == 0
    assert (json.loads(out)["state"], json.loads(out)["class_name"]) == ("ALIVE", "Counter")
    code, _, err = redray("get", "nodes", "00")
    assert (code, "no such node: 00" in err) == (1, True)


def test_summary_and_memory(redray: Redray) -> None:
    actor, value = Counter.remote(), ray.put(b"x" * 500_000)
    ray.get(actor.say.remote("hello"))
    code, out, _ = redray("summary", "actors", "--format", "json")
    assert (code, json.loads(out)["summary"]["Counter"]["state_counts"]["ALIVE"]) == (0, 1)
    titles, row = redray("summary", "actors")[1].splitlines()[:2]
    assert "ALIVE" in titles and row.startswith("Counter")
    code, out, _ = redray("memory")
    assert code == 0 and out.splitlines()[1].startswith(value.hex())
    assert json.loads(redray("memory", "--format", "json")[1])[0]["object_size"] >= 500_000


def test_logs(redray: Redray) -> None:
    actor = Counter.remote()
    ray.get([actor.say.remote(f"line {number}") for number in range(5)])
    job = ray.get_runtime_context().get_job_id()
    wait_until(lambda: "line 4" in redray("logs", job)[1], what="the lines")
    code, out, _ = redray("logs", job[:10], "--tail", "2", "--name", "Counter")
    assert code == 0
    assert [line.partition(") ")[2] for line in out.splitlines()] == ["line 3", "line 4"]
    assert redray("logs", "nonsense")[0] == 1


def test_timeline(redray: Redray, tmp_path: Path) -> None:
    actor = Counter.remote()
    ray.get(actor.say.remote("hello"))
    file = tmp_path / "trace.json"

    def names() -> set[str]:
        assert redray("timeline", str(file))[0] == 0
        return {event["name"] for event in json.loads(file.read_text())}

    wait_until(lambda: "Counter.say" in names(), what="the call in the trace")


def test_kill_actor(redray: Redray) -> None:
    actor = Counter.options(name="doomed", namespace="here").remote()
    ray.get(actor.say.remote("hello"))
    code, _, err = redray("kill-actor", "nobody", "--namespace", "here")
    assert (code, "nobody" in err) == (1, True)
    assert redray("kill-actor", "doomed", "--namespace", "here")[0] == 0
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.say.remote("again"))


def test_microbenchmark(no_cluster: None) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "redray.cli", "microbenchmark", "--seconds", "0.05", "--format", "json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
    rates: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0 and len(rates) == 6 and all(rate > 0 for rate in rates.values())


def test_a_job_from_the_command_line(redray: Redray, tmp_path: Path) -> None:
    code, out, err = redray("job", "submit", "--submission-id", "mine", "--", "echo", "two words", "here")
    assert code == 0, err
    assert "Job 'mine' submitted successfully." in out
    assert "two words here" in out and "Status for job 'mine': SUCCEEDED" in out
    assert redray("job", "logs", "mine")[1] == "two words here\n"
    assert "SUCCEEDED" in redray("job", "status", "mine")[1]
    assert json.loads(redray("job", "list", "--format", "json")[1])[-1]["submission_id"] == "mine"
    assert "mine" in redray("job", "list")[1]
    assert redray("job", "delete", "mine")[0] == 0
    code, _, err = redray("job", "status", "mine")
    assert (code, "does not exist" in err) == (1, True)


def test_jobs_that_fail_and_are_stopped(redray: Redray, tmp_path: Path) -> None:
    code, out, _ = redray("job", "submit", "--", "exit 3")
    assert (code, "FAILED" in out) == (1, True)
    begun = Signal(tmp_path / "begun")
    code, out, _ = redray(
        "job", "submit", "--no-wait", "--submission-id", "long", "--", f"touch {begun.path}; sleep 1000"
    )
    assert (code, "redray job logs long" in out) == (0, True)
    begun.wait()
    code, out, _ = redray("job", "stop", "long")
    assert (code, "STOPPED" in out) == (0, True)


def test_commands_that_were_written_wrong(redray: Redray) -> None:
    for wrong in (["get", "planets", "00"], ["job", "submit"], ["summary"], ["kill-actor", "x"]):
        code, _, err = redray(*wrong)
        assert (code, err.count("\n")) == (2, 1), err
