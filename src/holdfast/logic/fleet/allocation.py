"""Who serves whom: seats for slots, and where to spawn (seed 004 §2.2, §6.1, §4.4; D2).

Rules, in the order in which they give way to each other:

1. *diversity*: no two relays of a slot share a provider, nor an owner other than the operator;
   the same for its replicas. With too few providers the best is taken and the rest is *debt*:
   a row that says so until it is repaid (ADR 0003). It is never claimed and never silent.
2. *health and headroom*: servers that are not GREEN, are draining or are nearly full come last.
3. *region*: near before far; a group stays in its region while there is room.
4. *jurisdictions* differ where they can.
5. *load*: fewer groups first.

Diversity is chosen exactly over failure domains, the rest within a domain by rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Final

import msgspec

from holdfast.limits import HEADROOM_FRACTION_MIN, RELAYS_PER_SLOT
from holdfast.logic.fleet.model import OPERATOR, Load, Tier
from holdfast.logic.fleet.rows import ServerRow, SlotRow
from holdfast.logic.fleet.state import FleetState
from holdfast.logic.fleet.tiers import independent

DOMAINS_MAX: Final = 16
"""Failure domains considered for one slot; 560 triples at most."""
PER_DOMAIN: Final = 3
"""Servers of one domain considered: enough when there is only one domain."""

NEAREST: Final[dict[str, tuple[str, ...]]] = {
    "eu": ("eu", "me", "af", "us", "ap", "sa"),
    "af": ("af", "eu", "me", "us", "ap", "sa"),
    "me": ("me", "eu", "ap", "af", "us", "sa"),
    "ap": ("ap", "oc", "in", "me", "us", "eu"),
    "oc": ("oc", "ap", "in", "us", "eu"),
    "in": ("in", "ap", "me", "oc", "eu"),
    "us": ("us", "sa", "eu", "ap"),
    "sa": ("sa", "us", "eu", "ap"),
}
"""Regions by nearness (§11.4): Africa and the Middle East go to Europe, India and Oceania to
Asia Pacific, the Americas to Europe until they have their own."""


def distance(home: str, region: str) -> int:
    """0 for the same region, larger for farther ones; unknown regions are far from all others."""
    if home == region:
        return 0
    order = NEAREST.get(home, ())
    return order.index(region) if region in order else len(NEAREST)


def nearest(home: str, regions: Iterable[str]) -> str | None:
    """The region closest to `home`, None when there is none."""
    return min(sorted(regions), key=lambda region: distance(home, region), default=None)


class Candidate(msgspec.Struct, frozen=True):
    """A server that could take a seat."""

    server: ServerRow
    load: Load = Load()
    groups: int = 0
    jurisdiction: str = ""
    silent: bool = False

    @property
    def fit(self) -> bool:
        """GREEN, not draining, heard of, and with headroom (§6.1.4)."""
        healthy = self.server.tier is Tier.GREEN and not self.server.draining and not self.silent
        return healthy and has_headroom(self.load)


def has_headroom(load: Load) -> bool:
    """Whether a server has room for more; one that has not said is believed to."""
    room = load.free_bytes + load.stored_bytes
    return load.writable and (room == 0 or load.free_bytes >= HEADROOM_FRACTION_MIN * room)


def conflicts(rows: Sequence[ServerRow]) -> int:
    """Pairs of servers that share a provider or a non-operator owner."""
    return sum(not independent(a, b) for a, b in combinations(rows, 2))


def pick(
    candidates: Sequence[Candidate], region: str, count: int = RELAYS_PER_SLOT
) -> tuple[ServerRow, ...] | None:
    """The best `count` servers for a slot of `region`; None when there are not that many.

    The caller records what `conflicts` finds in the answer as debt.
    """
    return Piles(candidates, region).pick(count)


Domain = tuple[str, str]
"""(provider, owner)."""


class Piles:
    """Servers of one role and region by failure domain, best first, for many slots in a row.

    Where domains are unequal, slots are cut from the highest piles first: taking from small piles
    while they last would leave the rest of the largest without anything diverse to stand beside.
    """

    def __init__(self, candidates: Sequence[Candidate], region: str) -> None:
        self._region = region
        self._piles: dict[Domain, list[Candidate]] = {}
        for item in sorted(candidates, key=self._rank):
            self._piles.setdefault(_domain(item.server), []).append(item)
        self._fit = {domain: sum(item.fit for item in pile) for domain, pile in self._piles.items()}

    def pick(self, count: int = RELAYS_PER_SLOT) -> tuple[ServerRow, ...] | None:
        """As `pick` above, of what is left."""
        piles = [pile for pile in self._piles.values() if pile]
        best = sorted(piles, key=self._pile_rank)[:DOMAINS_MAX]
        found: tuple[Candidate, ...] | None = None
        for each in (1, PER_DOMAIN):  # one of each domain, unless that cannot be diverse
            short = [item for pile in best for item in pile[:each]]
            if len(short) >= count:
                found = min(combinations(short, count), key=self._cost)
                if not conflicts([item.server for item in found]):
                    break
        return tuple(item.server for item in found) if found else None

    def take(self, servers: Iterable[ServerRow]) -> None:
        """These have a slot now."""
        for server in servers:
            pile = self._piles[_domain(server)]
            place = next(i for i, item in enumerate(pile) if item.server.name == server.name)
            self._fit[_domain(server)] -= pile.pop(place).fit

    def _rank(self, item: Candidate) -> tuple[bool, int, int, str]:
        server = item.server
        return (not item.fit, distance(self._region, server.region), item.groups, server.name)

    def _pile_rank(self, pile: list[Candidate]) -> tuple[bool, int, int, tuple[int, str]]:
        unfit, far, groups, name = self._rank(pile[0])
        return (unfit, far, -self._fit[_domain(pile[0].server)], (groups, name))

    def _cost(self, items: tuple[Candidate, ...]) -> tuple[int, ...]:
        rows = [item.server for item in items]
        places = {item.jurisdiction for item in items if item.jurisdiction}
        return (
            conflicts(rows),
            sum(not item.fit for item in items),
            sum(distance(self._region, row.region) for row in rows),
            -self._excess(rows),
            -len(places),
            sum(item.groups for item in items),
        )

    def _excess(self, rows: Sequence[ServerRow]) -> int:
        """How much higher the piles of `rows` are than the lowest, where that is more than chance:
        equal piles leave the choice to jurisdictions and load."""
        heights = [self._fit[_domain(row)] for row in rows]
        lowest = min((n for n in self._fit.values() if n), default=0)
        return sum(max(0, height - lowest - 1) for height in heights)


def _domain(server: ServerRow) -> Domain:
    return server.provider, server.owner


# --- Where to spawn a replacement ----------------------------------------------------------------
class Placement(msgspec.Struct, frozen=True):
    """Where a replacement goes. `conflicts` counts slots where it shares a domain: coming debt."""

    provider: str
    region: str
    conflicts: int


def co_seats(state: FleetState, server: ServerRow) -> dict[tuple[str, ...], int]:
    """The names that share a slot with `server` in its role, and in how many slots."""
    found: dict[tuple[str, ...], int] = {}
    for slot in state.slots_of.get(server.name, ()):
        names = state.group(state.slots[slot], server.role)
        found[names] = found.get(names, 0) + 1
    return {tuple(n for n in names if n != server.name): count for names, count in found.items()}


def choose_replacement(
    server: ServerRow,
    state: FleetState,
    providers_up: Iterable[str],
    *,
    avoid: Iterable[str] = (),
    owner: str,
) -> Placement | None:
    """Where to spawn the next machine of `server` (§4.3, §4.4); None when no provider is up.

    Providers in `avoid` lately failed to deliver and are taken only when nothing else is up. Then
    diversity decides; then the region; then the provider the seat is on now; then the provider
    with the fewest servers and open orders, which spreads the seats of a lost provider.
    """
    others = [
        ([_to_be(state, name) for name in names], count)
        for names, count in co_seats(state, server).items()
    ]
    shunned = set(avoid)
    orders: dict[str, int] = {}
    for intent in (state.intents[name] for name in state.spawn_of.values()):
        orders[intent.provider] = orders.get(intent.provider, 0) + 1

    def cost(place: Placement) -> tuple[bool, int, int, bool, int, str]:
        crowd = len(state.servers_at.get(place.provider, ())) + orders.get(place.provider, 0)
        moved = place.provider != server.provider
        far = distance(server.region, place.region)
        return (place.provider in shunned, place.conflicts, far, moved, crowd, place.provider)

    places = []
    for provider in providers_up:
        region = nearest(server.region, state.providers[provider].regions)
        if region is None:
            continue
        moved = msgspec.structs.replace(server, provider=provider, owner=owner)
        clashes = sum(
            count for rows, count in others if not all(independent(moved, row) for row in rows)
        )
        places.append(Placement(provider, region, clashes))
    return min(places, key=cost, default=None)


def _to_be(state: FleetState, name: str) -> ServerRow:
    """A server as it will be once the machine that is ordered for it sits there."""
    server, spawn = state.servers[name], state.spawn_of.get(name)
    if spawn is None:
        return server
    return msgspec.structs.replace(server, provider=state.intents[spawn].provider, owner=OPERATOR)


# --- Debt ----------------------------------------------------------------------------------------
def debtors(rows: Sequence[ServerRow]) -> list[ServerRow]:
    """The servers of one slot and role that must move to make it diverse again.

    The one seated longest keeps its place; who came later to the same domain is in debt.
    """
    keep: list[ServerRow] = []
    owing: list[ServerRow] = []
    for row in sorted(rows, key=lambda row: (row.seated_at, row.name)):
        settled = all(independent(row, other) for other in keep)
        (keep if settled else owing).append(row)
    return owing


def slot_debtors(state: FleetState, slot: SlotRow) -> dict[str, str]:
    """Name -> shared provider of every seat of `slot` that is in debt."""
    owing: dict[str, str] = {}
    for names in (slot.relays, slot.replicas):
        rows = [state.servers[name] for name in names]
        owing.update({row.name: row.provider for row in debtors(rows)})
    return owing


def violations(slots: Iterable[SlotRow], servers: Mapping[str, ServerRow]) -> int:
    """Seats that share a provider or a non-operator owner with an earlier seat of their role.

    Counted from names alone and by another route than `debtors`: the tests' independent check.
    """
    found = 0
    for slot in slots:
        for names in (slot.relays, slot.replicas):
            providers: set[str] = set()
            owners: set[str] = set()
            for name in names:
                row = servers[name]
                found += row.provider in providers or row.owner in owners
                providers.add(row.provider)
                if row.owner != OPERATOR:
                    owners.add(row.owner)
    return found
