"""Who is where: a device's own signed words, what others saw of it, and where it was last met.

Addresses are hosts. The port follows from the window, so a network between that gives a device
another address still leads to it where it passes ports on unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec

from holdfast.limits.peers import HOSTS_MAX, PEERS_MAX, SEERS_MAX

_Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Host = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Presence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a `Type.PRESENCE`: where a device says it is. The highest `n` counts."""

    device: _Bytes32
    n: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
    hosts: Annotated[tuple[_Host, ...], msgspec.Meta(max_length=HOSTS_MAX)]


class Sighting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a `Type.SIGHTING`: where its signer saw a device, as of the presence `n` it had."""

    device: _Bytes32
    n: Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
    host: _Host


class Entry(msgspec.Struct, omit_defaults=True):
    """What is known of one peer. Kept on disk, so that a restart finds the last addresses."""

    device: bytes
    name: str
    secret: bytes
    """Of its windows: the first one from the pairing, then what it said."""
    mine: bytes
    """Of our windows, while it has not said that it has our own secret."""
    presence: Presence | None = None
    signed: bytes = b""
    """The presence as it travelled."""
    sightings: dict[bytes, tuple[Sighting, bytes]] = {}
    """By seer, with the envelope."""
    met_host: str = ""
    contact_at: float = 0.0
    """Our wall seconds when the clocks were last compared; 0 for never."""
    skew_s: float = 0.0
    """Its clock less ours, then."""
    error_s: float = 0.0
    """How wrong that may be: half of the time the question was under way."""

    @property
    def n(self) -> int:
        """Number of the newest presence."""
        return -1 if self.presence is None else self.presence.n

    def hosts(self) -> tuple[str, ...]:
        """Where it may be: as seen by others, as it says, where it was met. Most likely first."""
        seen = [s.host for s, _ in self.sightings.values() if s.n == self.n]
        said = () if self.presence is None else self.presence.hosts
        return tuple(dict.fromkeys((*seen, *said, *filter(None, (self.met_host,)))))


class AddressBook:
    """Every peer of this device."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = {entry.device: entry for entry in entries}

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, device: bytes) -> Entry | None:
        """The peer of that key."""
        return self._entries.get(device)

    def add(self, entry: Entry) -> bool:
        """Know a peer from now on; False when there are too many."""
        if entry.device not in self._entries and len(self._entries) >= PEERS_MAX:
            return False
        self._entries[entry.device] = entry
        return True

    def forget(self, device: bytes) -> None:
        """Know it no more, nor what it said of others."""
        self._entries.pop(device, None)
        for entry in self._entries.values():
            entry.sightings.pop(device, None)

    def tell(self, presence: Presence, signed: bytes) -> bool:
        """A device's own word, verified; whether it is news."""
        entry = self._entries.get(presence.device)
        if entry is None or presence.n <= entry.n:
            return False
        entry.presence, entry.signed = presence, signed
        return True

    def saw(self, seer: bytes, sighting: Sighting, signed: bytes) -> bool:
        """A peer's word on where another is, verified; whether it is news. Only peers count."""
        entry = self._entries.get(sighting.device)
        if entry is None or seer not in self._entries or seer == sighting.device:
            return False
        known = entry.sightings.get(seer)
        if known is not None and sighting.n <= known[0].n:
            return False
        entry.sightings[seer] = (sighting, signed)
        while len(entry.sightings) > SEERS_MAX:
            oldest = min(entry.sightings, key=lambda one: entry.sightings[one][0].n)
            del entry.sightings[oldest]
        return True

    def compared(self, device: bytes, now: float, skew_s: float, error_s: float) -> None:
        """The clocks were compared."""
        entry = self._entries[device]
        entry.contact_at, entry.skew_s, entry.error_s = now, skew_s, error_s


def skew(asked_at: float, received_at: float, replied_at: float, answered_at: float) -> float:
    """The other clock less ours, from one question: the middle two times are theirs (RFC 5905,
    section 8). Wrong by at most half of the time under way."""
    return ((received_at - asked_at) + (replied_at - answered_at)) / 2
