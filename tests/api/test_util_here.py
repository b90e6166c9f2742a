"""The small helpers of redray.util: where a process runs, what is said once, names of accelerators."""

from __future__ import annotations

import pytest

import redray as ray
from redray.util import log_once
from redray.util.accelerators import NVIDIA_TESLA_V100


def test_the_address_of_the_node(cluster: object) -> None:
    here = ray.util.get_node_ip_address()
    assert here in {node["NodeManagerAddress"] for node in ray.nodes()}
    assert ray.get(ray.remote(ray.util.get_node_ip_address).remote()) == here


def test_the_address_without_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redray.current.current_or_none", lambda: None)
    assert ray.util.get_node_ip_address().count(".") == 3


def test_log_once() -> None:
    assert log_once(("a key", 1))
    assert not log_once(("a key", 1))
    assert log_once(("a key", 2))


def test_names_of_accelerators_fit_the_option() -> None:
    assert NVIDIA_TESLA_V100 == ray.util.accelerators.NVIDIA_TESLA_V100 == "V100"
    ray.remote(accelerator_type=NVIDIA_TESLA_V100)(lambda: 1)
