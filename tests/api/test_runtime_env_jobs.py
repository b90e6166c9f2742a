"""Runtime environments of whole jobs: given to init, or by who submitted the driver. Spec line 96."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import redray as ray
from redray.cluster_utils import Cluster
from tests.api.test_runtime_env import Keeper, in_env, process, variables
from tests.api.test_runtime_env_files import attribute, read, write
from tests.helpers import wait_until


@pytest.mark.one_node("the process is the same only there")
def test_096_a_tasks_environment_merges_with_its_jobs(start: Callable[..., Any]) -> None:
    start(num_cpus=2, runtime_env=in_env(A="job", B="job"))
    assert ray.get(variables.remote("A", "B")) == ["job", "job"]
    assert ray.get(variables.options(runtime_env=in_env(B="task")).remote("A", "B")) == ["job", "task"]
    assert ray.get(Keeper.options(runtime_env=in_env(A="actor")).remote().start.remote("A", "B")) == ["actor", "job"]
    assert dict(ray.get_runtime_context().runtime_env) == in_env(A="job", B="job")
    assert ray.get(process.remote()) == ray.get(process.options(runtime_env=in_env(A="job")).remote()), "it is the same"


def test_096_job_and_driver_may_not_say_the_same(no_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted = {"runtime_env": {"env_vars": {"A": "1", "B": "2"}, "config": {"eager_install": False}}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(submitted))
    for conflict in ({"env_vars": {"B": "3"}}, {"config": {"setup_timeout_seconds": 1}}):
        with pytest.raises(ValueError, match="Failed to merge the Job's runtime env"):
            ray.init(address="local", num_cpus=1, runtime_env=conflict)
        assert not ray.is_initialized()
    ray.init(address="local", num_cpus=1, log_to_driver=False, runtime_env=in_env(C="3"))
    assert ray.get(variables.remote("A", "B", "C")) == ["1", "2", "3"]
    ray.shutdown()
    monkeypatch.setenv("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    ray.init(address="local", num_cpus=1, log_to_driver=False, runtime_env=in_env(B="3"))
    assert ray.get(variables.remote("A", "B")) == ["1", "3"]


def test_096_a_job_config_and_init_may_not_say_the_same(no_cluster: None) -> None:
    config = ray.job_config.JobConfig(runtime_env=in_env(A="1"), ray_namespace="ours")
    with pytest.raises(ValueError, match="Failed to merge the Job's runtime env"):
        ray.init(address="local", job_config=config, runtime_env=in_env(A="2"))
    ray.init(address="local", num_cpus=1, log_to_driver=False, job_config=config, runtime_env=in_env(B="2"))
    assert ray.get_runtime_context().namespace == "ours"
    assert ray.get(variables.remote("A", "B")) == ["1", "2"]


def test_a_mistake_in_init_starts_nothing(no_cluster: None) -> None:
    with pytest.raises(TypeError):
        ray.init(address="local", runtime_env={"env_vars": {"A": 1}})
    assert not ray.is_initialized()


def test_environment_of_a_job(tmp_path: Path, start: Callable[..., Any]) -> None:
    write(tmp_path, {"x.txt": "hello", "only_here.py": "ANSWER = 6\n"})
    start(num_cpus=2, runtime_env={"working_dir": str(tmp_path), "excludes": ["no"], "env_vars": {"A": "1"}})
    assert ray.get(read.remote("x.txt")) == "hello"
    assert ray.get(attribute.remote("only_here", "ANSWER")) == 6
    seen = ray.get_runtime_context().runtime_env
    assert seen["working_dir"].startswith("gcs://") and seen["env_vars"] == {"A": "1"} and "excludes" not in seen


def test_a_package_that_is_refused_starts_nothing(
    tmp_path: Path, no_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"x.txt": "x" * 1000})
    monkeypatch.setenv("REDRAY_PACKAGE_BYTES", "10")
    with pytest.raises(ray.exceptions.RuntimeEnvSetupError, match="exceeds the maximum size"):
        ray.init(
            address="local", num_cpus=1, _temp_dir=str(tmp_path / "temp"), runtime_env={"working_dir": str(tmp_path)}
        )
    assert not ray.is_initialized() and not (tmp_path / "temp").exists()


def test_files_reach_every_node(tmp_path: Path, no_cluster: None) -> None:
    files = write(tmp_path / "files", {"x.txt": "hello"})
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1, resources={"far": 1})
        ray.init(cluster.address, log_to_driver=False, runtime_env={"working_dir": files})
        cluster.wait_for_nodes()
        assert ray.get([read.remote("x.txt"), read.options(resources={"far": 1}).remote("x.txt")]) == ["hello"] * 2
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_driver_without_a_node_uploads_too(tmp_path: Path, no_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It speaks to Redis itself; here it is told that no node's socket is its own."""
    from redray import bootstrap

    monkeypatch.setattr(bootstrap, "_is_ours", lambda path: False)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        files = write(tmp_path / "job", {"x.txt": "job"})
        ray.init(cluster.address, log_to_driver=False, runtime_env={"working_dir": files})
        other = read.options(runtime_env={"working_dir": write(tmp_path / "task", {"x.txt": "task"})})
        assert ray.get([read.remote("x.txt"), other.remote("x.txt")]) == ["job", "task"]
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_killed_nodes_files_are_swept_by_the_next(tmp_path: Path, no_cluster: None) -> None:
    from redray.worker.environment_directory import EnvironmentDirectory

    dead = EnvironmentDirectory("", str(tmp_path))
    left = Path(dead.path())
    (left / "files").mkdir()
    assert dead._directory is not None
    dead._directory._forget()  # the kernel drops a killed process' lock
    living = EnvironmentDirectory("", str(tmp_path))
    assert Path(living.path()).is_dir()
    wait_until(lambda: not left.exists(), what="the dead node's directory to go")
    living.close()
    assert list(tmp_path.iterdir()) == []
