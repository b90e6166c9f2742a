"""The package table: files of runtime environments, in parts, each package once for all jobs that use it."""

from __future__ import annotations

from redray.gcs.command import Command
from redray.gcs.keys import Keys

PART = 512 * 1024  # bytes: Redis does nothing else while it takes one


def begin(package: str, job: str, size: int) -> Command:
    """Make the job one that uses the package. Answered by the number of parts that are there."""
    return Command("package_open", [package, job, size, parts_of(size)])


def write(keys: Keys, package: str, index: int, data: bytes) -> Command:
    """Not numbered: so much data goes past the node, and may be refused without breaking the order of the channel."""
    return Command("package_write", [index, data], (keys.package(package),))


def parts_of(size: int) -> int:
    return max(1, -(-size // PART))
