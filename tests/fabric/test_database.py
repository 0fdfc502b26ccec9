"""A durable commit is synced, and nobody but its caller waits for that."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from holdfast.fabric.database import Database, DiskFault

SCHEMA = "create table if not exists t (x integer primary key) strict;"


def test_durable_syncs_the_log_that_holds_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(tmp_path / "d.db", SCHEMA)
    wal = os.stat(tmp_path / "d.db-wal").st_ino
    synced: list[tuple[int, int]] = []

    def sync(fd: int) -> None:
        info = os.fstat(fd)
        synced.append((info.st_ino, info.st_size))

    monkeypatch.setattr(os, "fdatasync", sync)
    with database.commit():
        database.run("insert into t values (1)")
    assert not synced
    size = os.stat(tmp_path / "d.db-wal").st_size
    with database.durable():
        database.run("insert into t values (2)")
        with database.durable():
            database.run("insert into t values (3)")
        assert not synced, "a part of a transaction is durable with the whole"
    [(inode, at_least)] = synced
    assert inode == wal
    assert at_least > size
    database.close()


def test_others_commit_while_a_durable_one_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(tmp_path / "d.db", SCHEMA)
    begun, go_on = threading.Event(), threading.Event()

    def sync(_: int) -> None:
        begun.set()
        assert go_on.wait(20.0)

    monkeypatch.setattr(os, "fdatasync", sync)

    def put() -> None:
        with database.durable():
            database.run("insert into t values (1)")

    thread = threading.Thread(target=put)
    thread.start()
    assert begun.wait(20.0)
    with database.commit():
        database.run("insert into t values (2)")
    assert thread.is_alive()
    go_on.set()
    thread.join(20.0)
    assert database.run("select count(*) from t") == [(2,)]
    database.close()


def test_a_sync_that_fails_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(tmp_path / "d.db", SCHEMA)

    def sync(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", sync)
    with pytest.raises(DiskFault), database.durable():
        database.run("insert into t values (1)")
    database.close()
