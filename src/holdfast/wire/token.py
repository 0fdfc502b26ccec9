"""The join token: one line that lets one machine become one node, once (D8).

    line = bech32m("hfjoin", u8 version = 1 | MessagePack array of the fields below)

It says where HQ is, by which root fingerprints (a set, SHA-256 of the DER) the joiner recognises
it, what it is to become, until when, and 32 secret bytes of which HQ keeps only the BLAKE3. Whoever
holds the line first is the node: it travels like a password and is worthless after its use. The
checksum finds a wrong or missing letter before anybody is asked.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.errors import PeerFault
from holdfast.logic.fleet.model import NetworkId, Role
from holdfast.wire.address import split_address
from holdfast.wire.bech32 import decode_line, encode_line
from holdfast.wire.codec import pack, unpack

PREFIX: Final = "hfjoin"
VERSION: Final = 1
TOKEN_BYTES_MAX: Final = 2_048
SECRET_BYTES: Final = 32
ADDRESSES_MAX: Final = 16
ROOTS_MAX: Final = 8
_TEXT_LETTERS_MAX: Final = 253


class JoinToken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Fields in wire order. `str(token)` is the line; `repr` shows no secret."""

    network: NetworkId
    hq: tuple[str, ...]
    """`host:port` of every HQ instance."""
    roots: tuple[bytes, ...]
    """SHA-256 of the DER of every root now accepted."""
    role: Role
    name: str
    """The logical server it will be; empty for a machine that stands by until HQ calls it, which
    then says its role as well."""
    cell: str
    expires_at: int
    """Unix seconds."""
    secret: bytes

    def __str__(self) -> str:
        return encode_line(PREFIX, bytes((VERSION,)) + pack(self))

    def __repr__(self) -> str:
        what = f"{self.role.value} {self.name or 'any name'}, network {self.network.hex()}"
        return f"JoinToken({what}, until {self.expires_at})"

    @property
    def stands_by(self) -> bool:
        """Whether the machine waits until it is called (`POST /v1/standby`)."""
        return not self.name

    def is_expired(self, now: float) -> bool:
        """Whether asking is in vain. HQ's clock decides; this one saves a journey."""
        return now >= self.expires_at


def parse_token(line: str) -> JoinToken:
    """The token of `line`, checked. Raises PeerFault; its text says what is wrong."""
    data = decode_line(PREFIX, line)
    if not data or data[0] != VERSION:
        raise PeerFault("join token of a version this program does not know", code="version")
    token = unpack(JoinToken, data[1:], bytes_max=TOKEN_BYTES_MAX)
    check_token(token)
    return token


def check_token(token: JoinToken) -> None:
    """Raises PeerFault unless every field has its size and form."""
    if len(token.network) != 16 or len(token.secret) != SECRET_BYTES:
        raise PeerFault("join token with a field of the wrong size")
    if not 1 <= len(token.roots) <= ROOTS_MAX or any(len(root) != 32 for root in token.roots):
        raise PeerFault("join token without root fingerprints")
    if not 1 <= len(token.hq) <= ADDRESSES_MAX:
        raise PeerFault("join token without an address of headquarters")
    for address in token.hq:
        split_address(address)
    for text in (token.name, token.cell):
        if len(text) > _TEXT_LETTERS_MAX or not text.isprintable():
            raise PeerFault("join token with an unprintable name")
    if not 0 < token.expires_at < 2**53:
        raise PeerFault("join token with an impossible expiry")
