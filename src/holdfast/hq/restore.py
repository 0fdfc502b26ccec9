"""A headquarters out of a snapshot, on a bare machine (seed 004 §5.3, §12.2; D3).

The directory is written as it was, the rows go into a new SQLite store, and what must outrank the
past does: the terms begin a new run (agents refuse lower ones), the restore epoch grows (slot
records and lists of the new life win), revisions go on above all that nodes may have seen. The
first thing it does when it serves is to listen for one detection window.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from holdfast.errors import OperationFault, UsageError
from holdfast.hq.config import CONFIG_FILE
from holdfast.hq.leader import TERM
from holdfast.hq.restored import RESTORED, REVOKED_SINCE, Restored
from holdfast.limits import TXN_OPERATIONS_MAX
from holdfast.limits.continuity import REVISIONS_PER_RESTORE, TERMS_PER_RESTORE
from holdfast.limits.control import TXN_BYTES_MAX
from holdfast.logic.trust.revocation import Revoked
from holdfast.rim.clock import Clock
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.control.store import ControlStore, Put
from holdfast.rim.files import make_private_directory, write_file
from holdfast.wire.codec import pack
from holdfast.wire.snapshot import Snapshot

STORE_FILE: Final = "control.db"


def check_bare(directory: Path) -> None:
    """Raises UsageError when something lies there that a restore would overwrite."""
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty; restore into a new directory")


def write_files(snapshot: Snapshot, directory: Path) -> None:
    """Raises UsageError for a path that leads out of the directory."""
    for file in snapshot.files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise UsageError(f"the snapshot holds a file at {file.path!r}; do not trust it")
    make_private_directory(directory)
    for file in snapshot.files:
        path = PurePosixPath(file.path)
        where = directory.joinpath(*path.parts)
        make_private_directory(where.parent)
        body = _alone(file.body) if file.path == CONFIG_FILE else file.body
        write_file(where, body)


def _alone(body: bytes) -> bytes:
    """The configuration of one headquarters on a file of its own, whatever it stood on before."""
    config = msgspec.json.decode(body)
    config.pop("etcd", None)
    config["store"] = STORE_FILE
    return msgspec.json.format(msgspec.json.encode(config), indent=2)


async def load_rows(snapshot: Snapshot, store: ControlStore) -> None:
    """The rows as they were, into an empty store, to be looked at. Raises OperationFault."""
    await _fill(store, [Put(row.key, row.value) for row in snapshot.rows])


async def _fill(store: ControlStore, puts: list[Put]) -> None:
    for piece in _pieces(puts):
        if not (await store.txn([], piece)).succeeded:
            raise OperationFault("the new store takes nothing", retryable=False)


async def load_store(
    snapshot: Snapshot, directory: Path, clock: Clock, out: Sequence[Revoked] = ()
) -> Restored:
    """The rows into a new store; `out` is who was found on newer revocation lists, which the
    headquarters signs anew when it starts. Raises OperationFault, UsageError."""
    store = await SqliteStore.open(directory / STORE_FILE, clock)
    try:
        if await store.revision():
            raise UsageError(f"{directory / STORE_FILE} holds something already")
        await store.begin_at(snapshot.revision + REVISIONS_PER_RESTORE)
        restored = Restored(snapshot.epoch + 1, clock.wall(), snapshot.made_at)
        puts = [_put(row.key, row.value) for row in snapshot.rows if row.key != RESTORED]
        puts.append(Put(RESTORED, msgspec.msgpack.encode(restored)))
        if out:
            puts.append(Put(REVOKED_SINCE, pack(tuple(out))))
        await _fill(store, puts)
        return restored
    finally:
        await store.close()


def _put(key: str, value: bytes) -> Put:
    if key == TERM:
        value = str((int(value) // TERMS_PER_RESTORE + 1) * TERMS_PER_RESTORE).encode()
    return Put(key, value)


def _pieces(puts: list[Put]) -> list[list[Put]]:
    pieces: list[list[Put]] = [[]]
    size = 0
    for put in puts:
        size += len(put.value)
        if len(pieces[-1]) == TXN_OPERATIONS_MAX or size > TXN_BYTES_MAX:
            pieces.append([])
            size = len(put.value)
        pieces[-1].append(put)
    return pieces
