"""Packages on the node: fetched from Redis, checked against their name, unpacked."""

from __future__ import annotations

import hashlib
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from redray.packages import ID_LENGTH
from redray.worker.environment_cache import SetupFailed

Fetch = Callable[[str], Iterator[bytes]]
"""The parts of the package with this id, in order. Raises LookupError if it is not in the cluster."""

MOST_FILES = 1_000_000
_CHUNK = 1 << 20


def unpack(package: str, fetch: Fetch, most_bytes: int, target: Path) -> None:
    """Fill `target` with the files of a package.

    Raises SetupFailed: the package is gone, is not what its name says, is no zip file, or would write outside of
    `target` or more than `most_bytes`.
    """
    with tempfile.TemporaryFile() as file:
        _download(package, fetch, file)
        try:
            with zipfile.ZipFile(file) as archive:
                _check(package, archive, most_bytes)
                for entry in archive.infolist():
                    _extract(archive, entry, target)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise SetupFailed(f"The package {package} cannot be unpacked: {error}") from error


def _download(package: str, fetch: Fetch, file: IO[bytes]) -> None:
    digest = hashlib.sha256()
    try:
        for part in fetch(package):
            digest.update(part)
            file.write(part)
    except LookupError as error:
        raise SetupFailed(str(error.args[0])) from error
    if digest.hexdigest()[:ID_LENGTH] != package:
        raise SetupFailed(f"The package {package} is not what was uploaded: its content has another hash.")


def _check(package: str, archive: zipfile.ZipFile, most_bytes: int) -> None:
    """Everything is looked at before the first file is written."""
    entries = archive.infolist()
    size = sum(entry.file_size for entry in entries)
    if size > most_bytes or len(entries) > MOST_FILES:
        raise SetupFailed(f"The package {package} would take {size} bytes in {len(entries)} files, which is too much.")
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or not path.parts:
            raise SetupFailed(f"The package {package} has an entry that leads out of it: {entry.filename!r}.")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise SetupFailed(f"The package {package} has an entry that is no file or directory: {entry.filename!r}.")


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    path = target.joinpath(*PurePosixPath(entry.filename).parts)
    if entry.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Nothing in `target` is a link, so nothing here leads out of it.
    with archive.open(entry) as source, open(path, "xb") as file:
        while data := source.read(_CHUNK):
            file.write(data)
    is_program = (entry.external_attr >> 16) & 0o111
    path.chmod(0o755 if is_program else 0o644)


def import_paths(directory: Path) -> list[str]:
    """Where the modules of an unpacked package or wheel are."""
    inside_wheel = [str(path) for path in sorted(directory.glob("*.data/*lib")) if path.name in ("purelib", "platlib")]
    return [str(directory), *inside_wheel]
