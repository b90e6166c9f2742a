"""Where objects go that memory has no room for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from redray.exceptions import OutOfDiskError
from redray.store import disks as module
from redray.store.disks import Directory, Disks, checksum
from redray.store.spill_book import Place, SpillBook

PIECES = [memoryview(b"first"), memoryview(b""), memoryview(b"second" * 1_000)]


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Disks]:
    found = Disks([str(tmp_path / "one"), str(tmp_path / "two")])
    yield found
    found.close()
    assert [list(place.iterdir()) for place in tmp_path.iterdir()] in ([], [[]], [[], []]), "something was left"


def read(disks: Disks, file: str, offset: int, size: int) -> bytes:
    target = bytearray(size)
    disks.read(file, offset, memoryview(target))
    return bytes(target)


def test_what_was_written_comes_back(disks: Disks) -> None:
    file = disks.write("a", PIECES)
    assert read(disks, file, 0, 5) == b"first"
    assert read(disks, file, 5, 6_000) == b"second" * 1_000
    descriptor = disks.open(file)
    assert descriptor is not None
    assert os.pread(descriptor, 11, 0) == b"firstsecond"
    os.close(descriptor)


def test_places_take_turns(disks: Disks, tmp_path: Path) -> None:
    files = [disks.write(name, PIECES) for name in "abcd"]
    assert sorted(Path(file).relative_to(tmp_path).parts[0] for file in files) == ["one", "one", "two", "two"]


def test_nobody_else_may_read_what_is_there(disks: Disks) -> None:
    file = Path(disks.write("a", PIECES))
    assert file.stat().st_mode & 0o077 == 0
    assert file.parent.stat().st_mode & 0o077 == 0


def test_a_removed_file_is_gone(disks: Disks) -> None:
    file = disks.write("a", PIECES)
    disks.remove(file)
    assert not Path(file).exists()


def test_a_file_that_is_cut_is_no_value(disks: Disks) -> None:
    file = disks.write("a", PIECES)
    os.truncate(file, 100)
    with pytest.raises(OSError, match="5905 bytes too short"):
        read(disks, file, 5, 6_000)


def test_a_place_that_cannot_be_written_is_passed_over(disks: Disks, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("a file in the way of the directory")
    try:
        files = [disks.write(name, PIECES) for name in "abc"]
        assert {Path(file).relative_to(tmp_path).parts[0] for file in files} == {"two"}
    finally:
        (tmp_path / "one").unlink()


def test_a_disk_keeps_some_room_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FULL_SHARE", 0.0)
    disks = Disks([str(tmp_path)])
    with pytest.raises(OutOfDiskError, match=r"are left to others: too few for 6005 bytes.*object_spilling_directory"):
        disks.write("a", PIECES)
    with pytest.raises(OutOfDiskError, match="full a moment ago"):
        disks.write("a", PIECES)
    disks.close()


def test_the_next_node_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        Directory(str(tmp_path)).write("a", PIECES)
        os._exit(0)  # as a kill would: nothing is closed
    os.waitpid(pid, 0)
    (left,) = tmp_path.iterdir()
    disks = Disks([str(tmp_path)])
    disks.write("b", PIECES)
    assert not left.exists()
    disks.close()


def test_a_url_needs_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(ValueError, match="pip install fsspec"):
        Disks(["s3://bucket/prefix"])


def test_a_url_is_a_place_like_any_other() -> None:
    pytest.importorskip("fsspec")
    disks = Disks(["memory://spill"])
    file = disks.write("a", PIECES)
    assert read(disks, file, 5, 6_000) == b"second" * 1_000
    assert disks.open(file) is None
    with pytest.raises(OSError, match="too short"):
        read(disks, file, 5, 7_000)
    disks.remove(file)
    disks.close()


@pytest.mark.parametrize("size", [0, 1, 9_000_000])
def test_the_checksum_is_of_all_bytes(size: int) -> None:
    data = bytearray(size)
    before = checksum(memoryview(data))
    for at in {0, size // 2, size - 1} if size else ():
        data[at] ^= 1
        assert checksum(memoryview(data)) != before
        data[at] ^= 1
    assert checksum(memoryview(data)) == before


def test_a_file_goes_with_the_last_object_in_it() -> None:
    book = SpillBook()
    for number, object in enumerate("abc"):
        book.add(object, Place("file" if object != "c" else "other", 10 * number, 10, 0))
    assert (len(book), book.bytes) == (3, 30)
    with pytest.raises(ValueError, match="already"):
        book.add("a", Place("other", 0, 1, 0))
    assert [book.free(object) for object in ("a", "a", "c", "b", "unknown")] == [None, None, "other", "file", None]
    assert (len(book), book.bytes) == (0, 0)
