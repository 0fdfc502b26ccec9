"""Receipts are kept, and two that contradict each other become evidence (D15)."""

from __future__ import annotations

from pathlib import Path

from holdfast.crypto.keys import SigningKey
from holdfast.fabric.database import Database
from holdfast.fabric.receipts import SCHEMA, ReceiptBook, held_receipts
from holdfast.logic.trust import merkle
from holdfast.wire.envelope import sign
from holdfast.wire.evidence import (
    HeldReceipt,
    Kind,
    check_evidence,
    pack_evidence,
    unpack_evidence,
)
from holdfast.wire.pool import Receipt, ReceiptBatch
from holdfast.wire.receipts import receipt_leaf
from holdfast.wire.signed import Type

NODE = SigningKey(b"n" * 32)
TAG = b"t" * 32
A, B = b"a" * 32, b"b" * 32


def receipt_for(
    blob: bytes, sequence: int, incarnation: bytes = b"1" * 16
) -> tuple[ReceiptBatch, list[HeldReceipt]]:
    leaf = receipt_leaf(blob, TAG, sequence, 1_024, 20_000)
    batch = ReceiptBatch(NODE.node, incarnation, merkle.root([leaf]), 1, 5.0)
    receipt = Receipt(blob, sequence, False, 0, ())
    signed = sign(NODE, Type.RECEIPT_BATCH, batch)
    return batch, held_receipts(TAG, signed, [receipt], [(1_024, 20_000)])


def book(tmp_path: Path) -> ReceiptBook:
    return ReceiptBook(Database(tmp_path / "device.db", SCHEMA))


def test_receipts_are_kept(tmp_path: Path) -> None:
    receipts = book(tmp_path)
    for blob, sequence in ((A, 1), (B, 2), (A, 1)):
        assert receipts.keep(*receipt_for(blob, sequence)) == []
    assert receipts.count() == 2
    assert receipts.holders(A) == [NODE.node]
    assert receipts.holders(b"c" * 32) == []


def test_two_blobs_at_one_sequence_are_evidence_that_stands_alone(tmp_path: Path) -> None:
    receipts = book(tmp_path)
    receipts.keep(*receipt_for(A, 1))
    (evidence,) = receipts.keep(*receipt_for(B, 1))
    assert receipts.holders(B) == [], "a lie is not a copy"
    verdict = check_evidence(unpack_evidence(pack_evidence(evidence)))
    assert (verdict.kind, verdict.node, verdict.tag) == (Kind.CONFLICT, NODE.node, TAG)


def test_another_incarnation_numbers_anew(tmp_path: Path) -> None:
    receipts = book(tmp_path)
    receipts.keep(*receipt_for(A, 1))
    assert receipts.keep(*receipt_for(B, 1, b"2" * 16)) == []


def test_a_blob_that_expired_and_came_again_is_no_contradiction(tmp_path: Path) -> None:
    receipts = book(tmp_path)
    receipts.keep(*receipt_for(A, 1))
    assert receipts.keep(*receipt_for(A, 7)) == []


def test_receipts_are_shown_to_the_others_once(tmp_path: Path) -> None:
    receipts = book(tmp_path)
    receipts.keep(*receipt_for(A, 1), log=True, noted=False)
    receipts.keep(*receipt_for(B, 2), log=True)
    assert [held.receipt.blob for held in receipts.to_note(TAG, 9)] == [A]
    receipts.noted(TAG)
    assert receipts.to_note(TAG, 9) == []
