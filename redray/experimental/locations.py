"""Where values are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redray import current
from redray.refs import ObjectRef


def get_object_locations(
    obj_refs: Sequence[ObjectRef[Any]], timeout_ms: int = -1
) -> dict[ObjectRef[Any], dict[str, Any]]:
    """Where the values of refs are, as far as the cluster knows now. It waits for no task.

    Args:
        obj_refs: refs of this session.
        timeout_ms: of Ray's; the answer here is one round trip away.

    Returns:
        For each ref `{"node_ids": [hexadecimal], "object_size": bytes}`. A small value lies on no node, so its list is
        empty; the size is None before the value is there. A ref whose value is gone is left out.

    Raises:
        TypeError: not a list of refs.
    """
    if not isinstance(obj_refs, (list, tuple)) or not all(isinstance(ref, ObjectRef) for ref in obj_refs):
        raise TypeError("get_object_locations() takes a list of ObjectRefs.")
    found = current.started().object_locations(list(obj_refs))
    return {ref: place for ref, place in zip(obj_refs, found, strict=True) if place is not None}
