"""What HQ does for the access layer: cells, members, devices, policies, subscriptions, epochs.

Every change is one transaction over the rows it read. Tokens of subscriptions are random, given
once and kept by hash; nothing in them leads to a member (unlike Marzban's, which hold the name).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec

from holdfast.crypto.pure import base32, hash_bytes
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.hq.access_book import AccessBook
from holdfast.hq.access_fetches import FetchLog
from holdfast.hq.access_usage import UsageLedger
from holdfast.hq.access_watch import CellWatch
from holdfast.hq.audit import AuditLog
from holdfast.limits.access import (
    CELL_DEVICES_MAX,
    CELLS_MAX,
    CONTACT_BYTES_MAX,
    DEVICES_PER_MEMBER_MAX,
    EPOCH_SECRET_BYTES,
    SUBSCRIPTION_TOKEN_BYTES,
)
from holdfast.logic.access.draining import Drains
from holdfast.logic.access.epochs import announced, closed, is_due, opened
from holdfast.logic.access.model import (
    Cell,
    CellId,
    CellState,
    Device,
    DeviceId,
    ExitPolicy,
    Member,
    Standing,
    check_domain,
    check_label,
    check_policy,
    uuid4_of,
)
from holdfast.logic.access.rows import (
    CELLS,
    DEVICES,
    LOAD_STEP,
    LOADS,
    MEMBERS,
    POLICIES,
    token_key,
)
from holdfast.logic.access.subscription import SubscriptionState, SubscriptionView
from holdfast.logic.fleet.model import NodeId
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import (
    Compare,
    ControlStore,
    Delete,
    Operation,
    Put,
    absent,
    unchanged,
)
from holdfast.rim.entropy import Entropy

Retire = Callable[[NodeId, str], Awaitable[None]]
TURN_REAL_S: Final = 0.25
"""How often the leader looks whether a cell's paths are to turn; cheap, and drills scale time."""
Row = TypeVar("Row")
_log = logging.getLogger("holdfast.hq.access")


class DeviceMade(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new device. `token` is shown here and never again."""

    device: DeviceId
    member: str
    token: str


class Access:
    """The verbs. `store` may be fenced by a term."""

    def __init__(
        self,
        store: ControlStore,
        book: AccessBook,
        audit: AuditLog,
        clock: Clock,
        entropy: Entropy,
        retire: Retire | None = None,
    ) -> None:
        """`retire` ends the service of a node; the leader has it."""
        self._retire = retire
        self._drains = Drains(clock.scale)
        self.watch = CellWatch(clock)
        self._store = store
        self.book = book
        self._audit = audit
        self._clock = clock
        self._entropy = entropy
        self.usage = UsageLedger(store, book, clock)
        self.fetches = FetchLog(store, clock)

    # --- Cells -----------------------------------------------------------------------------------
    async def create_cell(self, id: CellId, domain: str, core_domain: str) -> Cell:
        """A new cell. Raises UsageError for a bad or taken name, or one cell too many."""
        check_label(id)
        names = (check_domain(domain), check_domain(core_domain))
        taken = {
            name for cell in self.book.cells.values() for name in (cell.domain, cell.core_domain)
        }
        if taken & set(names):
            raise UsageError("another cell has that domain; a cell shares its name with nobody")
        if len(self.book.cells) >= CELLS_MAX:
            raise UsageError(f"this network has {CELLS_MAX} cells, the most there may be")
        now = self._clock.wall()
        cell = self._opened(Cell(id, *names, (), now), now)
        if not await self._write([absent(CELLS + id)], [_put(CELLS + id, cell)]):
            raise UsageError(f"there is a cell {id} already")
        await self._audit.line("cell.created", id, domain=domain, core_domain=core_domain)
        return cell

    async def isolate(self, id: CellId, reason: str) -> Cell:
        """Send nobody to a cell any more; its nodes get no devices. Raises UsageError."""
        cell = await self._change_cell(id, state=CellState.ISOLATED)
        await self._audit.line("cell.isolated", id, reason=reason)
        return cell

    async def retire_cell(self, id: CellId, successor: CellId = "") -> Cell:
        """A cell is over for good. Raises UsageError."""
        cell = await self._change_cell(id, state=CellState.RETIRED, successor=successor)
        await self._audit.line("cell.retired", id, successor=successor)
        return cell

    async def turn_cell(self, id: CellId) -> Cell:
        """Open the next path epoch of a cell now. Raises UsageError."""
        kv = await self._store.get(CELLS + id)
        if kv is None:
            raise UsageError(f"no cell {id}")
        cell = msgspec.msgpack.decode(kv.value, type=Cell)
        turned = self._opened(cell, self._clock.wall())
        if not await self._write([unchanged(CELLS + id, kv)], [_put(CELLS + id, turned)]):
            raise OperationFault("the cell changed meanwhile; try again")
        return turned

    async def regenerate(
        self, id: CellId, successor: CellId, domain: str, core_domain: str, reserve: CellId
    ) -> Cell:
        """A compromised cell, at once and in order: nobody is sent there, its devices move to the
        `reserve` cell with new credentials, and a cell with new names and paths is made in its
        place. Its nodes are revoked by the caller; tokens for the new cell are made as ever.
        Raises UsageError.
        """
        check_label(successor)
        if reserve == id or self.book.cells.get(reserve) is None:
            raise UsageError("name a living cell, another one, to take the devices meanwhile")
        await self.isolate(id, "compromised")
        await self.move_devices(id, reserve, CELL_DEVICES_MAX)
        made = await self.create_cell(successor, domain, core_domain)
        await self.retire_cell(id, successor)
        return made

    async def move_devices(self, source: CellId, target: CellId, count: int) -> int:
        """Move up to `count` devices of a cell to another; how many moved.

        Their credentials are new: whoever held the old cell's nodes holds the old ones.
        """
        devices = self.book.devices_of(source)[:count]
        for device in devices:
            await self.move_device(device.id, target)
        moved = len(devices)
        await self._audit.line("cell.devices-moved", source, target=target, count=moved)
        return moved

    async def move_device(self, device: DeviceId, target: CellId) -> None:
        """Give a device another cell and a new credential. Raises UsageError."""
        cell = await self._find(CELLS + target, Cell)
        if cell is None or cell.state is not CellState.ACTIVE:
            raise UsageError(f"no active cell {target}")
        await self._change(DEVICES + device, Device, cell=target, credential=self._credential())

    # --- Members and devices ---------------------------------------------------------------------
    async def add_member(
        self,
        *,
        owner: str = "",
        quota_bytes: int = 0,
        expires_at: int = 0,
        devices_max: int = 5,
        contact: bytes = b"",
    ) -> Member:
        """A new member, under a random id."""
        if not 0 < devices_max <= DEVICES_PER_MEMBER_MAX or min(quota_bytes, expires_at) < 0:
            raise UsageError(f"1 to {DEVICES_PER_MEMBER_MAX} devices; amounts are not negative")
        member = Member(
            id=self._entropy.bytes(8).hex(),
            owner=owner,
            quota_bytes=quota_bytes,
            expires_at=expires_at,
            devices_max=devices_max,
            contact=contact[:CONTACT_BYTES_MAX],
            created_at=self._clock.wall(),
        )
        await self._write([absent(MEMBERS + member.id)], [_put(MEMBERS + member.id, member)])
        await self._audit.line("member.added", member.id)
        return member

    async def set_standing(self, member: str, standing: Standing) -> None:
        """Suspend, revoke or reinstate a member. Raises UsageError."""
        await self._change(MEMBERS + member, Member, standing=standing)
        await self._audit.line(f"member.{standing.value}", member)

    async def add_device(self, member: str, cell: CellId, label: str = "") -> DeviceMade:
        """A new device of a member in a cell, with its subscription. Raises UsageError."""
        kv = await self._store.get(MEMBERS + member)
        if kv is None:
            raise UsageError(f"no member {member}")
        row = msgspec.msgpack.decode(kv.value, type=Member)
        home = self.book.cells.get(cell) or await self._find(CELLS + cell, Cell)
        if home is None or home.state is not CellState.ACTIVE:
            raise UsageError(f"no active cell {cell}")
        if len(self.book.devices_of_member(member)) >= row.devices_max:
            raise UsageError(f"this member has {row.devices_max} devices, the most allowed")
        if len(self.book.devices_of(cell)) >= CELL_DEVICES_MAX:
            raise UsageError(f"cell {cell} is full; choose another")
        token = base32(self._entropy.bytes(SUBSCRIPTION_TOKEN_BYTES))
        device = Device(
            id=self._entropy.bytes(8).hex(),
            member=member,
            credential=self._credential(),
            cell=cell,
            token_hash=hash_bytes(token.encode()),
            created_at=self._clock.wall(),
            label=label[:40],
        )
        await self._write(
            [absent(DEVICES + device.id), unchanged(MEMBERS + member, kv)],
            [_put(DEVICES + device.id, device), Put(token_key(token), device.id.encode())],
        )
        await self._audit.line("device.added", device.id)
        return DeviceMade(device.id, member, token)

    async def revoke_device(self, device: DeviceId) -> None:
        """End a device's service for good. Raises UsageError."""
        await self._change(DEVICES + device, Device, standing=Standing.REVOKED)
        await self._audit.line("device.revoked", device)

    async def new_token(self, device: DeviceId) -> DeviceMade:
        """Another subscription token and credential for a device, whose client may be another; the
        token before is worthless, and so is what was fetched with it. Raises UsageError."""
        kv = await self._store.get(DEVICES + device)
        if kv is None:
            raise UsageError(f"no device {device}")
        row = msgspec.msgpack.decode(kv.value, type=Device)
        token = base32(self._entropy.bytes(SUBSCRIPTION_TOKEN_BYTES))
        changed = msgspec.structs.replace(
            row,
            token_hash=hash_bytes(token.encode()),
            credential=self._credential(),
            fetched_at=0.0,
            client=b"",
        )
        before = Delete(token_key_of(row))
        operations: list[Operation] = [
            _put(kv.key, changed),
            before,
            Put(token_key(token), device.encode()),
        ]
        if not await self._write([unchanged(kv.key, kv)], operations):
            raise OperationFault("the device changed meanwhile; try again")
        return DeviceMade(device, row.member, token)

    # --- Owners ----------------------------------------------------------------------------------
    async def set_policy(self, core: str, policy: ExitPolicy) -> ExitPolicy:
        """What a core's owner allows from now on. Raises UsageError."""
        await self._write([], [_put(POLICIES + core, check_policy(policy))])
        await self._audit.line("core.policy", core, reserve_bytes=policy.reserve_bytes)
        return policy

    async def loaded(self, core: str, busy: float) -> None:
        """A core says how busy it is; written down when that matters for who is sent there."""
        now = round(min(max(busy, 0.0), 1.0), 2)
        if abs(now - self.book.loads.get(core, 0.0)) >= LOAD_STEP:
            await self._write([], [_put(LOADS + core, now)])

    # --- Subscriptions ---------------------------------------------------------------------------
    async def fetch(self, token: str) -> SubscriptionView:
        """The subscription of a token, and a note that its device has it (`epochs`).

        Raises PeerFault for a token that is nobody's.
        """
        device = await self.book.find_device(token)
        if device is None:
            raise PeerFault("no such subscription", code="not-found")
        at = self._clock.wall()
        view = self.book.view(device)
        if view.state is SubscriptionState.ACTIVE:
            self.fetches.note(device, self.book.cells[device.cell], at)
            await self.fetches.settle()
        return view

    # --- Epochs ----------------------------------------------------------------------------------
    async def turn_for_ever(self) -> None:
        """Open epochs that are due and close those that nobody can hold. For the leader."""
        while True:
            await self._clock.sleep_real(TURN_REAL_S)
            for id in sorted(self.book.cells):
                await self.turn(id)
                await self._end_drained(id)

    async def turn(self, id: CellId) -> None:
        """One look at one cell."""
        now, scale = self._clock.wall(), self._clock.scale
        known = self.book.cells[id]
        due = known.state is CellState.ACTIVE and is_due(known, now)
        settled = announced(known, now) is known
        if not due and settled and closed(known, self._fetched(id), now, scale) is known:
            return
        kv = await self._store.get(CELLS + id)
        if kv is None:
            return
        cell = msgspec.msgpack.decode(kv.value, type=Cell)
        if cell.state is CellState.ACTIVE and is_due(cell, now):
            cell = self._opened(cell, now)
        cell = closed(announced(cell, now), self._fetched(id), now, scale)
        await self._write([unchanged(CELLS + id, kv)], [_put(CELLS + id, cell)])

    async def _end_drained(self, id: CellId) -> None:
        """Retire nodes that drain and that nobody needs."""
        now = self._clock.wall()
        entries = [(e.node, e.draining, True) for e in self.book.entries(id)]
        cores = [(c.node, c.draining, False) for c in self.book.core_nodes(id)]
        for node, draining, is_entry in entries + cores:
            if not draining:
                self._drains.forget(node)
                continue
            fetched = self._fetched(id) if is_entry else ()
            if self._drains.may_go(node, fetched, now) and self._retire is not None:
                await self._retire(node, "drained")
                self._drains.forget(node)

    def _fetched(self, id: CellId) -> list[float]:
        """When each live device of a cell last got its subscription."""
        devices = self.book.devices_of(id)
        return [d.fetched_at for d in devices if d.standing is not Standing.REVOKED]

    def _opened(self, cell: Cell, now: float) -> Cell:
        secret, fraction = self._entropy.bytes(EPOCH_SECRET_BYTES), self._entropy.uniform(0.0, 1.0)
        return opened(cell, secret, fraction, now, self._clock.scale)

    # --- Rows ------------------------------------------------------------------------------------
    def _credential(self) -> str:
        return uuid4_of(self._entropy.bytes(16))

    async def _find(self, key: str, shape: type[Row]) -> Row | None:
        kv = await self._store.get(key)
        return msgspec.msgpack.decode(kv.value, type=shape) if kv is not None else None

    async def _change_cell(self, id: CellId, **fields: Any) -> Cell:
        await self._change(CELLS + id, Cell, **fields)
        cell = await self._find(CELLS + id, Cell)
        assert cell is not None, "cells are never deleted"
        return cell

    async def _change(self, key: str, shape: type[msgspec.Struct], **fields: Any) -> bool:
        """Replace fields of a row, however often somebody comes between. Raises UsageError."""
        while True:
            kv = await self._store.get(key)
            if kv is None:
                raise UsageError(f"nothing is called {key.rpartition('/')[2]}")
            row = msgspec.structs.replace(msgspec.msgpack.decode(kv.value, type=shape), **fields)
            if await self._write([unchanged(key, kv)], [_put(key, row)]):
                return True

    async def _write(self, compares: list[Compare], operations: list[Operation]) -> bool:
        return (await self._store.txn(compares, operations)).succeeded


def token_key_of(device: Device) -> str:
    """Where the token of a device is written."""
    return token_key("")[: -len(device.token_hash.hex())] + device.token_hash.hex()


def _put(key: str, row: object) -> Put:
    return Put(key, msgspec.msgpack.encode(row))
