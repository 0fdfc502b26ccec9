"""Which slot records a server believes (D1, D3, D6)."""

from __future__ import annotations

from pathlib import Path

from tests.relay.harness import Pool

from holdfast.crypto.keys import SigningKey
from holdfast.logic.fleet.model import Role, Seat, SlotRecord, Version
from holdfast.logic.trust.revocation import RevocationList, Revocations, Revoked
from holdfast.relay.seats import Seats
from holdfast.wire.envelope import sign
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type
from holdfast.wire.staple import presented

NODE = b"n" * 32
SLOT = b"s" * 16


def _seat(node: bytes, name: str = "relay-eu-001") -> Seat:
    return Seat(name, node, ("127.0.0.1:1",), "alpha", "owner", "eu")


def _record(pool: Pool, n: int = 1, epoch: int = 0, node: bytes = NODE) -> SlotRecord:
    other = _seat(b"o" * 32, "replica-eu-001")
    return SlotRecord(pool.network, SLOT, Version(epoch, n), 0, (_seat(node),), (other,))


def _apply(seats: Seats, pool: Pool, *staples: Staple) -> tuple[set[bytes], int]:
    revocations = RevocationList(pool.network)
    changed, faults = seats.apply(staples, revocations, pool.clock.wall())
    return changed, len(faults)


def test_a_record_seats_us_and_names_our_peers(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    seats = Seats(NODE, pool.roots)
    assert _apply(seats, pool, pool.staple(_record(pool))) == ({SLOT}, 0)
    seated = seats.find(SLOT)
    assert seated.seat.name == "relay-eu-001"
    assert [seat.name for seat in seated.peers()] == ["replica-eu-001"]
    assert seated.role_of(b"o" * 32) is Role.REPLICA
    assert _apply(seats, pool, pool.staple(_record(pool))) == (set(), 0)


def test_an_older_record_never_replaces_a_newer_one(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    seats = Seats(NODE, pool.roots)
    _apply(seats, pool, pool.staple(_record(pool, 5)))
    assert _apply(seats, pool, pool.staple(_record(pool, 4))) == (set(), 0)
    assert seats.find(SLOT).record.version == Version(0, 5)
    _apply(seats, pool, pool.staple(_record(pool, 1, epoch=1)))
    assert seats.find(SLOT).record.version == Version(1, 1)
    both = [pool.staple(_record(pool, n, epoch=2)) for n in (9, 3)]
    _apply(seats, pool, *both)
    assert seats.find(SLOT).record.version == Version(2, 9)


def test_what_does_not_verify_is_passed_over(tmp_path: Path) -> None:
    pool, other = Pool(tmp_path / "a"), Pool(tmp_path / "b")
    seats = Seats(NODE, pool.roots)
    good = pool.staple(_record(pool))
    body = good.signed.body
    forged = sign(SigningKey(b"m" * 32), Type.SLOT_RECORD, _record(pool))
    bad = [
        other.staple(_record(other)),
        Staple(good.signed, other.intermediate.certificate),
        Staple(forged, pool.intermediate.certificate),
        Staple(type(good.signed)(body + b"\x00", good.signed.signer, good.signed.signature), b""),
        pool.staple(_record(pool, node=b"x" * 32)),
        pool.staple(_record(other)),
    ]
    changed, faults = _apply(seats, pool, *bad)
    assert (changed, faults) == (set(), len(bad))
    assert _apply(seats, pool, *bad, good) == ({SLOT}, len(bad))


def test_a_record_with_extra_seats_is_passed_over(tmp_path: Path) -> None:
    """D4: a slot has six seats, and nobody sits in two of them."""
    pool = Pool(tmp_path)
    seats = Seats(NODE, pool.roots)
    ours, other = _seat(NODE), _seat(b"o" * 32, "relay-eu-002")
    extra = tuple(_seat(bytes([n]) * 32, f"relay-eu-00{n}") for n in (3, 4))
    for relays in ((ours, other, *extra), (ours, _seat(NODE, "relay-eu-002")), (ours, ours)):
        record = SlotRecord(pool.network, SLOT, Version(0, 1), 0, relays, ())
        assert _apply(seats, pool, pool.staple(record)) == (set(), 1)


def test_a_revoked_headquarters_is_not_believed(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    revocations = RevocationList(pool.network)
    issuer = presented(pool.intermediate.certificate)
    entry = Revoked(b"", issuer.serial, b"", "stolen", 0)
    revocations.fold(Revocations(pool.network, Version(0, 1), 0, (entry,)))
    seats = Seats(NODE, pool.roots)
    changed, faults = seats.apply([pool.staple(_record(pool))], revocations, pool.clock.wall())
    assert (changed, len(faults)) == (set(), 1)


def test_a_slot_that_is_not_wanted_any_more_is_given_up(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    seats = Seats(NODE, pool.roots)
    _apply(seats, pool, pool.staple(_record(pool)))
    assert _apply(seats, pool) == ({SLOT}, 0)
    assert seats.get(SLOT) is None
    assert len(seats) == 0


def test_a_slot_that_is_left_shows_the_way_until_it_is_given_up(tmp_path: Path) -> None:
    """seed 004 §6.2: sessions are not interrupted; another node has our seat."""
    pool = Pool(tmp_path)
    seats = Seats(NODE, pool.roots)
    revocations, now = RevocationList(pool.network), pool.clock.wall()
    newer = pool.staple(_record(pool, 2, node=b"m" * 32))
    assert seats.apply((), revocations, now, [newer]) == (set(), []), "never served here"
    _apply(seats, pool, pool.staple(_record(pool)))
    assert seats.apply((), revocations, now, [newer]) == ({SLOT}, [])
    seated = seats.find(SLOT)
    assert seated.left
    assert seated.record.version == Version(0, 2)
    assert seats.all() == [], "nothing is filled or probed for it"
    assert len(seats) == 0
    older = pool.staple(_record(pool, 1, node=b"m" * 32))
    assert seats.apply((), revocations, now, [older]) == (set(), [])
    assert seats.find(SLOT).record.version == Version(0, 2)
    assert _apply(seats, pool) == ({SLOT}, 0)
    assert seats.get(SLOT) is None


def test_a_seat_that_comes_back_is_no_longer_left(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    seats = Seats(NODE, pool.roots)
    _apply(seats, pool, pool.staple(_record(pool)))
    newer = pool.staple(_record(pool, 2, node=b"m" * 32))
    seats.apply((), RevocationList(pool.network), pool.clock.wall(), [newer])
    assert _apply(seats, pool, pool.staple(_record(pool, 3))) == ({SLOT}, 0)
    assert not seats.find(SLOT).left
    assert len(seats) == 1
