"""A statement of HQ is believed for its proof, whoever carries it (D1, D9)."""

from __future__ import annotations

import pytest

from holdfast.crypto.certificates import TlsKey, cert_info, create_root, issue_intermediate
from holdfast.crypto.keys import SigningKey
from holdfast.errors import PeerFault
from holdfast.logic.fleet.model import SlotRecord, Version
from holdfast.logic.trust.revocation import RevocationList, Revocations, Revoked
from holdfast.wire.codec import pack, unpack
from holdfast.wire.envelope import sign
from holdfast.wire.records import Staple
from holdfast.wire.signed import Signed, Type
from holdfast.wire.staple import presented, verify_staple

NOW = 1_800_000_000.0
NETWORK = bytes(range(16))
HQ = SigningKey(b"h" * 32)
ROOT = create_root(b"r" * 32, NETWORK, "kelp.test", NOW)
CA = issue_intermediate(ROOT, TlsKey.from_bytes(b"i" * 32), NETWORK, HQ.public, NOW)
ROOTS = [ROOT.certificate]
RECORD = SlotRecord(NETWORK, b"s" * 16, Version(0, 1), int(NOW), (), ())


def staple(key: SigningKey = HQ, record: SlotRecord = RECORD) -> Staple:
    return Staple(sign(key, Type.SLOT_RECORD, record), CA.certificate)


def check(item: Staple, now: float = NOW, roots: list[bytes] | None = None) -> SlotRecord:
    trusted = ROOTS if roots is None else roots
    return verify_staple(trusted, item, Type.SLOT_RECORD, SlotRecord, now)


def test_a_staple_survives_the_wire() -> None:
    carried = unpack(Staple, pack(staple()), bytes_max=100_000)
    assert check(carried) == RECORD


def test_another_signer_is_refused() -> None:
    with pytest.raises(PeerFault, match="another headquarters"):
        check(staple(SigningKey(b"z" * 32)))


def test_changed_bytes_are_refused() -> None:
    good = staple().signed
    body = good.body[:-1] + bytes((good.body[-1] ^ 1,))
    with pytest.raises(PeerFault) as caught:
        check(Staple(Signed(body, good.signer, good.signature), CA.certificate))
    assert caught.value.code == "signature"


def test_another_kind_of_statement_is_refused() -> None:
    empty = Revocations(NETWORK, Version(0, 1), int(NOW), ())
    with pytest.raises(PeerFault):
        check(Staple(sign(HQ, Type.REVOCATIONS, empty), CA.certificate))


def test_a_foreign_root_or_none_is_refused() -> None:
    foreign = create_root(b"e" * 32, NETWORK, "kelp.test", NOW)
    for roots in ([foreign.certificate], []):
        with pytest.raises(PeerFault):
            check(staple(), roots=roots)


def test_a_statement_about_another_network_is_refused() -> None:
    other = SlotRecord(b"o" * 16, b"s" * 16, Version(0, 1), int(NOW), (), ())
    with pytest.raises(PeerFault, match="another network"):
        check(staple(record=other))


def test_an_expired_proof_is_refused() -> None:
    end = cert_info(CA.certificate).not_after
    assert check(staple(), now=end) == RECORD
    with pytest.raises(PeerFault):
        check(staple(), now=end + 1)


def test_a_revoked_hq_is_not_believed() -> None:
    """Intermediate compromise: one entry for its serial or key ends its statements too."""
    certificate = presented(CA.certificate)
    assert certificate.node == HQ.node
    for entry in (
        Revoked(b"", certificate.serial, b"", "stolen", 1),
        Revoked(b"", "", certificate.key_hash, "stolen", 1),
        Revoked(HQ.node, "", b"", "stolen", 1),
    ):
        revocations = RevocationList(NETWORK)
        arguments = (ROOTS, staple(), Type.SLOT_RECORD, SlotRecord, NOW)
        assert verify_staple(*arguments, revocations=revocations) == RECORD
        revocations.fold(Revocations(NETWORK, Version(0, 1), 1, (entry,)))
        with pytest.raises(PeerFault) as caught:
            verify_staple(*arguments, revocations=revocations)
        assert caught.value.code == "revoked"
