"""What this device has read from the pool: cursors, log blobs taken, log blobs it could not read.

A cursor moves in the same transaction that puts the page's blobs on record, taken or unreadable,
so a crash between the two cannot make a blob count as read (0k-sync advanced past blobs it could
not decrypt and kept no note of them). Unreadable blobs stay on record with the reason and are
tried again by whoever learns a new key or format.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from holdfast.fabric.database import Database
from holdfast.logic.pool.cursors import Cursors, Moved, Spot

SCHEMA: Final = """
create table if not exists cursors (
    node blob not null, incarnation blob not null, tag blob not null, sequence integer not null,
    primary key (node, incarnation, tag)
) without rowid, strict;
create table if not exists readings (
    tag blob not null, blob blob not null, at real not null, born integer not null, fault text,
    primary key (tag, blob)
) without rowid, strict;
create table if not exists shown (
    node blob not null, incarnation blob not null, tag blob not null, blob blob not null,
    primary key (node, incarnation, tag, blob)
) without rowid, strict;
create index if not exists readings_faults on readings (tag) where fault is not null;
"""

ABSENT: Final = "absent"


class Taken(NamedTuple):
    """A log blob that was taken, and its born day."""

    blob: bytes
    born: int


class Unread(msgspec.Struct, frozen=True):
    """A log blob that is on record and could not be used; `fault` says why."""

    tag: bytes
    blob: bytes
    at: float
    fault: str


class Readings:
    """The reading side of one device's memory."""

    def __init__(self, database: Database) -> None:
        self._database = database
        rows = database.run("select node, incarnation, tag, sequence from cursors")
        self.cursors = Cursors(Moved(Spot(*row[:3]), row[3]) for row in rows)

    def new(self, tag: bytes, blobs: Iterable[bytes]) -> list[bytes]:
        """Those of `blobs` that are not on record, in order, each once."""
        return [blob for blob in dict.fromkeys(blobs) if not self.known(tag, blob)]

    def wanted(self, tag: bytes, blobs: Iterable[bytes]) -> list[bytes]:
        """As `new`, with those that servers named and did not give."""
        absent = {row.blob for row in self.unread(tag) if row.fault == ABSENT}
        return [b for b in dict.fromkeys(blobs) if b in absent or not self.known(tag, b)]

    def known(self, tag: bytes, blob: bytes) -> bool:
        """Whether a log blob is on record, taken or not."""
        row = self._database.one("select 1 from readings where tag = ? and blob = ?", (tag, blob))
        return row is not None

    def newest(self, tag: bytes, born_from: int, count: int) -> list[bytes]:
        """The log blobs born since, youngest first: what a relay must have to be level with us."""
        rows = self._database.run(
            "select blob from readings where tag = ? and fault is null and born >= ?"
            " order by born desc, at desc limit ?",
            (tag, born_from, count),
        )
        return [blob for (blob,) in rows]

    def record(
        self,
        tag: bytes,
        wall_s: float,
        *,
        taken: Sequence[Taken] = (),
        faults: Sequence[tuple[bytes, str]] = (),
        moved: Moved | None = None,
        shown: tuple[Spot, Sequence[bytes]] | None = None,
    ) -> None:
        """Put a page on record and move its cursor, together. `shown` is what a server listed,
        known or new: later it cannot say that it had."""
        with self._database.commit():
            self._database.many(
                "insert or replace into readings values (?, ?, ?, ?, null)",
                [(tag, blob, wall_s, born) for blob, born in taken],
            )
            self._database.many(
                "insert or replace into readings values (?, ?, ?, 0, ?)",
                [(tag, blob, wall_s, fault) for blob, fault in faults],
            )
            if shown is not None:
                spot, blobs = shown
                self._database.many(
                    "insert or ignore into shown values (?, ?, ?, ?)",
                    [(spot.node, spot.incarnation, spot.tag, blob) for blob in blobs],
                )
            if moved is not None:
                spot = moved.spot
                self._database.run(
                    "insert or replace into cursors values (?, ?, ?, ?)",
                    (spot.node, spot.incarnation, spot.tag, moved.sequence),
                )

    def oldest_born(self, tag: bytes) -> int | None:
        """The earliest born day of what was taken; None when nothing was."""
        row = self._database.one(
            "select min(born) from readings where tag = ? and fault is null", (tag,)
        )
        return None if row is None or row[0] is None else int(row[0])

    def shown(self, spot: Spot, blob: bytes) -> bool:
        """Whether that store listed `blob` to us."""
        row = self._database.one(
            "select 1 from shown where node = ? and incarnation = ? and tag = ? and blob = ?",
            (spot.node, spot.incarnation, spot.tag, blob),
        )
        return row is not None

    def unread(self, tag: bytes) -> list[Unread]:
        """Log blobs of `tag` that could not be used."""
        rows = self._database.run(
            "select tag, blob, at, fault from readings where tag = ? and fault is not null", (tag,)
        )
        return [Unread(*row) for row in rows]
