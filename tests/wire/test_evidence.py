"""Proofs of misbehaviour convince by themselves, and near misses convince nobody (D15)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.vectors import proofs

from holdfast.errors import PeerFault
from holdfast.wire.codec import pack
from holdfast.wire.evidence import (
    Evidence,
    Kind,
    ReceiptNote,
    check_evidence,
    is_note,
    pack_evidence,
    unpack_evidence,
    unpack_note,
)

CASES = proofs.cases()


@pytest.mark.parametrize("name", CASES)
def test_a_proof_holds_or_it_does_not(name: str) -> None:
    evidence, holds = CASES[name]
    read = unpack_evidence(pack_evidence(evidence))
    assert read == evidence
    if holds:
        verdict = check_evidence(read)
        assert (verdict.node, verdict.kind, verdict.tag) == (
            proofs.NODE.node,
            evidence.kind,
            proofs.TAG,
        )
        assert verdict.text
    else:
        with pytest.raises(PeerFault):
            check_evidence(read)


def test_every_kind_has_a_good_case() -> None:
    assert {evidence.kind for evidence, holds in CASES.values() if holds} == set(Kind)


@given(st.sampled_from([n for n, (_, holds) in CASES.items() if holds]), st.data())
def test_a_proof_with_a_bit_changed_accuses_nobody_else(name: str, data: st.DataObject) -> None:
    """Whatever is changed, it never becomes a proof against another node."""
    good = bytearray(pack_evidence(CASES[name][0]))
    at = data.draw(st.integers(0, 8 * len(good) - 1))
    good[at // 8] ^= 1 << at % 8
    try:
        verdict = check_evidence(unpack_evidence(bytes(good)))
    except PeerFault:
        return
    assert verdict.node == proofs.NODE.node


def test_a_later_version_says_so() -> None:
    evidence: Evidence = CASES["conflict"][0]
    newer = pack(Evidence(2, evidence.kind, evidence.receipts, ()))
    with pytest.raises(PeerFault, match="update"):
        unpack_evidence(newer)


def test_a_note_is_told_from_an_operation() -> None:
    note = pack(ReceiptNote((proofs.receipt(),)))
    assert is_note(note)
    assert unpack_note(note).receipts[0] == proofs.receipt()
    assert not is_note(pack([b"body", b"signer", b"signature"]))
    assert not is_note(b"")
