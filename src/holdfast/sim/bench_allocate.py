"""Two million users onto three thousand servers of five unequal providers (seed 004 §6.1, §11.4).

The fleet machine founds the slots and places the groups; a checker that shares no code with it
counts what breaks a rule; the optimum is computed from the numbers alone.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.logic.fleet import events
from holdfast.logic.fleet.fleet import Fleet
from holdfast.logic.fleet.model import OPERATOR, Load, Role
from holdfast.logic.fleet.rows import NodeRow, ProviderRow, ServerRow, ServerState
from holdfast.logic.fleet.state import FleetState
from holdfast.rim import usage
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Dice

SHARES: Final = {"amber": 30, "birch": 24, "cedar": 20, "dogwood": 15, "elm": 11}
"""Per cent of all servers at each provider."""
JURISDICTIONS: Final = {"amber": "de", "birch": "se", "cedar": "ch", "dogwood": "de", "elm": "is"}
ASSIGNED: Final = {
    "eu": "eu",
    "af": "eu",
    "me": "eu",
    "us": "eu",
    "sa": "eu",
    "ap": "ap",
    "oc": "ap",
    "in": "ap",
}
"""§11.4: where the users of each region belong while there is no other group."""
HOMES: Final = {"eu": 30, "af": 8, "me": 7, "us": 12, "sa": 5, "ap": 20, "oc": 4, "in": 14}
"""Per cent of users in each region."""
REGION_SHARE: Final = {"eu": 0.6, "ap": 0.4}
NEARLY_FULL_FRACTION: Final = 0.05
NOW: Final = 1_800_000_000.0
ROOMY: Final = Load(free_bytes=900, stored_bytes=100)
NEARLY_FULL: Final = Load(free_bytes=5, stored_bytes=995)


class Report(msgspec.Struct, frozen=True):
    """The JSON. `imbalance` is the worst region and role's fullest server over the mean that its
    servers with headroom would have; 1.0 is the optimum."""

    users: int
    relays: int
    replicas: int
    providers: int
    nearly_full: int
    slots: int
    founded_s: float
    seconds: float
    rss_mb: float
    imbalance: float
    violations: int
    kinds: dict[str, int]
    jurisdictions_alike: float
    """Part of users and roles with two servers in one jurisdiction. One jurisdiction has two of the
    providers and 45 % of the servers, a third of all seats at most can be there without."""
    seed: int

    @property
    def held(self) -> bool:
        return self.seconds < 10.0 and self.violations == 0 and self.imbalance <= 1.05


class Bench:
    """One run."""

    def __init__(self, users: int, servers: int, seed: int, clock: Clock) -> None:
        self._users = users
        self._seed = seed
        self._clock = clock
        self._dice = Dice(seed)
        self._full: set[str] = set()
        self._state = FleetState(hash_bytes(b"bench")[:16])
        self._state.load(self._rows(servers))
        self._asked: dict[str, int] = {}
        self._got: dict[str, dict[bytes, int]] = {}

    def run(self) -> Report:
        """Found, place, check."""
        began = self._clock.elapsed()
        fleet = Fleet(self._state, NOW)
        for name in self._state.servers:
            load = NEARLY_FULL if name in self._full else ROOMY
            fleet.liveness.hear(name, NOW, load)
        fleet.seating.founding.update(REGION_SHARE)
        fleet.step(events.Tick(), NOW)
        founded = self._clock.elapsed()
        left = self._users
        for home, share in HOMES.items():
            count = self._users * share // 100 if home != "in" else left
            left -= count
            self._asked[home] = count
            effects = fleet.step(events.Populate(home, count), NOW)
            got = next(item for item in effects.send if isinstance(item, events.Populated))
            self._got[home] = dict(got.shares)
        kinds, alike = self._check()
        roles = [row.role for row in self._state.servers.values()]
        return Report(
            users=sum(sum(shares.values()) for shares in self._got.values()),
            relays=roles.count(Role.RELAY),
            replicas=roles.count(Role.REPLICA),
            providers=len(SHARES),
            nearly_full=len(self._full),
            slots=len(self._state.slots),
            founded_s=round(founded - began, 2),
            seconds=round(self._clock.elapsed() - began, 2),
            rss_mb=round(usage.rss_mb(), 1),
            imbalance=round(self._imbalance(), 4),
            violations=sum(kinds.values()),
            kinds=kinds,
            jurisdictions_alike=round(alike / (2 * self._users), 4),
            seed=self._seed,
        )

    # --- The fleet -------------------------------------------------------------------------------
    def _rows(self, servers: int) -> list[ServerRow | NodeRow | ProviderRow]:
        rows: list[ServerRow | NodeRow | ProviderRow] = [
            ProviderRow(name=name, regions=tuple(REGION_SHARE), jurisdiction=place)
            for name, place in JURISDICTIONS.items()
        ]
        for role in (Role.RELAY, Role.REPLICA):
            for region, share in REGION_SHARE.items():
                places = self._places(round(servers / 2 * share))
                for number, provider in enumerate(places):
                    name = f"{role.value}-{region}-{number + 1:04d}"
                    node = hash_bytes(name.encode())
                    rows.append(_node(name, node, role, region, provider))
                    rows.append(_server(name, node, role, region, provider))
                names = [f"{role.value}-{region}-{n + 1:04d}" for n in range(len(places))]
                self._full.update(
                    self._dice.sample(names, round(NEARLY_FULL_FRACTION * len(names)))
                )
        return rows

    def _places(self, count: int) -> list[str]:
        """Providers in their shares, in no order."""
        places = [name for name, share in SHARES.items() for _ in range(count * share // 100)]
        places += ["amber"] * (count - len(places))
        self._dice.shuffle(places)
        return places

    # --- The checker -----------------------------------------------------------------------------
    def _check(self) -> tuple[dict[str, int], int]:
        """Rules broken, by kind; and users whose servers of a role share a jurisdiction."""
        kinds = {"provider": 0, "region": 0, "headroom": 0, "seats": 0, "count": 0}
        where = {row.name: row for row in self._state.servers.values()}
        slots = {row.slot: row for row in self._state.slots.values()}
        alike = 0
        for home, shares in self._got.items():
            kinds["count"] += abs(sum(shares.values()) - self._asked[home])
            for slot, users in shares.items():
                row = slots[slot]
                for names in (row.relays, row.replicas):
                    kinds["seats"] += users * (len(set(names)) != 3)
                    kinds["provider"] += users * (len({where[n].provider for n in names}) != 3)
                    alike += users * (len({JURISDICTIONS[where[n].provider] for n in names}) != 3)
                for name in row.relays + row.replicas:
                    kinds["region"] += users * (where[name].region != ASSIGNED[home])
                    kinds["headroom"] += users * (name in self._full)
        return kinds, alike

    def _imbalance(self) -> float:
        """The fullest server over the least that the fullest could hold."""
        held: dict[str, int] = {}
        for shares in self._got.values():
            for slot, users in shares.items():
                row = self._state.slots[slot]
                for name in row.relays + row.replicas:
                    held[name] = held.get(name, 0) + users
        worst = 0.0
        for role in (Role.RELAY, Role.REPLICA):
            for region in REGION_SHARE:
                names = [
                    row.name
                    for row in self._state.servers.values()
                    if (row.role, row.region) == (role, region) and row.name not in self._full
                ]
                users = sum(n for home, n in self._asked.items() if ASSIGNED[home] == region)
                mean = 3 * users / len(names)
                worst = max(worst, max(held.get(name, 0) for name in names) / mean)
        return worst


def _server(name: str, node: bytes, role: Role, region: str, provider: str) -> ServerRow:
    return ServerRow(
        name=name,
        role=role,
        region=region,
        provider=provider,
        owner=OPERATOR,
        state=ServerState.ACTIVE,
        node=node,
        addresses=("10.0.0.1:443",),
        seated_at=NOW - 1.0,
        filled=True,
    )


def _node(name: str, node: bytes, role: Role, region: str, provider: str) -> NodeRow:
    return NodeRow(
        node=node,
        identity=b"",
        name=name,
        role=role,
        region=region,
        provider=provider,
        owner=OPERATOR,
        addresses=("10.0.0.1:443",),
        serial="1",
        cert_expires_at=0,
        joined_at=NOW - 1.0,
    )
