"""The way to one logical server: where it is, a connection, sessions for the tags in use.

Addresses come from the slot record the client follows, or from the locator before there is one.
When none of them leads to the node that the record names, DNS is asked (seed 004 §7.1): it may know
a new address of the same node, or another node behind the name. The other node proves by its
certificate that HQ gave it this name; whether it may have the seat is for a slot record to say,
which that node itself can show. Until then nothing but an opening is sent there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import OperationFault, PeerFault
from holdfast.fabric.network import Network
from holdfast.fabric.session import Have, Session
from holdfast.fabric.trust import TrustBook
from holdfast.logic.fleet.model import NodeId, SlotId
from holdfast.rim.pool_client import PoolClient
from holdfast.rim.resolver import Resolved


class Target(msgspec.Struct, frozen=True):
    """Whom to look for, and where. `node` is None before a record names it."""

    addresses: tuple[str, ...]
    node: NodeId | None = None


class Link:
    """One server of one slot. `lock` is held while a connection or session is made."""

    def __init__(self, network: Network, trust: TrustBook, slot: SlotId, name: str) -> None:
        self.name = name
        self.lock = asyncio.Lock()
        self.latency_s = 0.0
        """Elapsed seconds the newest connection took, opening included; ranks servers."""
        self._network = network
        self._trust = trust
        self._slot = slot
        self._client: PoolClient | None = None
        self._sessions: dict[bytes, Session] = {}

    @property
    def node(self) -> NodeId | None:
        """The node at the other end, once connected."""
        return self._client.peer.node if self._client is not None else None

    @property
    def excluded(self) -> bool:
        """Whether the server at the other end is on the revocation list by now."""
        chain = self._client.chain if self._client is not None else ()
        return self._trust.excluded(self._network.id, chain) is not None

    @property
    def address(self) -> str:
        """Where the connection leads; empty without one."""
        return self._client.address if self._client is not None else ""

    def session(self, tag: bytes) -> Session | None:
        """The open session of `tag`, if any."""
        return self._sessions.get(tag)

    def sessions(self) -> tuple[Session, ...]:
        """All open sessions."""
        return tuple(self._sessions.values())

    async def open(self, key: SigningKey, target: Target, have: Have) -> Session:
        """A session for `key`, on a connection to `target`. Call with `lock` held.

        Raises OperationFault when the server cannot be reached, PeerFault when it refuses.
        """
        clock = self._network.clock
        started_at = clock.elapsed()
        if self._client is None:
            self._client = await self._connect(target)
        try:
            session = await Session.open(self._client, key, self._slot, have=have)
        except (OperationFault, PeerFault):
            await self.close()
            raise
        self._sessions[hash_bytes(key.public)] = session
        self.latency_s = clock.elapsed() - started_at
        return session

    async def close(self) -> None:
        """Drop the connection and its sessions; the next `open` starts over."""
        client, self._client = self._client, None
        self._sessions.clear()
        if client is not None:
            await client.close()

    async def _connect(self, target: Target) -> PoolClient:
        client, trouble = await self._try(target.addresses, target.node)
        if client is not None:
            return client
        try:
            found = await self._network.resolver.resolve(self.name, self._network.domain)
        except OperationFault as error:
            found, trouble = Resolved(), f"{trouble}; {error}"
        known = target.node is None or found.node in (None, target.node)
        fresh = [text for text in found.addresses if not known or text not in target.addresses]
        client, more = await self._try(fresh, target.node if known else found.node)
        if client is not None:
            return client
        raise OperationFault(f"cannot reach {self.name}: {more or trouble or 'no address known'}")

    async def _try(
        self, addresses: Iterable[str], node: NodeId | None
    ) -> tuple[PoolClient | None, str]:
        """A connection to the first address that leads to the right server, or why none does."""
        trouble = ""
        for address in addresses:
            client = PoolClient(
                address,
                roots=self._network.roots,
                node=node,
                server_name=f"{self.name}.{self._network.domain}",
                clock=self._network.clock,
            )
            try:
                await client.connect()
            except (OperationFault, PeerFault) as error:
                await client.close()
                trouble = str(error)
                continue
            entry = self._trust.excluded(self._network.id, client.chain)
            if entry is not None:
                await client.close()
                trouble = f"{address} has been excluded: {entry.reason}"
                continue
            if client.peer.network != self._network.id:
                await client.close()
                trouble = f"{address} is of another network"
                continue
            return client, ""
        return None, trouble
