"""A node that is killed between the start of a task and the moment when Redis hears of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray.cluster_utils import Cluster
from redray.exceptions import ActorAlreadyExistsError, ActorDiedError, ActorUnavailableError, WorkerCrashedError
from redray.gcs.client import Connection
from redray.session import current_or_none
from tests.helpers import Journal, wait_until
from tests.integration.cluster_fixtures import assert_at_rest, cluster, temp_dir

__all__ = ["cluster", "temp_dir"]  # fixtures

DEAF_MS = 60_000


@ray.remote
def once(journal: Journal) -> str:
    journal.add("ran")
    return "done"


@ray.remote
class Writer:
    def write(self, journal: Journal) -> str:
        journal.add("ran")
        return "done"


@contextlib.contextmanager
def deaf_redis(cluster: Cluster) -> Iterator[None]:
    """Redis runs no script and takes no write meanwhile."""
    with contextlib.closing(Connection.open(cluster.address)) as connection:
        connection.call("CLIENT", "PAUSE", DEAF_MS, "WRITE")
        try:
            yield
        finally:
            connection.call("CLIENT", "UNPAUSE")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def test_a_task_that_ran_unrecorded_does_not_run_again(cluster: Cluster, journal: Journal) -> None:
    node = cluster.add_node(num_cpus=1)
    cluster.connect()
    assert ray.get(once.remote(journal)) == "done"  # the node and its worker know the function
    with deaf_redis(cluster):
        ref = once.options(max_retries=0).remote(journal)
        wait_until(lambda: len(journal.lines()) == 2, what="the task to run")
        node.kill()
    cluster.add_node(num_cpus=1)
    with pytest.raises(WorkerCrashedError, match="may have run"):
        ray.get(ref)
    assert len(journal.lines()) == 2
    del ref
    assert_at_rest(cluster)


def test_with_retries_it_does(cluster: Cluster, journal: Journal) -> None:
    node = cluster.add_node(num_cpus=1)
    cluster.connect()
    assert ray.get(once.remote(journal)) == "done"
    with deaf_redis(cluster):
        ref = once.options(max_retries=1).remote(journal)
        wait_until(lambda: len(journal.lines()) == 2, what="the task to run")
        node.kill()
    cluster.add_node(num_cpus=1)
    assert ray.get(ref) == "done"
    assert len(journal.lines()) == 3
    del ref
    assert_at_rest(cluster)


def test_a_call_that_ran_unrecorded_is_not_made_again(cluster: Cluster, journal: Journal) -> None:
    node = cluster.add_node(num_cpus=1)
    cluster.connect()
    writer = Writer.options(max_restarts=1).remote()
    assert ray.get(writer.write.remote(journal)) == "done"
    with deaf_redis(cluster):
        ref = writer.write.remote(journal)
        wait_until(lambda: len(journal.lines()) == 2, what="the call to run")
        node.kill()
    cluster.add_node(num_cpus=1)
    with pytest.raises((ActorUnavailableError, ActorDiedError)):
        ray.get(ref)
    assert len(journal.lines()) == 2


def test_a_call_lost_with_its_actor_costs_one_retry(cluster: Cluster, journal: Journal) -> None:
    """Nobody has taken the dead node apart when the driver, which was on it, tells Redis of the call."""
    node = cluster.add_node(num_cpus=1)
    cluster.connect()
    writer = Writer.options(max_restarts=1, max_task_retries=1).remote()
    assert ray.get(writer.write.remote(journal)) == "done"
    with deaf_redis(cluster):
        ref = writer.write.remote(journal)
        wait_until(lambda: len(journal.lines()) == 2, what="the call to run")
        node.kill()
    cluster.add_node(num_cpus=1)
    assert ray.get(ref, timeout=30) == "done"
    assert len(journal.lines()) == 3


@pytest.mark.parametrize("is_taken", [False, True])
def test_075_a_creation_whose_answer_was_lost(
    is_taken: bool, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, journal: Journal
) -> None:
    """Sent again on another way, it is answered REPEAT: whether it had the name must be found out."""
    cluster.add_node(num_cpus=1)
    cluster.connect()
    first = Writer.options(name="one").remote() if is_taken else None
    session: Any = current_or_none()
    answer = session._await_reply

    def lose_the_answer(number: int) -> Any:
        answer(number)
        return ["REPEAT", ""]

    with monkeypatch.context() as patch:
        patch.setattr(session, "_await_reply", lose_the_answer)
        if is_taken:
            with pytest.raises(ActorAlreadyExistsError, match="one"):
                Writer.options(name="one").remote()
        else:
            first = Writer.options(name="one").remote()
    assert ray.get_actor("one") == first
    assert ray.get(first.write.remote(journal)) == "done"
