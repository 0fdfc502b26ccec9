"""What paired devices say to each other on a standing connection (PROTOCOL, section 10).

A connection begins with a knock of 48 bytes (`logic.peers.windows.knock`), then TLS 1.3 where each
side shows a certificate of its device key, then frames `u32 length | MessagePack` of `Call` and
`Return` in both directions. Calls name whom they are for, so that a device can pass them on.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, cast

import msgspec

from holdfast.crypto.keys import SigningKey
from holdfast.errors import PeerFault
from holdfast.limits.peers import HOPS_MAX, LINK_FRAME_BYTES_MAX, PEERS_MAX, SEERS_MAX
from holdfast.logic.peers.book import Presence, Sighting
from holdfast.wire.codec import Message, pack, unpack
from holdfast.wire.envelope import sign, verify
from holdfast.wire.signed import Signed, Type, unpack_signed

KNOCK_BYTES: Final = 48
NONCE_BYTES: Final = 16
BEAT: Final = "beat"
LETTER: Final = "letter"
HAVE: Final = "have"
GET: Final = "get"
TOLD: Final = "told"
RELAYED: Final = frozenset({LETTER})
"""Verbs that devices pass on for each other: sealed from end to end."""

_Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_Path = Annotated[tuple[_Bytes32, ...], msgspec.Meta(max_length=HOPS_MAX + 1)]
_Short = Annotated[str, msgspec.Meta(max_length=256)]


class Call(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """A question to `to`; `path` are the devices it has passed, the one that asks first."""

    number: _Number
    to: _Bytes32
    path: _Path
    verb: _Short
    body: bytes


class Return(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """The answer to the call of that number on this connection. `code` is empty when it went well,
    else `body` is text."""

    number: _Number
    code: _Short
    body: bytes


class Beat(Message):
    """A heartbeat: who is where, as far as the other side may know."""

    secret: _Bytes32
    """Of the sender's windows."""
    you: Annotated[str, msgspec.Meta(max_length=64)]
    """Host at which the sender sees the receiver; empty when it dialled."""
    marks: Annotated[tuple[_Bytes32, ...], msgspec.Meta(max_length=PEERS_MAX)]
    """Of every device whose window secret the sender has."""
    presences: Annotated[tuple[Signed, ...], msgspec.Meta(max_length=PEERS_MAX + 1)]
    """The sender's own first, then those of devices that both know."""
    sightings: Annotated[tuple[Signed, ...], msgspec.Meta(max_length=PEERS_MAX * SEERS_MAX)]


class BeatReply(Message):
    """The other side's heartbeat, and its clock when the question came and when it answered."""

    received_at: float
    replied_at: float
    beat: Beat


class Tagged(Message):
    """Body of `have`, `get` and `told` and of their answers: blobs of one tag. `have` asks for
    everything, or for `ids` alone; `told` brings log blobs unasked, and is answered empty."""

    tag: bytes
    classes: tuple[int, ...]
    ids: tuple[_Bytes32, ...]
    bodies: tuple[bytes, ...] = ()


def parse_frame(data: bytes) -> Call | Return:
    """One frame. Raises PeerFault."""
    frame: Any = unpack(cast(type[Any], Call | Return), data, bytes_max=LINK_FRAME_BYTES_MAX)
    assert isinstance(frame, Call | Return)
    if isinstance(frame, Call) and not frame.path:
        raise PeerFault("call from nobody")
    return frame


def sign_presence(key: SigningKey, n: int, hosts: tuple[str, ...]) -> Signed:
    """A device's word on where it is."""
    return sign(key, Type.PRESENCE, Presence(key.public, n, hosts))


def verify_presence(signed: Signed) -> Presence:
    """The presence, if the device it names signed it. Raises PeerFault."""
    presence = verify(Type.PRESENCE, Presence, signed)
    if presence.device != signed.signer:
        raise PeerFault("presence by another device", code="signature")
    return presence


def sign_sighting(key: SigningKey, sighting: Sighting) -> Signed:
    """A device's word on where it sees another."""
    return sign(key, Type.SIGHTING, sighting)


def verify_sighting(signed: Signed) -> Sighting:
    """The sighting, whoever signed it. Raises PeerFault."""
    return verify(Type.SIGHTING, Sighting, signed)


def from_bytes(data: bytes) -> Signed:
    """An envelope as the book keeps it."""
    return unpack_signed(data)


def to_bytes(signed: Signed) -> bytes:
    """An envelope as the book keeps it."""
    return pack(signed)
