"""A pool in this process: a throwaway root and HQ, relays and replicas on real sockets and disks.

    async with Pool(tmp_path) as pool:
        record = await pool.seat(relays=3, replicas=3)          # one slot, six servers
        session = await pool.session("relay-eu-001", era.access, record.slot)

Everything is real but the key ceremony. `Pool` also makes what tests of clients need: locators'
raw parts (`pool.roots`, `record.seats()`), clients, eras, blobs.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.relay.log import PublicLog

from holdfast.crypto.certificates import Authority, create_root, issue_intermediate, issue_leaf
from holdfast.crypto.certinfo import to_pem
from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.tlskey import TlsKey
from holdfast.fabric.session import Session
from holdfast.logic.fleet.model import Role, Seat, SlotRecord, Version
from holdfast.logic.trust.revocation import Revocations, Revoked
from holdfast.relay.policy import RelayConfig, RelayPolicy
from holdfast.relay.service import Relay
from holdfast.rim.clock import Clock, SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.pool_client import PoolClient
from holdfast.rim.store import Files
from holdfast.wire.envelope import sign
from holdfast.wire.hq import Accusation, Alert, Desired
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type
from holdfast.wire.tickets import TicketKeys

DOMAIN = "kelp.test"
PROVIDERS = ("alpha", "beta", "gamma")


def today() -> int:
    """The born day of now."""
    return int(time.time()) // 86_400


class Server:
    """One node: its keys and files, and its relay while it runs."""

    def __init__(self, pool: Pool, name: str, role: Role, provider: str, region: str) -> None:
        self.pool = pool
        self.name = name
        self.role = role
        self.provider = provider
        self.region = region
        self.home = pool.home / name
        self.home.mkdir(parents=True)
        self.identity = SigningKey(os.urandom(32))
        (self.home / "identity.key").write_bytes(self.identity.seed)
        (self.home / "roots.pem").write_bytes(to_pem(pool.roots))
        self.certify()
        self.told: list[Alert | Accusation] = []
        self.relay: Relay | None = None
        self.port = 0

    @property
    def node(self) -> bytes:
        return self.identity.node

    @property
    def running(self) -> Relay:
        """The relay, which must be running."""
        assert self.relay is not None
        return self.relay

    @property
    def seat(self) -> Seat:
        """How a slot record names this server."""
        address = f"127.0.0.1:{self.port}"
        return Seat(self.name, self.node, (address,), self.provider, "owner", self.region)

    def certify(self) -> None:
        """A new TLS key and certificate, in place of the old files."""
        key = TlsKey.from_bytes(os.urandom(32))
        der = issue_leaf(
            self.pool.intermediate,
            spki=key.spki(),
            network=self.pool.network,
            role=self.role,
            node=self.node,
            dns_name=f"{self.name}.{DOMAIN}",
            serial=self.pool.next_serial(),
            now=time.time(),
            days=90,
        )
        (self.home / "chain.pem").write_bytes(to_pem([der, self.pool.intermediate.certificate]))
        (self.home / "key.pem").write_bytes(key.pem())

    def config(self) -> RelayConfig:
        """As the agent would start it."""
        return RelayConfig(
            state=self.home / "state",
            host="127.0.0.1",
            port=self.port,
            role=self.role,
            region=self.region,
            chain=self.home / "chain.pem",
            key=self.home / "key.pem",
            identity=self.home / "identity.key",
            roots=self.home / "roots.pem",
            time_scale=self.pool.clock.scale,
            policy=self.pool.policy,
        )

    async def start(self, files: Files | None = None) -> Relay:
        """Serve, on the same port as before, with the slots the pool knows."""
        entropy = SystemEntropy()
        relay = Relay(self.config(), self.pool.clock, entropy, self.told.append, files)
        await relay.start()
        if not self.pool.background:
            relay._tasks[0].cancel()
        self.relay, self.port = relay, relay.server.port
        self.pool.tell(self)
        return relay

    @property
    def alerts(self) -> list[Alert]:
        """What it told headquarters of its peers' tiers."""
        return [news for news in self.told if isinstance(news, Alert)]

    async def stop(self) -> None:
        """Shut down cleanly."""
        if self.relay is not None:
            relay, self.relay = self.relay, None
            await relay.stop()


class Pool:
    """A network of servers in one process. Use as an async context manager."""

    def __init__(
        self,
        home: Path,
        *,
        clock: Clock | None = None,
        policy: RelayPolicy | None = None,
        report_tag_age_s: float = 0.0,
        background: bool = True,
    ) -> None:
        """Without `background`, servers reconcile only when a test says so."""
        self.background = background
        self.home = home
        self.clock = clock or SystemClock()
        self.policy = policy or RelayPolicy()
        self.report_tag_age_s = report_tag_age_s
        self.network = os.urandom(16)
        self._serial = 1_000
        self.root = create_root(os.urandom(32), self.network, DOMAIN, time.time())
        self.hq = SigningKey(os.urandom(32))
        self.intermediate: Authority = issue_intermediate(
            self.root, TlsKey.from_bytes(os.urandom(32)), self.network, self.hq.public, time.time()
        )
        self.servers: dict[str, Server] = {}
        self.records: dict[bytes, SlotRecord] = {}
        self.revoked: list[Revoked] = []
        self.log = PublicLog(self.hq, self.intermediate.certificate, DOMAIN, self.network)
        self.cosigners: tuple[str, ...] | None = None
        """Owners who have cosigned what is stapled; None: nothing is said to be logged."""
        self.ticket_keys: TicketKeys | None = None
        self._desired = 0
        self._clients: list[PoolClient] = []

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self._clients:
            await client.close()
        await asyncio.gather(*(server.stop() for server in self.servers.values()))

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The pinned roots, DER."""
        return (self.root.certificate,)

    def next_serial(self) -> int:
        self._serial += 1
        return self._serial

    # --- Servers and slots -----------------------------------------------------------------------
    async def add(self, role: Role, number: int, region: str = "eu") -> Server:
        """Start one server: `relay-eu-001`, on the provider its number falls to."""
        provider = PROVIDERS[(number - 1) % len(PROVIDERS)]
        server = Server(self, f"{role}-{region}-{number:03d}", role, provider, region)
        self.servers[server.name] = server
        await server.start()
        return server

    async def seat(
        self, relays: int = 3, replicas: int = 3, *, slot: bytes | None = None, region: str = "eu"
    ) -> SlotRecord:
        """A slot over that many servers, started as needed; every one of them has been told."""
        names = []
        for role, count in ((Role.RELAY, relays), (Role.REPLICA, replicas)):
            for number in range(1, count + 1):
                name = f"{role}-{region}-{number:03d}"
                if name not in self.servers:
                    await self.add(role, number, region)
                names.append(name)
        return self.assign(slot or os.urandom(16), names)

    def assign(self, slot: bytes, names: Sequence[str], unaware: Sequence[str] = ()) -> SlotRecord:
        """Give a slot to these servers with a new record version, and tell everybody else."""
        seats = [self.servers[name] for name in names]
        old = self.records.get(slot)
        record = SlotRecord(
            network=self.network,
            slot=slot,
            version=Version(0, old.version.n + 1 if old else 1),
            issued_at=int(time.time()),
            relays=tuple(s.seat for s in seats if s.role is Role.RELAY),
            replicas=tuple(s.seat for s in seats if s.role is Role.REPLICA),
        )
        self.records[slot] = record
        for name, server in self.servers.items():
            if name not in unaware:
                self.tell(server)
        return record

    def staple(self, record: SlotRecord) -> Staple:
        """The record as HQ signs it, in the log as far as `cosigners` saw."""
        staple = Staple(sign(self.hq, Type.SLOT_RECORD, record), self.intermediate.certificate)
        return staple if self.cosigners is None else self.log.logged(staple, self.cosigners)

    def revoke(self, *servers: Server) -> None:
        """Exclude servers and tell everybody."""
        at = int(time.time())
        self.revoked += [Revoked(server.node, "", b"", "test", at) for server in servers]
        for server in self.servers.values():
            self.tell(server)

    def desired(self, server: Server) -> Desired:
        """What HQ wants of a server."""
        self._desired += 1
        revocations = Revocations(
            self.network, Version(0, len(self.revoked)), int(time.time()), tuple(self.revoked)
        )
        return Desired(
            version=self._desired,
            term=1,
            name=server.name,
            role=server.role,
            slots=tuple(
                self.staple(record)
                for record in self.records.values()
                if record.seat_of(server.node) is not None
            ),
            revocations=Staple(
                sign(self.hq, Type.REVOCATIONS, revocations), self.intermediate.certificate
            ),
            report_tag_age_s=self.report_tag_age_s,
            witnesses=self.log.witnesses,
            ticket_keys=self.log.sign(Type.TICKET_KEYS, self.ticket_keys)
            if self.ticket_keys
            else None,
        )

    def tell(self, server: Server) -> None:
        """Send a running server what HQ wants of it."""
        if server.relay is not None:
            server.relay.apply(self.desired(server))

    # --- Clients ---------------------------------------------------------------------------------
    def client(self, name: str, **options: object) -> PoolClient:
        """A client of a server, closed with the pool."""
        server = self.servers[name]
        client = PoolClient(
            server.seat.addresses[0],
            roots=self.roots,
            node=server.node,
            clock=self.clock,
            **options,  # type: ignore[arg-type]
        )
        self._clients.append(client)
        return client

    async def session(self, name: str, key: SigningKey, slot: bytes) -> Session:
        """A group's session with a server."""
        return await Session.open(self.client(name), key, slot)

    async def peer_session(self, name: str, of: Server, slot: bytes) -> Session:
        """A session as the server `of` would open it."""
        return await Session.open(self.client(name), of.identity, slot, peer=True)

    def era(self) -> Era:
        """The keys of a new group."""
        return Era(os.urandom(32), self.network)


async def until(condition: object, timeout_s: float = 20.0) -> None:
    """Wait until `condition()` holds; fails after that many real seconds."""
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.01)
