"""The invite, version 3: a locator and a one-time key, never a group secret (D21).

    line = bech32m("hfinv", u8 version = 3 | MessagePack array of the fields of `Invite`)

It names the six logical servers (seed 004 §2.3), so it survives their replacement. The one-time
key opens a *mailbox*: an era of its own on the same slot, derived with

    era secret = derive("holdfast v1 invite mailbox", key), era number 0

Three kinds of log blobs lie there; each payload is a `Signed` envelope:

1. the joiner posts an `InviteRequest` signed by its device key: whose it is and a fresh wrap key;
2. the inviter's device answers the *first* request it sees, once, with an `InviteAnswer` signed
   by the key that the invite names: the group's secret wrapped to that request's key, with
   `info = "holdfast v1 invite" | invite id | request id`. The wrap key's private half is thrown
   away when the joiner has it, so the invite and the mailbox together tell nothing later;
3. every later request is answered with the name of the device that was first. The first device
   finds the second's request in the mailbox too: both hear of each other.

Servers delete nothing on request (D20), so the one-time rule stands on the inviter's device, not
on deletion: it burns the invite in the same transaction in which it decides on the answer, and
answers nothing after `expires_at`. Invite id = derive("holdfast v1 invite id", key); request id =
BLAKE3 of the signed body.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.crypto.pure import derive_key, hash_bytes
from holdfast.errors import PeerFault
from holdfast.limits import INVITE_S_MAX
from holdfast.wire.bech32 import decode_line, encode_line
from holdfast.wire.codec import Message, pack, unpack
from holdfast.wire.locator import LOCATOR_BYTES_MAX, Locator, check_locator
from holdfast.wire.signed import Signed

PREFIX: Final = "hfinv"
VERSION: Final = 3
_CLOCK_SKEW_S: Final = 300


class Invite(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Fields in wire order. `inviter` is the device key that will answer; times are Unix s."""

    locator: Locator
    key: bytes
    inviter: bytes
    expires_at: int

    def __str__(self) -> str:
        return encode_line(PREFIX, bytes((VERSION,)) + pack(self))

    @property
    def id(self) -> bytes:
        """Names the invite in answers and logs without opening it."""
        return derive_key("holdfast v1 invite id", self.key)

    @property
    def mailbox_secret(self) -> bytes:
        """Era secret of the mailbox."""
        return derive_key("holdfast v1 invite mailbox", self.key)


class InviteRequest(Message):
    """Body of a `Type.INVITE_REQUEST` by the joiner's device key."""

    invite: bytes
    statement: Signed
    """The joiner's person vouches for the device that signs this (`wire.person`): both become
    members, so that the person can restore from words alone."""
    wrap_key: bytes
    """Public wrap key made for this request only (`crypto.wrap`)."""
    at: int


class InviteAnswer(Message):
    """Body of a `Type.INVITE_ANSWER` by the inviter's device key."""

    invite: bytes
    request: bytes
    """Request id this answers."""
    sealed: bytes
    """A wrapped `InviteGift`; empty: refused, because `taken_by` was first."""
    taken_by: bytes
    """Device key of the first."""
    taken_by_name: str
    at: int


class InviteGift(Message):
    """What the joiner unwraps: enough to open the group."""

    group: bytes
    era_secret: bytes
    era_number: int
    name: str
    kind: str
    """What the group is for: `folder`."""


def parse_invite(line: str, now: float, *, ours: bool = False) -> Invite:
    """The invite of `line`, unexpired at `now` (Unix seconds) unless it is `ours`, made here and
    kept to answer those who come late. Raises PeerFault."""
    data = decode_line(PREFIX, line)
    if not data or data[0] != VERSION:
        raise PeerFault("invite of a version this program does not know", code="version")
    invite = unpack(Invite, data[1:], bytes_max=LOCATOR_BYTES_MAX)
    if len(invite.key) != 32 or len(invite.inviter) != 32 or not invite.locator.slot:
        raise PeerFault("invite with a key of the wrong size, or without a slot")
    check_locator(invite.locator)
    if ours:
        return invite
    if now > invite.expires_at:
        raise PeerFault("invite has expired: ask for a new one", code="expired")
    if invite.expires_at > now + INVITE_S_MAX + _CLOCK_SKEW_S:
        raise PeerFault("invite lasts longer than ten minutes: one clock is wrong", code="expired")
    return invite


def request_id(signed: Signed) -> bytes:
    """Names one request; answers carry it."""
    return hash_bytes(signed.body)


def answer_info(invite: bytes, request: bytes) -> bytes:
    """HPKE `info` that binds a gift to its invite and request (D9)."""
    return b"holdfast v1 invite" + invite + request
