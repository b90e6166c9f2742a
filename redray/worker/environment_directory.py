"""Where a node keeps the files of runtime environments: made when needed, and gone with the node."""

from __future__ import annotations

import threading

from redray.config import private_root
from redray.store.janitor import SharedDirectory, sweep


class EnvironmentDirectory:
    def __init__(self, session_directory: str, temp_dir: str) -> None:
        """`session_directory` is an embedded session's, "" for a node that stands alone."""
        self._session_directory = session_directory
        self._temp_dir = temp_dir
        self._directory: SharedDirectory | None = None

    def path(self) -> str:
        if self._directory is None:
            base = self._session_directory or private_root(self._temp_dir)
            self._directory = SharedDirectory(base)
            # What a killed node left. In a thread: many files take their time, and the node's loop has none.
            threading.Thread(target=sweep, args=(base,), name="redray-janitor", daemon=True).start()
        return str(self._directory.path)

    def close(self) -> None:
        if self._directory is not None:
            self._directory.close()
