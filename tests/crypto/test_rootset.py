"""Root rollover: a set grows only by the hand that holds the old root."""

from __future__ import annotations

import pytest

from holdfast.crypto.certificates import (
    Authority,
    TlsKey,
    create_root,
    issue_intermediate,
    issue_leaf,
    verify_chain,
    verify_hq_proof,
)
from holdfast.crypto.rootset import ROOT_SET_MAX, link_roots, only_roots, trusted_roots
from holdfast.errors import PeerFault, UsageError
from holdfast.limits import ROOT_DAYS

NOW = 1_800_000_000.0
NETWORK = bytes(range(16))


def root(seed: bytes, network: bytes = NETWORK, domain: str = "kelp.test") -> Authority:
    return create_root(seed * 32, network, domain, NOW)


A, B, C, EVIL = root(b"a"), root(b"b"), root(b"c"), root(b"e")
AB, BC = link_roots(A, B.certificate, NOW), link_roots(B, C.certificate, NOW)


def trusted(
    offered: list[bytes], pinned: list[bytes] | None = None, now: float = NOW
) -> set[bytes]:
    return set(trusted_roots([A.certificate] if pinned is None else pinned, offered, now))


def test_a_linked_root_joins_the_set() -> None:
    offered = [A.certificate, B.certificate, AB]
    assert trusted(offered) == {A.certificate, B.certificate}
    assert only_roots(offered) == (A.certificate, B.certificate)


def test_the_old_root_is_dropped_once_the_new_one_is_pinned_or_linked() -> None:
    assert trusted([B.certificate], [A.certificate, B.certificate]) == {B.certificate}
    assert trusted([B.certificate, AB]) == {B.certificate}


def test_a_sleeper_follows_a_chain_of_links() -> None:
    """A node that was off during two rollovers knows only the first root."""
    for offered in ([C.certificate, AB, BC], [BC, AB, C.certificate]):
        assert trusted(offered) == {C.certificate}
    assert trusted([C.certificate, BC]) == {A.certificate}


def test_hq_cannot_add_a_root_of_its_own() -> None:
    """A compromised HQ offers its own root, beside the true one or in its place."""
    forged = link_roots(EVIL, B.certificate, NOW)
    for offered in (
        [A.certificate, EVIL.certificate],
        [EVIL.certificate],
        [A.certificate, EVIL.certificate, AB],
        [A.certificate, B.certificate, forged],
        [A.certificate, EVIL.certificate, forged],
    ):
        assert trusted(offered) == {A.certificate}
    hq = issue_intermediate(A, TlsKey.from_bytes(b"h" * 32), NETWORK, b"h" * 32, NOW)
    assert trusted([A.certificate, EVIL.certificate, hq.certificate]) == {A.certificate}


def test_a_link_vouches_for_one_network_and_domain() -> None:
    for other in (root(b"b", network=b"o" * 16), root(b"b", domain="other.test")):
        with pytest.raises(UsageError):
            link_roots(A, other.certificate, NOW)
        assert trusted([A.certificate, other.certificate, AB]) == {A.certificate}
    with pytest.raises(UsageError):
        link_roots(A, A.certificate, NOW)


def test_an_expired_link_or_root_vouches_for_nothing() -> None:
    offered = [A.certificate, B.certificate, AB]
    assert trusted(offered, now=NOW + ROOT_DAYS * 86_400 + 1) == {A.certificate}
    assert trusted(offered, now=NOW - 7200) == {A.certificate}


def test_an_empty_or_foreign_offer_changes_nothing() -> None:
    assert trusted([]) == {A.certificate}
    assert trusted([AB]) == {A.certificate}
    with pytest.raises(PeerFault):
        trusted([b"junk"])
    with pytest.raises(PeerFault):
        trusted([A.certificate] * (ROOT_SET_MAX + 1))


def test_a_link_is_no_trust_anchor() -> None:
    """Handing the whole set to the verifier trusts its roots only."""
    hq = issue_intermediate(B, TlsKey.from_bytes(b"i" * 32), NETWORK, b"h" * 32, NOW)
    leaf = issue_leaf(
        hq,
        spki=TlsKey.from_bytes(b"l" * 32).spki(),
        network=NETWORK,
        role="relay",
        node=b"n" * 32,
        dns_name="r.kelp.test",
        serial=1,
        now=NOW,
        days=90,
    )
    chain = [leaf, hq.certificate]
    with pytest.raises(PeerFault):
        verify_chain([A.certificate, AB], chain, NOW)
    with pytest.raises(PeerFault):
        verify_hq_proof([A.certificate, AB], hq.certificate, b"h" * 32, NOW)
    assert verify_chain([A.certificate, AB, B.certificate], chain, NOW)
    verify_hq_proof([AB, B.certificate], hq.certificate, b"h" * 32, NOW)
