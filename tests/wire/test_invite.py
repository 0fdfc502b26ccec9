"""Invites (D21): version 3, ten minutes, no group secret anywhere in the line."""

from __future__ import annotations

import msgspec
import pytest

from holdfast.crypto.era import Era
from holdfast.crypto.pure import sha256
from holdfast.errors import PeerFault
from holdfast.wire.bech32 import encode_line
from holdfast.wire.codec import pack
from holdfast.wire.invite import Invite, answer_info, parse_invite
from holdfast.wire.locator import Locator, SeatHint

NOW = 1_800_000_000
HINTS = tuple(SeatHint(f"seat-{n}", (f"127.0.0.{n}:1",)) for n in range(1, 7))
LOCATOR = Locator(bytes(16), "d", (sha256(b"r"),), (b"r",), bytes(16), HINTS[:3], HINTS[3:])
INVITE = Invite(LOCATOR, bytes(range(32)), b"i" * 32, NOW + 600)


def test_round_trip() -> None:
    line = str(INVITE)
    assert line.startswith("hfinv1")
    assert parse_invite(line, NOW) == INVITE


def test_seed_004_2_3_the_invite_stores_logical_names() -> None:
    """Seed 004 §2.3: "The v3 invite format stores these logical names"."""
    assert [seat.name for seat in parse_invite(str(INVITE), NOW).locator.seats()] == [
        f"seat-{n}" for n in range(1, 7)
    ]


def test_the_mailbox_secret_is_not_in_the_line_nor_the_key_of_anything_else() -> None:
    mailbox = Era(INVITE.mailbox_secret, bytes(16))
    raw = pack(INVITE)
    assert INVITE.key in raw
    assert INVITE.mailbox_secret not in raw
    assert mailbox.tag not in raw
    assert INVITE.id not in (INVITE.key, INVITE.mailbox_secret)
    assert answer_info(INVITE.id, b"a" * 32) != answer_info(INVITE.id, b"b" * 32)


def test_ten_minutes() -> None:
    """D21, and 0k-sync's invite life of 600 s."""
    assert parse_invite(str(INVITE), NOW + 600)
    with pytest.raises(PeerFault, match="expired"):
        parse_invite(str(INVITE), NOW + 601)
    forever = msgspec.structs.replace(INVITE, expires_at=NOW + 86_400)
    with pytest.raises(PeerFault, match="ten minutes"):
        parse_invite(str(forever), NOW)


@pytest.mark.parametrize(
    "fields",
    [
        {"key": b"short"},
        {"inviter": b"short"},
        {"locator": msgspec.structs.replace(LOCATOR, slot=b"", relays=(), replicas=())},
        {"locator": msgspec.structs.replace(LOCATOR, pins=())},
    ],
)
def test_refusals(fields: dict[str, object]) -> None:
    with pytest.raises(PeerFault):
        parse_invite(str(msgspec.structs.replace(INVITE, **fields)), NOW)


def test_seed_versions_one_and_two_are_refused() -> None:
    """0k-sync accepted v2 (one relay, secret in clear); we have no such past to carry."""
    for version in (1, 2, 4):
        with pytest.raises(PeerFault, match="version"):
            parse_invite(encode_line("hfinv", bytes((version,)) + pack(INVITE)), NOW)
    with pytest.raises(PeerFault, match="does not start"):
        parse_invite(str(LOCATOR), NOW)
