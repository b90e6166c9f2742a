"""Real shared memory: what one process writes another reads, views keep memory, a full file system is an exception."""

from __future__ import annotations

import errno
import gc
import os
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

from redray.exceptions import ObjectStoreFullError, RaySystemError
from redray.store import arena as arena_module
from redray.store.arena import HEADER, Arena
from redray.store.local_store import LocalStore
from redray.store.reader import Reader
from redray.store.serialization import deserialize, serialize

MIB = 1 << 20
CAPACITY = 32 * MIB


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore(tmp_path, CAPACITY)
    yield store
    store.validate()
    store.close()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def reader(store: LocalStore) -> Iterator[Reader]:
    reader = Reader(store.path, store.capacity)
    yield reader
    reader.close()


def put(store: LocalStore, reader: Reader, name: str, value: object, secondary: bool = False) -> None:
    serialized = serialize(value)
    offset = store.create(name, serialized.size, "writer", secondary)
    assert reader.write(serialized, offset) == serialized.size
    assert store.seal(name, "writer")


def get(store: LocalStore, reader: Reader, name: str) -> object:
    assert store.pin(name, "reader")
    place = store.locate(name)
    assert place is not None
    return deserialize(reader.read(name, *place))


def test_a_value_is_read_where_it_was_written(store: LocalStore, reader: Reader) -> None:
    array = numpy.arange(MIB)
    put(store, reader, "a", {"x": array, "text": "t" * 100_000})
    result = get(store, reader, "a")
    assert isinstance(result, dict)
    assert numpy.array_equal(result["x"], array)
    assert not result["x"].flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        result["x"].flags.writeable = True
    assert result["x"].ctypes.data % 64 == 0


def test_every_way_of_copying_gives_the_same_bytes(store: LocalStore, reader: Reader) -> None:
    """Fresh pages, pages of which half were touched, and pages this process has mapped, in sizes around each step."""
    random = numpy.random.default_rng(1)
    for round_number in range(3):
        for size in (1, 65_535, 65_536, 3 * MIB, 20 * MIB):
            array = random.integers(0, 255, size, dtype=numpy.uint8)
            name = f"{round_number} {size}"
            put(store, reader, name, array)
            assert numpy.array_equal(get(store, reader, name), array)
            gc.collect()
            assert reader.unpinned.popleft() == name
            assert store.unpin(name, "reader")
            assert store.free(name)
    assert store.used == 0


def test_without_numpy_the_bytes_are_the_same(store: LocalStore) -> None:
    """A writer in another process, which has not imported numpy; half of what it writes to is fresh."""
    script = textwrap.dedent("""
        import sys
        from redray.store.reader import Reader
        from redray.store.serialization import serialize
        path, capacity, offset = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        reader = Reader(path, capacity)
        for _ in range(2):
            reader.write(serialize(bytes(range(256)) * 20_000), offset)
        assert "numpy" not in sys.modules
    """)
    value = bytes(range(256)) * 20_000
    size = serialize(value).size
    store.arena.reserve(HEADER + 2 * MIB)
    offset = store.create("a", size, "child")
    subprocess.run([sys.executable, "-c", script, store.path, str(CAPACITY), str(offset)], check=True, timeout=60)
    store.seal("a", "child")
    assert deserialize(store.view("a")) == value


def test_the_node_hears_of_the_last_view_only(store: LocalStore, reader: Reader) -> None:
    put(store, reader, "a", [numpy.arange(100_000), numpy.arange(5)])
    first, second = get(store, reader, "a"), get(store, reader, "a")
    assert isinstance(first, list) and isinstance(second, list)
    part = first[0][10:20].reshape(2, 5)
    del first
    gc.collect()
    assert not reader.unpinned
    assert reader.watched == 2
    assert part[1, 4] == 19
    del part
    gc.collect()
    assert list(reader.unpinned) == ["a"]
    del second
    gc.collect()
    assert list(reader.unpinned) == ["a", "a"]
    assert reader.watched == 0


def test_a_view_outlives_its_object(store: LocalStore, reader: Reader) -> None:
    put(store, reader, "a", numpy.full(MIB, 7))
    array = get(store, reader, "a")
    assert isinstance(array, numpy.ndarray)
    assert not store.free("a")
    put(store, reader, "b", numpy.full(MIB, 9))
    assert array.sum() == 7 * MIB


def test_views_dropped_in_another_thread_are_heard_of(store: LocalStore, reader: Reader) -> None:
    put(store, reader, "a", numpy.arange(100_000))
    held = [get(store, reader, "a")]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert list(reader.unpinned) == ["a"]


def test_a_full_store_evicts_copies_and_then_refuses(store: LocalStore, reader: Reader) -> None:
    block = numpy.zeros(10 * MIB, dtype=numpy.uint8)
    put(store, reader, "only", block)
    put(store, reader, "copy", block, secondary=True)
    put(store, reader, "next", numpy.zeros(20 * MIB, dtype=numpy.uint8))
    assert store.evicted == ["copy"]
    assert not store.contains("copy")
    with pytest.raises(ObjectStoreFullError, match="still needed"):
        store.create("more", 10 * MIB, "writer")
    assert store.contains("only") and store.contains("next")


def test_what_can_never_fit_evicts_nothing(store: LocalStore, reader: Reader) -> None:
    put(store, reader, "copy", numpy.zeros(MIB), secondary=True)
    with pytest.raises(ObjectStoreFullError):
        store.create("more", CAPACITY + 1, "writer")
    assert store.contains("copy")


def test_the_whole_capacity_is_usable(store: LocalStore, reader: Reader) -> None:
    offset = store.create("all", CAPACITY, "writer")
    reader.write_view(offset, CAPACITY)[-1] = 1
    assert store.seal("all", "writer")
    assert store.view("all")[-1] == 1


def test_a_mark_that_a_slower_process_has_set_back_hides_nothing(store: LocalStore, reader: Reader) -> None:
    """Two processes that reserve at the same time: the one that reserved less may write its mark last."""
    offset = store.create("a", 8 * MIB, "writer")
    reader.write_view(offset, 8 * MIB)[-1] = 1
    assert store.seal("a", "writer")
    store.arena._words[1] = MIB
    assert store.view("a")[-1] == 1
    store.arena._words[1] = MIB
    assert reader.read("a", offset, 8 * MIB)[-1] == 1


def test_no_space_left_is_an_exception_and_not_a_signal(
    store: LocalStore, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    serialized = serialize(numpy.zeros(MIB))
    offset = store.create("a", serialized.size, "writer")
    monkeypatch.setattr(arena_module, "_reserve", full)
    with pytest.raises(ObjectStoreFullError, match="No space left"):
        reader.write(serialized, offset)
    assert store.abort("a", "writer")
    assert store.used == 0


def test_a_full_file_system_is_met_without_sigbus(tmp_path: Path) -> None:
    """A file system of 4 MB, in a mount namespace: the kernel itself refuses, and what was reserved stays usable."""
    in_namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=4m tmpfs {tmp_path}"
    if subprocess.run([*in_namespace, mount], capture_output=True, timeout=60).returncode:
        pytest.skip("this machine grants no mount namespace")
    script = textwrap.dedent("""
        import sys
        from redray.exceptions import ObjectStoreFullError
        from redray.store.local_store import LocalStore
        from redray.store.reader import Reader
        from redray.store.serialization import deserialize, serialize
        store = LocalStore(sys.argv[1], 64 << 20)
        reader = Reader(store.path, store.capacity)
        small, large = serialize(b"s" * (2 << 20)), serialize(b"l" * (8 << 20))
        reader.write(small, store.create("small", small.size, "w"))
        store.seal("small", "w")
        try:
            reader.write(large, store.create("large", large.size, "w"))
        except ObjectStoreFullError as error:
            assert "No space left" in str(error), error
        else:
            sys.exit("8 MB were written into 4")
        store.abort("large", "w")
        assert deserialize(store.view("small")) == b"s" * (2 << 20)
    """)
    command = f'{mount} && exec "$0" -c "$1" {tmp_path}'
    subprocess.run([*in_namespace, command, sys.executable, script], check=True, timeout=60)


def test_memory_is_reserved_as_it_is_needed(store: LocalStore, reader: Reader) -> None:
    def blocks() -> int:
        return os.stat(store.path).st_blocks * 512

    assert blocks() < MIB
    put(store, reader, "a", numpy.zeros(2 * MIB, dtype=numpy.uint8))
    assert 2 * MIB <= blocks() < 4 * MIB


def test_the_file_is_private_and_unguessable(store: LocalStore, tmp_path: Path) -> None:
    assert stat.S_IMODE(os.stat(store.path).st_mode) == 0o600
    other = LocalStore(tmp_path, MIB)
    assert other.path != store.path
    other.close()


def test_other_files_are_not_attached(store: LocalStore, tmp_path: Path) -> None:
    link, foreign = tmp_path / "link", tmp_path / "foreign"
    link.symlink_to(store.path)
    foreign.write_bytes(bytes(HEADER + CAPACITY))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
            Arena.attach(link, CAPACITY)
        with pytest.raises(RaySystemError, match="not an object store"):
            Arena.attach(foreign, CAPACITY)
        with pytest.raises(RaySystemError, match="not a store of"):
            Arena.attach(store.path, CAPACITY - 1)
    finally:
        link.unlink()
        foreign.unlink()


def test_views_outside_the_memory_are_refused(store: LocalStore, reader: Reader) -> None:
    with pytest.raises(ValueError, match="outside the store"):
        reader.read("a", HEADER, 2 * CAPACITY)
    with pytest.raises(ValueError, match="beyond"):
        reader.write_view(HEADER, CAPACITY + 1)
    with pytest.raises(KeyError):
        store.view("unknown")


def test_attaching_and_closing_leaks_no_descriptor(store: LocalStore) -> None:
    before = len(os.listdir("/dev/fd"))
    for _ in range(10):
        Reader(store.path, store.capacity).close()
        with pytest.raises(RaySystemError):
            Reader(store.path, store.capacity + 1)
    assert len(os.listdir("/dev/fd")) == before
