"""What every pure test starts from and leaves behind."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from redray.exit import ThisProcess


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """An executor sets what its tasks may use (GPUs, threads). In the tests' own process the next test would see it."""
    before = dict(os.environ)
    yield
    before["PYTEST_CURRENT_TEST"] = os.environ.get("PYTEST_CURRENT_TEST", "")
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def no_actor_lives_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """An executor that hosts an actor says so of its process: here that is the one of all tests."""
    monkeypatch.setattr(ThisProcess, "hosts_actor", False)
    monkeypatch.setattr(ThisProcess, "must_end", False)
