from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from redray.config import Settings, failpoints, new_session_directory, settings


def test_settings_come_from_the_environment_given() -> None:
    assert settings({}) == Settings()
    found = settings({"REDRAY_LEASE_SECONDS": "9.5", "REDRAY_INLINE_LIMIT": "2048", "REDRAY_TEMP_DIR": "/x"})
    assert (found.lease_seconds, found.inline_limit, found.temp_dir) == (9.5, 2048, "/x")


def test_rays_address_is_used_unless_our_own_is_set() -> None:
    assert settings({"RAY_ADDRESS": "a:1"}).address == "a:1"
    assert settings({"RAY_ADDRESS": "a:1", "REDRAY_ADDRESS": "b:2"}).address == "b:2"


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("REDRAY_LEASE_SECONDS", "long", "not a number"),
        ("REDRAY_INLINE_LIMIT", "1.5", "not a whole number"),
        ("REDRAY_LEASE_SECONDS", "-1", "more than 0"),
        ("REDRAY_LEASE_SECONDS", "inf", "finite"),
        ("REDRAY_LEASE_SECONDS", "nan", "finite"),
        ("REDRAY_LEASE_SECONDS", "4", "must hold"),
        ("REDRAY_RENEW_SECONDS", "6", "must hold"),
    ],
)
def test_a_value_that_cannot_be_meant_is_a_sentence(name: str, text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        settings({name: text})
    assert name in str(caught.value)


def test_failpoints_are_pairs() -> None:
    assert failpoints("") == {}
    assert failpoints("a=exit,b=pause") == {"a": "exit", "b": "pause"}
    with pytest.raises(ValueError, match="name=action"):
        failpoints("a")


def test_a_session_directory_is_private_and_new(tmp_path: Path) -> None:
    first, second = new_session_directory(str(tmp_path)), new_session_directory(str(tmp_path))
    assert first != second
    for directory in (first, second):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert directory.parent == tmp_path


def test_the_parent_is_made_private(tmp_path: Path) -> None:
    new_session_directory(str(tmp_path / "deep" / "er"))
    assert stat.S_IMODE((tmp_path / "deep" / "er").stat().st_mode) == 0o700


def test_a_planted_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    with pytest.raises(PermissionError, match="REDRAY_TEMP_DIR"):
        new_session_directory(str(tmp_path / "link"))
    assert not list((tmp_path / "theirs").iterdir())


def test_a_parent_that_others_can_change_is_refused_unless_sticky(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(PermissionError, match="another user"):
        new_session_directory(str(tmp_path))
    tmp_path.chmod(0o1777)
    assert new_session_directory(str(tmp_path)).is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_parent_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(PermissionError, match="another user"):
        new_session_directory(str(tmp_path))


def test_a_file_in_the_way_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match="REDRAY_TEMP_DIR"):
        new_session_directory(str(tmp_path / "file"))


def test_the_number_of_worker_processes_is_a_whole_number_above_0() -> None:
    assert settings({}).max_workers == 0  # the node's own choice
    assert settings({"REDRAY_MAX_WORKERS": "200"}).max_workers == 200
    for text in ("0", "many", "2.5"):
        with pytest.raises(ValueError, match="REDRAY_MAX_WORKERS"):
            settings({"REDRAY_MAX_WORKERS": text})
