"""A headquarters whose keys were stolen, against clients with witnesses (D1, D4; seed 004 §5.2).

A network of three owners with two servers each, on real sockets and disks: headquarters, joins,
DNS, servers, witnesses and clients are the product's own, in one process. Then the thief, with a
copy of headquarters' directory taken earlier, takes its place at the same address and

* goes on from the copy: its log is *forked* from the one that witnesses saw;
* certifies a machine of its own as one of the slot's relays: a *rogue certificate*, flawless;
* signs a slot record with that machine in one seat, as gradual a change as D4 allows, names
  witnesses of its own, has them cosign, and tells the whole fleet;
* blocks the honest relay and points its name at the machine: *redirected DNS*.

Misled is a client that follows the record or leaves a blob with the thief. The control clients are
the same with k = 0. `witnesses` are nodes that hold evidence of the fork: one is enough.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from holdfast.crypto.certificates import create_root, sign_intermediate
from holdfast.crypto.certinfo import to_pem
from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import sha256
from holdfast.crypto.tlskey import TlsKey
from holdfast.errors import HoldfastError, OperationFault
from holdfast.fabric.network import Network
from holdfast.fabric.slot import Slot
from holdfast.fabric.store import Store
from holdfast.hq.config import HqConfig
from holdfast.hq.home import HqHome
from holdfast.hq.main import Headquarters
from holdfast.hq.parts import Parts
from holdfast.hq.transparency import CERTIFICATE, Leaf
from holdfast.logic.fleet.model import Role, Seat, SlotRecord, Version
from holdfast.logic.fleet.rows import SLOTS, SlotRow, TokenRow
from holdfast.logic.pool.fanout import Stage
from holdfast.logic.trust.checkpoint import witness_name
from holdfast.logic.trust.note import cosignature_input, cosignature_line
from holdfast.logic.trust.witnesses import WitnessKey, WitnessSet
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import Put
from holdfast.rim.entropy import Entropy
from holdfast.rim.https import JsonClient
from holdfast.rim.ports import free_port
from holdfast.rim.resolver import Resolver
from holdfast.sim.drills.machine import HOST, Machine
from holdfast.wire.ceremony import check_request, parse_request
from holdfast.wire.codec import pack, unpack
from holdfast.wire.hq import Desired, SlotReply, SlotRequest
from holdfast.wire.locator import Locator
from holdfast.wire.logged import leaf_of
from holdfast.wire.pool import BlobClass
from holdfast.wire.records import Logged, Staple
from holdfast.wire.signed import SIGNED_BYTES_MAX, Type, decode_body

DOMAIN: Final = "drill.test"
REGION: Final = "eu"
OWNERS: Final = ("ada", "bo", "cy")
ROLES: Final = (Role.RELAY, Role.REPLICA)
WAIT_S: Final = 120.0
"""Real seconds for any one thing to come about."""
POLL_S: Final = 0.1
QUIET_S: Final = 8.0
"""Real seconds in which clients that will not be misled have every chance to be."""


class RogueReport(msgspec.Struct):
    """What the thief got. `witnesses` hold evidence; `audited` reports reached a headquarters."""

    clients: int
    clients_misled: int = -1
    refused: int = 0
    """Clients that said why they do not follow: unwitnessed."""
    stored: int = 0
    """Clients that went on storing all the same."""
    control_clients: int = 0
    control_misled: int = 0
    nodes: int = 0
    witnesses: int = 0
    rogue_witness_set_followed: int = 0
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Nobody misled, one witness saw it, and without witnesses the same attack works."""
        safe = self.clients_misled == 0 and self.refused == self.stored == self.clients > 0
        control = self.control_misled == self.control_clients > 0
        return safe and control and self.witnesses > 0 and not self.rogue_witness_set_followed


class Victim:
    """One client of the slot. With k = 0 it trusts headquarters alone."""

    def __init__(self, home: Path, network: Network, locator: Locator, entropy: Entropy) -> None:
        self.era = Era(entropy.bytes(32), network.id)
        self.store = Store(home, network.clock)
        self.slot = Slot(network, locator, self.store)
        self._blobs: list[bytes] = []

    async def start(self) -> None:
        """Follow the slot and store something."""
        await self.slot.open([self.era])
        await self.put()

    async def put(self) -> None:
        """One more blob on its way."""
        payload = f"blob {len(self._blobs)}".encode()
        self._blobs.append(await self.slot.put(self.era, BlobClass.LOG, payload))

    async def refresh(self) -> None:
        """Ask a server for news, as a watcher does all the time."""
        await self.slot.roster.refresh(self.era.access)

    def misled_by(self, node: bytes) -> bool:
        """Whether it follows a record that seats the thief, or left a blob there."""
        record = self.slot.roster.record
        seated = record is not None and record.seat_of(node) is not None
        return seated or any(node in self.store.receipts.holders(blob) for blob in self._blobs)

    async def close(self) -> None:
        await self.slot.close()
        self.store.close()


class RogueHq:
    """The drill, in one empty directory."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy) -> None:
        self._home = home
        self._clock = clock
        self._entropy = entropy
        self._hq: Headquarters | None = None
        self._running: asyncio.Task[None] | None = None
        self._machines: list[Machine] = []
        self._victims: list[Victim] = []
        self._thief: Machine | None = None

    async def run(self, clients: int) -> RogueReport:
        """`clients` with witnesses and as many without. Raises OperationFault."""
        report, began = RogueReport(clients), self._clock.elapsed()
        honest, stolen = self._home / "hq", self._home / "stolen"
        try:
            self._found(honest)
            await self._start(honest)
            for owner in OWNERS:
                for role in ROLES:
                    await self._join(owner, role)
            network, locator = await self._client()
            guarded = await self._people(network, locator, clients, "guarded")
            trusting = dataclasses.replace(network, k=0)
            control = await self._people(trusting, locator, clients, "control")
            await self._until_async(lambda: self._all_watched(guarded), "a watched slot")
            await self._stop()
            shutil.copytree(honest, stolen)
            await self._start(honest)
            await self._join("dee", Role.RELAY)
            size = len(self._parts.log.tree)
            await self._until(lambda: all(m.witnessed >= size for m in self._machines), "witnesses")
            await self._stop()
            await self._start(stolen)
            thief = await self._attack(locator.slot, control)
            await self._judge(report, thief, guarded, control)
        finally:
            for victim in self._victims:
                await victim.close()
            for machine in (*self._machines, *([self._thief] if self._thief else [])):
                await machine.stop()
            await self._stop()
        report.seconds = round((self._clock.elapsed() - began) / self._clock.scale, 1)
        return report

    # --- The network -----------------------------------------------------------------------------
    def _found(self, directory: Path) -> None:
        """A root, and a headquarters that it certified."""
        network, now = self._entropy.bytes(16), self._clock.wall()
        root = create_root(self._entropy.bytes(32), network, DOMAIN, now)
        config = HqConfig(
            domain=DOMAIN,
            listen=f"{HOST}:{free_port(HOST, self._entropy)}",
            dns_listen=f"{HOST}:{free_port(HOST, self._entropy)}",
            regions=(REGION,),
            heartbeat_s=1.0,
        )
        home = HqHome(directory)
        request = parse_request(home.init(config, [root.certificate], self._entropy))
        spki, identity = check_request(request, network), request.identity
        certificate = sign_intermediate(
            root, spki=spki, network=network, identity_public=identity, now=now
        )
        home.install(certificate, now)

    async def _start(self, directory: Path) -> None:
        """A headquarters serves from this directory, and leads."""
        hq = self._hq = Headquarters(HqHome(directory), self._clock, self._entropy)
        await hq.start()
        self._running = asyncio.create_task(hq.run())
        await hq.leading()

    async def _stop(self) -> None:
        hq, self._hq = self._hq, None
        if hq is None:
            return
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await hq.stop()

    @property
    def _parts(self) -> Parts:
        assert self._hq is not None, "one of the two serves"
        return self._hq.parts

    async def _join(self, owner: str, role: Role) -> None:
        row = TokenRow(
            role=role,
            name="",
            region=REGION,
            provider=f"cloud-{owner}",
            owner=owner,
            cell="",
            expires_at=self._clock.wall() + 3_600.0,
        )
        token = await self._parts.tokens.create(row)
        home = self._home / f"{owner}-{role}"
        machine = Machine(home, self._clock, self._entropy)
        await machine.join(token)
        self._machines.append(machine)

    async def _client(self) -> tuple[Network, Locator]:
        """What a new client works with, once there is a slot for it."""
        parts = self._parts
        roots = parts.authority.roots
        hq = JsonClient(parts.api_addresses, roots, None, self._clock)
        found: list[Staple] = []

        async def allocated() -> bool:
            try:
                ask = SlotRequest(REGION)
                found.append((await hq.call("POST", "/v1/slots", ask, SlotReply)).record)
            except OperationFault:
                return False
            return True

        try:
            await self._until_async(allocated, "a slot")
        finally:
            await hq.close()
        record = decode_body(Type.SLOT_RECORD, SlotRecord, found[0].signed)
        network_id, pins = parts.authority.network, tuple(map(sha256, roots))
        bare = Locator(network_id, DOMAIN, pins, roots, record.slot, (), (), parts.dns_addresses)
        network = Network(
            id=network_id,
            domain=DOMAIN,
            roots=roots,
            clock=self._clock,
            entropy=self._entropy,
            resolver=Resolver(parts.dns_addresses),
            region=REGION,
        )
        return network, bare.with_record(record)

    async def _people(
        self, network: Network, locator: Locator, count: int, what: str
    ) -> list[Victim]:
        found = []
        for n in range(count):
            home = self._home / f"{what}-{n}"
            victim = Victim(home, network, locator, self._entropy)
            self._victims.append(victim)
            await victim.start()
            found.append(victim)
        return found

    async def _all_watched(self, victims: list[Victim]) -> bool:
        """Whether all are watched; those that are not ask for news."""
        waiting = [victim for victim in victims if not self._watched(victim)]
        for victim in waiting:
            await victim.refresh()
        return not waiting

    def _watched(self, victim: Victim) -> bool:
        """Whether a client follows a set of two owners, and its record has both's cosignatures."""
        trust, roster = victim.store.records.trust, victim.slot.roster
        known = trust.witness_set(roster.network.id)
        return known is not None and len(known.owners) > 1 and not roster.unwitnessed

    # --- The attack ------------------------------------------------------------------------------
    async def _attack(self, slot: bytes, control: list[Victim]) -> Machine:
        """Everything the thief can do with headquarters' keys; its machine."""
        parts = self._parts
        row_kv = await parts.store.get(SLOTS + slot.hex())
        assert row_kv is not None, "the copy knows the slot"
        row = msgspec.msgpack.decode(row_kv.value, type=SlotRow)
        held = unpack(Staple, row.staple, bytes_max=SIGNED_BYTES_MAX)
        record = decode_body(Type.SLOT_RECORD, SlotRecord, held.signed)
        victim = record.relays[0]
        thief = self._thief = await self._rogue_machine(victim.name)
        seat = Seat(victim.name, thief.node, (thief.address,), "mal", "mal", REGION)
        rogue = msgspec.structs.replace(
            record,
            version=Version(record.version.epoch, record.version.n + 1),
            issued_at=int(self._clock.wall()),
            relays=(seat, *record.relays[1:]),
        )
        staple = parts.authority.sign(Type.SLOT_RECORD, rogue)
        liars = [SigningKey(self._entropy.bytes(32)) for _ in range(2)]
        witnesses = self._rogue_witnesses(liars)
        parts.log.note(leaf_of(staple.signed))
        parts.log.note(leaf_of(witnesses.signed))
        await parts.log.settle()
        staple, witnesses = (self._cosigned(item, liars) for item in (staple, witnesses))
        changed = msgspec.structs.replace(
            row, version=rogue.version, seats=rogue.seats(), staple=pack(staple)
        )
        await parts.store.txn([], [Put(row_kv.key, pack(changed))])
        thief.tell(
            Desired(
                version=1,
                term=1,
                name=victim.name,
                role=Role.RELAY,
                slots=(staple,),
                revocations=None,
                witnesses=witnesses,
            )
        )
        blocked = next(m for m in self._machines if m.node == victim.node)
        await blocked.silence()
        host, port = thief.address.rsplit(":", 1)
        await parts.zone.replace(victim.name, [host], int(port), thief.node)
        return thief

    async def _rogue_machine(self, name: str) -> Machine:
        """A machine of the thief's with a certificate for an honest relay's name."""
        machine = Machine(self._home / "thief", self._clock, self._entropy)
        key = TlsKey.from_bytes(self._entropy.bytes(32))
        chain = self._parts.authority.issue(key.spki(), Role.RELAY, machine.node, name)
        self._parts.log.note(Leaf(CERTIFICATE, chain[0]))
        files = machine.home.directory
        (files / "chain.pem").write_bytes(to_pem(chain))
        (files / "key.pem").write_bytes(key.pem())
        machine.home.pin_roots(self._parts.authority.roots)
        await machine.serve(Role.RELAY, name, files / "chain.pem", files / "key.pem")
        return machine

    def _rogue_witnesses(self, liars: list[SigningKey]) -> Staple:
        authority, known = self._parts.authority, self._parts.witnesses.current
        version = Version(0, known.version.n + 1 if known else 1)
        keys = tuple(WitnessKey(key.public, f"liar{n}") for n, key in enumerate(liars))
        now = int(self._clock.wall())
        named = WitnessSet(authority.network, version, now, keys)
        staple: Staple = authority.sign(Type.WITNESSES, named)
        return staple

    def _cosigned(self, staple: Staple, liars: list[SigningKey]) -> Staple:
        """The statement's place in the forked log, cosigned by the thief's own witnesses."""
        parts = self._parts
        size, at = len(parts.log.tree), int(self._clock.wall())
        note = parts.checkpoints.note(size)
        for key in liars:
            name = witness_name(DOMAIN, key.node)
            signature = key.sign(cosignature_input(note.text, at))
            note = note.with_lines([cosignature_line(name, key.public, at, signature)])
        index = parts.log.index(leaf_of(staple.signed))
        assert index is not None, "settled before"
        path, authority = parts.log.tree.path(index, size), parts.authority
        logged = Logged(
            index, path, note.render(), authority.identity_public, authority.intermediate
        )
        return msgspec.structs.replace(staple, logged=logged)

    # --- Judging ---------------------------------------------------------------------------------
    async def _judge(
        self, report: RogueReport, thief: Machine, guarded: list[Victim], control: list[Victim]
    ) -> None:
        """Let everybody use the network until the control clients are lost, and longer."""
        report.control_clients, report.nodes = len(control), len(self._machines)

        async def everybody() -> None:
            for victim in (*guarded, *control):
                try:
                    await victim.put()
                    await victim.refresh()
                except HoldfastError:
                    continue

        async def lost() -> bool:
            await everybody()
            return all(victim.misled_by(thief.node) for victim in control)

        try:
            await self._until_async(lost, "the control clients' ruin")
            until = self._clock.elapsed() + QUIET_S * self._clock.scale
            while self._clock.elapsed() < until:
                await everybody()
                await self._clock.sleep_real(POLL_S)
        except OperationFault:
            pass  # the report says how many were lost
        report.control_misled = sum(victim.misled_by(thief.node) for victim in control)
        report.clients_misled = sum(victim.misled_by(thief.node) for victim in guarded)
        report.refused = sum(str(v.slot.roster.refused) == "unwitnessed" for v in guarded)
        for victim in guarded:
            known = victim.store.records.trust.witness_set(victim.slot.roster.network.id)
            owners = known.owners if known else frozenset()
            report.rogue_witness_set_followed += bool(owners & {"liar0", "liar1"})
            report.stored += victim.slot.uploader.bytes_below(Stage.STORED) == 0
        report.witnesses = sum(machine.has_evidence() for machine in self._machines)

    async def _until(self, true: Callable[[], bool], what: str) -> None:
        async def once() -> bool:
            return true()

        await self._until_async(once, what)

    async def _until_async(self, true: Callable[[], Awaitable[bool]], what: str) -> None:
        """Poll until it holds. Raises OperationFault when it does not."""
        try:
            async with self._clock.real_timeout(WAIT_S):
                while not await true():
                    await self._clock.sleep_real(POLL_S)
        except TimeoutError as error:
            raise OperationFault(f"{what} did not come about in {WAIT_S:.0f} s") from error
