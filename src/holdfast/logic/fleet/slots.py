"""Slots and their records: creating them, keeping them true, counting groups and debts (D1, D4).

A slot row names six logical servers; its record names the nodes that sit there. When a seat gets
another node the record is behind, and is brought up to date under the rule by which clients
follow (D4): one new node per role in ten minutes, the relays and the replicas each on their own
clock. New addresses of the same nodes are written at once. `due` remembers which slots are behind
and when they may move; after a restart it is found again by comparing rows.

A row that leaves here with an empty staple is unsigned: the driver signs it before it persists.
Slot ids are derived from the network and the names, so that a creation repeated after a crash
makes the same slots.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

import msgspec

from holdfast.crypto.pure import derive_key
from holdfast.limits import RELAYS_PER_SLOT, REPLICAS_PER_SLOT, SLOTS_PER_TRIPLE
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.allocation import Candidate, Piles, nearest, slot_debtors
from holdfast.logic.fleet.filled import digest_of
from holdfast.logic.fleet.model import Role, Seat, SlotId, Tier, Version
from holdfast.logic.fleet.rows import DebtRow, ServerRow, ServerState, SlotRow
from holdfast.logic.fleet.state import FleetState, seat

LOOK_MAX: Final = 32
"""Slots looked at when none is fit, before the least full of them is taken."""


def slot_id(network: bytes, names: tuple[str, ...], index: int) -> SlotId:
    """The id of the `index`-th slot on these six servers."""
    material = b"\0".join((network, *(name.encode() for name in names), str(index).encode()))
    return derive_key("holdfast v1 slot id", material, length=16)


class Slots:
    """The machine over all slots. `due` maps a slot that is behind to when it may change."""

    def __init__(self, state: FleetState) -> None:
        self._state = state
        self.due: dict[SlotId, float] = {}
        self._next_due = 0.0
        self._heaps: dict[str, list[tuple[int, SlotId]]] = {}
        self._aside: dict[str, deque[SlotId]] = {}
        for row in state.slots.values():
            self._push(row)
            self.due[row.slot] = 0.0

    # --- Records ---------------------------------------------------------------------------------
    def touch(self, name: str) -> None:
        """The server's node or addresses changed: its slots may be behind."""
        for slot in self._state.slots_of.get(name, ()):
            self.due[slot] = 0.0
            self._next_due = 0.0

    def refresh(self, now: float) -> list[Audit]:
        """Bring every slot that is behind as far as it may go now."""
        if now < self._next_due:
            return []
        moved: dict[str, int] = {}
        for slot in [slot for slot, at in self.due.items() if at <= now]:
            for name in self._refresh(self._state.slots[slot], now):
                moved[name] = moved.get(name, 0) + 1
        self._next_due = min(self.due.values(), default=float("inf"))
        return [Audit("slots.recorded", name, {"slots": count}) for name, count in moved.items()]

    def may_change(self, name: str, now: float) -> bool:
        """Whether clients would follow another node in every seat of `name` now."""
        role = self._state.servers[name].role
        rows = (self._state.slots[slot] for slot in self._state.slots_of.get(name, ()))
        return all(row.slot not in self.due and self._changed_at(row, role) <= now for row in rows)

    def recorded_at(self, name: str) -> float:
        """When the records of `name` last got a new node in its role, or the seat itself did."""
        server = self._state.servers[name]
        at = server.seated_at
        for slot in self._state.slots_of.get(name, ()):
            row = self._state.slots[slot]
            relay = server.role is Role.RELAY
            at = max(at, row.relays_changed_at if relay else row.replicas_changed_at)
        return at

    def digest(self, name: str) -> bytes:
        """Of the newest records of `name`, signed or about to be."""
        slots = (self._state.slots[slot] for slot in self._state.slots_of.get(name, ()))
        return digest_of((row.slot, row.version) for row in slots)

    def is_recorded(self, name: str) -> bool:
        """Whether every slot record of `name` names the node that sits there now."""
        node = self._state.servers[name].node
        return all(
            any(item.node == node for item in self._state.slots[slot].seats)
            for slot in self._state.slots_of.get(name, ())
        )

    def give(self, slot: SlotId, former: str, name: str, now: float) -> None:
        """Another server gets a seat of one slot; its record says so from now on."""
        row = self._state.slots[slot]
        server = self._state.servers[name]
        assert slot not in self.due, "a record changes in one way at a time"
        assert name not in row.relays + row.replicas, "one seat for each name"
        relay = server.role is Role.RELAY
        seats = tuple(seat(server) if item.name == former else item for item in row.seats)
        debt = self._state.debts.get((slot, former))
        if debt is not None:
            self._state.drop_debt(debt)
        given = msgspec.structs.replace(
            row,
            version=Version(max(self._state.epoch, row.version.epoch), row.version.n + 1),
            relays=tuple(item.name for item in seats[:RELAYS_PER_SLOT]),
            replicas=tuple(item.name for item in seats[RELAYS_PER_SLOT:]),
            seats=seats,
            staple=b"",
            changed_at=now,
            relays_changed_at=now if relay else row.relays_changed_at,
            replicas_changed_at=row.replicas_changed_at if relay else now,
        )
        self._state.put(given)
        self.debts(given, now)

    def _changed_at(self, row: SlotRow, role: Role) -> float:
        """From when on the role may change again: 0 when it never has."""
        at = row.relays_changed_at if role is Role.RELAY else row.replicas_changed_at
        return at + self._state.pace.record_change_s if at else 0.0

    def _refresh(self, row: SlotRow, now: float) -> list[str]:
        """The names that got a new node in the record."""
        relays, relays_at = self._part(row, Role.RELAY, now)
        replicas, replicas_at = self._part(row, Role.REPLICA, now)
        later = [at for at in (relays_at, replicas_at) if at > now]
        if later:
            self.due[row.slot] = min(later)
        else:
            del self.due[row.slot]
        seats = relays + replicas
        if seats == row.seats:
            return []
        old = {item.name: item.node for item in row.seats}
        moved = [item.name for item in seats if old[item.name] != item.node]
        new_relays = any(old[item.name] != item.node for item in relays)
        new_replicas = any(old[item.name] != item.node for item in replicas)
        self._state.put(
            msgspec.structs.replace(
                row,
                version=Version(max(self._state.epoch, row.version.epoch), row.version.n + 1),
                seats=seats,
                staple=b"",
                changed_at=now if moved else row.changed_at,
                relays_changed_at=now if new_relays else row.relays_changed_at,
                replicas_changed_at=now if new_replicas else row.replicas_changed_at,
            )
        )
        return moved

    def _part(self, row: SlotRow, role: Role, now: float) -> tuple[tuple[Seat, ...], float]:
        """The seats of one role as the record may name them now, and when more may change.

        At most one seat gets a new node; the others keep the node that clients know.
        """
        known = {item.name: item for item in row.seats}
        names = self._state.group(row, role)
        servers = [self._state.servers[name] for name in names]
        behind = [server for server in servers if server.node != known[server.name].node]
        allowed_at = self._changed_at(row, role)
        chosen: ServerRow | None = None
        if behind and allowed_at <= now:
            chosen = min(behind, key=lambda server: (server.seated_at, server.name))
        seats = tuple(
            seat(server) if server not in behind or server is chosen else known[server.name]
            for server in servers
        )
        left = len(behind) - (chosen is not None)
        if not left:
            return seats, 0.0
        return seats, now + self._state.pace.record_change_s if chosen else allowed_at

    # --- Creation --------------------------------------------------------------------------------
    def found(self, region: str, candidate: Callable[[str], Candidate], now: float) -> list[Audit]:
        """Make slots of the servers of `region` that have none yet, six at a time.

        While more machines of the region are on their way, only diverse slots are made; when all
        have come, the rest is used as well as it can be, at the price of debt.
        """
        state = self._state
        spare = [
            row
            for row in state.servers.values()
            if row.region == region and not state.slots_of.get(row.name)
        ]
        ready = [candidate(row.name) for row in spare if row.state is ServerState.ACTIVE]
        waiting = any(row.state in _COMING for row in spare)
        piles = {
            role: Piles([item for item in ready if item.server.role is role], region)
            for role in (Role.RELAY, Role.REPLICA)
        }
        audit: list[Audit] = []
        while True:
            relays, replicas = piles[Role.RELAY].pick(), piles[Role.REPLICA].pick()
            if relays is None or replicas is None:
                return audit
            row = self._create(region, relays, replicas, now)
            owing = slot_debtors(state, row)
            if owing and waiting:
                return audit
            self._found_triple(row, now)
            names = row.relays + row.replicas
            detail = {"region": region, "servers": list(names), "in_debt": sorted(owing)}
            audit.append(Audit("slots.created", names[0], detail))
            piles[Role.RELAY].take(relays)
            piles[Role.REPLICA].take(replicas)

    def _create(
        self,
        region: str,
        relays: tuple[ServerRow, ...],
        replicas: tuple[ServerRow, ...],
        now: float,
    ) -> SlotRow:
        assert len(relays) == RELAYS_PER_SLOT
        assert len(replicas) == REPLICAS_PER_SLOT
        return SlotRow(
            slot=b"",
            region=region,
            version=Version(self._state.epoch, 1),
            relays=tuple(row.name for row in relays),
            replicas=tuple(row.name for row in replicas),
            changed_at=now,
            seats=tuple(seat(row) for row in relays + replicas),
        )

    def _found_triple(self, model: SlotRow, now: float) -> None:
        names = model.relays + model.replicas
        for index in range(SLOTS_PER_TRIPLE):
            identity = slot_id(self._state.network, names, index)
            row = msgspec.structs.replace(model, slot=identity)
            self._state.put(row)
            self._push(row)
            self.debts(row, now)

    # --- Debts (ADR 0003) ------------------------------------------------------------------------
    def debts(self, row: SlotRow, now: float) -> tuple[int, int]:
        """Make the debt rows of a slot agree with where its servers are: (new, repaid)."""
        owing = slot_debtors(self._state, row)
        new = repaid = 0
        for name in row.relays + row.replicas:
            known = self._state.debts.get((row.slot, name))
            if name in owing and known is None:
                self._state.put(DebtRow(row.slot, name, owing[name], now))
                new += 1
            elif name not in owing and known is not None:
                self._state.drop_debt(known)
                repaid += 1
        return new, repaid

    def debts_of_slots(self, name: str, now: float) -> Audit | None:
        """Settle the debts of every slot of `name` after it moved."""
        new = repaid = 0
        for slot in self._state.slots_of.get(name, ()):
            more, less = self.debts(self._state.slots[slot], now)
            new, repaid = new + more, repaid + less
        if not new and not repaid:
            return None
        verb = "debt.recorded" if new else "debt.repaid"
        provider = self._state.servers[name].provider
        return Audit(verb, name, {"new": new, "repaid": repaid, "provider": provider})

    # --- Allocation ------------------------------------------------------------------------------
    def allocate(self, home: str, fit: Callable[[str], bool]) -> SlotRow | None:
        """The slot for a new group of region `home`, counted; None when there is no slot at all.

        The fullest slots come last. A slot with a server that is not `fit` is set aside until it
        is looked at again, one at each call, and is taken only when there is no other.
        """
        regions = [name for name in self._heaps if self._heaps[name] or self._aside.get(name)]
        region = nearest(home, regions)
        if region is None:
            return None
        heap = self._heaps[region]
        aside = self._aside.setdefault(region, deque())
        if aside:
            self._reconsider(region, aside, fit)
        while heap:
            groups, slot = heapq.heappop(heap)
            row = self._state.slots[slot]
            if row.groups != groups:
                continue  # an older count of this slot; the right one is in the heap as well
            if all(map(fit, row.relays + row.replicas)):
                return self._count(row, 1)
            aside.append(slot)
        least = min((self._state.slots[slot] for slot in islice(aside, LOOK_MAX)), key=_groups)
        aside.remove(least.slot)
        return self._count(least, 1)

    def populate(
        self, home: str, groups: int, fit: Callable[[str], bool]
    ) -> tuple[tuple[SlotId, int], ...]:
        """So many groups of region `home` at once: (slot, groups) for each slot that gets some.

        The emptiest slots are filled to one level, as one by one would do it; slots with a server
        that is not `fit` get none while there are others. Empty when there is no slot at all.
        """
        region = nearest(home, [name for name, heap in self._heaps.items() if heap])
        if region is None or groups <= 0:
            return ()
        known: dict[str, bool] = {}

        def is_fit(row: SlotRow) -> bool:
            for name in row.relays + row.replicas:
                if name not in known:
                    known[name] = fit(name)
                if not known[name]:
                    return False
            return True

        rows = [row for row in self._state.slots.values() if row.region == region]
        rows = [row for row in rows if is_fit(row)] or rows
        rows.sort(key=lambda row: (row.groups, row.slot))
        shares = _fill([row.groups for row in rows], groups)
        for row, share in zip(rows, shares, strict=True):
            if share:
                self._count(row, share)
        return tuple((row.slot, share) for row, share in zip(rows, shares, strict=True) if share)

    def _count(self, row: SlotRow, groups: int) -> SlotRow:
        chosen = msgspec.structs.replace(row, groups=row.groups + groups)
        self._state.put(chosen)
        self._push(chosen)
        return chosen

    def _reconsider(self, region: str, aside: deque[SlotId], fit: Callable[[str], bool]) -> None:
        row = self._state.slots[aside.popleft()]
        if all(map(fit, row.relays + row.replicas)):
            self._push(row)
        else:
            aside.append(row.slot)

    def _push(self, row: SlotRow) -> None:
        heapq.heappush(self._heaps.setdefault(row.region, []), (row.groups, row.slot))


def _groups(row: SlotRow) -> int:
    return row.groups


def _fill(levels: Sequence[int], amount: int) -> list[int]:
    """How much each of `levels`, rising, gets when `amount` is poured over them."""
    count, level = len(levels), levels[0]
    for index, height in enumerate(levels):
        need = (height - level) * index
        if need > amount:
            count = index
            break
        amount, level = amount - need, height
    deep, rest = divmod(amount, count)
    top = [level + deep + (index < rest) for index in range(count)]
    return [top[index] - levels[index] if index < count else 0 for index in range(len(levels))]


_COMING = frozenset({ServerState.PLANNED, ServerState.SPAWNING})


def redundancy(state: FleetState, row: SlotRow) -> tuple[int, int]:
    """How many relays of a slot serve, and how many of its replicas serve and are filled.

    A seat serves when the record names the node that sits there and its tier is short of RED.
    """
    known = {item.name: item.node for item in row.seats}

    def serves(name: str) -> bool:
        server = state.servers[name]
        up = server.tier not in (Tier.RED, Tier.BLACK)
        return up and bool(server.node) and known[name] == server.node

    def holds(name: str) -> bool:
        """A server to which another slot is being moved lacks nothing of this one."""
        server, moving = state.servers[name], state.moves.get(row.slot)
        if server.filled or (moving is not None and moving.name == name):
            return server.filled
        return any(move.node == server.node for move in state.moves.values())

    relays = sum(serves(name) for name in row.relays)
    replicas = sum(serves(name) and holds(name) for name in row.replicas)
    return relays, replicas
