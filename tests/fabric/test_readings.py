"""What was read is remembered together with the cursor that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.errors import OperationFault
from holdfast.fabric.database import Database
from holdfast.fabric.readings import SCHEMA, Readings, Taken, Unread
from holdfast.logic.pool.cursors import Moved, Spot

TAG = b"t" * 32
SPOT = Spot(b"n" * 32, b"1" * 16, TAG)
A, B, C = b"a" * 32, b"b" * 32, b"c" * 32


def test_a_page_and_its_cursor_survive_together(tmp_path: Path) -> None:
    readings = Readings(Database(tmp_path / "device.db", SCHEMA))
    assert readings.new(TAG, [A, B, A]) == [A, B]
    readings.record(TAG, 5.0, taken=[Taken(A, 20_000)], moved=Moved(SPOT, 7))
    again = Readings(Database(tmp_path / "device.db", SCHEMA))
    assert again.cursors.at(SPOT) == 7
    assert again.new(TAG, [A, B]) == [B]
    assert again.new(b"u" * 32, [A]) == [A]


def test_defect_5_an_unreadable_blob_stays_on_record_with_its_reason(tmp_path: Path) -> None:
    """0k-sync skips what it cannot decrypt and advances: nobody ever hears of it again."""
    readings = Readings(Database(tmp_path / "device.db", SCHEMA))
    readings.record(TAG, 5.0, faults=[(A, "unopenable")], moved=Moved(SPOT, 7))
    assert readings.unread(TAG) == [Unread(TAG, A, 5.0, "unopenable")]
    assert readings.known(TAG, A)
    readings.record(TAG, 6.0, taken=[Taken(A, 20_000)])
    assert readings.unread(TAG) == []


def test_newest_first_and_only_what_relays_still_keep(tmp_path: Path) -> None:
    readings = Readings(Database(tmp_path / "device.db", SCHEMA))
    readings.record(TAG, 5.0, taken=[Taken(A, 20_000)])
    readings.record(TAG, 7.0, taken=[Taken(C, 20_001)])
    readings.record(TAG, 6.0, taken=[Taken(B, 20_001)])
    readings.record(TAG, 8.0, faults=[(b"d" * 32, "unopenable")])
    assert readings.newest(TAG, 20_000, 3) == [C, B, A]
    assert readings.newest(TAG, 20_001, 1) == [C]
    assert readings.newest(TAG, 20_002, 9) == []


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "device.db").write_bytes(b"not a database, and long enough to be read" * 99)
    with pytest.raises(OperationFault, match="restore this device"):
        Database(tmp_path / "device.db", SCHEMA)


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "device.db", SCHEMA)
    readings = Readings(database)

    def half() -> None:
        with database.durable():
            readings.record(TAG, 5.0, taken=[Taken(A, 20_000)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert not readings.known(TAG, A)
    reader = Database(tmp_path / "device.db", SCHEMA, read_only=True)
    with pytest.raises(OperationFault):
        reader.run("delete from readings")
    reader.close()
