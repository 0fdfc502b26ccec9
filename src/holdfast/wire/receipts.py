"""Receipts: what a server signs once its disk has the blobs, and how anyone checks it (D15).

One signature covers a whole commit: it signs the RFC 6962 root over the commit's leaves, and each
blob gets its audit path. Two receipts of one node and incarnation that give one (tag, sequence) to
different blobs are a portable proof of misbehaviour.

    leaf = blob id 32 | tag 32 | sequence u64 | blob size u32 | born u32          big-endian
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from holdfast.crypto.pure import node_id
from holdfast.errors import PeerFault
from holdfast.logic.trust import merkle
from holdfast.wire.envelope import verify
from holdfast.wire.pool import PushReply, Receipt, ReceiptBatch
from holdfast.wire.signed import Type

_LEAF = struct.Struct(">32s32sQII")


def receipt_leaf(blob: bytes, tag: bytes, sequence: int, size: int, born: int) -> bytes:
    """Leaf data of one blob."""
    return _LEAF.pack(blob, tag, sequence, size, born)


def verify_receipts(
    reply: PushReply, *, node: bytes, tag: bytes, pushed: Sequence[tuple[bytes, int, int]]
) -> ReceiptBatch:
    """Check that `node` vouches for every pushed blob, given as (id, size, born), in order.

    Raises PeerFault with code `receipt`: then nothing of the push counts as stored.
    """
    if node_id(reply.batch.signer) != node:
        raise PeerFault("receipts signed by another node", code="receipt")
    try:
        batch = verify(Type.RECEIPT_BATCH, ReceiptBatch, reply.batch)
    except PeerFault as fault:
        raise PeerFault(f"receipts that nobody signed: {fault}", code="receipt") from fault
    if batch.node != node or len(reply.receipts) != len(pushed):
        raise PeerFault("receipts for another push or node", code="receipt")
    for receipt, (blob, size, born) in zip(reply.receipts, pushed, strict=True):
        _verify_one(receipt, batch, blob, receipt_leaf(blob, tag, receipt.sequence, size, born))
    return batch


def _verify_one(receipt: Receipt, batch: ReceiptBatch, blob: bytes, leaf: bytes) -> None:
    proven = receipt.blob == blob and merkle.verify_path(
        batch.root, batch.size, receipt.index, leaf, receipt.path
    )
    if not proven:
        raise PeerFault("a receipt does not prove its blob", code="receipt")
