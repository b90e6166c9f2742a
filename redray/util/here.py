"""Where this process runs."""

from __future__ import annotations

import os

from redray import current


def get_node_ip_address() -> str:
    """The IP address of this process's node, at which the other nodes reach it; without a session, of this machine."""
    told = os.environ.get("REDRAY_NODE_IP")  # a worker is told by its node
    if told:
        return told
    session = current.current_or_none()
    if session is not None and session.node_id is not None:
        here = session.node_id.hex()
        for node in session.nodes():
            if node["NodeID"] == here:
                return str(node["NodeManagerAddress"])
    return _of_this_machine()


def _of_this_machine() -> str:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation; nothing is sent, it only chooses a route
        except OSError:  # no network
            return "127.0.0.1"
        return str(probe.getsockname()[0])
