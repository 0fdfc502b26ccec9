"""Receipts this device holds: proof of what a server said is durable (D15).

Every verified receipt is kept with its signed batch, its own ones and those that other devices of
a group show in notes. Two of one node and incarnation that give one (tag, sequence) to different
blobs contradict each other: that is a proof of misbehaviour, and the later one is no copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.fabric.database import Database
from holdfast.limits.evidence import AUDIT_NEWEST, AUDIT_OLDER
from holdfast.wire.codec import pack
from holdfast.wire.evidence import VERSION, Evidence, HeldReceipt, Kind
from holdfast.wire.pool import Attestation, Receipt, ReceiptBatch
from holdfast.wire.signed import Signed, Type, decode_body

SCHEMA: Final = """
create table if not exists batches (
    id blob primary key, signed blob not null
) without rowid, strict;
create table if not exists held_receipts (
    node blob not null, incarnation blob not null, tag blob not null, sequence integer not null,
    blob blob not null, size integer not null, born integer not null, at real not null,
    log integer not null, noted integer not null, receipt blob not null, batch blob not null,
    primary key (node, incarnation, tag, sequence)
) without rowid, strict;
create table if not exists attested (
    node blob not null, incarnation blob not null, tag blob not null, signed blob not null,
    primary key (node, incarnation, tag)
) without rowid, strict;
create index if not exists held_receipts_blob on held_receipts (blob);
create index if not exists held_receipts_unnoted on held_receipts (tag) where not noted;
"""
_COLUMNS: Final = "incarnation, log, signed, receipt, tag, size, born"
_FROM: Final = "from held_receipts join batches on batch = id"


class Kept(msgspec.Struct, frozen=True):
    """A receipt as it is kept. `log`: it is for a log blob, which its server must show."""

    incarnation: bytes
    log: bool
    held: HeldReceipt

    @property
    def blob(self) -> bytes:
        return self.held.receipt.blob

    @property
    def sequence(self) -> int:
        return self.held.receipt.sequence


class ReceiptBook:
    """The receipts of one device."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(
        self,
        batch: ReceiptBatch,
        receipts: Sequence[HeldReceipt],
        *,
        log: bool = False,
        noted: bool = True,
    ) -> list[Evidence]:
        """Keep verified receipts under one `batch`; the contradictions this brings to light.

        `noted`: the other devices of the group need not be shown them.
        """
        found = []
        with self._database.commit():
            for held in receipts:
                signed = pack(held.batch)
                batch_id = hash_bytes(signed)
                other = self._contradiction(batch, held)
                if other is not None:
                    found.append(Evidence(VERSION, Kind.CONFLICT, (other, held), ()))
                    continue
                self._database.run(
                    "insert or ignore into batches values (?, ?)", (batch_id, signed)
                )
                receipt = held.receipt
                self._database.run(
                    "insert or replace into held_receipts values"
                    " (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(batch.node, batch.incarnation, held.tag, receipt.sequence),
                        *(receipt.blob, held.size, held.born, batch.committed_at),
                        *(int(log), int(noted), pack(receipt), batch_id),
                    ),
                )
        return found

    def holders(self, blob: bytes) -> list[bytes]:
        """Node ids that signed for `blob`."""
        rows = self._database.run("select distinct node from held_receipts where blob = ?", (blob,))
        return [node for (node,) in rows]

    def count(self) -> int:
        """Receipts kept."""
        row = self._database.one("select count(*) from held_receipts")
        assert row is not None
        return int(row[0])

    def to_audit(self, node: bytes, tag: bytes, born_from: int, pivot: bytes) -> list[Kept]:
        """Receipts of `node` to ask it about: the newest ones, and some from `pivot` (32 random
        bytes) on by blob id. Blobs born before `born_from` may be gone."""
        newest = self._database.run(
            f"select {_COLUMNS} {_FROM} where node = ? and tag = ? and born >= ?"
            " order by at desc limit ?",
            (node, tag, born_from, AUDIT_NEWEST),
        )
        older = self._database.run(
            f"select {_COLUMNS} {_FROM} where node = ? and tag = ? and born >= ? and blob >= ?"
            " order by blob limit ?",
            (node, tag, born_from, pivot, AUDIT_OLDER),
        )
        kept = {(k.incarnation, k.sequence): k for k in map(_kept, (*newest, *older))}
        return list(kept.values())

    def to_note(self, tag: bytes, count: int) -> list[HeldReceipt]:
        """Receipts for log blobs that the other devices of the group were not shown; newest
        first."""
        rows = self._database.run(
            f"select {_COLUMNS} {_FROM} where not noted and tag = ? order by at desc limit ?",
            (tag, count),
        )
        return [_kept(row).held for row in rows]

    def noted(self, tag: bytes) -> None:
        """The others are being shown what there was to show."""
        with self._database.commit():
            self._database.run(
                "update held_receipts set noted = 1 where not noted and tag = ?", (tag,)
            )

    def attested(
        self, node: bytes, incarnation: bytes, tag: bytes
    ) -> tuple[Signed, Attestation] | None:
        """The newest attestation kept of a store about a tag."""
        row = self._database.one(
            "select signed from attested where node = ? and incarnation = ? and tag = ?",
            (node, incarnation, tag),
        )
        if row is None:
            return None
        signed = msgspec.msgpack.decode(row[0], type=Signed)
        return signed, decode_body(Type.ATTESTATION, Attestation, signed)

    def keep_attestation(self, signed: Signed, said: Attestation) -> None:
        """Keep a verified attestation in place of the one before."""
        with self._database.commit():
            self._database.run(
                "insert or replace into attested values (?, ?, ?, ?)",
                (said.node, said.incarnation, said.tag, pack(signed)),
            )

    def _contradiction(self, batch: ReceiptBatch, held: HeldReceipt) -> HeldReceipt | None:
        """A kept receipt that this one cannot stand beside."""
        row = self._database.one(
            f"select {_COLUMNS} {_FROM}"
            " where node = ? and incarnation = ? and tag = ? and sequence = ? and blob != ?",
            (
                *(batch.node, batch.incarnation, held.tag),
                *(held.receipt.sequence, held.receipt.blob),
            ),
        )
        return None if row is None else _kept(row).held


def held_receipts(
    tag: bytes, batch: Signed, receipts: Iterable[Receipt], pushed: Iterable[tuple[int, int]]
) -> list[HeldReceipt]:
    """The receipts of one push, each to stand alone; `pushed` are (size, born) in order."""
    pairs = zip(receipts, pushed, strict=True)
    return [HeldReceipt(batch, receipt, tag, size, born) for receipt, (size, born) in pairs]


def _kept(row: tuple[bytes, int, bytes, bytes, bytes, int, int]) -> Kept:
    incarnation, log, signed, receipt, tag, size, born = row
    batch = msgspec.msgpack.decode(signed, type=Signed)
    one = msgspec.msgpack.decode(receipt, type=Receipt)
    return Kept(incarnation, bool(log), HeldReceipt(batch, one, tag, size, born))
