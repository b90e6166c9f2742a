"""From the options of `start` and `worker` to a running node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redray.cli.options import own_address
from redray.config import spilling_places
from redray.gcs.address import Address
from redray.local_cluster import Process
from redray.resources import with_memory

if TYPE_CHECKING:
    from redray.worker.launch import NodeConfig


def make_config(redis: Address, temp_dir: str, node: dict[str, Any], is_head: bool = False) -> NodeConfig:
    """`node` holds the values of `options.node_options`, by name."""
    from redray.worker.launch import NodeConfig

    return NodeConfig(
        redis_url=redis.url(),
        num_cpus=node["num_cpus"],
        num_gpus=node["num_gpus"],
        resources=with_memory(node["resources"], node["memory"]),
        labels=node["labels"],
        object_store_memory=node["object_store_memory"],
        object_spilling_directory=spilling_places(node["object_spilling_directory"]),
        node_ip_address=node["node_ip_address"] or own_address(redis),
        metrics_port=node["metrics_export_port"],
        temp_dir=temp_dir,
        is_head=is_head,
    )


def launch(redis: Address, temp_dir: str, node: dict[str, Any], is_head: bool) -> Process:
    """A node in the background, ready to take work."""
    from redray.worker.launch import spawn_node

    return Process.of("node", spawn_node(make_config(redis, temp_dir, node, is_head)).pid)
