"""Exclusion only grows, whatever order the lists come in (D3, D6)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.logic.fleet.model import Version
from holdfast.logic.trust.revocation import (
    NO_REVOCATIONS_VERSION,
    Presented,
    RevocationList,
    Revocations,
    Revoked,
    is_stale,
    matches,
)

NETWORK = bytes(16)
NODE = b"n" * 32
KEY = b"k" * 32


def entry(node: bytes = b"", serial: str = "", key_hash: bytes = b"", at: int = 1) -> Revoked:
    return Revoked(node, serial, key_hash, "stolen", at)


def listed(*entries: Revoked, epoch: int = 0, n: int = 1) -> Revocations:
    return Revocations(NETWORK, Version(epoch, n), 100 + n, entries)


def test_each_of_node_serial_and_key_suffices() -> None:
    """Nebula CVE-2026-25793: match what is inside the certificate, each way alone."""
    stolen = Presented(NODE, "7", KEY)
    for found in (entry(node=NODE), entry(serial="7"), entry(key_hash=KEY)):
        revocations = RevocationList(NETWORK)
        assert revocations.find(stolen) is None
        assert revocations.fold(listed(found)) == (found,)
        assert revocations.find(stolen) == found
        assert matches([found], stolen) == found


def test_a_renewed_certificate_of_a_revoked_node_stays_out() -> None:
    revocations = RevocationList(NETWORK)
    revocations.fold(listed(entry(NODE, "7", KEY)))
    assert revocations.find(Presented(NODE, "8", b"x" * 32))
    assert revocations.find(Presented(b"m" * 32, "8", KEY)), "the key under another name"
    assert revocations.find(Presented(b"m" * 32, "7", b"x" * 32))
    assert not revocations.find(Presented(b"m" * 32, "8", b"x" * 32))


def test_empty_fields_match_nothing() -> None:
    nobody = Presented(b"", "", b"")
    revocations = RevocationList(NETWORK)
    revocations.fold(listed(entry(NODE), entry(serial="7"), entry(key_hash=KEY), entry()))
    assert revocations.find(nobody) is None
    assert matches([entry(NODE), entry()], nobody) is None
    assert matches([], Presented(NODE, "7", KEY)) is None


def test_an_entry_for_an_intermediate_takes_out_the_chain() -> None:
    revocations = RevocationList(NETWORK)
    revocations.fold(listed(entry(serial="99")))
    leaf, intermediate = Presented(NODE, "7", KEY), Presented(b"h" * 32, "99", b"i" * 32)
    assert revocations.find_in([leaf, intermediate])
    assert not revocations.find_in([leaf])


def test_an_older_list_adds_but_does_not_move_the_version_back() -> None:
    revocations = RevocationList(NETWORK)
    revocations.fold(listed(entry(NODE), n=5))
    assert revocations.version == Version(0, 5)
    assert revocations.fold(listed(entry(serial="7"), n=2)) == (entry(serial="7"),)
    assert revocations.version == Version(0, 5)
    assert revocations.issued_at == 105
    assert revocations.find(Presented(b"", "7", b""))


def test_a_restored_hq_unites_and_outranks_its_past() -> None:
    """D3: restored from an old snapshot, it takes back what the nodes know and bumps the epoch."""
    node = RevocationList(NETWORK)
    node.fold(listed(entry(NODE), entry(serial="7"), n=9))
    restored = RevocationList(NETWORK)
    old = listed(entry(NODE), n=3)
    restored.fold(old)
    assert node.missing_from(old) == (entry(serial="7"),)
    issued = restored.issue(node.missing_from(old), epoch=1, now=500.0)
    assert issued.version == Version(1, 1)
    assert set(issued.entries) == set(node.snapshot_entries())
    assert node.fold(issued) == ()
    assert node.version == Version(1, 1)


def test_issue_counts_up_within_an_epoch() -> None:
    revocations = RevocationList(NETWORK)
    assert revocations.version == NO_REVOCATIONS_VERSION
    first = revocations.issue([entry(NODE)], epoch=0, now=1.0)
    assert first.version == Version(0, 1)
    revocations.fold(first)
    second = revocations.issue([entry(serial="7")], epoch=0, now=2.0)
    assert second.version == Version(0, 2)
    assert set(second.entries) == {entry(NODE), entry(serial="7")}


def test_a_stale_list_is_only_an_alarm() -> None:
    assert not is_stale(100, 200.0, 100.0)
    assert is_stale(100, 200.1, 100.0)


ENTRIES = st.builds(
    Revoked,
    node=st.sampled_from([b"", NODE, b"m" * 32]),
    serial=st.sampled_from(["", "7", "8"]),
    key_hash=st.sampled_from([b"", KEY]),
    reason=st.just("x"),
    at=st.integers(0, 3),
)
LISTS = st.builds(
    Revocations,
    network=st.just(NETWORK),
    version=st.builds(Version, st.integers(0, 2), st.integers(0, 5)),
    issued_at=st.integers(0, 100),
    entries=st.lists(ENTRIES, max_size=4).map(tuple),
)


@given(st.lists(LISTS, max_size=6), st.randoms())
def test_any_order_of_lists_gives_one_exclusion(lists: list[Revocations], random: object) -> None:
    one, other = RevocationList(NETWORK), RevocationList(NETWORK)
    shuffled = list(lists)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for item in lists:
        one.fold(item)
    for item in shuffled:
        other.fold(item)
    assert one.snapshot_entries() == other.snapshot_entries()
    assert one.version == other.version
    assert len(one) == len({entry for item in lists for entry in item.entries})


@given(st.lists(LISTS, min_size=1, max_size=6), st.data())
def test_what_was_out_stays_out(lists: list[Revocations], data: st.DataObject) -> None:
    certificate = data.draw(st.builds(Presented, st.just(NODE), st.just("7"), st.just(KEY)))
    revocations = RevocationList(NETWORK)
    out = False
    for item in lists:
        revocations.fold(item)
        found = revocations.find(certificate) is not None
        assert found or not out
        assert found == (matches(revocations.snapshot_entries(), certificate) is not None)
        out = found
