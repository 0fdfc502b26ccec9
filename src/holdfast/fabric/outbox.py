"""The outbox: ciphertext this device has made and the pool does not safely have yet (D13).

`put` returns when the blobs are on this disk; from then on they survive kill -9 and power loss
until the fan-out releases them. Bodies up to 16 KiB lie in the database, larger ones in files of
their own, written and synced before the row that names them. A row outlives its body: it says how
far the blob got, for status figures and so that an identical retry is not pushed again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from holdfast.crypto.blob import read_header
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import OperationFault
from holdfast.fabric.database import Database, DiskFault, Row
from holdfast.limits import INLINE_BYTES_MAX, OUTBOX_BYTES_MAX, OUTBOX_SHOWN_MAX
from holdfast.logic.pool.fanout import Added, Reached, Released, Stage

SCHEMA: Final = """
create table if not exists outbox (
    blob blob primary key, slot blob not null, tag blob not null, class integer not null,
    size integer not null, born integer not null, stage integer not null, held integer not null,
    queued_at real not null, body blob
) without rowid, strict;
create index if not exists outbox_held on outbox (slot) where held;
create index if not exists outbox_tag on outbox (tag, stage);
create index if not exists outbox_here on outbox (tag) where held;
create table if not exists copies (
    blob blob not null, name text not null, node blob not null, primary key (blob, name)
) without rowid, strict;
"""


class OutboxFull(DiskFault):
    """The outbox holds as much as it may; wait until the servers took some."""


class Parcel(msgspec.Struct, frozen=True):
    """A sealed blob on its way to the servers of `slot`, under `tag`."""

    slot: bytes
    tag: bytes
    blob: bytes
    """Id: BLAKE3 of `body`."""
    body: bytes
    blob_class: int


class Counts(msgspec.Struct, frozen=True):
    """How many blobs and bytes of one thing are at each stage."""

    queued: int = 0
    stored: int = 0
    replicated: int = 0
    queued_bytes: int = 0
    stored_bytes: int = 0
    replicated_bytes: int = 0

    @property
    def total(self) -> int:
        return self.queued + self.stored + self.replicated


class Outbox:
    """The outbox of one device, for all its slots. `directory` holds the large bodies."""

    def __init__(
        self, database: Database, directory: Path, *, bytes_max: int = OUTBOX_BYTES_MAX
    ) -> None:
        self._database = database
        self._directory = directory
        self._bytes_max = bytes_max
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        row = database.one("select coalesce(sum(size), 0) from outbox where held")
        assert row is not None
        self._bytes: int = row[0]

    @property
    def bytes_held(self) -> int:
        """Bytes of ciphertext on this disk."""
        return self._bytes

    def room_for(self, size: int) -> bool:
        """Whether `size` more bytes fit now. One blob always fits an empty outbox."""
        return self._bytes == 0 or self._bytes + size <= self._bytes_max

    def put(
        self, parcels: Sequence[Parcel], wall_s: float, also: Callable[[], None] | None = None
    ) -> list[Parcel]:
        """Make `parcels` durable; those that are new here, in order. What `also` writes to the
        database becomes durable with them, or not at all.

        Raises DiskFault when the disk, OutboxFull when the outbox's own limit is full, and
        OperationFault while one of them is still under way on another slot.
        """
        fresh = self._fresh(parcels)
        if not self.room_for(sum(len(parcel.body) for parcel in fresh)):
            raise OutboxFull(
                f"the outbox holds {self._bytes} bytes; wait until the servers took some"
            )
        large = [parcel for parcel in fresh if len(parcel.body) > INLINE_BYTES_MAX]
        self._write(large)
        rows: list[Row] = [_row(parcel, wall_s) for parcel in fresh]
        with self._database.durable():
            self._database.many(
                "delete from outbox where blob = ? and slot <> ? and not held",
                [(parcel.blob, parcel.slot) for parcel in fresh],
            )
            self._database.many(
                "insert or ignore into outbox values (?, ?, ?, ?, ?, ?, ?, 1, ?, ?)", rows
            )
            if also is not None:
                also()
            self._bytes += sum(len(parcel.body) for parcel in fresh)
        return fresh

    def waiting(self, slot: bytes) -> list[Added]:
        """What is under way on `slot`, oldest first, with the copies known."""
        rows = self._database.run(
            "select blob, tag, size, class from outbox where slot = ? and held"
            " order by queued_at, class desc",
            (slot,),
        )
        return [
            Added(blob, tag, size, blob_class, self._copies(blob))
            for blob, tag, size, blob_class in rows
        ]

    def items(self, tag: bytes) -> list[tuple[int, bytes]]:
        """(class, id) of what lies here of a tag, oldest first, at most `OUTBOX_SHOWN_MAX`."""
        return self._database.run(
            "select class, blob from outbox where tag = ? and held order by queued_at limit ?",
            (tag, OUTBOX_SHOWN_MAX),
        )

    def held(self, blob: bytes) -> Added | None:
        """A blob under way, with the copies known; None when it is not (any more) here."""
        row = self._database.one(
            "select tag, size, class from outbox where blob = ? and held", (blob,)
        )
        if row is None:
            return None
        tag, size, blob_class = row
        return Added(blob, tag, size, blob_class, self._copies(blob))

    def body(self, blob: bytes) -> bytes | None:
        """The ciphertext of `blob`, its hash checked; None when it is not (any more) here.

        Raises DiskFault, not retryable, when the disk has lost it.
        """
        row = self._database.one("select body from outbox where blob = ? and held", (blob,))
        if row is None:
            return None
        body: bytes | None = row[0] if row[0] is not None else self._read(blob)
        if body is not None and hash_bytes(body) == blob:
            return body
        if self._database.one("select 1 from outbox where blob = ? and held", (blob,)) is None:
            return None  # released while we were reading
        raise DiskFault(
            f"outbox file {blob.hex()} is damaged; sync its folder again", retryable=False
        )

    def born(self, blob: bytes) -> int:
        """The born day of a blob that was put."""
        row = self._database.one("select born from outbox where blob = ?", (blob,))
        assert row is not None
        born: int = row[0]
        return born

    def copied(self, name: str, node: bytes, blobs: Iterable[bytes]) -> None:
        """`node` behind `name` has these. Part of the caller's transaction, if any."""
        with self._database.commit():
            self._database.many(
                "insert or replace into copies values (?, ?, ?)",
                [(blob, name, node) for blob in blobs],
            )

    def apply(self, changes: Sequence[object]) -> None:
        """Persist what the fan-out decided: `Reached` and `Released`, in order."""
        released: list[bytes] = []
        with self._database.commit():
            for change in changes:
                if isinstance(change, Reached):
                    self._database.run(
                        "update outbox set stage = ? where blob = ?", (change.stage, change.blob)
                    )
                else:
                    assert isinstance(change, Released)
                    released.append(change.blob)
            for blob in released:
                self._release(blob)
        for blob in released:
            self._path(blob).unlink(missing_ok=True)

    def stage(self, blob: bytes) -> Stage | None:
        """How far a blob got; None when it was never put."""
        row = self._database.one("select stage from outbox where blob = ?", (blob,))
        return Stage(row[0]) if row else None

    # --- bodies --------------------------------------------------------------------------------
    def _fresh(self, parcels: Sequence[Parcel]) -> list[Parcel]:
        """Those not known here, each once. What is replicated needs no second push, unless on
        another slot."""
        fresh: dict[bytes, Parcel] = {}
        for parcel in parcels:
            row = self._database.one("select slot, held from outbox where blob = ?", (parcel.blob,))
            if row is not None and row[0] != parcel.slot and row[1]:
                raise OperationFault("a blob is still on its way to another slot; try again later")
            if parcel.blob not in fresh and (row is None or row[0] != parcel.slot):
                fresh[parcel.blob] = parcel
        return list(fresh.values())

    def _write(self, parcels: Sequence[Parcel]) -> None:
        try:
            directories = {self._path(parcel.blob).parent for parcel in parcels}
            fresh = [directory for directory in directories if not directory.exists()]
            for directory in fresh:
                directory.mkdir(mode=0o700, exist_ok=True)
            for parcel in parcels:
                _write_synced(self._path(parcel.blob), parcel.body)
            for directory in directories:
                _sync_directory(directory)
            if fresh:
                _sync_directory(self._directory)
        except OSError as error:
            raise DiskFault(
                f"cannot write {self._directory}: {error.strerror}; free some space"
            ) from error

    def _read(self, blob: bytes) -> bytes | None:
        try:
            return self._path(blob).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DiskFault(f"cannot read outbox file {blob.hex()}: {error.strerror}") from error

    def _release(self, blob: bytes) -> None:
        """Forget the body; the row stays."""
        row = self._database.one("select size from outbox where blob = ? and held", (blob,))
        if row is None:
            return
        self._database.run("update outbox set held = 0, body = null where blob = ?", (blob,))
        self._database.run("delete from copies where blob = ?", (blob,))
        self._bytes -= row[0]

    def _copies(self, blob: bytes) -> tuple[tuple[str, bytes], ...]:
        rows = self._database.run("select name, node from copies where blob = ?", (blob,))
        return tuple((name, node) for name, node in rows)

    def _path(self, blob: bytes) -> Path:
        name = blob.hex()
        return self._directory / name[:2] / name

    def _sweep(self) -> None:
        """Remove files without a row: written just before a crash, or released just after."""
        for path in self._directory.glob("??/*"):
            try:
                blob = bytes.fromhex(path.name)
            except ValueError:
                continue
            row = self._database.one(
                "select 1 from outbox where blob = ? and held and body is null", (blob,)
            )
            if row is None:
                path.unlink(missing_ok=True)


def count_stages(database: Database, tags: Sequence[bytes]) -> Counts:
    """Figures of everything put under `tags` since this device began."""
    figures = {"queued": (0, 0), "stored": (0, 0), "replicated": (0, 0)}
    for tag in tags:
        rows = database.run(
            "select stage, count(*), sum(size) from outbox where tag = ? group by stage", (tag,)
        )
        for stage, count, size in rows:
            name = Stage(stage).name.lower()
            figures[name] = (figures[name][0] + count, figures[name][1] + size)
    return Counts(
        **{name: count for name, (count, _) in figures.items()},
        **{f"{name}_bytes": size for name, (_, size) in figures.items()},
    )


def _row(parcel: Parcel, wall_s: float) -> Row:
    size = len(parcel.body)
    inline = parcel.body if size <= INLINE_BYTES_MAX else None
    born = read_header(parcel.body).born
    head = (parcel.blob, parcel.slot, parcel.tag, parcel.blob_class, size, born)
    return (*head, int(Stage.QUEUED), wall_s, inline)


def _write_synced(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
