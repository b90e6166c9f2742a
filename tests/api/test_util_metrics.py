"""`ray.util.metrics`: counted in tasks, served by the node."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

import redray as ray
from redray.metrics_files import Collection, Metric, Series, exposition, write
from redray.util.metrics import Counter, Gauge, Histogram
from tests.helpers import wait_until

CLUSTER_OPTIONS = {"_metrics_export_port": 0}


def scraped() -> dict[str, float]:
    from redray.gcs.keys import Keys

    session: Any = ray.api.current.current()
    (node,) = ray.nodes()
    port = session.query([("HGET", Keys().node(node["NodeID"]), "metrics_port")])[0].decode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        text = response.read().decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def value_of(name: str, *parts: str) -> float | None:
    for found, value in scraped().items():
        if found.startswith(name + "{") and all(part in found for part in parts):
            return value
    return None


@ray.remote
class Server:
    def __init__(self) -> None:
        self.calls = Counter("calls", "how many", tag_keys=("route",))
        self.load = Gauge("load", tag_keys=("route",)).set_default_tags({"route": "home"})
        self.seconds = Histogram("seconds", "how long", boundaries=[0.1, 1.0])

    def call(self, route: str, seconds: float) -> int:
        self.calls.inc(tags={"route": route})
        self.load.set(seconds)
        self.seconds.observe(seconds)
        return os.getpid()


@pytest.mark.one_node("it reads the metrics of one node")
def test_metrics_of_actors_are_served(cluster: None) -> None:
    servers = [Server.remote() for _ in range(2)]
    pids = ray.get([server.call.remote("home", 0.5) for server in servers])
    ray.get(servers[0].call.remote("away", 5.0))
    wait_until(lambda: value_of("ray_calls_total", 'route="home"') == 2, what="both processes' counts together")
    wait_until(lambda: value_of("ray_calls_total", 'route="away"') == 1, what="the other route")
    assert value_of("ray_load", 'route="home"', f'Pid="{pids[1]}"') == 0.5
    assert value_of("ray_seconds_bucket", 'le="0.1"') == 0
    assert value_of("ray_seconds_bucket", 'le="1.0"') == 2
    assert value_of("ray_seconds_bucket", 'le="+Inf"') == value_of("ray_seconds_count") == 3
    assert value_of("ray_seconds_sum") == 6.0
    del servers
    wait_until(lambda: value_of("ray_load") is None, what="gauges of the dead to go")
    assert value_of("ray_calls_total", 'route="home"') == 2, "what they counted stays"


def test_names_tags_and_values_that_cannot_be_meant(cluster: None) -> None:
    for bad in ("", "two words", "1st"):
        with pytest.raises(ValueError):
            Counter(bad)
    with pytest.raises(TypeError):
        Counter("fine", tag_keys=["list"])  # type: ignore[arg-type]
    counter = Counter("fine", tag_keys=("a",))
    for call in (
        lambda: counter.inc(0, {"a": "x"}),
        lambda: counter.inc(1),
        lambda: counter.inc(1, {"a": "x", "b": "y"}),
        lambda: counter.set_default_tags({"b": "y"}),
        lambda: Histogram("empty", boundaries=[]),
        lambda: Histogram("negative", boundaries=[-1.0, 1.0]),
        lambda: Histogram("falling", boundaries=[2.0, 1.0]),
    ):
        with pytest.raises(ValueError):
            call()
    for wrong in (lambda: counter.inc("1", {"a": "x"}), lambda: counter.inc(1, {"a": 1})):  # type: ignore[arg-type,dict-item]
        with pytest.raises(TypeError):
            wrong()
    assert counter.info == {"name": "fine", "description": "", "tag_keys": ("a",), "default_tags": {}}


@pytest.fixture
def two_processes(tmp_path: Any) -> Iterator[Any]:
    series = [Series({"a": 'x"\n'}, [1.0])]
    write(tmp_path / "metrics", "aa", [Metric("n", "counter", "d", [], series), Metric("g", "gauge", "", [], series)])
    os.rename(tmp_path / "metrics" / f"{os.getpid()}-aa", tmp_path / "metrics" / "999999999-aa")  # nobody is that
    write(tmp_path / "metrics", "bb", [Metric("n", "counter", "d", [], series), Metric("g", "gauge", "", [], series)])
    yield tmp_path / "metrics"


def test_the_dead_and_the_living_are_added_up(two_processes: Any) -> None:
    collection = Collection(two_processes)
    for _ in range(2):
        text = exposition(collection.collect(), {"NodeId": "n1"})
        assert 'ray_n_total{NodeId="n1",a="x\\"\\n"} 2.0\n' in text
        assert text.count("ray_g{") == 1
    assert "# TYPE ray_n_total counter\n" in text and "# HELP ray_n_total d\n" in text
    assert len(list(two_processes.iterdir())) == 1, "the file of the dead is gone"
