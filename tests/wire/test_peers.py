"""Frames and signed words of standing connections."""

from __future__ import annotations

import pytest

from holdfast.crypto.keys import SigningKey
from holdfast.errors import PeerFault
from holdfast.logic.peers.book import Presence, Sighting
from holdfast.wire.codec import pack
from holdfast.wire.envelope import sign
from holdfast.wire.peers import (
    Call,
    Return,
    parse_frame,
    sign_presence,
    sign_sighting,
    verify_presence,
    verify_sighting,
)
from holdfast.wire.signed import Type

A, B = SigningKey(b"a" * 32), SigningKey(b"b" * 32)


def test_frames_go_there_and_back() -> None:
    for frame in (Call(1, B.public, (A.public,), "beat", b"x"), Return(1, "", b"y")):
        assert parse_frame(pack(frame)) == frame


@pytest.mark.parametrize(
    "frame",
    [
        Call(1, B.public, (), "beat", b""),
        Call(1, b"short", (A.public,), "beat", b""),
        Call(1, B.public, (A.public,) * 5, "beat", b""),
        Call(-1, B.public, (A.public,), "beat", b""),
        Call(1, B.public, (A.public,), "v" * 300, b""),
        Return(2**60, "", b""),
        (3, 1, "", b""),
    ],
)
def test_frames_that_are_none(frame: object) -> None:
    with pytest.raises(PeerFault):
        parse_frame(pack(frame))


def test_only_a_device_itself_says_where_it_is() -> None:
    assert verify_presence(sign_presence(A, 3, ("10.0.0.1",))).hosts == ("10.0.0.1",)
    with pytest.raises(PeerFault, match="another device"):
        verify_presence(sign(B, Type.PRESENCE, Presence(A.public, 4, ("10.6.6.6",))))
    with pytest.raises(PeerFault):
        verify_presence(sign_sighting(B, Sighting(A.public, 4, "10.6.6.6")))
    assert verify_sighting(sign_sighting(B, Sighting(A.public, 4, "10.6.6.6"))).n == 4
