"""Six real pool servers of one slot in this process: real sockets, TLS, disks; a throwaway root."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from holdfast.crypto.certificates import create_root, issue_intermediate, issue_leaf
from holdfast.crypto.certinfo import to_pem
from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import sha256
from holdfast.crypto.tlskey import TlsKey
from holdfast.fabric.network import Network
from holdfast.logic.fleet.model import Role, Seat, SlotRecord, Version
from holdfast.relay.desk import Desk
from holdfast.relay.policy import RelayConfig, RelayPolicy
from holdfast.relay.service import Relay
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.pool_server import PoolHandler
from holdfast.rim.resolver import Resolved
from holdfast.wire.envelope import sign
from holdfast.wire.hq import Accusation, Alert, Desired
from holdfast.wire.locator import Locator
from holdfast.wire.records import Revocations, Staple
from holdfast.wire.signed import Type

DOMAIN: Final = "drill.example"
HOST: Final = "127.0.0.1"
_PROVIDERS: Final = ("alder", "birch", "cedar")
_POLICY: Final = RelayPolicy(tag_requests_per_s=10_000.0, tag_requests_burst=100_000.0)
Doors = Callable[[str], Callable[[Desk], PoolHandler]]
"""Name of a server -> what to put behind its port."""


class NoDns:
    """DNS that knows nothing: records name every address."""

    async def resolve(self, name: str, domain: str) -> Resolved:
        """Nothing."""
        return Resolved()


class SlotWorld:
    """`await start()`, work with `locator()` and `network()`, `await stop()`."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy, doors: Doors) -> None:
        self._home = home
        self._clock = clock
        self._entropy = entropy
        self._doors = doors
        self.id = entropy.bytes(16)
        self.slot = entropy.bytes(16)
        now = clock.wall()
        root = create_root(entropy.bytes(32), self.id, DOMAIN, now)
        self.roots = (root.certificate,)
        self._hq = SigningKey(entropy.bytes(32))
        key = TlsKey.from_bytes(entropy.bytes(32))
        self._authority = issue_intermediate(root, key, self.id, self._hq.public, now)
        self.relays: dict[str, Relay] = {}
        self._seats: dict[str, Seat] = {}

    async def start(self) -> None:
        """Start three relays and three replicas, and tell them their slot."""
        for role in (Role.RELAY, Role.REPLICA):
            for number, provider in enumerate(_PROVIDERS, 1):
                await self._start(f"{role}-eu-{number:03d}", role, provider)
        seats = list(self._seats.values())
        now = int(self._clock.wall())
        record = SlotRecord(
            self.id, self.slot, Version(0, 1), now, tuple(seats[:3]), tuple(seats[3:])
        )
        self.record = record
        for name, relay in self.relays.items():
            relay.apply(self._desired(name, record, now))

    async def stop(self) -> None:
        """Stop them all."""
        await asyncio.gather(*(relay.stop() for relay in self.relays.values()))

    def locator(self) -> Locator:
        """Where the slot is."""
        pins = tuple(sha256(root) for root in self.roots)
        bare = Locator(self.id, DOMAIN, pins, self.roots, self.slot, (), ())
        return bare.with_record(self.record)

    def network(self) -> Network:
        """The network as a client sees it."""
        return Network(self.id, DOMAIN, self.roots, self._clock, self._entropy, NoDns(), "eu")

    def era(self) -> Era:
        """The keys of a new group."""
        return Era(self._entropy.bytes(32), self.id)

    # --- Inside ----------------------------------------------------------------------------------
    async def _start(self, name: str, role: Role, provider: str) -> None:
        home = self._home / name
        identity = SigningKey(self._entropy.bytes(32))
        config = self._files(home, name, role, identity)
        told: list[Alert | Accusation] = []
        door = self._doors(name)
        relay = Relay(config, self._clock, self._entropy, told.append, door=door)
        await relay.start()
        self.relays[name] = relay
        address = relay.address
        self._seats[name] = Seat(name, identity.node, (address,), provider, "owner", "eu")

    def _files(self, home: Path, name: str, role: Role, identity: SigningKey) -> RelayConfig:
        home.mkdir(parents=True)
        key = TlsKey.from_bytes(self._entropy.bytes(32))
        leaf = issue_leaf(
            self._authority,
            spki=key.spki(),
            network=self.id,
            role=role,
            node=identity.node,
            dns_name=f"{name}.{DOMAIN}",
            serial=1_000 + len(self.relays),
            now=self._clock.wall(),
            days=90,
        )
        for file, data in (
            ("identity.key", identity.seed),
            ("roots.pem", to_pem(self.roots)),
            ("chain.pem", to_pem([leaf, self._authority.certificate])),
            ("key.pem", key.pem()),
        ):
            (home / file).write_bytes(data)
        return RelayConfig(
            state=home / "state",
            host=HOST,
            port=0,
            role=role,
            region="eu",
            chain=home / "chain.pem",
            key=home / "key.pem",
            identity=home / "identity.key",
            roots=home / "roots.pem",
            policy=_POLICY,
        )

    def _desired(self, name: str, record: SlotRecord, now: int) -> Desired:
        revocations = Revocations(self.id, Version(0, 0), now, ())
        proof = self._authority.certificate
        return Desired(
            version=1,
            term=1,
            name=name,
            role=Role(name.split("-")[0]),
            slots=(Staple(sign(self._hq, Type.SLOT_RECORD, record), proof),),
            revocations=Staple(sign(self._hq, Type.REVOCATIONS, revocations), proof),
            report_tag_age_s=0.0,
        )
