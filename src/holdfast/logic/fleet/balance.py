"""Which slot goes from which server to which: the plan of a rebalance (seed 004 §6.1, §6.2).

A *pool* is the servers of one role in one region, a server's *load* the groups of its slots and one
for each slot. A move gives one seat of one slot to another server of the pool. It is legal when

* the newcomer has no seat in the slot, is fit, and has headroom for what comes with it;
* the seats of that role share no more failure domains than before, and stand in no fewer
  jurisdictions;
* the server that gives keeps a slot: one without any would be founded anew (`Slots.found`).

First come moves that repay a debt and make no server the fullest of its pool; then those from the
fullest server to the lightest, each of which lowers the sum of the squares of the loads. So no move
raises `imbalance`, and a plan ends: debts and squares are whole numbers that only fall.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from holdfast.limits import HEADROOM_FRACTION_MIN
from holdfast.limits.fleet import BALANCE_DEBTS_MAX, BALANCE_GOAL, BALANCE_LOOK_MAX
from holdfast.logic.fleet.allocation import Candidate, conflicts
from holdfast.logic.fleet.model import STORES, Role, SlotId
from holdfast.logic.fleet.rows import ServerState, SlotRow
from holdfast.logic.fleet.state import FleetState

PoolKey = tuple[Role, str]


class Move(msgspec.Struct, frozen=True):
    """`former` gives its seat in `slot` to `name`. `load` moves along; `repays` a debt."""

    slot: SlotId
    role: Role
    former: str
    name: str
    load: int
    repays: bool = False


def slot_load(row: SlotRow) -> int:
    """What a slot weighs: its groups, and itself, because an empty one is reconciled and probed."""
    return row.groups + 1


def _always(_: str | SlotId) -> bool:
    """Nothing has to wait."""
    return True


class Ledger:
    """Who holds what, as it would be after the moves taken so far. Rows are not touched."""

    def __init__(
        self, state: FleetState, candidate: Callable[[str], Candidate], debts_from: int = 0
    ) -> None:
        """`debts_from`: with which debt to begin, for one that looks at some of many each time."""
        self._state = state
        owed = sorted(state.debts)
        start = debts_from % len(owed) if owed else 0
        self._owed = owed[start:] + owed[:start]
        self._stuck: set[tuple[SlotId, str]] = set()
        self._seats: dict[tuple[SlotId, Role], tuple[str, ...]] = {}
        self._held: dict[str, dict[SlotId, None]] = {}
        self._taken_bytes: dict[str, int] = {}
        self.loads: dict[str, int] = {}
        self.pools: dict[PoolKey, list[str]] = {}
        self._candidates: dict[str, Candidate] = {}
        for name, server in sorted(state.servers.items()):
            if server.state is not ServerState.ACTIVE or server.role not in STORES:
                continue
            self._candidates[name] = candidate(name)
            self._held[name] = dict(state.slots_of.get(name, {}))
            self.loads[name] = sum(slot_load(state.slots[slot]) for slot in self._held[name])
            self.pools.setdefault((server.role, server.region), []).append(name)
        self._loads_before = dict(self.loads)

    # --- Looking ---------------------------------------------------------------------------------
    def imbalance(self) -> float:
        """The worst pool's fullest server over the mean; 1.0 is even."""
        return max(map(self.imbalance_of, self.pools), default=1.0)

    def imbalance_of(self, pool: PoolKey) -> float:
        """The same of one pool."""
        loads = [self.loads[name] for name in self.pools[pool]]
        return max(loads) * len(loads) / sum(loads) if sum(loads) else 1.0

    def seats(self, slot: SlotId, role: Role) -> tuple[str, ...]:
        """The names of a slot in one role, after the moves taken."""
        known = self._seats.get((slot, role))
        return known if known is not None else self._state.group(self._state.slots[slot], role)

    # --- Choosing --------------------------------------------------------------------------------
    def choose(
        self,
        may_change: Callable[[SlotId], bool] = _always,
        may_take: Callable[[str], bool] = _always,
    ) -> Move | None:
        """The next move among slots that `may_change` and servers that `may_take` one; None when
        every pool is even enough or no move is legal."""
        move = self._repaying(may_change, may_take)
        if move is not None:
            return move
        for pool in sorted(self.pools, key=lambda key: (-self.imbalance_of(key), key)):
            if self.imbalance_of(pool) <= BALANCE_GOAL:
                return None
            move = self._levelling(pool, may_change, may_take)
            if move is not None:
                return move
        return None

    def take(self, move: Move) -> None:
        """The move is made."""
        seats = self.seats(move.slot, move.role)
        self._seats[move.slot, move.role] = replaced(seats, move.former, move.name)
        del self._held[move.former][move.slot]
        self._held[move.name][move.slot] = None
        self.loads[move.former] -= move.load
        self.loads[move.name] += move.load
        self._taken_bytes[move.name] = self._taken_bytes.get(move.name, 0) + self._bytes(move)

    def _repaying(
        self, may_change: Callable[[SlotId], bool], may_take: Callable[[str], bool]
    ) -> Move | None:
        for slot, name in self._owed:
            if len(self._stuck) >= BALANCE_DEBTS_MAX:
                return None
            server = self._state.servers[name]
            if (slot, name) in self._stuck or slot not in self._held.get(name, ()):
                continue
            if not may_change(slot):
                continue
            pool = self.pools[server.role, server.region]
            load, fullest = slot_load(self._state.slots[slot]), max(self.loads[n] for n in pool)
            for other in self._lightest(pool, may_take):
                move = Move(slot, server.role, name, other, load, repays=True)
                if self.loads[other] + load <= fullest and self._is_legal(move):
                    return move
            self._stuck.add((slot, name))
        return None

    def _levelling(
        self, pool: PoolKey, may_change: Callable[[SlotId], bool], may_take: Callable[[str], bool]
    ) -> Move | None:
        names = self.pools[pool]
        mean = sum(self.loads[name] for name in names) / len(names)
        fullest = sorted(names, key=lambda name: (-self.loads[name], name))[:BALANCE_LOOK_MAX]
        lightest = self._lightest(names, may_take)
        for former in fullest:
            if self.loads[former] <= mean:
                break
            slots = [slot for slot in self._held[former] if may_change(slot)]
            for name in lightest:
                move = self._best(pool[0], former, name, slots)
                if move is not None:
                    return move
        return None

    def _best(self, role: Role, former: str, name: str, slots: Iterable[SlotId]) -> Move | None:
        """The legal move between two servers that levels most."""
        gap = self.loads[former] - self.loads[name]
        moves = (
            Move(slot, role, former, name, slot_load(self._state.slots[slot])) for slot in slots
        )
        useful = [move for move in moves if move.load < gap]
        peers = self._state.peers(name)

        def rank(move: Move) -> tuple[int, int, SlotId]:
            """Of equals the one that brings the fewest servers to probe and to reconcile with."""
            row = self._state.slots[move.slot]
            strangers = sum(each not in peers for each in row.relays + row.replicas)
            return -move.load * (gap - move.load), strangers, move.slot

        useful.sort(key=rank)
        return next(filter(self._is_legal, useful), None)

    def _lightest(self, names: Iterable[str], may_take: Callable[[str], bool]) -> list[str]:
        """Fit servers that may take a slot now, the lightest first."""
        fit = [name for name in names if self._candidates[name].fit and may_take(name)]
        return sorted(fit, key=lambda name: (self.loads[name], name))[:BALANCE_LOOK_MAX]

    # --- Rules -----------------------------------------------------------------------------------
    def _is_legal(self, move: Move) -> bool:
        everyone = (name for role in STORES for name in self.seats(move.slot, role))
        if move.name in everyone or len(self._held[move.former]) < 2:
            return False
        before = self.seats(move.slot, move.role)
        after = replaced(before, move.former, move.name)
        clashes, clashes_before = self._conflicts(after), self._conflicts(before)
        if clashes > clashes_before or (move.repays and clashes == clashes_before):
            return False
        return self._places(after) >= self._places(before) and self._has_room(move)

    def _conflicts(self, names: Iterable[str]) -> int:
        return conflicts([self._state.servers[name] for name in names])

    def _places(self, names: Iterable[str]) -> int:
        """In how many jurisdictions they stand, as far as that is known."""
        known = (self._candidates[name].jurisdiction for name in names if name in self._candidates)
        return len(set(known) - {""})

    def _has_room(self, move: Move) -> bool:
        """Headroom (§6.1.4) after all that is on its way has come."""
        load = self._candidates[move.name].load
        room = load.free_bytes + load.stored_bytes
        coming = self._taken_bytes.get(move.name, 0) + self._bytes(move)
        return room == 0 or load.free_bytes - coming >= HEADROOM_FRACTION_MIN * room

    def _bytes(self, move: Move) -> int:
        """What a slot may bring along: its part of what the giver said it stores."""
        stored = self._candidates[move.former].load.stored_bytes
        return stored * move.load // max(1, self._loads_before[move.former])


def replaced(names: tuple[str, ...], former: str, name: str) -> tuple[str, ...]:
    """The same seats, one of them given to another."""
    assert former in names
    return tuple(name if each == former else each for each in names)


class Plan(msgspec.Struct, frozen=True):
    """What a rebalance would do, if every move went well; `after` is the imbalance then."""

    moves: tuple[Move, ...]
    before: float
    after: float


def plan_moves(state: FleetState, candidate: Callable[[str], Candidate], moves_max: int) -> Plan:
    """All moves from here until loads are even, no move is legal, or there are `moves_max`."""
    ledger = Ledger(state, candidate)
    before, moves = ledger.imbalance(), list[Move]()
    while len(moves) < moves_max:
        move = ledger.choose()
        if move is None:
            break
        ledger.take(move)
        moves.append(move)
    return Plan(tuple(moves), before, ledger.imbalance())
