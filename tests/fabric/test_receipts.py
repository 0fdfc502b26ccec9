"""Receipts are kept, and two that contradict each other become evidence (D15)."""

from __future__ import annotations

from pathlib import Path

from holdfast.crypto.keys import SigningKey
from holdfast.fabric.database import Database
from holdfast.fabric.receipts import SCHEMA, ReceiptBook
from holdfast.logic.trust import merkle
from holdfast.wire.envelope import sign
from holdfast.wire.pool import PushReply, Receipt, ReceiptBatch
from holdfast.wire.receipts import receipt_leaf, verify_receipts
from holdfast.wire.signed import Type, unpack_signed

NODE = SigningKey(b"n" * 32)
TAG = b"t" * 32
A, B = b"a" * 32, b"b" * 32


def receipt_for(
    blob: bytes, sequence: int, incarnation: bytes = b"1" * 16
) -> tuple[ReceiptBatch, PushReply]:
    leaf = receipt_leaf(blob, TAG, sequence, 1_024, 20_000)
    batch = ReceiptBatch(NODE.node, incarnation, merkle.root([leaf]), 1, 5.0)
    reply = PushReply(
        sign(NODE, Type.RECEIPT_BATCH, batch), (Receipt(blob, sequence, False, 0, ()),)
    )
    return batch, reply


def book(tmp_path: Path) -> ReceiptBook:
    return ReceiptBook(Database(tmp_path / "device.db", SCHEMA))


def test_receipts_are_kept(tmp_path: Path) -> None:
    receipts = book(tmp_path)
    for blob, sequence in ((A, 1), (B, 2), (A, 1)):
        assert receipts.keep(TAG, *receipt_for(blob, sequence), 9.0) == []
    assert receipts.count() == 2
    assert receipts.holders(A) == [NODE.node]
    assert receipts.holders(b"c" * 32) == []


def test_two_blobs_at_one_sequence_are_evidence_that_stands_alone(tmp_path: Path) -> None:
    receipts = book(tmp_path)
    receipts.keep(TAG, *receipt_for(A, 1), 9.0)
    found = receipts.keep(TAG, *receipt_for(B, 1), 10.0)
    assert book(tmp_path).evidence() == found
    assert receipts.holders(B) == [], "a lie is not a copy"
    (evidence,) = found
    for proof, blob in ((evidence.one, A), (evidence.other, B)):
        reply = PushReply(unpack_signed(proof.batch), (proof.receipt,))
        verify_receipts(reply, node=NODE.node, tag=proof.tag, pushed=[(blob, 1_024, 20_000)])


def test_another_incarnation_numbers_anew(tmp_path: Path) -> None:
    receipts = book(tmp_path)
    receipts.keep(TAG, *receipt_for(A, 1), 9.0)
    assert receipts.keep(TAG, *receipt_for(B, 1, b"2" * 16), 10.0) == []


def test_a_blob_that_expired_and_came_again_is_no_contradiction(tmp_path: Path) -> None:
    receipts = book(tmp_path)
    receipts.keep(TAG, *receipt_for(A, 1), 9.0)
    assert receipts.keep(TAG, *receipt_for(A, 7), 10.0) == []
