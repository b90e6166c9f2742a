"""The object table: values put, waited for, held and released, and where large ones are."""

from __future__ import annotations

from collections.abc import Sequence

from redray.gcs.command import Command


def put(object: str, inline: bytes, size: int, node: str, contains: Sequence[str]) -> Command:
    """Either `inline` is the packed value, or `node` has `size` bytes of it in shared memory."""
    return Command("object_put", [object, inline, size, node, *contains])


def wait(objects: Sequence[str]) -> Command:
    return Command("object_wait", list(objects))


def hold(objects: Sequence[str]) -> Command:
    return Command("object_hold", list(objects))


def release(objects: Sequence[str]) -> Command:
    return Command("object_release", list(objects))


def located(present: bool, objects: Sequence[str]) -> Command:
    return Command("object_located", [int(present), *objects])
