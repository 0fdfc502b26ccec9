"""The other servers of our slots, as we call them: one client each, one session per slot.

A peer that did not answer is left alone for a while, so that a dead provider does not make every
round wait for time-outs.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from holdfast.errors import HoldfastError, OperationFault, PeerFault
from holdfast.fabric.session import Have, Session
from holdfast.limits import RECONCILE_PERIOD_S
from holdfast.logic.fleet.model import NodeId, Seat, SlotId, Version
from holdfast.relay.desk import Desk
from holdfast.relay.seats import Seated
from holdfast.rim.pool_client import PoolClient
from holdfast.wire.staple import presented

_log = logging.getLogger("holdfast.relay.peers")
REST_S: Final = RECONCILE_PERIOD_S / 2
"""Real seconds before a peer that failed is called again."""
UNAWARE: Final = frozenset({"forbidden", "slot"})
"""A peer without our record yet: we are no server of the slot to it, or it is none itself."""


def is_unaware(error: HoldfastError) -> bool:
    """Whether a peer is there and has not heard yet that both of us serve the slot."""
    return isinstance(error, PeerFault) and error.code in UNAWARE


class _Link:
    """One peer's client, and where it stands."""

    def __init__(self, client: PoolClient) -> None:
        self.client = client
        self.sessions: dict[SlotId, Session] = {}


class Peers:
    """Sessions with the servers that share slots with us."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._links: dict[NodeId, _Link] = {}
        self._rest_until: dict[NodeId, float] = {}
        self._locks: dict[NodeId, asyncio.Lock] = {}

    async def session(self, seated: Seated, seat: Seat) -> Session:
        """An open session with a peer. Raises OperationFault and PeerFault."""
        if self.rests(seat):
            raise OperationFault(f"{seat.name} did not answer a moment ago")
        try:
            async with self._locks.setdefault(seat.node, asyncio.Lock()):
                return await self._session(seated, seat)
        except HoldfastError as error:
            if not is_unaware(error):
                await self.failed(seat)
            raise

    def rests(self, seat: Seat) -> bool:
        """Whether a peer failed a moment ago and is left alone for another."""
        return self._rest_until.get(seat.node, 0.0) > self._desk.real_s()

    async def failed(self, seat: Seat) -> None:
        """A call to a peer failed: begin anew after a rest."""
        self._rest_until[seat.node] = self._desk.real_s() + REST_S / self._desk.clock.scale
        await self._drop(seat.node)

    async def retain(self, nodes: set[NodeId]) -> None:
        """Let go of all peers but these."""
        for node in self._links.keys() - nodes:
            await self._drop(node)
        self._rest_until = {n: at for n, at in self._rest_until.items() if n in nodes}
        self._locks = {n: lock for n, lock in self._locks.items() if n in nodes}

    async def close(self) -> None:
        """Let go of all."""
        await self.retain(set())

    async def _session(self, seated: Seated, seat: Seat) -> Session:
        link = self._links.get(seat.node)
        if link is not None and link.client.address not in seat.addresses:
            await self._drop(seat.node)
            link = None
        if link is None:
            link = _Link(await connect(self._desk, seat))
            self._links[seat.node] = link
        session = link.sessions.get(seated.record.slot)
        if session is None:
            session = await open_peer(self._desk, link.client, seated)
            self._note_revocations(seat, session.revocations)
            link.sessions[seated.record.slot] = session
        return session

    def _note_revocations(self, seat: Seat, theirs: Version) -> None:
        """A stale list raises an alarm and stops nothing (D6); our agent brings the newer one."""
        if theirs > self._desk.revocations.version:
            self._desk.counts["revocations_stale"] += 1
            _log.warning("%s knows a newer revocation list than we do", seat.name)

    async def _drop(self, node: NodeId) -> None:
        link = self._links.pop(node, None)
        if link is not None:
            await link.client.close()


async def connect(desk: Desk, seat: Seat) -> PoolClient:
    """A client connected to a seat, at the first of its addresses that answers, and not excluded.

    Raises OperationFault and PeerFault."""
    error: HoldfastError = OperationFault(f"{seat.name} has no address")
    for address in seat.addresses:
        client = PoolClient(address, roots=desk.roots, node=seat.node, clock=desk.clock)
        try:
            await client.connect()
        except HoldfastError as fault:
            error = fault
            continue
        entry = desk.revocations.find_in(presented(der) for der in client.chain)
        if entry is None:
            return client
        await client.close()
        error = PeerFault(f"{seat.name} has been excluded: {entry.reason}", code="certificate")
    raise error


async def open_peer(desk: Desk, client: PoolClient, seated: Seated) -> Session:
    """A session as a server of the slot. Raises OperationFault and PeerFault."""
    have = Have(seated.record.version)
    slot = seated.record.slot
    return await Session.open(client, desk.identity, slot, peer=True, have=have)
