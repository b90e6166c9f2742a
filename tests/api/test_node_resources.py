"""What a node has: quantities of zero, memory that is given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import redray as ray

MEMORY = 500 * 2**20


@pytest.fixture
def node() -> Iterator[None]:
    ray.shutdown()
    ray.init(num_cpus=0, resources={"none": 0, "some": 2}, _memory=MEMORY)
    yield
    ray.shutdown()


def test_what_is_not_there_is_not_listed(node: None) -> None:
    for found in (ray.cluster_resources(), ray.available_resources(), ray.nodes()[0]["Resources"]):
        assert found["some"] == 2.0 and found["memory"] == MEMORY
        assert "CPU" not in found and "none" not in found
        assert {type(quantity) for quantity in found.values()} == {float}


def test_memory_is_handed_out(node: None) -> None:
    @ray.remote(num_cpus=0, memory=MEMORY)
    def all_of_it() -> dict[str, float]:
        return ray.get_runtime_context().get_assigned_resources()

    assert ray.get(all_of_it.remote()) == {"memory": MEMORY}
    ready, _ = ray.wait([all_of_it.options(memory=MEMORY + 1).remote()], timeout=0.3)
    assert ready == []
