"""A backend of joblib whose batches are tasks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from joblib._parallel_backends import AutoBatchingMixin, ParallelBackendBase

from redray import api
from redray.exceptions import RayError
from redray.refs import ObjectRef


def _call(batch: Callable[[], Any]) -> Any:
    return batch()


class RayBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """`n_jobs=-1` means every CPU of the cluster.

    Args:
        ray_remote_args: options of the tasks, such as `{"num_cpus": 2}`.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = False

    def __init__(
        self, nesting_level: int | None = None, ray_remote_args: dict[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(nesting_level=nesting_level, **options)
        task = api.remote(_call)
        self._task = task.options(**ray_remote_args) if ray_remote_args else task
        self._running: dict[Future[Any], ObjectRef[Any]] = {}

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        if n_jobs > 0:
            return n_jobs
        if not api.is_initialized():
            api.init()
        return max(1, int(api.cluster_resources().get("CPU", 1)) + 1 + n_jobs)

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> Future[Any]:
        ref = self._task.remote(func)
        future: Future[Any] = ref.future()
        self._running[future] = ref
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit  # its name before joblib 1.5

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        self._running.pop(out, None)
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Another batch raised: what has not ended is not wanted any more."""
        running, self._running = list(self._running.values()), {}
        with contextlib.suppress(RayError, ConnectionError):
            for ref in running:
                api.cancel(ref)

    def terminate(self) -> None:
        self._running.clear()
        self.reset_batch_stats()
