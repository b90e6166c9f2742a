"""A long copy in parts."""

from __future__ import annotations

import threading

import pytest

from redray.store import parts
from redray.store.parts import in_parts


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_cores", lambda: 4)
    monkeypatch.setattr(parts, "_LEAST", 100)
    monkeypatch.setattr(parts, "_UNIT", 40)


@pytest.mark.parametrize(
    ("size", "count"), [(0, 1), (1, 1), (199, 1), (200, 2), (300, 3), (301, 3), (400, 4), (1_000, 4)]
)
def test_every_byte_is_copied_once(size: int, count: int) -> None:
    source = bytes(number % 251 for number in range(size))
    target = bytearray(size)
    threads: set[int] = set()
    written: list[int] = []
    barrier = threading.Barrier(count)  # all parts are under way at the same time

    def fill(at: int, part: memoryview) -> None:
        barrier.wait(30)
        threads.add(threading.get_ident())
        written.append(len(part))
        target[at : at + len(part)] = part

    in_parts(memoryview(source), fill)
    assert target == source
    assert sum(written) == size
    assert len(threads) == count


@pytest.mark.parametrize("failing", [0, 120])
def test_what_fails_is_raised_when_nobody_writes_any_more(failing: int) -> None:
    ended: list[int] = []
    failed = threading.Event()

    def fill(at: int, _part: memoryview) -> None:
        if at == failing:
            failed.set()
            raise MemoryError("no room")
        assert failed.wait(30)
        ended.append(at)

    with pytest.raises(MemoryError, match="no room"):
        in_parts(memoryview(bytes(400)), fill)
    assert sorted(ended) == [at for at in (0, 120, 240, 360) if at != failing]
