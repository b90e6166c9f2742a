"""A node's Prometheus endpoint: `http://<node>:<port>/metrics`, when the node was started with a port for it."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path

from redray.metrics_files import Collection, exposition


class MetricsServer:
    """Answers in threads of its own: nothing of it runs in the node's loop.

    Args:
        folder: where this node's processes leave their metrics.
        host, port: where to listen; 0 finds a free port.
        tags: of every series.
    """

    def __init__(self, folder: Path, host: str, port: int, tags: dict[str, str]) -> None:
        collection, lock = Collection(folder), threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.partition("?")[0] not in ("/", "/metrics"):
                    self.send_error(404)
                    return
                with lock:
                    body = exposition(collection.collect(), tags).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """The node's log is for what goes wrong."""

        self._server = http.server.ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="redray-metrics", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
