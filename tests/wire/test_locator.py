"""The locator line: the way back, its checks, its size as a QR code (D5)."""

from __future__ import annotations

import io

import msgspec
import pytest
import segno
from hypothesis import given
from hypothesis import strategies as st

from holdfast.crypto.pure import sha256
from holdfast.errors import PeerFault, UsageError
from holdfast.logic.fleet.model import Seat, SlotRecord, Version
from holdfast.wire.address import join_address, split_address
from holdfast.wire.bech32 import encode_line
from holdfast.wire.codec import pack
from holdfast.wire.locator import Locator, SeatHint, check_locator, parse_locator
from holdfast.wire.qr import qr_svg, qr_terminal

ROOT = bytes(range(256)) * 2
"""The size of a P-256 root certificate, and no more than its bytes matter here."""
SEATS = tuple(
    SeatHint(f"{role}-{region}-{number:03}", (f"127.{number}.3.4:51{number:03}",))
    for role, region, number in (
        ("relay", "eu", 1),
        ("relay", "eu", 2),
        ("relay", "eu", 3),
        ("replica", "eu", 1),
        ("replica", "eu", 2),
        ("replica", "eu", 3),
    )
)
LOCATOR = Locator(
    network=bytes(16),
    domain="holdfast.internal",
    pins=(sha256(ROOT), bytes(32)),
    roots=(ROOT,),
    slot=bytes(range(16)),
    relays=SEATS[:3],
    replicas=SEATS[3:],
    resolvers=("127.0.0.1:5353", "[::1]:53"),
    hq=("127.0.0.1:8443",),
)


def changed(**fields: object) -> Locator:
    return msgspec.structs.replace(LOCATOR, **fields)


def test_round_trip_as_text() -> None:
    line = str(LOCATOR)
    assert line.startswith("hfloc1")
    assert parse_locator(line) == LOCATOR
    assert parse_locator(line.upper()) == LOCATOR


def test_a_locator_with_its_root_fits_a_qr_code_twice_over() -> None:
    """DESIGN D5: one line or QR. Alphanumeric mode, lowest correction: 4,296 letters."""
    assert len(str(LOCATOR)) < 4_296 / 2
    drawn = qr_terminal(str(LOCATOR))
    assert drawn.count("\n") > 20
    assert qr_svg(str(LOCATOR)).startswith("<svg")
    code = segno.make(str(LOCATOR).upper(), error="l", micro=False)
    assert code.mode == "alphanumeric"
    code.save(io.BytesIO(), kind="png")
    with pytest.raises(UsageError, match="pass the line as text"):
        qr_terminal("a" * 5_000)


def test_network_locator_has_no_slot() -> None:
    bare = changed(slot=b"", relays=(), replicas=())
    assert parse_locator(str(bare)) == bare


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"network": b"x"}, "wrong size"),
        ({"slot": b"x"}, "wrong size"),
        ({"pins": ()}, "without pins"),
        ({"pins": (b"x",)}, "without pins"),
        ({"roots": (b"another root",)}, "does not pin"),
        ({"relays": SEATS[:2]}, "names 5 servers"),
        ({"slot": b""}, "names 6 servers"),
        ({"relays": (SEATS[0], SEATS[0], SEATS[1])}, "twice"),
        ({"domain": ""}, "not a DNS name"),
        ({"domain": "Upper.case"}, "not a DNS name"),
        ({"domain": "a b"}, "not a DNS name"),
        ({"hq": ("nowhere",)}, "host:port"),
        ({"resolvers": ("127.0.0.1:0",)}, "host:port"),
        ({"hq": ("a:1",) * 17}, "too many"),
        ({"relays": (SEATS[0], SEATS[1], SeatHint("c", ("::1:5",)))}, "host:port"),
    ],
)
def test_refusals(fields: dict[str, object], words: str) -> None:
    with pytest.raises(PeerFault, match=words):
        parse_locator(str(changed(**fields)))


def test_other_versions_and_garbage_are_refused() -> None:
    for data in (b"", b"\x02" + pack(LOCATOR), b"\x01" + pack(LOCATOR) + b"x", b"\x01\xc0"):
        with pytest.raises(PeerFault):
            parse_locator(encode_line("hfloc", data))


@given(st.binary(max_size=400))
def test_any_bytes_under_a_good_checksum_are_a_peer_fault_or_a_locator(data: bytes) -> None:
    try:
        check_locator(parse_locator(encode_line("hfloc", b"\x01" + data)))
    except PeerFault:
        return


def test_roots_are_taken_by_pin_only() -> None:
    bare = changed(roots=())
    assert bare.with_roots([b"stranger", ROOT]).roots == (ROOT,)
    assert LOCATOR.with_roots([]).roots == (ROOT,)


def test_a_record_renews_the_hints() -> None:
    seats = tuple(Seat(f"r{n}", bytes(32), (f"10.0.0.{n}:1",), "p", "o", "eu") for n in range(1, 7))
    record = SlotRecord(bytes(16), b"s" * 16, Version(0, 1), 0, seats[:3], seats[3:])
    renewed = LOCATOR.with_record(record)
    check_locator(renewed)
    assert renewed.slot == b"s" * 16
    assert renewed.relays[0] == SeatHint("r1", ("10.0.0.1:1",))
    assert renewed.pins == LOCATOR.pins


def test_addresses() -> None:
    for text in ("127.0.0.1:1", "[::1]:65535", "relay-eu-1.example:443"):
        assert join_address(*split_address(text)) == text
    for text in ("", "a", "a:", ":1", "a:65536", "a:-1", "::1:1", "[a]:1", "a b:1", "a:²"):
        with pytest.raises(PeerFault):
            split_address(text)
