"""cloudpickle, re-exported as Ray does: pickles functions, classes and values that plain pickle refuses.

`dump`, `dumps` and the picklers here obey `redray.util.register_serializer`; the package cloudpickle itself does not.
"""

from __future__ import annotations

import collections
import io
from collections.abc import Callable
from typing import Any

import cloudpickle
from cloudpickle import load, loads, register_pickle_by_value, unregister_pickle_by_value

from redray import reducers

__all__ = [
    "CloudPickler",
    "Pickler",
    "dump",
    "dumps",
    "load",
    "loads",
    "register_pickle_by_value",
    "unregister_pickle_by_value",
]


class CloudPickler(cloudpickle.CloudPickler):  # type: ignore[misc]
    """cloudpickle's, and the serializers that the user registered."""

    dispatch_table = collections.ChainMap(reducers.registered, cloudpickle.CloudPickler.dispatch_table)


Pickler = CloudPickler


def dump(obj: Any, file: Any, protocol: int | None = None, buffer_callback: Callable[[Any], Any] | None = None) -> None:
    CloudPickler(file, protocol=protocol, buffer_callback=buffer_callback).dump(obj)


def dumps(obj: Any, protocol: int | None = None, buffer_callback: Callable[[Any], Any] | None = None) -> bytes:
    with io.BytesIO() as file:
        dump(obj, file, protocol, buffer_callback)
        return file.getvalue()
