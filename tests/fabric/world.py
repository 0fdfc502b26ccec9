"""Clients of a real pool in this process, for tests of the fabric and of devices."""

from __future__ import annotations

from pathlib import Path

from tests.relay.harness import DOMAIN, Pool, Server

from holdfast.crypto.blob import seal, unseal
from holdfast.crypto.era import Era
from holdfast.crypto.pure import hash_bytes, sha256
from holdfast.errors import OperationFault, PeerFault
from holdfast.fabric.network import Network
from holdfast.fabric.slot import Slot
from holdfast.fabric.store import Store
from holdfast.logic.fleet.model import SlotRecord
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.resolver import Resolved
from holdfast.wire.locator import Locator

FAST = 20.0
"""Elapsed seconds per real second in tests that wait out backoffs."""


class Dns:
    """DNS as a test wants it: what `names` says, silence when `silent`."""

    def __init__(self) -> None:
        self.names: dict[str, Resolved] = {}
        self.silent = False
        self.asked: list[str] = []

    async def resolve(self, name: str, domain: str) -> Resolved:
        assert domain == DOMAIN
        self.asked.append(name)
        if self.silent:
            raise OperationFault("DNS does not answer")
        return self.names.get(name, Resolved())

    def point(self, server: Server) -> None:
        """The logical name leads to `server` now."""
        self.names[server.name] = Resolved(server.seat.addresses, server.node)


def locator_of(pool: Pool, record: SlotRecord) -> Locator:
    pins = tuple(sha256(root) for root in pool.roots)
    bare = Locator(pool.network, DOMAIN, pins, pool.roots, record.slot, (), ())
    return bare.with_record(record)


def network_of(pool: Pool, dns: Dns | None = None, clock: Clock | None = None) -> Network:
    return Network(
        id=pool.network,
        domain=DOMAIN,
        roots=pool.roots,
        clock=clock or pool.clock,
        entropy=SystemEntropy(),
        resolver=dns or Dns(),
        region="eu",
    )


class Log:
    """A log of texts: `seq|parent,parent|text`. Ids are hashes of the payload."""

    def __init__(self) -> None:
        self.texts: dict[bytes, str] = {}
        self.parents: dict[bytes, tuple[bytes, ...]] = {}
        self.gaps: set[bytes] = set()

    def write(self, text: str, *parents: bytes) -> tuple[bytes, bytes]:
        """(operation id, payload) of a new operation, taken here."""
        payload = b"|".join((b"op", b"".join(parents).hex().encode(), text.encode()))
        self.take(b"", payload)
        return hash_bytes(payload), payload

    def take(self, blob: bytes, payload: bytes) -> None:
        try:
            kind, parents, text = payload.split(b"|", 2)
        except ValueError as error:
            raise PeerFault("no operation") from error
        if kind != b"op":
            raise PeerFault("no operation")
        raw = bytes.fromhex(parents.decode())
        operation = hash_bytes(payload)
        self.texts[operation] = text.decode()
        self.parents[operation] = tuple(raw[i : i + 32] for i in range(0, len(raw), 32))
        self.gaps.discard(operation)

    def missing(self) -> list[bytes]:
        wanted = {p for parents in self.parents.values() for p in parents}
        return sorted(wanted - self.texts.keys() - self.gaps)

    def name_gap(self, operation: bytes) -> None:
        self.gaps.add(operation)


class Client:
    """One device's fabric: a store in `home`, a slot, a log."""

    def __init__(
        self,
        pool: Pool,
        record: SlotRecord,
        home: Path,
        era: Era,
        dns: Dns | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.pool = pool
        self.era = era
        self.dns = dns or Dns()
        self.network = network_of(pool, self.dns, clock)
        self.store = Store(home, self.network.clock)
        self.slot = Slot(self.network, locator_of(pool, record), self.store)
        self.log = Log()
        self.puller = self.slot.puller(era, self.log)

    async def open(self) -> Client:
        await self.slot.open([self.era])
        return self

    async def close(self) -> None:
        await self.slot.close()
        self.store.close()

    async def __aenter__(self) -> Client:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def ids_on(server: Server, era: Era) -> set[bytes]:
    """Blob ids of one tag on one server, asked as another client would."""
    record = next(r for r in server.pool.records.values() if r.seat_of(server.node) is not None)
    session = await server.pool.session(server.name, era.access, record.slot)
    found: set[bytes] = set()
    after = None
    while True:
        reply = await session.list(0, 1_000, after)
        found |= {item.blob for item in reply.items}
        if not reply.more:
            return found
        after = (reply.born[-1], reply.items[-1].blob)


__all__ = ["FAST", "Client", "Dns", "Log", "ids_on", "locator_of", "network_of", "seal", "unseal"]
