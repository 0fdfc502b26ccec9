"""The outbox: durable before `put` returns, whole after kill -9, empty when all is replicated."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.crypto.blob import blob_id, seal
from holdfast.crypto.era import Era
from holdfast.errors import OperationFault
from holdfast.fabric.database import Database
from holdfast.fabric.outbox import SCHEMA, Outbox, Parcel, count_stages
from holdfast.logic.pool.fanout import BULK, LOG, Added, Reached, Released, Stage

SLOT = b"s" * 16
ERA = Era(b"e" * 32, bytes(16))
DAY = 20_000


def parcel(text: bytes, blob_class: int = LOG) -> Parcel:
    body = seal(ERA, blob_class, text, DAY)
    return Parcel(SLOT, ERA.tag, blob_id(body), body, blob_class)


SMALL = parcel(b"small")
LARGE = parcel(os.urandom(100_000), BULK)


def opened(path: Path, **options: int) -> Outbox:
    path.mkdir(exist_ok=True)
    return Outbox(Database(path / "device.db", SCHEMA), path / "outbox", **options)


def test_put_keeps_bodies_small_and_large(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    assert outbox.put([SMALL, LARGE], 5.0) == [SMALL, LARGE]
    assert outbox.bytes_held == len(SMALL.body) + len(LARGE.body)
    for item in (SMALL, LARGE):
        assert outbox.body(item.blob) == item.body
        assert outbox.born(item.blob) == DAY
        assert outbox.stage(item.blob) is Stage.QUEUED
    files = list((tmp_path / "outbox").glob("*/*"))
    assert [path.name for path in files] == [LARGE.blob.hex()]
    assert files[0].stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "device.db").stat().st_mode & 0o777 == 0o600


def test_an_identical_retry_is_put_once(tmp_path: Path) -> None:
    """Defect 4 of the peers: a fresh id and nonce for each copy."""
    outbox = opened(tmp_path)
    again = parcel(b"small")
    assert again == SMALL, "same payload, same day, same blob (D10)"
    assert outbox.put([SMALL, again], 5.0) == [SMALL]
    assert outbox.put([again], 6.0) == []
    assert outbox.bytes_held == len(SMALL.body)


def test_one_blob_for_two_slots_is_never_dropped(tmp_path: Path) -> None:
    """It waits its turn while under way on one slot, and then goes to the other."""
    outbox = opened(tmp_path)
    outbox.put([SMALL], 5.0)
    other = Parcel(b"o" * 16, SMALL.tag, SMALL.blob, SMALL.body, SMALL.blob_class)
    with pytest.raises(OperationFault, match="another slot"):
        outbox.put([other], 6.0)
    outbox.apply([Reached(SMALL.blob, Stage.REPLICATED), Released(SMALL.blob)])
    assert outbox.put([other], 7.0) == [other]
    assert outbox.stage(SMALL.blob) is Stage.QUEUED
    assert [added.blob for added in outbox.waiting(other.slot)] == [SMALL.blob]


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.put([SMALL, LARGE], 5.0)
    first.copied("relay-1", b"n" * 32, [LARGE.blob])
    first.apply([Reached(LARGE.blob, Stage.STORED)])
    second = opened(tmp_path)
    assert second.bytes_held == first.bytes_held
    assert second.waiting(SLOT) == [
        Added(LARGE.blob, ERA.tag, len(LARGE.body), BULK, (("relay-1", b"n" * 32),)),
        Added(SMALL.blob, ERA.tag, len(SMALL.body), LOG),
    ], "bulk first: an operation never arrives before what it names"
    assert second.waiting(b"x" * 16) == []
    assert second.body(LARGE.blob) == LARGE.body


def test_release_forgets_the_body_and_keeps_the_row(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    outbox.put([SMALL, LARGE], 5.0)
    changes = [Reached(LARGE.blob, Stage.REPLICATED), Released(LARGE.blob), Released(SMALL.blob)]
    outbox.apply(changes)
    outbox.apply(changes)
    assert outbox.bytes_held == 0
    assert outbox.waiting(SLOT) == []
    assert not list((tmp_path / "outbox").glob("*/*"))
    assert outbox.stage(LARGE.blob) is Stage.REPLICATED
    assert outbox.put([LARGE], 9.0) == [], "replicated once is replicated"
    assert outbox.body(LARGE.blob) is None


def test_counts_by_stage(tmp_path: Path) -> None:
    database = Database(tmp_path / "device.db", SCHEMA)
    outbox = Outbox(database, tmp_path / "outbox")
    outbox.put([SMALL, LARGE, parcel(b"third")], 5.0)
    outbox.apply([Reached(LARGE.blob, Stage.REPLICATED), Reached(SMALL.blob, Stage.STORED)])
    counts = count_stages(database, [ERA.tag, b"other" * 6])
    assert (counts.queued, counts.stored, counts.replicated, counts.total) == (1, 1, 1, 3)
    assert counts.replicated_bytes == len(LARGE.body)


def test_the_limit_is_tripped_through_the_front_door(tmp_path: Path) -> None:
    outbox = opened(tmp_path, bytes_max=len(LARGE.body) + 100)
    outbox.put([LARGE], 5.0)
    assert not outbox.room_for(len(SMALL.body))
    with pytest.raises(OperationFault, match="wait until the servers took some"):
        outbox.put([SMALL], 5.0)
    outbox.apply([Released(LARGE.blob)])
    assert outbox.put([SMALL], 5.0) == [SMALL]
    tiny = opened(tmp_path / "tiny", bytes_max=1)
    assert tiny.put([SMALL], 5.0) == [SMALL], "one blob always fits an empty outbox"


def test_a_damaged_body_is_not_pushed(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    outbox.put([LARGE], 5.0)
    (path,) = (tmp_path / "outbox").glob("*/*")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(OperationFault, match="damaged"):
        outbox.body(LARGE.blob)
    path.unlink()
    with pytest.raises(OperationFault, match="damaged"):
        outbox.body(LARGE.blob)


def test_files_without_a_row_are_swept(tmp_path: Path) -> None:
    """A crash between writing a body and naming it leaves a file and no promise."""
    outbox = opened(tmp_path)
    outbox.put([LARGE], 5.0)
    stray = tmp_path / "outbox" / "ab" / ("ab" * 32)
    stray.parent.mkdir(exist_ok=True)  # LARGE may lie there: its id is random
    stray.write_bytes(b"half")
    odd = tmp_path / "outbox" / "ab" / "README"
    odd.write_bytes(b"not ours")
    again = opened(tmp_path)
    assert not stray.exists()
    assert odd.exists()
    assert again.body(LARGE.blob) == LARGE.body


_CHILD = """
import sys, pathlib
from tests.fabric.test_outbox import opened, parcel
outbox = opened(pathlib.Path(sys.argv[1]))
for number in range(10_000):
    item = parcel(b"x" * 20_000 + str(number).encode())
    outbox.put([item], float(number))
    print(item.blob.hex(), flush=True)
"""


@pytest.mark.system
def test_kill_minus_nine_loses_nothing_that_was_put(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    assert process.stdout is not None
    promised = [process.stdout.readline().strip() for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    promised += process.stdout.read().split()
    process.wait()
    outbox = opened(tmp_path)
    waiting = {added.blob for added in outbox.waiting(SLOT)}
    promised = [text for text in promised if len(text) == 64]
    assert {bytes.fromhex(text) for text in promised} <= waiting
    for blob in waiting:
        assert blob_id(outbox.body(blob) or b"") == blob
