"""joblib with batches that are tasks."""

from __future__ import annotations

import os

import pytest

import redray as ray
from redray.util.joblib import register_ray

joblib = pytest.importorskip("joblib")


def square(x: int) -> int:
    return x * x


def pid(_: int) -> int:
    return os.getpid()


def fail(x: int) -> int:
    raise KeyError(f"no {x}")


@pytest.fixture(autouse=True)
def registered(cluster: None) -> None:
    register_ray()


def test_parallel() -> None:
    with joblib.parallel_backend("ray"):
        assert joblib.Parallel()(joblib.delayed(square)(x) for x in range(50)) == [x * x for x in range(50)]


def test_it_runs_elsewhere() -> None:
    with joblib.parallel_config("ray", n_jobs=2):
        assert os.getpid() not in joblib.Parallel()(joblib.delayed(pid)(x) for x in range(4))


def test_errors() -> None:
    with joblib.parallel_config("ray", n_jobs=2), pytest.raises(KeyError, match="no "):
        joblib.Parallel()(joblib.delayed(fail)(x) for x in range(4))
    with joblib.parallel_config("ray", n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(square)(x) for x in range(3)) == [0, 1, 4]


def test_as_many_jobs_as_the_cluster_has_cpus() -> None:
    with joblib.parallel_config("ray", n_jobs=-1):
        assert joblib.effective_n_jobs(-1) == int(ray.cluster_resources()["CPU"])


def test_options_of_the_tasks() -> None:
    with joblib.parallel_config("ray", n_jobs=2, ray_remote_args={"resources": {"disk": 1}}):
        assert joblib.Parallel()(joblib.delayed(square)(x) for x in range(3)) == [0, 1, 4]


def test_scikit_learn() -> None:
    pytest.importorskip("sklearn")
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier

    features, labels = make_classification(n_samples=80, random_state=0)
    with joblib.parallel_config("ray"):
        forest = RandomForestClassifier(n_estimators=6, random_state=0, n_jobs=2).fit(features, labels)
    assert forest.score(features, labels) > 0.8
