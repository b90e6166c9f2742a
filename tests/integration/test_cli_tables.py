"""`redray status` and `redray list` over a Redis whose content a test wrote: what is there is what is shown."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redray import cli
from redray.gcs.client import Connection
from redray.gcs.inspect import Inspector, quantities
from redray.gcs.keys import Keys
from redray.gcs.schema import LIMITS
from redray.gcs.server import EmbeddedServer

KEYS: Any = Keys()
Redray = Callable[..., tuple[int, str, str]]


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    directory = tmp_path_factory.mktemp("r", numbered=True)  # short: it holds a socket
    directory.chmod(0o700)
    server = EmbeddedServer.start(directory)
    with contextlib.closing(Connection.open(server.address)) as connection:
        yield connection
    server.stop()


@pytest.fixture
def redray(redis: Connection, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Redray:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main([*arguments, "--address", redis.address.url(), "--temp-dir", str(tmp_path / "none")])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def write(redis: Connection, key: str, **fields: Any) -> None:
    redis.call("HSET", key, *(part for field in fields.items() for part in field))


def add_node(redis: Connection, identifier: str, state: str, resources: str, free: str) -> None:
    total = json.dumps({**quantities(resources), "node:10.0.0.9": 1})
    write(redis, KEYS.node(identifier), state=state, address="10.0.0.9:7", pid=17, resources=total, free=free)


def test_status_of_an_empty_cluster(redray: Redray, redis: Connection) -> None:
    assert redray("status") == (
        0,
        f"Redis    {redis.address}\n"
        "nodes    0 alive\n"
        "jobs     0 running\n"
        "actors   0 alive or starting\n\n"
        "in use\n    nothing\n\n"
        "waiting for resources\n    nothing\n",
        "",
    )


def test_status_adds_up_the_nodes_that_are_alive(redray: Redray, redis: Connection) -> None:
    add_node(redis, "aa", "ALIVE", "CPU:4,GPU:1", "CPU:2.5")
    add_node(redis, "bb", "ALIVE", "CPU:4,memory:1073741824", "CPU:4,memory:536870912")
    add_node(redis, "cc", "DEAD", "CPU:64", "CPU:64")
    write(redis, KEYS.job("01"), state="RUNNING")
    write(redis, KEYS.job("02"), state="ENDED")
    write(redis, KEYS.actor("03"), state="ALIVE")
    write(redis, KEYS.actor("04"), state="DEAD")
    _, out, _ = redray("status")
    assert "nodes    2 alive, 1 dead\n" in out
    assert "jobs     1 running\n" in out
    assert "actors   1 alive or starting\n" in out
    assert "    1.5 of 8 CPU\n    1 of 1 GPU\n    0.50 GiB of 1.00 GiB memory\n" in out
    assert "bb" not in out
    _, out, _ = redray("status", "-v")
    assert "\nnode bb  ALIVE  10.0.0.9:7  pid 17\n    0 of 4 CPU\n" in out


def test_status_says_what_waits_and_what_waits_for_ever(redray: Redray, redis: Connection) -> None:
    add_node(redis, "aa", "ALIVE", "CPU:4", "-")
    for demand, job, tasks in (("CPU:1", "01", 2), ("CPU:1", "02", 1), ("CPU:8,GPU:1", "01", 1)):
        queue = f"{demand}|{job}"
        redis.call("ZADD", KEYS.queues, 0, queue)
        redis.call("ZADD", KEYS.queue(queue), *(part for n in range(tasks) for part in (n, f"task{n}")))
    _, out, _ = redray("status")
    assert "    3 x CPU:1\n    1 x CPU:8 GPU:1   (no node is that large: add one)\n" in out


def test_local_status_needs_a_node_of_this_machine(redray: Redray, redis: Connection) -> None:
    add_node(redis, "aa", "ALIVE", "CPU:4", "CPU:4")
    assert redray("status", "--local") == (1, "", "redray: no node of this machine is known to the cluster as alive.\n")


@pytest.mark.parametrize("what", ["nodes", "jobs", "actors", "tasks", "objects"])
def test_an_empty_table(redray: Redray, what: str) -> None:
    assert redray("list", what) == (0, f"no {what}\n", "")
    assert redray("list", what, "--format", "json") == (0, "[]\n", "")


def add_tasks(redis: Connection) -> None:
    write(redis, KEYS.task("a1"), state="RUNNING", name="fit model", job="01", node="aa", attempt=1, retries=3, refs=1)
    write(redis, KEYS.task("a2"), state="FINISHED", name="plot", job="01", attempt=2, retries=3, refs=1, value="12345")


def test_list_tasks(redray: Redray, redis: Connection) -> None:
    add_tasks(redis)
    _, out, _ = redray("list", "tasks")
    titles, *rows = [line.split("  ") for line in out.splitlines()]
    assert [title.strip() for title in titles if title] == [
        "id", "state", "name", "job", "node", "actor", "attempt", "retries", "unready",
    ]  # fmt: skip
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["a2", "FINISHED", "plot", "01", "-", "-", "2", "3", "-"],
        ["a1", "RUNNING", "fit model", "01", "aa", "-", "1", "3", "-"],
    ]


def test_filters_and_json(redray: Redray, redis: Connection) -> None:
    add_tasks(redis)

    def names(*filters: str) -> list[str]:
        options = [part for text in filters for part in ("--filter", text)]
        _, out, _ = redray("list", "tasks", "--format", "json", *options)
        return [row["name"] for row in json.loads(out)]

    assert names() == ["plot", "fit model"]
    assert names("state=RUNNING") == ["fit model"]
    assert names("state!=RUNNING") == ["plot"]
    assert names("job=01", "attempt=2") == ["plot"]
    code, _, err = redray("list", "tasks", "--filter", "colour=red")
    assert (code, "no field 'colour'" in err) == (2, True)


def test_objects_are_values_that_were_put_or_returned(redis: Connection) -> None:
    add_tasks(redis)
    large = "ab" * 16
    write(redis, KEYS.object(large), state="READY", size=10**9, at="aa bb", refs=2)
    task = "a2".ljust(24, "0")
    redis.call("RENAME", KEYS.task("a2"), KEYS.task(task))
    rows = {row["id"]: row for row in Inspector(redis).objects()}
    assert set(rows) == {large, task + "00000000"}, "an unfinished task has no value"
    assert (rows[large]["size"], rows[large]["at"]) == (10**9, "aa bb")
    assert rows[task + "00000000"]["size"] == 5, "the size of an inline value is its length"


def test_nodes_and_their_resources(redis: Connection) -> None:
    add_node(redis, "aa", "ALIVE", "CPU:4,disk:0.5", "CPU:3.5")
    (row,) = Inspector(redis).nodes()
    assert row["resources"] == {"CPU": 4.0, "disk": 0.5, "node:10.0.0.9": 1}
    assert row["free"] == {"CPU": 3.5}


def test_a_long_table_is_cut_and_says_so(redray: Redray, redis: Connection) -> None:
    many = LIMITS["SLICE"] * 2 + 1
    redis.pipeline([("HSET", KEYS.job(f"{n:04x}"), "state", "RUNNING", "started", n) for n in range(many)])
    assert len(Inspector(redis).jobs()) == many
    _, out, _ = redray("list", "jobs", "--limit", "3")
    assert len(out.splitlines()) == 1 + 3 + 1
    assert out.endswith("... and more: these are 3, see --limit and --filter.\n")


def test_looking_changes_nothing(redray: Redray, redis: Connection) -> None:
    add_tasks(redis)
    add_node(redis, "aa", "ALIVE", "CPU:4", "CPU:4")
    before = redis.call("CONFIG", "RESETSTAT"), redis.call("DBSIZE")
    for command in (["status", "-v"], ["list", "tasks"], ["list", "objects"], ["list", "nodes"]):
        assert redray(*command)[0] == 0
    used = {line.split(b":")[0] for line in redis.call("INFO", "commandstats").split() if line.startswith(b"cmdstat_")}
    reading = {b"cmdstat_" + name for name in (b"scan", b"smembers", b"hmget", b"zrange", b"zcard", b"hstrlen")}
    harmless = {b"cmdstat_" + name for name in (b"info", b"ping", b"dbsize", b"config|resetstat", b"config", b"select")}
    assert used <= reading | harmless
    assert redis.call("DBSIZE") == before[1]
