"""Local directories and files as packages: zip files whose name is the hash of their content.

The same files give the same bytes, whoever packs them and when: entries are sorted, dates are left out, and of the
permissions only "executable" is kept. So a package that a job uploaded before is not uploaded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

from redray.config import settings
from redray.exceptions import RuntimeEnvSetupError
from redray.runtime_env_checks import PACKAGE_SCHEME

DEFAULT_EXCLUDES = ".git,.venv,venv,__pycache__"
IGNORE_FILES = (".gitignore", ".rayignore")
ID_LENGTH = 40  # hexadecimal digits of a SHA-256
_PREFIX = f"{PACKAGE_SCHEME}_redray_pkg_"
_CHUNK = 1 << 20
_MIB = 1 << 20


class Package(NamedTuple):
    """`file` is open, at its beginning, and has no name: nothing is left behind whatever happens."""

    id: str
    size: int  # bytes
    file: IO[bytes]
    kind: str  # "zip" or "whl"

    @property
    def uri(self) -> str:
        return f"{_PREFIX}{self.id}.{self.kind}"


def id_of(uri: str) -> str:
    """The content hash that a package's URI names. Raises ValueError if it is none of redray's."""
    name, _, kind = uri.removeprefix(_PREFIX).partition(".")
    if not uri.startswith(_PREFIX) or kind not in ("zip", "whl") or len(name) != ID_LENGTH or not _is_hex(name):
        raise ValueError(f"{uri} is not the name of an uploaded package.")
    return name


def _is_hex(text: str) -> bool:
    return all(letter in "0123456789abcdef" for letter in text)


def packed(path: str, excludes: Sequence[str] = (), with_parent: bool = False) -> Package:
    """Pack a directory or a .py file; a zip file or wheel is taken as it is.

    Args:
        path: absolute.
        excludes: patterns as in a .gitignore, relative to `path`, beside those of the ignore files found there.
        with_parent: entries begin with the directory's own name, so that it can be imported by that.

    Raises:
        RuntimeEnvSetupError: it is larger than $REDRAY_PACKAGE_BYTES, or a file cannot be read.
    """
    try:
        if os.path.isdir(path):
            return _finished(_zipped(path, _found(path, excludes), with_parent), "zip", path)
        if path.endswith(".py"):
            return _finished(_zipped(path, iter([(os.path.basename(path), path)]), False), "zip", path)
        return _finished(open(path, "rb"), "whl" if path.endswith(".whl") else "zip", path)
    except OSError as error:
        raise RuntimeEnvSetupError(f"{path} cannot be packed: {error}") from error


def _zipped(path: str, found: Iterator[tuple[str, str]], with_parent: bool) -> IO[bytes]:
    prefix = os.path.basename(path.rstrip("/")) + "/" if with_parent else ""
    with contextlib.ExitStack() as on_failure:
        file = on_failure.enter_context(tempfile.TemporaryFile())
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, source in found:
                _add(archive, prefix + name, source)
                _check_size(file.tell(), path)
        on_failure.pop_all()
    return file


def _add(archive: zipfile.ZipFile, name: str, source: str) -> None:
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    if name.endswith("/"):
        entry.external_attr = (stat.S_IFDIR | 0o755) << 16
        archive.writestr(entry, b"")
        return
    entry.compress_type = zipfile.ZIP_DEFLATED
    with open(source, "rb") as content:
        is_program = os.fstat(content.fileno()).st_mode & 0o100
        entry.external_attr = (stat.S_IFREG | (0o755 if is_program else 0o644)) << 16
        with archive.open(entry, "w", force_zip64=True) as target:
            while data := content.read(_CHUNK):
                target.write(data)


def _finished(file: IO[bytes], kind: str, path: str) -> Package:
    digest = hashlib.sha256()
    with contextlib.ExitStack() as on_failure:
        on_failure.push(file)
        size = file.seek(0, os.SEEK_END)
        _check_size(size, path)
        file.seek(0)
        while data := file.read(_CHUNK):
            digest.update(data)
        file.seek(0)
        on_failure.pop_all()
    return Package(digest.hexdigest()[:ID_LENGTH], size, file, kind)


def _check_size(size: int, path: str) -> None:
    most = settings().package_bytes
    if size > most:
        raise RuntimeEnvSetupError(
            f"Package size ({size / _MIB:.2f}MiB and more) of {path} exceeds the maximum size of {most / _MIB:.2f}MiB."
            " To exclude large files, name them in the 'excludes' of the runtime_env, or in a .gitignore or .rayignore"
            " file. For data, use the object store or a shared file system."
        )


# ---- which files -----------------------------------------------------------------------------------------------------
def _found(root: str, excludes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name in the package, path) of each file and directory, in order."""
    from_environment = os.environ.get("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES", DEFAULT_EXCLUDES)
    default = [pattern.strip() for pattern in from_environment.split(",") if pattern.strip()]
    yield from _walk(root, "", [_Rules("", [*default, *excludes])], (os.path.realpath(root),))


def _walk(folder: str, name: str, rules: list[_Rules], above: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Links are followed, as if what they name were here; one that leads back to a directory above it is left out."""
    rules = rules + [_Rules(name, patterns) for patterns in _ignore_files(folder)]
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        inside = name + entry.name
        if entry.is_dir():
            real = os.path.realpath(entry.path)
            if real in above or any(rule.excludes(inside + "/") for rule in rules):
                continue
            yield inside + "/", entry.path
            yield from _walk(entry.path, inside + "/", rules, (*above, real))
        elif entry.is_file() and not any(rule.excludes(inside) for rule in rules):
            yield inside, entry.path


def _ignore_files(folder: str) -> Iterator[list[str]]:
    for name in IGNORE_FILES:
        if name == ".gitignore" and os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE") == "1":
            continue
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            with open(path, errors="replace") as file:
                yield file.read().splitlines()


class _Rules:
    """Patterns of one place: they see names relative to it."""

    def __init__(self, place: str, patterns: Sequence[str]) -> None:
        from pathspec import GitIgnoreSpec

        self._place = place
        self._spec: Any = GitIgnoreSpec.from_lines(patterns)

    def excludes(self, name: str) -> bool:
        return bool(self._spec.match_file(name[len(self._place) :]))
