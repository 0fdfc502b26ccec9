"""A slot's six servers as the fan-out machines see them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from holdfast.limits import REPLICATED_QUORUM, STORED_QUORUM
from holdfast.logic.fleet.model import NodeId, Role, SlotRecord


class Server(msgspec.Struct, frozen=True):
    """A logical server, the node behind it now and its failure domain (provider, owner)."""

    name: str
    node: NodeId
    role: Role
    domain: tuple[str, str]


class Seats(msgspec.Struct, frozen=True):
    """Who sits in the slot. Quorums count failure domains too (D13)."""

    servers: tuple[Server, ...]

    def named(self, name: str) -> Server | None:
        """The server of that name, if it has a seat."""
        return next((server for server in self.servers if server.name == name), None)

    def names(self, role: Role | None = None) -> tuple[str, ...]:
        """Names in record order; of one role, or all."""
        return tuple(s.name for s in self.servers if role is None or s.role == role)

    def stored(self, names: Iterable[str]) -> bool:
        """Whether these servers are enough relays for `stored`."""
        return self._quorum(Role.RELAY, STORED_QUORUM, set(names))

    def replicated(self, names: Iterable[str]) -> bool:
        """Whether these servers are enough replicas for `replicated`."""
        return self._quorum(Role.REPLICA, REPLICATED_QUORUM, set(names))

    def _quorum(self, role: Role, quorum: int, names: set[str]) -> bool:
        """Enough servers, on different failure domains as far as the slot has them.

        While a provider is lost, two seats may share one (a recorded diversity debt): two copies
        there are one domain, and the third seat is waited for.
        """
        peers = [server for server in self.servers if server.role == role]
        holders = [server for server in peers if server.name in names]
        domains = {server.domain for server in holders}
        domains_min = min(quorum, len({server.domain for server in peers}))
        return len(holders) >= quorum and len(domains) >= domains_min


def seats_of(record: SlotRecord) -> Seats:
    """The seats of a slot record, relays first."""
    return Seats(
        tuple(
            Server(seat.name, seat.node, role, (seat.provider, seat.owner))
            for role, seats in ((Role.RELAY, record.relays), (Role.REPLICA, record.replicas))
            for seat in seats
        )
    )
