"""Receipts this device holds: proof of what a server said is durable (D15).

Every verified receipt is kept with its signed batch. Two of one node and incarnation that give one
(tag, sequence) to different blobs contradict each other and are kept as *evidence*: anyone can
check them against the node's identity key.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.fabric.database import Database
from holdfast.wire.codec import pack
from holdfast.wire.pool import PushReply, Receipt, ReceiptBatch

SCHEMA: Final = """
create table if not exists batches (
    id blob primary key, signed blob not null
) without rowid, strict;
create table if not exists receipts (
    node blob not null, incarnation blob not null, tag blob not null, sequence integer not null,
    blob blob not null, receipt blob not null, batch blob not null,
    primary key (node, incarnation, tag, sequence)
) without rowid, strict;
create index if not exists receipts_blob on receipts (blob);
create table if not exists evidence (
    at real not null, node blob not null, one blob not null, other blob not null,
    primary key (one, other)
) without rowid, strict;
"""


class Proof(msgspec.Struct, frozen=True):
    """A receipt that stands alone: everything `verify_receipts` needs but the blob's size."""

    tag: bytes
    batch: bytes
    """MessagePack of the `Signed` batch."""
    receipt: Receipt


class Evidence(msgspec.Struct, frozen=True):
    """Two proofs by `node` that cannot both be true."""

    at: float
    node: bytes
    one: Proof
    other: Proof


class ReceiptBook:
    """The receipts of one device."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(
        self, tag: bytes, batch: ReceiptBatch, reply: PushReply, wall_s: float
    ) -> list[Evidence]:
        """Keep the verified receipts of one push; the contradictions this brings to light."""
        signed = pack(reply.batch)
        batch_id = hash_bytes(signed)
        found = []
        with self._database.commit():
            self._database.run("insert or ignore into batches values (?, ?)", (batch_id, signed))
            for receipt in reply.receipts:
                other = self._contradiction(tag, batch, receipt)
                if other is not None:
                    proof = Proof(tag, signed, receipt)
                    found.append(Evidence(wall_s, batch.node, other, proof))
                    self._keep_evidence(found[-1])
                    continue
                self._database.run(
                    "insert or replace into receipts values (?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(batch.node, batch.incarnation, tag, receipt.sequence),
                        *(receipt.blob, pack(receipt), batch_id),
                    ),
                )
        return found

    def evidence(self) -> list[Evidence]:
        """All contradictions seen, oldest first."""
        rows = self._database.run("select at, node, one, other from evidence order by at")
        decode = msgspec.msgpack.Decoder(Proof).decode
        return [Evidence(at, node, decode(one), decode(other)) for at, node, one, other in rows]

    def holders(self, blob: bytes) -> list[bytes]:
        """Node ids that signed for `blob`."""
        rows = self._database.run("select distinct node from receipts where blob = ?", (blob,))
        return [node for (node,) in rows]

    def count(self) -> int:
        """Receipts kept."""
        row = self._database.one("select count(*) from receipts")
        assert row is not None
        return int(row[0])

    def _contradiction(self, tag: bytes, batch: ReceiptBatch, receipt: Receipt) -> Proof | None:
        """A kept receipt that this one cannot stand beside."""
        row = self._database.one(
            "select receipt, signed from receipts join batches on batch = id"
            " where node = ? and incarnation = ? and tag = ? and sequence = ? and blob != ?",
            (batch.node, batch.incarnation, tag, receipt.sequence, receipt.blob),
        )
        if row is None:
            return None
        return Proof(tag, row[1], msgspec.msgpack.decode(row[0], type=Receipt))

    def _keep_evidence(self, evidence: Evidence) -> None:
        self._database.run(
            "insert or ignore into evidence values (?, ?, ?, ?)",
            (evidence.at, evidence.node, pack(evidence.one), pack(evidence.other)),
        )
