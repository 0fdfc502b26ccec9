"""What HQ wants of each node, derived from rows, told by long poll.

A node's desired state is: the records of the slots that name it and of those it leaves, whether it
drains or is retired, the revocation list, and the network's constants. Nothing of it is stored. Its
version is the revision of the newest change that concerns the node, so it grows with the control
store and means the same at every HQ process; after a restart it is the revision that was loaded,
which is never lower than a version told before. Only nodes that a change concerns are woken and
computed anew.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from holdfast.errors import OperationFault, PeerFault
from holdfast.hq.access_book import AccessBook
from holdfast.hq.leader import TERM
from holdfast.hq.revocation import REVOCATION_LIST
from holdfast.limits import WATCH_WAIT_S_MAX
from holdfast.logic.access.model import CellId
from holdfast.logic.fleet.model import ACCESS, NodeId, SlotId
from holdfast.logic.fleet.rollout_rows import (
    PLACES,
    RELEASES,
    ROLLOUT,
    PlaceRow,
    ReleaseRow,
    RolloutRow,
    default_release,
)
from holdfast.logic.fleet.rows import (
    MOVES,
    NODES,
    SERVERS,
    SLOTS,
    MoveRow,
    NodeRow,
    NodeState,
    ServerRow,
    SlotRow,
    node_key,
)
from holdfast.rim.clock import Clock
from holdfast.rim.control.follow import follow
from holdfast.rim.control.store import Batch, ControlStore, Event, KeyValue
from holdfast.wire.codec import unpack
from holdfast.wire.hq import Desired, Terms
from holdfast.wire.records import Staple
from holdfast.wire.signed import SIGNED_BYTES_MAX
from holdfast.wire.versions import WIRE

_FLEET: Final = "/fleet/"
TICKET_KEYS: Final = "/trust/ticket-keys"
"""The newest ticket keys, as a staple (`hq.tickets`)."""
WITNESS_SET: Final = "/trust/witnesses"
"""The newest witness set, as a staple (`hq.witnesses`)."""
_SHAPES: Final[dict[str, Any]] = {
    SERVERS: ServerRow,
    NODES: NodeRow,
    SLOTS: SlotRow,
    MOVES: MoveRow,
}
_OF_RELEASES: Final[dict[str, Any]] = {PLACES: PlaceRow, ROLLOUT: RolloutRow, RELEASES: ReleaseRow}


class Constants(msgspec.Struct, frozen=True):
    """What every node is told alike."""

    report_tag_age_s: float
    resolvers: tuple[str, ...]
    terms: Terms | None = None


class DesiredBook:
    """The desired state of every node, kept up to date from the store."""

    def __init__(
        self,
        store: ControlStore,
        clock: Clock,
        constants: Constants,
        current: Callable[[Staple], Staple] = lambda staple: staple,
        access: AccessBook | None = None,
    ) -> None:
        """`current` puts today's proofs on a stored statement: HQ's, and the log's; `access` knows
        what entries and cores are told."""
        self._current = current
        self._access = access
        if access is not None:
            access.peers, access.concern = self.peers, self.concern
        self._store = store
        self._clock = clock
        self._constants = constants
        self._nodes: dict[NodeId, NodeRow] = {}
        self._servers: dict[str, ServerRow] = {}
        self._slots: dict[SlotId, SlotRow] = {}
        self._slots_of: defaultdict[NodeId, set[SlotId]] = defaultdict(set)
        self._left: defaultdict[NodeId, set[SlotId]] = defaultdict(set)
        """Slots in which another node has taken the seat of one that is still a member."""
        self._moves: dict[SlotId, MoveRow] = {}
        """Slots that were moved from one server to another, which is not filled yet."""
        self._of_cell: defaultdict[CellId, set[NodeId]] = defaultdict(set)
        self._places: dict[str, PlaceRow] = {}
        self._releases: dict[bytes, Staple] = {}
        self._rollout: RolloutRow | None = None
        self._versions: dict[NodeId, int] = {}
        self._floor = 0
        self._made: dict[NodeId, Desired] = {}
        self._waiters: defaultdict[NodeId, set[asyncio.Future[None]]] = defaultdict(set)
        self.tasks: list[asyncio.Task[None]] = []
        """Following the store; one that ends has failed."""
        self.revocations: Staple | None = None
        self.witnesses: Staple | None = None
        self.ticket_keys: Staple | None = None
        self.term = 0
        self.computed = 0
        """How many desired states were computed since the start."""

    # --- Life ------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Load and follow. Raises OperationFault."""
        revision = await self._load()
        for prefix in (_FLEET, RELEASES, REVOCATION_LIST, WITNESS_SET, TICKET_KEYS, TERM):
            work = follow(self._store, prefix, revision, self._see, self._load, self._clock)
            self.tasks.append(asyncio.create_task(work))

    async def stop(self) -> None:
        """Stop following; long polls end with what is known."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for node in list(self._waiters):
            self._wake(node)

    # --- Asked -----------------------------------------------------------------------------------
    @property
    def nodes_count(self) -> int:
        """Nodes that ever joined."""
        return len(self._nodes)

    @property
    def slots_count(self) -> int:
        """Slots there are."""
        return len(self._slots)

    @property
    def groups_count(self) -> int:
        """Groups counted on all slots."""
        return sum(row.groups for row in self._slots.values())

    def node(self, node: NodeId) -> NodeRow | None:
        """The row of a node, as far as this process has heard."""
        return self._nodes.get(node)

    async def find(self, node: NodeId) -> NodeRow | None:
        """As `node`, asking the store about one that has joined a moment ago."""
        row = self._nodes.get(node)
        if row is None:
            kv = await self._store.get(node_key(node))
            if kv is not None and node not in self._nodes:
                self._learn(Event(kv))
                self._versions[node] = kv.mod_revision
            row = self._nodes.get(node)
        return row

    def slot(self, slot: SlotId) -> SlotRow | None:
        """The row of a slot."""
        return self._slots.get(slot)

    def staples(self) -> list[tuple[SlotId, bytes]]:
        """Every slot that has a record, and its staple as it is stored."""
        return [(slot, row.staple) for slot, row in self._slots.items() if row.staple]

    def active(self) -> list[NodeRow]:
        """Nodes that are members now."""
        return [row for row in self._nodes.values() if row.state is NodeState.ACTIVE]

    def touch_all(self, revision: int) -> None:
        """What is stapled for everybody changed with that revision of the store."""
        self._raise_floor(revision)

    def touch(self, slots: Iterable[SlotId], revision: int) -> None:
        """What is stapled to these slots' records changed with that revision of the store."""
        for slot in slots:
            row = self._slots.get(slot)
            for node in self._concerned(slot) if row else ():
                self._versions[node] = max(self._versions.get(node, 0), revision)
                self._wake(node)

    def _concerned(self, slot: SlotId) -> set[NodeId]:
        """Who has a seat in a slot, and who left one there."""
        return self._leavers(slot) | {seat.node for seat in self._slots[slot].seats}

    def _leavers(self, slot: SlotId) -> set[NodeId]:
        return {node for node, slots in self._left.items() if slot in slots}

    def version(self, node: NodeId) -> int:
        """The version of a node's desired state."""
        return max(self._versions.get(node, 0), self._floor)

    def desired(self, node: NodeId) -> Desired:
        """What HQ wants of `node` now. Raises PeerFault for one that never joined."""
        made, version = self._made.get(node), self.version(node)
        if made is None or (made.version, made.term) != (version, self.term):
            made = self._made[node] = self._compute(node, version)
        return made

    async def wait(self, node: NodeId, after: int, wait_s: float = WATCH_WAIT_S_MAX) -> Desired:
        """As `desired`, once its version is above `after` or `wait_s` real seconds are over."""
        if self.version(node) <= after:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters[node].add(waiter)
            try:
                async with self._clock.real_timeout(min(wait_s, WATCH_WAIT_S_MAX)):
                    await waiter
            except TimeoutError:
                pass
            finally:
                self._waiters[node].discard(waiter)
                if not self._waiters[node]:
                    del self._waiters[node]
        return self.desired(node)

    def _compute(self, node: NodeId, version: int) -> Desired:
        self.computed += 1
        row = self._nodes.get(node)
        if row is None:
            raise PeerFault("this node never joined here", code="forbidden")
        server = self._servers.get(row.name)
        records = sorted(self._slots_of.get(node, ()))
        staples = [self._slots[slot].staple for slot in records]
        leaves = row.state is NodeState.ACTIVE
        left = [
            self._slots[slot].staple
            for slot in sorted(self._left.get(node, ()))
            if leaves and slot in self._slots
        ]
        entry, core = self._access.orders(row) if self._access is not None else (None, None)
        return Desired(
            version=version,
            term=self.term,
            name=row.name,
            role=row.role,
            slots=tuple(self._current(_staple(data)) for data in staples if data),
            revocations=self._current(self.revocations) if self.revocations else None,
            retired=row.state is not NodeState.ACTIVE,
            draining=server is not None and server.node == node and server.draining,
            entry=entry,
            core=core,
            report_tag_age_s=self._constants.report_tag_age_s,
            resolvers=self._constants.resolvers,
            terms=self._constants.terms,
            witnesses=self._current(self.witnesses) if self.witnesses else None,
            ticket_keys=self.ticket_keys,
            left=tuple(self._current(_staple(data)) for data in left if data),
            wire=WIRE,
            release=self._release(row.name),
            release_required_at=self._rollout.required_at if self._rollout is not None else 0.0,
        )

    def _release(self, name: str) -> Staple | None:
        """What a server is to run, as it was signed. Raises OperationFault while only its name has
        come: no release would mean what is installed."""
        wanted = self._wanted(name)
        if wanted and wanted not in self._releases:
            raise OperationFault("a release is not known here yet; ask again")
        return self._releases.get(wanted)

    def _wanted(self, name: str) -> bytes:
        """The release that whoever serves as `name` is to run."""
        place = self._places.get(name)
        return place.release if place is not None else default_release(self._rollout)

    # --- Cells -----------------------------------------------------------------------------------
    def peers(self, cell: CellId) -> Iterator[tuple[NodeRow, ServerRow | None]]:
        """The entries and cores of a cell that are members now, with their servers' rows."""
        for node in sorted(self._of_cell[cell]):
            row = self._nodes[node]
            if row.state is NodeState.ACTIVE:
                yield row, self._servers.get(row.name)

    def concern(self, cell: CellId, revision: int) -> None:
        """Something that happened at `revision` concerns the nodes of a cell."""
        for node in self._of_cell[cell]:
            self._versions[node] = max(self._versions.get(node, 0), revision)
            self._made.pop(node, None)
            self._wake(node)

    # --- From the store --------------------------------------------------------------------------
    async def _load(self) -> int:
        tables: tuple[dict[Any, Any], ...] = (
            self._nodes,
            self._servers,
            self._slots,
            self._slots_of,
            self._made,
            self._moves,
            self._places,
        )
        for table in tables:
            table.clear()
        first: int | None = None
        for prefix in (*_SHAPES, *_OF_RELEASES, REVOCATION_LIST, WITNESS_SET, TICKET_KEYS, TERM):
            reply = await self._store.range(prefix)
            first = reply.revision if first is None else first
            for kv in reply.items:
                self._learn(Event(kv), quiet=True)
        assert first is not None
        self._recall_leavers()
        self._raise_floor(first)
        return first

    def _recall_leavers(self) -> None:
        """Who left a slot was seen happening; after a start it is told by the names, and by the
        moves that are under way."""
        for move in self._moves.values():
            held = self._nodes.get(move.former_node)
            leaves = move.slot not in self._slots_of.get(move.former_node, ())
            if held is not None and held.state is NodeState.ACTIVE and leaves:
                self._left[move.former_node].add(move.slot)
        for row in self._nodes.values():
            server = self._servers.get(row.name)
            if row.state is not NodeState.ACTIVE or server is None:
                continue
            if server.node not in (b"", row.node):
                theirs = self._slots_of.get(server.node, set())
                self._left[row.node] |= theirs - self._slots_of.get(row.node, set())

    async def _see(self, batch: Batch) -> None:
        for event in batch.events:
            for node in self._learn(event):
                self._versions[node] = max(self._versions.get(node, 0), batch.revision)
                self._wake(node)

    def _learn(self, event: Event, *, quiet: bool = False) -> set[NodeId]:
        """Take a change in; the nodes it concerns."""
        kv = event.kv
        if kv.key == TERM:
            self.term = max(self.term, int(kv.value or b"0"))
            return set()
        if kv.key == REVOCATION_LIST:
            self.revocations = _staple(kv.value)
            if not quiet:
                self._raise_floor(kv.mod_revision)
            return set()
        if kv.key == TICKET_KEYS:
            self.ticket_keys = _staple(kv.value)
            if not quiet:
                self._raise_floor(kv.mod_revision)
            return set()
        if kv.key == WITNESS_SET:
            self.witnesses = _staple(kv.value)
            if not quiet:
                self._raise_floor(kv.mod_revision)
            return set()
        for prefix, shape in _OF_RELEASES.items():
            if kv.key.startswith(prefix):
                row = None if event.deleted else msgspec.msgpack.decode(kv.value, type=shape)
                return self._take_release(prefix, kv, row, quiet)
        for prefix, shape in _SHAPES.items():
            if kv.key.startswith(prefix):
                row = None if event.deleted else msgspec.msgpack.decode(kv.value, type=shape)
                return self._take(prefix, kv, row)
        return set()

    def _take(self, prefix: str, kv: KeyValue, row: Any) -> set[NodeId]:
        name = kv.key.removeprefix(prefix)
        if prefix == SLOTS:
            return self._take_slot(bytes.fromhex(name), row)
        if prefix == SERVERS:
            return self._take_server(name, row)
        if prefix == MOVES:
            return self._take_move(bytes.fromhex(name), row)
        if row is None:  # nodes are never deleted; one that is, is nobody
            return set()
        before = self._nodes.get(row.node)
        self._nodes[row.node] = row
        if row.cell:
            self._of_cell[row.cell].add(row.node)
        if row.state is not NodeState.ACTIVE:
            self._left.pop(row.node, None)
        same = before is not None and (before.state, before.name) == (row.state, row.name)
        return set() if same else {row.node, *self._of_cell.get(row.cell, ())}

    def _take_server(self, name: str, row: ServerRow | None) -> set[NodeId]:
        """A server's tier and load are nothing to its node; who sits there, where, and draining
        are, and to the nodes of its cell."""
        before = self._servers.pop(name, None)
        if row is not None:
            self._servers[name] = row
        told = {
            (r.node, r.draining, r.addresses if r.role in ACCESS else ())
            for r in (before, row)
            if r is not None
        }
        if len(told) == 1 and before is not None:
            return set()
        nodes = {node for node, _, _ in told if node}
        cells = {self._nodes[node].cell for node in nodes if node in self._nodes} - {""}
        return nodes.union(*(self._of_cell[cell] for cell in cells))

    def _take_move(self, slot: SlotId, row: MoveRow | None) -> set[NodeId]:
        """Once the new server is filled, the former one lets the slot go."""
        before = self._moves.pop(slot, None)
        if row is not None:
            self._moves[slot] = row
        if before is None or row is not None:
            return set()
        self._left.get(before.former_node, set()).discard(slot)
        return {before.former_node}

    def _take_release(self, prefix: str, kv: KeyValue, row: Any, quiet: bool) -> set[NodeId]:
        """What releases there are, and who is to run which."""
        if prefix == RELEASES:
            if row is not None:
                self._releases[row.id] = _staple(row.staple)
            return set()  # nobody runs one before a place or the rollout names it
        if prefix == ROLLOUT:
            before, self._rollout = self._rollout, row
            told = [(default_release(r), r.required_at if r else 0.0) for r in (before, row)]
            if told[0] != told[1] and not quiet:
                self._raise_floor(kv.mod_revision)
            return set()
        name = kv.key.removeprefix(prefix)
        wanted = self._wanted(name)
        self._places.pop(name, None)
        if row is not None:
            self._places[name] = row
        server = self._servers.get(name)
        changed = wanted != self._wanted(name) and server is not None
        return {server.node} if changed and server is not None else set()

    def _take_slot(self, slot: SlotId, row: SlotRow | None) -> set[NodeId]:
        before = self._slots.pop(slot, None)
        old = {seat.node for seat in before.seats} if before is not None else set()
        new = {seat.node for seat in row.seats} if row is not None else set()
        if row is not None:
            self._slots[slot] = row
        leavers = self._leavers(slot)
        for node in old - new:
            self._slots_of[node].discard(slot)
            held = self._nodes.get(node)
            if row is not None and held is not None and held.state is NodeState.ACTIVE:
                self._left[node].add(slot)
        for node in new:
            self._slots_of[node].add(slot)
            self._left.get(node, set()).discard(slot)
        if before is not None and row is not None and before.staple == row.staple:
            return set()  # the count of its groups changed, which is HQ's business
        return old | new | leavers

    def _raise_floor(self, revision: int) -> None:
        """Something concerns everybody."""
        self._floor = max(self._floor, revision)
        for node in list(self._waiters):
            self._wake(node)

    def _wake(self, node: NodeId) -> None:
        for waiter in self._waiters.get(node, ()):
            if not waiter.done():
                waiter.set_result(None)


def _staple(data: bytes) -> Staple:
    return unpack(Staple, data, bytes_max=2 * SIGNED_BYTES_MAX)
