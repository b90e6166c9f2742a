"""redray: tasks and actors that run anywhere, with Ray's API, scheduled by Lua inside Redis.

import redray as ray

@ray.remote
def square(x):
    return x * x

print(ray.get([square.remote(x) for x in range(4)]))  # [0, 1, 4, 9]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redray import actor
from redray.api import (
    available_resources,
    cancel,
    cluster_resources,
    get,
    get_actor,
    get_gpu_ids,
    get_runtime_context,
    init,
    is_initialized,
    kill,
    nodes,
    put,
    shutdown,
    timeline,
    wait,
)
from redray.generators import DynamicObjectRefGenerator, ObjectRefGenerator
from redray.ids import (
    ActorClassID,
    ActorID,
    ClusterID,
    FunctionID,
    JobID,
    NodeID,
    PlacementGroupID,
    TaskID,
    UniqueID,
    WorkerID,
)
from redray.refs import ObjectRef
from redray.version import __version__

if TYPE_CHECKING:
    from redray import cloudpickle, exceptions, runtime_context, runtime_env
    from redray.call_types import method, remote
else:
    from redray.actor import method
    from redray.api import remote

ObjectID = ObjectRef  # Ray's older name of it

__all__ = [
    "ActorClassID",
    "ActorID",
    "ClusterID",
    "DynamicObjectRefGenerator",
    "FunctionID",
    "JobID",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroupID",
    "TaskID",
    "UniqueID",
    "WorkerID",
    "__version__",
    "actor",
    "available_resources",
    "cancel",
    "cloudpickle",
    "cluster_resources",
    "exceptions",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "runtime_context",
    "runtime_env",
    "shutdown",
    "timeline",
    "util",
    "wait",
]

# Importing redray stays quick.
_ON_FIRST_USE = frozenset(["cloudpickle", "dag", "exceptions", "job_config", "runtime_context", "runtime_env", "util"])


def __getattr__(name: str) -> Any:
    if name in _ON_FIRST_USE:
        import importlib

        return importlib.import_module(f"redray.{name}")
    raise AttributeError(f"module 'redray' has no attribute {name!r}")
