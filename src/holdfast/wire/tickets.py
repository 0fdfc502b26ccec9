"""Tickets (D17): the right to a new tag, blind-signed by HQ, verified by any server.

A class of tickets is a key: what a ticket grants is written beside its public key in a signed and
logged statement, since a blind signer cannot write it into what it signs. A ticket is the
MessagePack array `[key id 32, prefix 32, signature]`; the signature is RSASSA-PSS (SHA-384, salt of
48 bytes) over `prefix | "holdfast v1 ticket" | 0x00 | network id`, made as RFC 9474 says.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.crypto.blindrsa import PREFIX_BYTES, BlindPublicKey, prepare
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import PeerFault
from holdfast.limits.trust import (
    TICKET_BYTES_MAX,
    TICKET_CLASSES_MAX,
    TICKETS_PER_REQUEST_MAX,
)
from holdfast.logic.fleet.model import NetworkId, Version
from holdfast.wire.bech32 import decode_line, encode_line
from holdfast.wire.codec import Message, pack, unpack

PREFIX: Final = "hfgrant"
VERSION: Final = 1
_CONTEXT: Final = b"holdfast v1 ticket\x00"


class TicketClass(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What tickets under one key grant to a tag, at each server; rates are per real second."""

    name: str
    spki: bytes
    """The RSA key, DER."""
    group_bytes_max: int
    requests_per_s: float
    requests_burst: float
    expires_at: int
    """Unix seconds; tags that spent one before go on."""


class TicketKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a `Type.TICKET_KEYS` signature. Few classes: one for each person would name them."""

    network: NetworkId
    version: Version
    issued_at: int
    classes: tuple[TicketClass, ...]

    def check(self) -> None:
        """Raises PeerFault for more classes than people could hide in, or keys that are none."""
        if len(self.classes) > TICKET_CLASSES_MAX:
            raise PeerFault(f"{len(self.classes)} ticket classes, at most {TICKET_CLASSES_MAX}")
        for item in self.classes:
            BlindPublicKey(item.spki)


class Ticket(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """See the module; `bytes(ticket)` travels."""

    key: bytes
    prefix: bytes
    signature: bytes

    def __bytes__(self) -> bytes:
        return pack(self)

    @property
    def id(self) -> bytes:
        """What a server remembers as spent: the signed message, however it was signed."""
        return hash_bytes(self.key + self.prefix)


def ticket_message(prefix: bytes, network: NetworkId) -> bytes:
    """What is signed."""
    return prepare(prefix, _CONTEXT + network)


def parse_ticket(data: bytes) -> Ticket:
    """Read a ticket; nothing of it is verified. Raises PeerFault (`ticket`)."""
    try:
        ticket = unpack(Ticket, data, bytes_max=TICKET_BYTES_MAX)
    except PeerFault as fault:
        raise PeerFault(f"not a ticket: {fault}", code="ticket") from fault
    if len(ticket.key) != 32 or len(ticket.prefix) != PREFIX_BYTES:
        raise PeerFault("not a ticket: a field of the wrong size", code="ticket")
    return ticket


class Grant(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What HQ's operator hands to a member: so many tickets, for whoever shows the secret.

    line = bech32m("hfgrant", u8 version = 1 | MessagePack array of the fields)
    """

    network: NetworkId
    kind: str
    """Name of the ticket class."""
    tickets: int
    expires_at: int
    secret: bytes

    def __str__(self) -> str:
        return encode_line(PREFIX, bytes((VERSION,)) + pack(self))

    def __repr__(self) -> str:
        return f"Grant({self.tickets} {self.kind} tickets, until {self.expires_at})"


def parse_grant(line: str) -> Grant:
    """The grant of `line`. Raises PeerFault."""
    data = decode_line(PREFIX, line)
    if not data or data[0] != VERSION:
        raise PeerFault("a grant of a version this program does not know", code="version")
    grant = unpack(Grant, data[1:], bytes_max=1_024)
    if len(grant.network) != 16 or len(grant.secret) != 32 or grant.tickets < 1:
        raise PeerFault("a grant with a field of the wrong size")
    return grant


class TicketRequest(Message):
    """Blinded messages to sign under one key, against a grant. Asked again for the same messages,
    HQ answers alike and charges once."""

    grant: bytes
    key: bytes
    blinded: tuple[bytes, ...]

    def check(self) -> None:
        """Raises PeerFault for none, or more than one request may bring."""
        if not 1 <= len(self.blinded) <= TICKETS_PER_REQUEST_MAX:
            raise PeerFault(f"1 to {TICKETS_PER_REQUEST_MAX} tickets in one request")


class TicketReply(Message):
    """Blind signatures, in the order asked; `left` is what remains of the grant."""

    signatures: tuple[bytes, ...]
    left: int
