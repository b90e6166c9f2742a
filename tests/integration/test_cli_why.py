"""`redray why` and `redray doctor` on a cluster at work."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray import cli
from redray.gcs.client import Connection
from redray.gcs.keys import Keys
from tests.helpers import Signal, wait_until

Redray = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    ray.shutdown()
    context = ray.init(address="local", num_cpus=1, log_to_driver=False)
    yield str(context.address_info["address"])
    ray.shutdown()


@pytest.fixture
def redray(address: str, capsys: pytest.CaptureFixture[str]) -> Redray:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main([*arguments, "--address", address])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def signal(tmp_path: Path) -> Iterator[Signal]:
    signal = Signal(tmp_path / "signal")
    yield signal
    signal.set()


@ray.remote
def hold(signal: Signal) -> None:
    signal.wait()


@ray.remote
def follow(*_: Any) -> None: ...


def why(redray: Redray, id: str, wanted: str) -> str:
    """What it says, once it says so: a state takes a moment to be true."""
    said: list[str] = []

    def says_so() -> bool:
        code, out, err = redray("why", id)
        assert (code, err) == (0, "")
        said[:] = [out]
        return re.search(wanted, out) is not None

    wait_until(says_so, what=f"`redray why` to say {wanted!r}")
    return said[0]


def test_a_chain_of_arguments_ends_at_what_runs(redray: Redray, signal: Signal) -> None:
    first = hold.remote(signal)
    last = follow.remote(follow.remote(first))
    said = why(redray, last.hex(), "runs node")
    assert re.findall(r"^( *)(?:Object|Task)", said, re.MULTILINE) == [" " * 2 * depth for depth in range(6)]
    assert f"Task hold ({first.hex()[:24]}) runs node" in said


def test_a_demand_that_no_node_has_is_named(redray: Redray) -> None:
    ref = follow.options(resources={"telescope": 2}).remote()
    said = why(redray, ref.hex()[:24], "no live node has")
    assert "It needs 1 CPU and 2 telescope: no live node has 2 telescope (the largest has 0)." in said
    ray.cancel(ref)


def test_labels_that_no_node_has_are_named(redray: Redray) -> None:
    ref = follow.options(label_selector={"zone": "nowhere"}).remote()
    said = why(redray, ref.hex(), "No live node has such labels")
    assert "zone=nowhere" in said
    _, out, _ = redray("status")
    assert "1 x CPU:1 on zone=nowhere   (no node has such labels: add one)" in out
    ray.cancel(ref)


def test_a_demand_that_is_in_use_names_who_has_what(redray: Redray, signal: Signal) -> None:
    running = hold.remote(signal)
    waiting = follow.remote()
    said = why(redray, waiting.hex(), "in use")
    assert re.search(r"all that is in use: node [0-9a-f]+ has 0 of 1 CPU free", said)
    signal.set()
    ray.get([running, waiting], timeout=30)
    assert "has ended with a value" in why(redray, waiting.hex(), "ended")


def test_a_task_that_runs_names_its_children(redray: Redray, signal: Signal) -> None:
    @ray.remote(num_cpus=0)
    def parent(signal: Signal) -> None:
        ray.get(hold.options(resources={"telescope": 1}).remote(signal))

    ref = parent.remote(signal)
    said = why(redray, ref.hex()[:24], "telescope")
    assert "It submitted 1 task that has not ended" in said
    ray.cancel(ref)


def test_a_call_waits_for_its_actor_and_that_for_room(redray: Redray) -> None:
    class Observer:
        def look(self) -> None: ...

    observer: Any = ray.remote(resources={"telescope": 1})(Observer).remote()
    ref = observer.look.remote()
    said = why(redray, ref.hex(), "telescope")
    assert "waits until its actor is alive" in said
    assert "Actor Observer" in said
    ray.kill(observer)
    why(redray, ref.hex()[:24], "has ended with an error")


def test_what_is_not_there_is_said_to_be_unknown(redray: Redray) -> None:
    assert (
        redray("why", "ab" * 12)[1]
        == f"Nothing is known of {'ab' * 12}: it has ended and was freed, or was never submitted.\n"
    )
    assert redray("why", "ab" * 16)[1].startswith(f"Object {'ab' * 16} is not known")


@pytest.mark.parametrize("id", ["", "xyz", "ab" * 11, "zz" * 12])
def test_a_text_that_is_no_id_is_refused(redray: Redray, id: str) -> None:
    code, out, err = redray("why", id)
    assert (code, out) == (2, "")
    assert "is no id" in err


def test_the_doctor_finds_nothing_wrong_with_a_healthy_cluster(redray: Redray) -> None:
    ray.get([follow.remote(ray.put(1)) for _ in range(10)], timeout=30)
    assert redray("doctor") == (0, "everything adds up\n", "")


def test_the_doctor_names_what_does_not_add_up(redray: Redray, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redray.cli.doctor._BETWEEN_S", 0.0)
    connection = Connection.open(address)
    task = "ab" * 12
    connection.call("SADD", Keys().node_tasks("ghost"), task)
    code, out, err = redray("doctor")
    connection.call("DEL", Keys().node_tasks("ghost"))
    connection.close()
    assert code == 1
    assert f"Task {task} is in node_tasks ghost, but has no record." in out
    assert "please report it" in err
