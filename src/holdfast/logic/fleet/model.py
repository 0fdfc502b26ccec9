"""The nouns of the fleet: seats, slots, servers, tiers.

A *logical server* (`relay-eu-042`) is a name that outlives the machines behind it; a *node* is one
machine with one identity key; a *seat* is a logical server's place in a slot, with the node that
sits there now. A *slot* is six seats: three relays and three replicas on different failure domains
(seed 004 §2.2, §6.1; D1, D2).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from holdfast.limits import RELAYS_PER_SLOT, REPLICAS_PER_SLOT

NodeId = bytes
"""BLAKE3 of the node's Ed25519 identity key: 32 bytes, shown as lower-case base32."""
SlotId = bytes
"""16 random bytes."""
NetworkId = bytes
"""16 random bytes, minted with the first root."""
OPERATOR: Final = "operator"
"""Owner of the machines that HQ spawns. For anyone else's machines the owner is part of the
failure domain (D2): two servers of one owner never count as two."""


class Role(StrEnum):
    """What a node is for. One node, one role, one certificate."""

    RELAY = "relay"
    REPLICA = "replica"
    HQ = "hq"
    ENTRY = "entry"
    CORE = "core"


STORES: Final = frozenset({Role.RELAY, Role.REPLICA})
"""Roles that keep blobs and sit in slots."""
ACCESS: Final = frozenset({Role.ENTRY, Role.CORE})
"""Roles of the access layer: they belong to a cell and sit in no slot."""


class Tier(StrEnum):
    """How sure we are that a server is gone (seed 004 §4)."""

    GREEN = "green"
    YELLOW = "yellow"
    ORANGE = "orange"
    RED = "red"
    BLACK = "black"


class Version(msgspec.Struct, frozen=True, order=True):
    """(restore epoch, n): a restored HQ bumps the epoch and so outranks its own past (D3)."""

    epoch: int
    n: int


class Seat(msgspec.Struct, frozen=True):
    """One logical server as a slot record names it.

    `addresses` are `host:port`; IPv6 hosts in brackets. `owner` and `provider` together are the
    failure domain (D2); `region` is an attribute, two lower-case letters or more.
    """

    name: str
    node: NodeId
    addresses: tuple[str, ...]
    provider: str
    owner: str
    region: str


class SlotRecord(msgspec.Struct, frozen=True):
    """The six servers of one slot, as HQ signs it (D1). `issued_at` is Unix seconds."""

    network: NetworkId
    slot: SlotId
    version: Version
    issued_at: int
    relays: tuple[Seat, ...]
    replicas: tuple[Seat, ...]

    def seats(self) -> tuple[Seat, ...]:
        """All seats, relays first."""
        return self.relays + self.replicas

    def seat_of(self, node: NodeId) -> Seat | None:
        """The seat in which `node` sits, if any."""
        return next((seat for seat in self.seats() if seat.node == node), None)

    def is_sound(self) -> bool:
        """No more seats than a slot has, and no name or node in two of them. A record with more
        could seat strangers beside the servers that clients know (D4)."""
        seats = self.seats()
        bounded = len(self.relays) <= RELAYS_PER_SLOT and len(self.replicas) <= REPLICAS_PER_SLOT
        names, nodes = {seat.name for seat in seats}, {seat.node for seat in seats}
        return bounded and len(names) == len(nodes) == len(seats)

    def is_whole(self) -> bool:
        """Sound, and all six seats are taken: what a client follows."""
        return self.is_sound() and len(self.seats()) == RELAYS_PER_SLOT + REPLICAS_PER_SLOT


class Load(msgspec.Struct, frozen=True):
    """What a server says of its own load; used for allocation and gray failure (D28)."""

    sessions: int = 0
    groups: int = 0
    blobs: int = 0
    stored_bytes: int = 0
    free_bytes: int = 0
    requests_per_s: float = 0.0
    commit_p99_ms: float = 0.0
    writable: bool = True
    busy: float = 0.0
    """Of the whole machine: 0 idle, 1 and more with a queue; 0 also where it does not say."""
    received_bytes_per_s: float = 0.0
    sent_bytes_per_s: float = 0.0
    """Of the whole machine, all its network cards but loopback; 0 where it does not say."""
    faults_share: float = 0.0
    """Of the requests of the last seconds: how many the server failed by its own fault."""
