"""Small files that are whole after a crash, and directories that one process holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.errors import OperationFault, UsageError
from holdfast.rim import files


def test_a_file_is_replaced_whole_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert files.read_file(path) is None
    files.write_file(path, b"one")
    files.write_file(path, b"two")
    assert files.read_file(path) == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["key"]
    files.remove_file(path)
    files.remove_file(path)
    assert files.read_file(path) is None


def test_a_write_that_fails_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    files.write_file(path, b"old")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OperationFault, match="No space left"):
            files.write_file(path, b"new")
    assert files.read_file(path) == b"old"


def test_faults_of_the_disk_are_operation_faults(tmp_path: Path) -> None:
    with pytest.raises(OperationFault, match="cannot read"):
        files.read_file(tmp_path)
    with pytest.raises(OperationFault, match="cannot write"):
        files.write_file(tmp_path / "missing" / "key", b"")
    (tmp_path / "file").touch()
    with pytest.raises(OperationFault, match="cannot make"):
        files.make_private_directory(tmp_path / "file" / "below")


def test_a_directory_is_private_and_held_by_one(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with files.lock_directory(home, "an agent"):
        assert home.stat().st_mode & 0o777 == 0o700
        with pytest.raises(UsageError, match="an agent already runs"):
            files.lock_directory(home, "an agent")
    files.lock_directory(home, "an agent").close()
