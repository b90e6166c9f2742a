"""Two machines, as near as one machine comes: network namespaces, joined by a cable of which either end can be cut."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY, wait_until
from tests.integration.cluster_fixtures import processes_of

HEAD, OTHER = "10.213.77.1", "10.213.77.2"
PREFIX = f"rr{os.getpid() % 100000}"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def can_make_namespaces() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    try:
        ip("netns", "add", f"{PREFIX}probe")
        ip("netns", "del", f"{PREFIX}probe")
    except subprocess.CalledProcessError:  # a container without the right to
        return False
    return True


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_make_namespaces(), reason="needs root, iproute2 and the right to make namespaces"),
]


class Machine:
    """A network namespace, and a directory for what runs in it."""

    def __init__(self, name: str, address: str, cable: str) -> None:
        self.name, self.address = name, address
        self.directory = tempfile.mkdtemp(prefix="redray-t-", dir="/tmp")
        ip("netns", "add", name)
        ip("link", "set", cable, "netns", name)
        self.run("ip", "addr", "add", f"{address}/24", "dev", cable)
        self.run("ip", "link", "set", cable, "up")
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *command: str, password: str = "", check: bool = True) -> str:
        environment = {**os.environ, "REDRAY_TEMP_DIR": self.directory, "PYTHONPATH": str(REPOSITORY)}
        if password:
            environment["REDRAY_REDIS_PASSWORD"] = password
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *command], env=environment, capture_output=True, text=True, timeout=60
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def redray(self, *arguments: str, password: str = "", check: bool = True) -> str:
        return self.run(sys.executable, "-m", "redray.cli", *arguments, password=password, check=check)

    def close(self) -> None:
        self.redray("stop", "--force", check=False)
        wait_until(lambda: not processes_of(self.directory), what=f"what runs in {self.name} to end")
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("netns", "del", self.name)
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    ip("link", "add", f"{PREFIX}a", "type", "veth", "peer", "name", f"{PREFIX}b")
    head = Machine(f"{PREFIX}head", HEAD, f"{PREFIX}a")
    other = Machine(f"{PREFIX}other", OTHER, f"{PREFIX}b")
    yield head, other
    other.close()
    head.close()


PROGRAM = """
import sys
import numpy as np
import redray as ray
from redray import current
ray.init(sys.argv[1])
assert (current.current().node_id is None) == (sys.argv[2] == "direct"), current.current().node_id

@ray.remote
def host():
    return ray.get_runtime_context().get_node_id()

@ray.remote
def make():
    return np.arange(5_000_000)  # 40 MB

@ray.remote
def total(values):
    return int(values.sum())

@ray.remote
class Keeper:
    def keep(self, values):
        self.values = values
        return int(values.sum())
    def give(self):
        return self.values * 2

@ray.remote
def ask(keeper):
    return int(ray.get(keeper.give.remote()).sum())

head, other = ({"num_cpus": 0, "resources": {name: 1}} for name in ("head", "other"))
assert len(set(ray.get([host.options(**head).remote(), host.options(**other).remote()]))) == 2
expected = int(np.arange(5_000_000).sum())
for here, there in ((head, other), (other, head)):
    made = make.options(**here).remote()
    assert ray.get(total.options(**there).remote(made), timeout=30) == expected
    assert int(ray.get(made, timeout=30).sum()) == expected
    keeper = Keeper.options(**here).remote()
    assert ray.get(keeper.keep.remote(made), timeout=30) == expected
    assert ray.get(ask.options(**there).remote(keeper), timeout=30) == 2 * expected
    del made, keeper
mine = ray.put(np.arange(5_000_000))
assert ray.get([total.options(**place).remote(mine) for place in (head, other)], timeout=30) == [expected] * 2
print("DONE")
"""


def site(name: str, address: str) -> list[str]:
    resources = json.dumps({name: 4})
    return ["--num-cpus", "1", "--object-store-memory", "1G", "--resources", resources, "--node-ip-address", address]


def test_two_machines(machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    head, other = machines
    head.redray("start", "--head", "--port", "6399", *site("head", HEAD))
    password = Path(head.directory, "redis_password").read_text()
    assert len(password) >= 32
    refused = other.redray("start", "--address", f"{HEAD}:6399", check=False)
    assert "wants a password" in refused
    refused = other.redray("start", "--address", f"{HEAD}:6399", password="a guess", check=False)
    assert "refused the user name or password" in refused
    other.redray("start", "--address", f"{HEAD}:6399", *site("other", OTHER), password=password)
    wait_until(lambda: "2 alive" in head.redray("status"), what="both nodes to be alive")

    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    for machine in machines:
        output = machine.run(sys.executable, str(script), f"redis://{HEAD}:6399", "node", password=password)
        assert "DONE" in output, output
    # A third place, without a node: the other machine's sockets are not there.
    hide = 'mount -t tmpfs none /dev/shm && exec "$@"'
    program = [sys.executable, str(script), f"redis://{HEAD}:6399", "direct"]
    output = other.run("unshare", "-m", "sh", "-c", hide, "sh", *program, password=password)
    assert "DONE" in output, output

    # Pull the plug: within a lease the cluster is without that node, and goes on.
    other.run("ip", "link", "set", f"{PREFIX}b", "down")
    wait_until(lambda: "1 alive" in head.redray("status"), timeout=12, what="the lost node to be declared dead")
    other.run("ip", "link", "set", f"{PREFIX}b", "up")
    # It learns that it was declared dead, and ends.
    wait_until(lambda: not processes_of(other.directory), timeout=30, what="the cut-off node to end")
