"""Two people meet and become friends: the five frames of a pairing, and the line that carries one.

    host  -> guest   PairOpen    {version, pake}
    guest -> host    PairAnswer  {pake, proof}       the guest has the key
    host  -> guest   PairCard    {proof, sealed}     so has the host; its card
    guest -> host    PairCard    {proof, sealed}     the guest's card
    host  -> guest   PairDone    {}                  the host has kept it

`pake` are SPAKE2's messages over the code; its key K gives, with t the hash of the first frame and
of the guest's `pake`:

    proof of a side = H(derive("holdfast v1 pair proof", K); side | t)
    key of a card   = derive("holdfast v1 pair card", K), nonce = side as 12 bytes, aad = t
    fingerprint     = derive("holdfast v1 pair words", K | H(host's card) | H(guest's card)),
                      the first 55 bits as five words of the BIP39 list

side is 1 for the host, 2 for the guest. A card is `Type.PAIR_CARD`, signed by a device, with t in
it. The pairing secret is derive("holdfast v1 pairing secret", host's share | guest's share).

The guest proves first: a host that sees a wrong proof has seen somebody guess, says so, and is
done. A spoken code is two words of 256 each, 16 bits: one guess in 65,536. A line or QR code has 16
bytes in the code's place, and where to meet.

    line = bech32m("hfpair", u8 version = 1 | MessagePack array of the fields of `Meeting`)
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.crypto.pure import derive_key, hash_bytes, keyed_hash
from holdfast.errors import PeerFault
from holdfast.limits.people import WRAP_PUBLIC_BYTES
from holdfast.wire.address import split_address
from holdfast.wire.bech32 import decode_line, encode_line
from holdfast.wire.codec import Message, pack, unpack
from holdfast.wire.envelope import verify
from holdfast.wire.locator import LOCATOR_BYTES_MAX, Locator, check_locator
from holdfast.wire.person import DeviceStatement, verify_statement
from holdfast.wire.signed import Signed, Type

PREFIX: Final = "hfpair"
VERSION: Final = 1
HOST: Final = 1
GUEST: Final = 2
KEY_BYTES: Final = 16
FRAME_BYTES_MAX: Final = 32 * 1024
"""A card has two wrap keys and a locator with its roots."""
ADDRESSES_MAX: Final = 16


class Meeting(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a host waits: at an address, in a mailbox on a slot, or both. `key` stands for the
    spoken code."""

    key: bytes
    addresses: tuple[str, ...]
    locator: Locator | None
    expires_at: int

    def __str__(self) -> str:
        return encode_line(PREFIX, bytes((VERSION,)) + pack(self))

    @property
    def mailbox_secret(self) -> bytes:
        """Era secret of the mailbox, era 0."""
        return derive_key("holdfast v1 pair mailbox", self.key)


def parse_meeting(line: str, now: float) -> Meeting:
    """The meeting of a line, not yet over at `now`. Raises PeerFault."""
    data = decode_line(PREFIX, line)
    if not data or data[0] != VERSION:
        raise PeerFault("pairing line of a version this program does not know", code="version")
    meeting = unpack(Meeting, data[1:], bytes_max=LOCATOR_BYTES_MAX)
    if len(meeting.key) != KEY_BYTES or len(meeting.addresses) > ADDRESSES_MAX:
        raise PeerFault("pairing line with a key of the wrong size, or too many addresses")
    for address in meeting.addresses:
        split_address(address)
    if meeting.locator is not None:
        check_locator(meeting.locator)
    if now > meeting.expires_at:
        raise PeerFault("this pairing has ended: ask for a new line", code="expired")
    return meeting


class PairOpen(Message):
    """The host begins."""

    version: int
    pake: bytes


class PairAnswer(Message):
    """The guest proves that it has the key."""

    pake: bytes
    proof: bytes


class PairCard(Message):
    """A side's card, sealed; the host's comes with its proof."""

    proof: bytes
    sealed: bytes


class PairDone(Message):
    """The host has kept the guest's card."""


class Card(Message):
    """Body of a `Type.PAIR_CARD` by the device that pairs."""

    statement: Signed
    """The person's root vouches for this device."""
    name: str
    """What the person is to be called."""
    person_wrap: bytes
    device_wrap: bytes
    addresses: tuple[str, ...]
    locator: str
    share: bytes
    transcript: bytes


def transcript(opening: bytes, pake: bytes) -> bytes:
    """t: what both have said before anybody proves anything."""
    return hash_bytes(hash_bytes(opening) + hash_bytes(pake))


def proof(key: bytes, side: int, t: bytes) -> bytes:
    """That `side` has the key."""
    return keyed_hash(derive_key("holdfast v1 pair proof", key), bytes((side,)), t)


def card_key(key: bytes) -> bytes:
    """Seals both cards."""
    return derive_key("holdfast v1 pair card", key)


def card_nonce(side: int) -> bytes:
    """One key, one message for each side."""
    return side.to_bytes(12, "big")


def pairing_secret(host_share: bytes, guest_share: bytes) -> bytes:
    """What two friends have in common; windows and mailboxes grow from it."""
    return derive_key("holdfast v1 pairing secret", host_share + guest_share)


def fingerprint(key: bytes, host_card: bytes, guest_card: bytes) -> bytes:
    """55 bits that both sides see, in 7 bytes of which the last bit is unused."""
    return derive_key("holdfast v1 pair words", key + host_card + guest_card, 7)


def verify_card(signed: Signed, t: bytes) -> tuple[Card, DeviceStatement]:
    """The card and whose device signed it. Raises PeerFault."""
    card = verify(Type.PAIR_CARD, Card, signed)
    statement = verify_statement(card.statement)
    if statement.device != signed.signer or not statement.roles:
        raise PeerFault("pairing card by a device that nobody vouches for", code="signature")
    if card.transcript != t or len(card.share) != 32:
        raise PeerFault("pairing card of another conversation", code="signature")
    if {len(card.person_wrap), len(card.device_wrap)} != {WRAP_PUBLIC_BYTES}:
        raise PeerFault("pairing card with a wrap key of the wrong size")
    if len(card.addresses) > ADDRESSES_MAX or len(card.name) > 64 or not card.name.isprintable():
        raise PeerFault("pairing card with too many addresses, or no name")
    for address in card.addresses:
        split_address(address)
    return card, statement
