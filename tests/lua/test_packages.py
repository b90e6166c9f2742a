"""package_open, package_write: files of runtime environments, for as long as a job uses them."""

from __future__ import annotations

import pytest

from redray.gcs import actors, packages
from redray.gcs.client import ReplyError
from tests.lua.builders import DRIVER, OTHER, WORKER, Cluster, task_id, text

PACKAGE = "ab" * 20
SIZE = 2 * packages.PART + 1  # three parts


def begin(cluster: Cluster, by: str = DRIVER, job: str = "") -> object:
    return text(cluster.call(by, packages.begin(PACKAGE, job or by, SIZE)))


def write(cluster: Cluster, index: int, data: bytes = b"part") -> object:
    return text(cluster.run(packages.write(cluster.keys, PACKAGE, index, data)))


def record(cluster: Cluster) -> dict[str, object]:
    return cluster.hash(cluster.keys.package(PACKAGE))


def test_parts_are_counted_in_order(cluster: Cluster) -> None:
    assert begin(cluster) == ["OK", 0]
    assert [write(cluster, index) for index in range(3)] == [["OK", 1], ["OK", 2], ["OK", 3]]
    assert record(cluster) == {
        "users": "1",
        "size": str(SIZE),
        "parts": "3",
        "have": "3",
        **dict.fromkeys("012", "part"),
    }


def test_an_upload_goes_on_where_another_stopped(cluster: Cluster) -> None:
    begin(cluster)
    write(cluster, 0)
    cluster.driver(OTHER)
    assert begin(cluster, OTHER) == ["OK", 1]


def test_the_same_part_twice_is_one(cluster: Cluster) -> None:
    begin(cluster)
    assert [write(cluster, index) for index in (0, 0, 1, 0)] == [["OK", 1], ["OK", 1], ["OK", 2], ["OK", 2]]


def test_a_part_that_comes_early_does_not_count(cluster: Cluster) -> None:
    """Nobody sends one; but what says that it is whole must be whole."""
    begin(cluster)
    assert write(cluster, 2) == ["OK", 0]


def test_a_call_made_twice_counts_the_job_once(cluster: Cluster) -> None:
    begin(cluster)
    assert text(cluster.send_again()) == ["OK", 0]
    begin(cluster)
    assert record(cluster)["users"] == "1"


@pytest.mark.parametrize("index", [-1, 3])
def test_a_part_that_it_does_not_have_is_refused(cluster: Cluster, index: int) -> None:
    begin(cluster)
    before = cluster.dump()
    with pytest.raises(ReplyError, match="has 3 parts"):
        write(cluster, index)
    assert cluster.dump() == before


def test_no_part_without_a_user(cluster: Cluster) -> None:
    assert write(cluster, 0) == ["NOT_FOUND"]
    assert "package" not in cluster.names()


def test_it_goes_with_its_last_job(cluster: Cluster) -> None:
    begin(cluster)
    write(cluster, 0)
    cluster.driver(OTHER)
    begin(cluster, OTHER)
    cluster.end(DRIVER)
    cluster.chores()
    assert record(cluster)["users"] == "1"
    cluster.end(OTHER)
    cluster.chores()
    assert not cluster.names() & {"package", "job_packages"}


def test_nothing_is_opened_for_a_job_that_has_ended(cluster: Cluster) -> None:
    cluster.worker(WORKER)
    cluster.end(DRIVER)
    cluster.chores()
    assert text(cluster.call(WORKER, packages.begin(PACKAGE, DRIVER, SIZE))) == ["JOB_ENDED"]
    assert "package" not in cluster.names()


def test_a_detached_actor_keeps_the_packages_of_its_environment(cluster: Cluster) -> None:
    actor, record_of_it = task_id(9), actors.ActorRecord("name", "space", "A", 1, 0, 0)
    begin(cluster)
    gone = "cd" * 20
    options = {"packages": [PACKAGE, gone]}
    assert cluster.create_actor(actor, record=record_of_it, job=actor[8:], options=options) == ["OK"]
    assert record(cluster)["users"] == "2"
    assert cluster.members(cluster.keys.job_packages(actor[8:])) == {PACKAGE}
    cluster.end(DRIVER)
    cluster.chores()
    assert record(cluster)["users"] == "1"
    cluster.driver(OTHER)
    cluster.kill_actor(actor, by=OTHER)
    cluster.chores()
    assert not cluster.names() & {"package", "job_packages"}
