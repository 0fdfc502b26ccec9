"""Around the brain: a store in memory, clouds whose machines join, and a kill switch.

Everything HQ touches goes through `Gate`: the n-th touch (before or after it took effect) is where
HQ dies. From then on no touch of the dead HQ takes effect; the world starts a new one on the same
store. What was made and unmade is counted here, not by HQ.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from holdfast.crypto.certinfo import NodeName
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import OperationFault, UsageError
from holdfast.hq.brain import Brain
from holdfast.hq.leader import TERM
from holdfast.limits import HEARTBEAT_PERIOD_S
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.model import Load, NodeId, SlotRecord, Tier, Version
from holdfast.logic.fleet.rows import IntentRow, NodeRow, NodeState, node_key
from holdfast.rim.clock import Clock, ManualClock
from holdfast.rim.control.store import (
    Batch,
    Compare,
    Delete,
    Field,
    Get,
    KeyValue,
    Operation,
    Put,
    RangeReply,
    Relation,
    TxnReply,
    check_txn,
)
from holdfast.rim.entropy import SeededEntropy
from holdfast.wire.cloud import CreateServer, Server
from holdfast.wire.hq import Alert, Heartbeat, ProbeResult
from holdfast.wire.records import Staple
from holdfast.wire.signed import Signed, Type, body_of

T = TypeVar("T")
NETWORK = b"N" * 16
PROVIDERS = ("amber", "birch", "cedar")


class MemoryStore:
    """A `ControlStore` of one dictionary, with etcd's limits and none of its history."""

    def __init__(self) -> None:
        self.rows: dict[str, KeyValue] = {}
        self._revision = 0
        self.broken = False
        self.writes = 0

    async def get(self, key: str) -> KeyValue | None:
        self._check()
        return self.rows.get(key)

    async def range(self, prefix: str, limit: int = 0, after: str = "") -> RangeReply:
        self._check()
        keys = sorted(key for key in self.rows if key.startswith(prefix) and key > after)
        cut = keys[:limit] if limit else keys
        items = tuple(self.rows[key] for key in cut)
        return RangeReply(items, self._revision, len(cut) < len(keys))

    async def txn(
        self,
        compares: Sequence[Compare],
        success: Sequence[Operation],
        failure: Sequence[Operation] = (),
    ) -> TxnReply:
        self._check()
        check_txn(compares, success, failure)
        succeeded = all(self._holds(compare) for compare in compares)
        branch = success if succeeded else failure
        if any(not isinstance(item, Get) for item in branch):
            self._revision += 1
            self.writes += 1
        reads = []
        for item in branch:
            if isinstance(item, Get):
                reads.append(self.rows.get(item.key))
            elif isinstance(item, Delete):
                self.rows.pop(item.key, None)
            else:
                old = self.rows.get(item.key)
                self.rows[item.key] = KeyValue(
                    item.key,
                    item.value,
                    old.create_revision if old else self._revision,
                    self._revision,
                    old.version + 1 if old else 1,
                    item.lease,
                )
        return TxnReply(succeeded, self._revision, tuple(reads))

    def _holds(self, compare: Compare) -> bool:
        kv = self.rows.get(compare.key)
        if compare.field is Field.VALUE:
            return kv is not None and kv.value == compare.operand
        found = getattr(kv, compare.field.value) if kv else 0
        return {
            Relation.EQUAL: found == compare.operand,
            Relation.NOT_EQUAL: found != compare.operand,
            Relation.LESS: found < compare.operand,
            Relation.GREATER: found > compare.operand,
        }[compare.relation]

    def _check(self) -> None:
        if self.broken:
            raise OperationFault("the disk is gone")

    async def watch(self, prefix: str, from_revision: int) -> AsyncIterator[Batch]:
        raise NotImplementedError
        yield

    async def grant(self, ttl_s: float) -> int:
        return 1

    async def keep_alive(self, lease: int) -> None: ...

    async def revoke(self, lease: int) -> None: ...

    async def compact(self, revision: int) -> None: ...

    async def revision(self) -> int:
        return self._revision

    async def close(self) -> None: ...


class Gate:
    """Counts HQ's touches of the world; at `crash_at` the HQ behind it is dead."""

    def __init__(self, crash_at: int = -1) -> None:
        self.crash_at = crash_at
        self.touches = 0
        self.dead = asyncio.Event()

    async def touch(self, work: Callable[[], Awaitable[T]]) -> T:
        """`work`, with a place to die before it and one after it."""
        await self._boundary()
        result = await work()
        await self._boundary()
        return result

    async def _boundary(self) -> None:
        if not self.dead.is_set():
            self.touches += 1
            if self.touches != self.crash_at:
                return
            self.dead.set()
        await asyncio.Event().wait()  # a dead process does nothing more


class GatedStore:
    """The store as one HQ process sees it."""

    def __init__(self, store: MemoryStore, gate: Gate) -> None:
        self._store = store
        self._gate = gate

    async def get(self, key: str) -> KeyValue | None:
        return await self._store.get(key)

    async def range(self, prefix: str, limit: int = 0, after: str = "") -> RangeReply:
        return await self._store.range(prefix, limit, after)

    async def txn(self, *arguments: Any) -> TxnReply:
        return await self._gate.touch(lambda: self._store.txn(*arguments))


class FakeCloud:
    """A provider account: machines by name, and its own account of what it did."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self._clock = clock
        self.up = True
        self.machines: dict[str, Server] = {}
        self.created: list[str] = []
        self.deleted: list[str] = []

    def _check(self) -> None:
        if not self.up:
            raise OperationFault(f"{self.name} does not answer")

    async def create(self, request: CreateServer) -> Server:
        self._check()
        if request.name in self.machines:
            raise UsageError(f"{request.name} is taken")
        assert request.user_data.startswith("token for ")
        server = Server(
            name=request.name,
            region=request.region,
            address="127.0.0.1",
            state="running",
            created_at=self._clock.elapsed(),
        )
        self.machines[request.name] = server
        self.created.append(request.name)
        return server

    async def list(self) -> tuple[Server, ...]:
        self._check()
        return tuple(self.machines.values())

    async def delete(self, name: str) -> None:
        self._check()
        if self.machines.pop(name, None) is not None:
            self.deleted.append(name)


class GatedCloud:
    """A cloud as one HQ process sees it."""

    def __init__(self, cloud: FakeCloud, gate: Gate) -> None:
        self._cloud = cloud
        self._gate = gate

    async def create(self, request: CreateServer) -> Server:
        return await self._gate.touch(lambda: self._cloud.create(request))

    async def list(self) -> tuple[Server, ...]:
        return await self._cloud.list()

    async def delete(self, name: str) -> None:
        await self._gate.touch(lambda: self._cloud.delete(name))


class BrainWorld:
    """One HQ after another on one store, with clouds, nodes and DNS. Times are elapsed seconds."""

    def __init__(self, clock: ManualClock | None = None, *, store: MemoryStore | None = None):
        self.clock = clock or ManualClock(elapsed_s=1_000.0)
        self.store = store or MemoryStore()
        self.clouds = {name: FakeCloud(name, self.clock) for name in PROVIDERS}
        self.nodes: dict[NodeId, NodeRow] = {}
        self.alive: set[NodeId] = set()
        self.died_at: dict[NodeId, float] = {}
        self.seated_at: dict[NodeId, float] = {}
        self.zone: dict[str, NodeId] = {}
        self.lines: list[Audit] = []
        self.tokens: list[str] = []
        self.restarts = 0
        self.gate = Gate()
        self.brain: Brain = None  # type: ignore[assignment]
        self._joined: set[str] = set()
        self._spoke_at = self.clock.elapsed()

    # --- HQ --------------------------------------------------------------------------------------
    async def start(self, crash_at: int = -1) -> None:
        """A new HQ process; it dies at its `crash_at`-th touch."""
        self.gate = gate = Gate(crash_at)
        self.brain = Brain(
            store=GatedStore(self.store, gate),  # type: ignore[arg-type]
            clock=self.clock,
            entropy=SeededEntropy(1),
            clouds={name: GatedCloud(cloud, gate) for name, cloud in self.clouds.items()},
            zone=self._zone(gate),
            sign_record=sign_record,
            issue_token=self._issue_token,
            audit=self._audit,
            network=NETWORK,
            domain="example.net",
            ticking=False,
        )
        await self._unless_dead(self.brain.start())

    async def restart(self) -> None:
        self.restarts += 1
        await self.brain.stop()
        await self.start()

    def _zone(self, gate: Gate) -> Any:
        world = self

        class FakeZone:
            async def replace(
                self,
                name: str,
                addresses: Sequence[str],
                port: int,
                node: NodeId,
                previous: NodeId | None = None,
            ) -> None:
                assert port == 443
                assert addresses[0].startswith("127.")
                known = world.zone.get(name)
                if known == node:
                    return
                if previous is not None and known != previous:
                    raise OperationFault("another headquarters moved it", retryable=False)

                async def write() -> None:
                    world.zone[name] = node

                await gate.touch(write)

        return FakeZone()

    async def _issue_token(self, intent: IntentRow) -> str:
        self.tokens.append(intent.id)
        return f"token for {intent.id}"

    async def _audit(self, lines: Sequence[Audit]) -> None:
        self.lines += lines

    async def call(self, work: Awaitable[Any]) -> Any:
        """Await `work` of the present HQ; if HQ dies meanwhile, start the next one."""
        result = await self._unless_dead(work)
        if self.gate.dead.is_set():
            await self.restart()
        return result

    async def _unless_dead(self, work: Awaitable[Any]) -> Any:
        task = asyncio.ensure_future(work)
        dead = asyncio.ensure_future(self.gate.dead.wait())
        await asyncio.wait({task, dead}, return_when=asyncio.FIRST_COMPLETED)
        dead.cancel()
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return None

    async def idle(self) -> None:
        """Until HQ has nothing left to do; a dead one is replaced."""
        while True:
            for _ in range(3):
                await asyncio.sleep(0)
            if self.gate.dead.is_set():
                await self.restart()
            elif self.brain._queue.empty() and len(self.brain._tasks) == 1:
                return

    # --- Time ------------------------------------------------------------------------------------
    async def run(self, seconds: float, dt: float = 5.0) -> None:
        """Let time go by: machines join, nodes speak, peers say what they see."""
        end = self.clock.elapsed() + seconds
        while self.clock.elapsed() < end:
            self.clock.advance(min(dt, end - self.clock.elapsed()))
            await self.boot()
            if self.clock.elapsed() - self._spoke_at >= HEARTBEAT_PERIOD_S:
                self._spoke_at = self.clock.elapsed()
                await self.speak()
            await self.call(self.brain.tick())
            await self.idle()

    async def until(self, done: Callable[[], bool], seconds: float, dt: float = 5.0) -> float:
        start = self.clock.elapsed()
        while not done():
            assert self.clock.elapsed() - start < seconds, f"not within {seconds} s"
            await self.run(dt, dt)
        return self.clock.elapsed() - start

    # --- Nodes -----------------------------------------------------------------------------------
    async def boot(self) -> None:
        """Machines thirty seconds old join: the row is durable, then the brain hears of it."""
        for cloud in self.clouds.values():
            for server in list(cloud.machines.values()):
                due = self.clock.elapsed() - server.created_at >= 30
                if cloud.up and due and server.name not in self._joined:
                    self._joined.add(server.name)
                    await self._join(cloud.name, server)

    async def _join(self, provider: str, server: Server) -> None:
        intent = self.brain._machine.state.intents.get(server.name)
        if intent is None:
            return
        node = hash_bytes(server.name.encode())
        row = NodeRow(
            node=node,
            identity=b"i" * 32,
            name=intent.name,
            role=intent.role,
            region=intent.region,
            provider=provider,
            owner=intent.owner,
            addresses=(f"127.1.0.{len(self.nodes) % 250 + 1}:443",),
            serial=str(len(self.nodes)),
            cert_expires_at=0,
            joined_at=self.clock.wall(),
            intent=server.name,
        )
        self.nodes[node] = row
        self.alive.add(node)
        await self.store.txn([], [Put(node_key(node), msgspec.msgpack.encode(row))])
        await self.call(self.brain.joined(row))

    async def speak(self) -> None:
        """Every living node's heartbeat, then what peers have seen of the dead."""
        state = self.brain._machine.state
        for node in sorted(self.alive):
            if self.row(node).state is NodeState.ACTIVE:
                await self.call(self.brain.heartbeat(node, self.beat(node)))
        for node, since in list(self.died_at.items()):
            name = state.name_of.get(node)
            for peer in sorted(state.peers(name)) if name else ():
                witness = self.server(peer).node
                if witness in self.alive:
                    await self.accuse(witness, name or "", node, since)

    def beat(self, node: NodeId) -> Heartbeat:
        state = self.brain._machine.state
        name = state.name_of.get(node)
        recorded = name is not None and self.brain._machine.slots.is_recorded(name)
        since = self.seated_at.setdefault(node, self.clock.elapsed()) if recorded else None
        return Heartbeat(
            term=1,
            desired=1,
            revocations=Version(0, 0),
            load=Load(free_bytes=1, sessions=3),
            addresses=self.nodes[node].addresses,
            cert_serial="1",
            cert_expires_at=0,
            filled=since is not None and self.clock.elapsed() - since >= 60,
            version="1",
        )

    async def accuse(self, witness: NodeId, name: str, node: NodeId, since: float) -> None:
        """A peer's alert after probing `name` every thirty seconds since it died."""
        failed_s = self.clock.elapsed() - since
        failures = int(failed_s // 30) + 1
        alert = Alert(
            name=name,
            node=node,
            tier=Tier.ORANGE if failures >= 3 else Tier.YELLOW,
            clients=12,
            clients_active=40,
            regions=("eu",),
            first_reported_at=0.0,
            probe=ProbeResult(name, node, False, failures, self.clock.wall() - failed_s),
            observed_at=self.clock.wall(),
        )
        await self.call(self.brain.alert(sender(witness), alert))

    def kill(self, *names: str) -> None:
        for name in names:
            node = self.server(name).node
            self.alive.discard(node)
            self.died_at[node] = self.clock.elapsed()

    def lose(self, provider: str) -> list[NodeId]:
        """API and machines of a provider die together."""
        self.clouds[provider].up = False
        nodes = sorted(n for n in self.alive if self.nodes[n].provider == provider)
        for node in nodes:
            self.alive.discard(node)
            self.died_at[node] = self.clock.elapsed()
        return nodes

    def bring_back(self, provider: str, nodes: Sequence[NodeId]) -> None:
        self.clouds[provider].up = True
        for node in nodes:
            self.alive.add(node)
            self.died_at.pop(node, None)

    # --- Reading ---------------------------------------------------------------------------------
    def row(self, node: NodeId) -> NodeRow:
        """A node's row as it is stored."""
        kv = self.store.rows[node_key(node)]
        return msgspec.msgpack.decode(kv.value, type=NodeRow)

    def server(self, name: str) -> Any:
        return self.brain._machine.state.servers[name]

    @property
    def created(self) -> list[str]:
        return [name for cloud in self.clouds.values() for name in cloud.created]

    @property
    def debt(self) -> int:
        return self.brain.view().diversity_debt

    def verbs(self) -> list[str]:
        return [line.verb for line in self.lines]

    def is_whole(self) -> bool:
        view = self.brain.view()
        return (
            bool(view.servers)
            and (view.relays_min, view.replicas_min) == (3, 3)
            and all(
                server.tier is Tier.GREEN
                and self.server(server.name).node in self.alive
                and self.zone.get(server.name) == self.server(server.name).node
                for server in view.servers
            )
            and all(server.filled for server in view.servers)
            and all(intent.action != "spawn" for intent in view.intents)
        )


def sender(node: NodeId) -> NodeName:
    return NodeName(NETWORK, "relay", node)


def sign_record(record: SlotRecord) -> Staple:
    return Staple(Signed(body_of(Type.SLOT_RECORD, record), b"k" * 32, b"s" * 64), b"proof")


async def elect(store: MemoryStore, term: int) -> None:
    """Somebody leads with `term`."""
    await store.txn([], [Put(TERM, str(term).encode())])


Story = Callable[[BrainWorld], Awaitable[None]]


def run(story: Story, *, regions: tuple[str, ...] = ("eu",)) -> BrainWorld:
    """Launch, tell the story, stop."""

    async def main() -> BrainWorld:
        world = BrainWorld()
        await world.start()
        await world.call(world.brain.launch(regions))
        await world.until(world.is_whole, 3_000)
        await story(world)
        await world.brain.stop()
        return world

    return asyncio.run(main())
