"""The locator: where to look, and whom to believe there; never a secret (D5).

One line, `hfloc1...`, or a QR code. It holds the network and its domain, the *pins* (SHA-256 of
the DER of every root now accepted, a set), the slot with its six logical names and last known
addresses, the network's DNS servers, HQ where there is one, and the addresses of vaults.

Servers do not present the root in their TLS chain, so the line also carries the root certificates
themselves as far as they are known (about 450 bytes each): `words + locator` works with HQ and
every friend gone. A root that is only pinned is fetched from HQ and compared with its pin.

A *network locator* has no slot yet (`slot` empty, no seats): a new device asks HQ for one.

    line = bech32m("hfloc", u8 version = 1 | MessagePack array of the fields below)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from holdfast.crypto.pure import sha256
from holdfast.errors import PeerFault
from holdfast.limits import RELAYS_PER_SLOT, REPLICAS_PER_SLOT
from holdfast.logic.fleet.model import NetworkId, Seat, SlotId, SlotRecord
from holdfast.wire.address import split_address
from holdfast.wire.bech32 import decode_line, encode_line
from holdfast.wire.codec import pack, unpack

PREFIX: Final = "hfloc"
VERSION: Final = 1
LOCATOR_BYTES_MAX: Final = 4_096
PINS_MAX: Final = 8
ADDRESSES_MAX: Final = 16
_NAME_LETTERS_MAX: Final = 253


class SeatHint(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A logical server and where it was last seen; hints, checked against its certificate."""

    name: str
    addresses: tuple[str, ...]


class Locator(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Fields in wire order. `pins` are 32 bytes each; `roots` are DER and each has its pin."""

    network: NetworkId
    domain: str
    pins: tuple[bytes, ...]
    roots: tuple[bytes, ...]
    slot: SlotId
    relays: tuple[SeatHint, ...]
    replicas: tuple[SeatHint, ...]
    resolvers: tuple[str, ...] = ()
    """`host:port` of DNS servers that know the domain; empty: the system's resolver."""
    hq: tuple[str, ...] = ()
    vaults: tuple[str, ...] = ()

    def __str__(self) -> str:
        return encode_line(PREFIX, bytes((VERSION,)) + pack(self))

    def seats(self) -> tuple[SeatHint, ...]:
        """All six, relays first."""
        return self.relays + self.replicas

    def with_roots(self, roots: Iterable[bytes]) -> Locator:
        """This locator with those of `roots` (DER) added whose pins it holds."""
        known = {sha256(root): root for root in (*self.roots, *roots)}
        kept = tuple(known[pin] for pin in self.pins if pin in known)
        return msgspec.structs.replace(self, roots=kept)

    def with_record(self, record: SlotRecord) -> Locator:
        """This locator, naming the slot and seats of `record`."""
        return msgspec.structs.replace(
            self,
            slot=record.slot,
            relays=tuple(_hint(seat) for seat in record.relays),
            replicas=tuple(_hint(seat) for seat in record.replicas),
        )


def parse_locator(line: str) -> Locator:
    """The locator of `line`, checked. Raises PeerFault; its text says what is wrong."""
    data = decode_line(PREFIX, line)
    if not data or data[0] != VERSION:
        raise PeerFault("locator of a version this program does not know", code="version")
    locator = unpack(Locator, data[1:], bytes_max=LOCATOR_BYTES_MAX)
    check_locator(locator)
    return locator


def check_locator(locator: Locator) -> None:
    """Raises PeerFault when a field is not what the format allows."""
    if len(locator.network) != 16 or len(locator.slot) not in (0, 16):
        raise PeerFault("locator with a network or slot id of the wrong size")
    if not 0 < len(locator.pins) <= PINS_MAX or any(len(pin) != 32 for pin in locator.pins):
        raise PeerFault("locator without pins, or with pins of the wrong size")
    if any(sha256(root) not in locator.pins for root in locator.roots):
        raise PeerFault("locator carries a root that it does not pin")
    _check_seats(locator)
    for text in (*locator.resolvers, *locator.hq, *locator.vaults):
        split_address(text)
    if max(len(locator.resolvers), len(locator.hq), len(locator.vaults)) > ADDRESSES_MAX:
        raise PeerFault("locator with too many addresses", code="too-large")


def _check_seats(locator: Locator) -> None:
    expected = (RELAYS_PER_SLOT, REPLICAS_PER_SLOT) if locator.slot else (0, 0)
    if (len(locator.relays), len(locator.replicas)) != expected:
        raise PeerFault(f"locator names {len(locator.seats())} servers, not {sum(expected)}")
    names = [seat.name for seat in locator.seats()]
    if len(set(names)) != len(names):
        raise PeerFault("locator names a server twice")
    for name in (locator.domain, *names):
        if not 0 < len(name) <= _NAME_LETTERS_MAX or not _is_name(name):
            raise PeerFault(f"not a DNS name: {name[:80]!r}")
    for seat in locator.seats():
        if len(seat.addresses) > ADDRESSES_MAX:
            raise PeerFault("locator with too many addresses", code="too-large")
        for address in seat.addresses:
            split_address(address)


def _is_name(name: str) -> bool:
    letters = name.replace(".", "").replace("-", "")
    return letters.isascii() and letters.isalnum() and letters == letters.lower()


def _hint(seat: Seat) -> SeatHint:
    return SeatHint(seat.name, seat.addresses)
