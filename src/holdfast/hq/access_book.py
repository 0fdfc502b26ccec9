"""The access layer as this HQ process knows it: the rows of `/access/`, and orders made from them.

Orders are derived, never stored (as `hq.desired`, which asks here for the part of each entry and
core). A change of a row concerns the nodes of its cell; usage concerns nobody until a limit is
reached, so that counting wakes no one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from holdfast.crypto.pure import base32, hash_bytes
from holdfast.errors import PeerFault
from holdfast.logic.access.choice import reserve_left, targets
from holdfast.logic.access.model import (
    SHARED_LANE,
    Cell,
    CellId,
    CellState,
    Core,
    Device,
    DeviceId,
    Entry,
    ExitPolicy,
    Member,
    lane_of,
)
from holdfast.logic.access.rows import (
    ACCESS,
    CELLS,
    CORES,
    CRLS,
    DEVICES,
    LOADS,
    MEMBERS,
    POLICIES,
    USAGE,
    CoreUsage,
    token_key,
)
from holdfast.logic.access.subscription import (
    Face,
    SubscriptionState,
    SubscriptionView,
    Usage,
    state_of,
    view_of,
)
from holdfast.logic.fleet.model import NetworkId, Role
from holdfast.logic.fleet.rows import NodeRow, NodeState, ServerRow
from holdfast.logic.fleet.state import DOWN
from holdfast.rim.clock import Clock
from holdfast.rim.control.follow import follow
from holdfast.rim.control.store import Batch, ControlStore, Event
from holdfast.wire.access import CoreOrders, EntryOrders, Lane, User

SHARED_LABEL: Final = "shared"
_SHAPES: Final[dict[str, Any]] = {
    CELLS: Cell,
    MEMBERS: Member,
    DEVICES: Device,
    POLICIES: ExitPolicy,
    USAGE: Usage,
    CORES: CoreUsage,
    LOADS: float,
    CRLS: bytes,
}
Peers = Callable[[CellId], Iterable[tuple[NodeRow, ServerRow | None]]]
"""The nodes of a cell with their servers' rows."""
Concern = Callable[[CellId, int], None]
"""Something at this revision concerns the nodes of a cell."""


class AccessBook:
    """Rows by id, and what follows from them."""

    def __init__(
        self, store: ControlStore, clock: Clock, network: NetworkId, domain: str, face: Face
    ) -> None:
        """`domain` is the network's: under it the nodes' own certificates serve clients, who are
        told to trust the network's roots; elsewhere they trust public authorities."""
        self._store = store
        self._clock = clock
        self._network = network
        self._domain = domain
        self.face = face
        self.cells: dict[CellId, Cell] = {}
        self.members: dict[str, Member] = {}
        self.devices: dict[DeviceId, Device] = {}
        self.policies: dict[str, ExitPolicy] = {}
        self.usage: dict[str, Usage] = {}
        self.cores: dict[str, CoreUsage] = {}
        self.loads: dict[str, float] = {}
        self.crls: dict[str, bytes] = {}
        self._of_cell: defaultdict[CellId, set[DeviceId]] = defaultdict(set)
        self._of_member: defaultdict[str, set[DeviceId]] = defaultdict(set)
        self._by_token: dict[bytes, DeviceId] = {}
        self._tables: Mapping[str, dict[str, Any]] = {
            CELLS: self.cells,
            MEMBERS: self.members,
            DEVICES: self.devices,
            POLICIES: self.policies,
            USAGE: self.usage,
            CORES: self.cores,
            LOADS: self.loads,
            CRLS: self.crls,
        }
        self.peers: Peers = lambda _cell: ()
        self.concern: Concern = lambda _cell, _revision: None
        self.tasks: list[asyncio.Task[None]] = []
        """Following the store; one that ends has failed."""

    # --- Life ------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Load and follow. Raises OperationFault."""
        revision = await self._load()
        work = follow(self._store, ACCESS, revision, self._see, self._load, self._clock)
        self.tasks.append(asyncio.create_task(work))

    async def stop(self) -> None:
        """Stop following."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    # --- Asked -----------------------------------------------------------------------------------
    def orders(self, row: NodeRow) -> tuple[EntryOrders | None, CoreOrders | None]:
        """What an entry or a core must know; nothing for anybody else. A cell that is not active
        has no devices and no lanes."""
        cell = self.cells.get(row.cell)
        if cell is None or row.state is not NodeState.ACTIVE:
            return None, None
        if row.role is Role.ENTRY:
            return self._entry_orders(row, cell), None
        if row.role is Role.CORE:
            return None, self._core_orders(row, cell)
        return None, None

    def devices_of(self, cell: CellId) -> list[Device]:
        """The devices of a cell."""
        return [self.devices[id] for id in sorted(self._of_cell[cell])]

    def devices_of_member(self, member: str) -> list[Device]:
        """A member's devices."""
        return [self.devices[id] for id in sorted(self._of_member[member])]

    def state(self, device: Device) -> SubscriptionState:
        """Whether a device is served."""
        member = self.members.get(device.member)
        if member is None:
            return SubscriptionState.REVOKED
        used = self.usage.get(member.id, Usage()).total
        return state_of(member, device, used, self._clock.wall())

    def entries(self, cell: CellId) -> list[Entry]:
        """The entries of a cell that are members."""
        return [
            Entry(
                name=row.name,
                node=row.node,
                cell=row.cell,
                region=row.region,
                owner=row.owner,
                addresses=server.addresses if server and server.node == row.node else row.addresses,
                alive=server is None or server.node != row.node or server.tier not in DOWN,
                draining=server is not None and server.node == row.node and server.draining,
            )
            for row, server in self.peers(cell)
            if row.role is Role.ENTRY
        ]

    def core_nodes(self, cell: CellId) -> list[Core]:
        """The cores of a cell that are members, with their policies and what they have carried."""
        month = month_of(self._clock.wall())
        found = []
        for row, server in self.peers(cell):
            if row.role is not Role.CORE:
                continue
            seated = server is not None and server.node == row.node
            used = self.cores.get(row.name, CoreUsage())
            used = used if used.month == month else CoreUsage()
            core = Core(
                name=row.name,
                node=row.node,
                cell=row.cell,
                region=row.region,
                owner=row.owner,
                addresses=server.addresses if server is not None and seated else row.addresses,
                policy=self.policies.get(row.name, ExitPolicy()),
                draining=server is not None and seated and server.draining,
                load=self.loads.get(row.name, 0.0),
                reserve_used=used.reserve,
                total_used=used.reserve + used.own,
            )
            found.append(core)
        return found

    def device_with(self, token: str) -> Device | None:
        """The device with this subscription token, as far as this process knows yet."""
        id = self._by_token.get(hash_bytes(token.encode()))
        return self.devices.get(id) if id is not None else None

    async def find_device(self, token: str) -> Device | None:
        """The same, asking the store about one that another process may just have made."""
        known = self.device_with(token)
        if known is not None:
            return known
        kv = await self._store.get(token_key(token))
        return self.devices.get(kv.value.decode()) if kv is not None else None

    def view(self, device: Device) -> SubscriptionView:
        """A device's subscription now. Raises PeerFault for one whose member is unknown."""
        member, cell = self.members.get(device.member), self.cells.get(device.cell)
        if member is None or cell is None:
            raise PeerFault("no such subscription", code="not-found")
        ours = cell.domain.endswith("." + self._domain)
        face = self.face if ours else msgspec.structs.replace(self.face, roots="")
        return view_of(
            face=face,
            member=member,
            device=device,
            devices=len(self._of_member[member.id]),
            cell=cell,
            entries=self.entries(cell.id),
            usage=self.usage.get(member.id, Usage()),
            now=self._clock.wall(),
        )

    def label_of(self, lane: str) -> str:
        """What entries and cores call the lane of an owner: it tells them nothing of the name."""
        if lane == SHARED_LANE:
            return SHARED_LABEL
        return "l" + base32(hash_bytes(self._network + lane.encode()))[:12]

    # --- Orders ----------------------------------------------------------------------------------
    def _entry_orders(self, row: NodeRow, cell: Cell) -> EntryOrders:
        cores = self.core_nodes(cell.id)
        served = [d for d in self.devices_of(cell.id) if self._is_served(d, cell)]
        lane_names = sorted({lane_of(self.members[d.member]) for d in served})
        users = tuple(
            User(d.id, d.credential, self.label_of(lane_of(self.members[d.member]))) for d in served
        )
        lanes = tuple(
            Lane(self.label_of(name), targets(name, row.region, cores)) for name in lane_names
        )
        return EntryOrders(
            cell=cell.id,
            domain=cell.domain,
            core_domain=cell.core_domain,
            epochs=cell.epochs,
            users=users,
            lanes=lanes,
            crls=self._crls(),
        )

    def _is_served(self, device: Device, cell: Cell) -> bool:
        return cell.state is CellState.ACTIVE and self.state(device) is SubscriptionState.ACTIVE

    def _core_orders(self, row: NodeRow, cell: Cell) -> CoreOrders:
        core = next(item for item in self.core_nodes(cell.id) if item.node == row.node)
        used = self.cores.get(row.name, CoreUsage())
        cap = core.policy.monthly_bytes
        own_left = max(0, cap - core.total_used)
        return CoreOrders(
            cell=cell.id,
            core_domain=cell.core_domain,
            lane=self.label_of(row.owner),
            policy=core.policy,
            entries=tuple(sorted(entry.node for entry in self.entries(cell.id))),
            incarnation=used.incarnation,
            reserve_counted=used.reserve_counted,
            reserve_until=used.reserve_counted + reserve_left(core),
            own_until=used.own_counted + own_left if cap else -1,
            crls=self._crls(),
        )

    def _crls(self) -> tuple[bytes, ...]:
        """The revocation lists of all intermediates: a proxy believes no leaf without one."""
        return tuple(self.crls[key] for key in sorted(self.crls))

    # --- From the store --------------------------------------------------------------------------
    async def _load(self) -> int:
        for table in (*self._tables.values(), self._of_cell, self._of_member):
            table.clear()
        self._by_token.clear()
        first: int | None = None
        for prefix in _SHAPES:
            reply = await self._store.range(prefix)
            first = reply.revision if first is None else first
            for kv in reply.items:
                self._learn(Event(kv))
        assert first is not None
        for cell in self.cells:
            self.concern(cell, first)
        return first

    async def _see(self, batch: Batch) -> None:
        for event in batch.events:
            for cell in self._learn(event):
                self.concern(cell, batch.revision)

    def _learn(self, event: Event) -> set[CellId]:
        """Take a change in; the cells whose nodes it concerns."""
        key = event.kv.key
        for prefix, shape in _SHAPES.items():
            if key.startswith(prefix):
                name, table = key.removeprefix(prefix), self._tables[prefix]
                before = table.pop(name, None)
                row = None if event.deleted else msgspec.msgpack.decode(event.kv.value, type=shape)
                if row is not None:
                    table[name] = row
                return self._concerned(prefix, name, before, row)
        return set()

    def _concerned(self, prefix: str, name: str, before: Any, row: Any) -> set[CellId]:
        match prefix:
            case "/access/cells/":
                return {name}
            case "/access/devices/":
                return self._index(name, before, row)
            case "/access/members/":
                return {self.devices[id].cell for id in self._of_member[name]}
            case "/access/policies/" | "/access/loads/" | "/access/crls/":
                return set(self.cells)
            case "/access/usage/":
                return self._quota_crossed(name, before or Usage(), row or Usage())
            case _:
                return self._core_crossed(before or CoreUsage(), row or CoreUsage())

    def _index(self, id: DeviceId, before: Device | None, row: Device | None) -> set[CellId]:
        concerned = set()
        if before is not None:
            self._of_cell[before.cell].discard(id)
            self._of_member[before.member].discard(id)
            self._by_token.pop(before.token_hash, None)
            concerned.add(before.cell)
        if row is not None:
            self._of_cell[row.cell].add(id)
            self._of_member[row.member].add(id)
            self._by_token[row.token_hash] = id
            concerned.add(row.cell)
        if before is not None and row is not None and _same(before, row):
            return set()  # it fetched its subscription, which is nothing to its entries
        return concerned

    def _quota_crossed(self, member: str, before: Usage, now: Usage) -> set[CellId]:
        quota = self.members[member].quota_bytes if member in self.members else 0
        if not quota or (before.total < quota) == (now.total < quota):
            return set()
        return {self.devices[id].cell for id in self._of_member[member]}

    def _core_crossed(self, before: CoreUsage, now: CoreUsage) -> set[CellId]:
        """A core's reserve is spent, or a new month gave it back: who chooses cores must know."""
        same_base = (before.month, before.incarnation) == (now.month, now.incarnation)
        spent = any(
            (before.reserve < limit) != (now.reserve < limit)
            for limit in {policy.reserve_bytes for policy in self.policies.values()}
            | {ExitPolicy().reserve_bytes}
        )
        return set() if same_base and not spent else set(self.cells)


def month_of(wall: float) -> int:
    """Whole months of 30.44 days since 1970: when allowances begin anew."""
    return int(wall // 2_629_746)


def _same(before: Device, row: Device) -> bool:
    seen = msgspec.structs.replace(before, fetched_at=row.fetched_at, client=row.client)
    return seen == row
