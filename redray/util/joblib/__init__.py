"""joblib, and so scikit-learn, on the cluster: `register_ray()`, then `joblib.parallel_backend("ray")`."""

from __future__ import annotations

__all__ = ["register_ray"]


def register_ray() -> None:
    """Make "ray" a backend of joblib. Raises ImportError without joblib."""
    try:
        from joblib.parallel import register_parallel_backend
    except ImportError as error:
        raise ImportError("register_ray() needs joblib: pip install joblib") from error
    from redray.util.joblib.backend import RayBackend

    register_parallel_backend("ray", RayBackend)
