"""What a node finds out about the machine it runs on."""

from __future__ import annotations

import os
import platform
import re
from glob import glob

from redray.where import NODE_ID

DEFAULT_MEMORY_SHARE = 0.3
ACCELERATOR_TYPE = "ray.io/accelerator-type"  # a label, empty on a machine without GPUs


def resources(
    num_cpus: float | None, num_gpus: float | None, custom: dict[str, float], ip: str, is_head: bool, store: int
) -> dict[str, float]:
    """The node's totals: what was said, else what the machine has, and the implicit resources that name the node."""
    found = dict(custom)
    found["CPU"] = _usable_cpus() if num_cpus is None else num_cpus
    gpus = num_gpus if num_gpus is not None else count_gpus()
    if gpus:
        found["GPU"] = gpus
        if model := accelerator_type():
            found.setdefault(f"accelerator_type:{model}", 1)
    found.setdefault("memory", max(0, total_memory() - store))
    found["object_store_memory"] = store
    found[f"node:{ip}"] = 1
    if is_head:
        found["node:__internal_head__"] = 1
    return found


def labels(custom: dict[str, str], node: str) -> dict[str, str]:
    """The node's labels: what was said, and those that every node has."""
    return {ACCELERATOR_TYPE: accelerator_type() if count_gpus() else "", **custom, NODE_ID: node}


def visible_gpus() -> list[str] | None:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them: numbers, or UUIDs. None: all there are."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return None
    names = [device.strip() for device in visible.split(",")]
    return [name for name in names if name and name != "-1"]


def accelerator_type() -> str:
    """Of the first GPU, as the driver names it: `NVIDIA A100-SXM4-40GB` is an `A100`, `NVIDIA GeForce RTX 5090` a
    `GeForce-RTX-5090`. Empty when there is none or its driver does not tell."""
    for path in sorted(glob("/proc/driver/nvidia/gpus/*/information")):
        with open(path, errors="replace") as file:
            for line in file:
                field, _, model = line.partition(":")
                if field == "Model":
                    return short_model(model.strip())
    return ""


def short_model(model: str) -> str:
    words = model.removeprefix("NVIDIA ").removeprefix("Tesla ").split()
    first = words[0].split("-")[0] if words else ""
    return first if first.isupper() and any(map(str.isdigit, first)) else "-".join(words)


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # a system that cannot tie processes to processors


def count_gpus() -> int:
    visible = visible_gpus()
    if visible is not None:
        return len(visible)
    try:
        return sum(bool(re.fullmatch(r"nvidia\d+", name)) for name in os.listdir("/dev"))
    except OSError:
        return 0


def total_memory() -> int:
    """Bytes this process may use: the machine's, or its control group's limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path) as file:
                total = min(total, int(file.read()))
        except (OSError, ValueError):
            continue
    return total


def store_size(asked: int | None, directory: str) -> int:
    """Bytes of the object store: what was asked, else 30 % of memory, within what the shared memory file system has."""
    if asked is not None:
        return asked
    status = os.statvfs(directory)
    room = status.f_frsize * status.f_bavail
    return min(int(total_memory() * DEFAULT_MEMORY_SHARE), int(room * 0.95)) // 4096 * 4096


def facts() -> dict[str, str]:
    return {"hostname": platform.node(), "python": platform.python_version()}
