"""`python -m redray.worker`: one node, told on standard input what it is; see launch.py."""

from __future__ import annotations

import os
import sys


def _main() -> int:
    import msgspec

    from redray.worker.launch import NodeConfig

    config = msgspec.json.decode(sys.stdin.buffer.read(), type=NodeConfig)
    ready = 3

    def say(answer: dict[str, str]) -> None:
        os.write(ready, msgspec.json.encode(answer) + b"\n")
        os.close(ready)

    from redray.worker.node import run_node

    try:
        run_node(config, lambda node, path: say({"node_id": node, "socket_path": path}))
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        try:
            say({"error": str(error)})
        except OSError:
            raise error from None
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
