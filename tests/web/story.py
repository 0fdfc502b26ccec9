"""A provider is lost and the fleet heals, as pages: the script that the tests play.

Twelve logical servers, {relay, replica} x {eu, ap} x {alder, birch, cedar}, and eight slots. All
values are made up but consistent: what a page says of slots is what its servers say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec

from holdfast.hq.brain_view import TimelineEntry as Entry
from holdfast.hq.brain_words import Kind
from holdfast.logic.fleet.model import Role, Tier
from holdfast.logic.fleet.rows import IntentState
from holdfast.web.model import (
    AlertLine,
    DebtLine,
    FleetPage,
    ProviderLine,
    ServerTile,
    SlotLine,
    SpawnTile,
)

START = 1_795_269_600.0
PROVIDERS = ("alder", "birch", "cedar")
REGIONS = ("ap", "eu")
LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


def node_id(seed: int) -> str:
    """Eight characters that look like the start of a node id."""
    return "".join(LETTERS[(seed * 2_654_435_761 >> 3 * k) % 32] for k in range(8))


def server(name: str, **fields: Any) -> ServerTile:
    """A GREEN server named `role-region-provider`, with some fields changed."""
    role, region, provider = name.split("-")
    seed = int.from_bytes(name.encode()) % 999_983
    defaults: dict[str, Any] = {
        "role": Role(role),
        "region": region,
        "provider": provider,
        "node": node_id(seed),
        "address": f"127.{1 + seed % 3}.{1 + seed % 9}.{1 + seed % 19}:4433",
        "sessions": 9 + seed % 8,
        "stored_bytes": 31_000_000 + seed % 9_000_000,
    }
    return ServerTile(name, **(defaults | fields))


def servers(**changes: dict[str, Any]) -> tuple[ServerTile, ...]:
    """The twelve, with fields changed for a provider (`alder={...}`)."""
    return tuple(
        server(f"{role}-{region}-{provider}", **changes.get(provider, {}))
        for role in ("relay", "replica")
        for region in REGIONS
        for provider in PROVIDERS
    )


def slots(relays: int = 3, replicas: int = 3) -> tuple[SlotLine, ...]:
    """Eight slots, two groups or so in each."""
    return tuple(
        SlotLine(f"{n:02x}" * 16, REGIONS[n % 2], relays, replicas, 1 + n % 3) for n in range(8)
    )


def debts() -> tuple[DebtLine, ...]:
    """Four seats of alder's that moved in with another one of their slot."""
    return tuple(
        DebtLine(f"{n:02x}" * 16, f"{role}-{region}-alder", ("birch", "cedar")[n % 2], START + 53)
        for n, (role, region) in enumerate(
            (role, region) for role in ("relay", "replica") for region in REGIONS
        )
    )


def lines(*given: tuple[float, str, str, str, str]) -> tuple[Entry, ...]:
    """Entries, oldest first, as `(after_s, kind, verb, subject, text)`."""
    return tuple(
        Entry(n, START + after_s, Kind(kind), verb, subject, text)
        for n, (after_s, kind, verb, subject, text) in enumerate(given, 1)
    )


LAUNCH = lines(
    (0, "did", "network-started", "hq", "started with term 1"),
    (1, "decided", "launch", "hq", "wants 12 servers on alder, birch and cedar"),
    (2, "did", "spawned", "relay-eu-alder", "was ordered from alder"),
    (4, "did", "joined", "relay-eu-alder", "joined as a new node; certificate 1 of 12"),
    (9, "did", "slots-made", "hq", "handed out 8 slots with 3 relays and 3 replicas each"),
)
TROUBLE = lines(
    *((0, "did", "x", "x", "x") for _ in LAUNCH),
    (31, "saw", "yellow", "relay-eu-alder", "was reported by 11 clients within 2 minutes"),
)[len(LAUNCH) :]
LOSS = lines(
    *((0, "did", "x", "x", "x") for _ in LAUNCH + TROUBLE),
    (36, "saw", "orange", "relay-eu-alder", "failed 3 probes in a row, seen from ap and eu"),
    (36, "decided", "pre-warm", "relay-eu-alder", "would be replaced on birch"),
    (
        51,
        "saw",
        "red",
        "relay-eu-alder",
        "failed for 5 minutes, say relay-eu-birch and relay-eu-cedar",
    ),
    (
        51,
        "saw",
        "red",
        "relay-ap-alder",
        "failed for 5 minutes, say relay-ap-birch and relay-ap-cedar",
    ),
    (52, "decided", "black", "alder", "is lost: 4 servers, 8 slots, 15 groups"),
    (
        52,
        "decided",
        "redistribute",
        "alder",
        "has 4 seats to give to birch and cedar, as diversity debt",
    ),
    (53, "did", "spawned", "relay-eu-alder", "was ordered from birch"),
    (53, "did", "spawned", "replica-eu-alder", "was ordered from cedar"),
)[len(LAUNCH + TROUBLE) :]
HEALING = lines(
    *((0, "did", "x", "x", "x") for _ in LAUNCH + TROUBLE + LOSS),
    (57, "did", "joined", "relay-eu-alder", "joined as a new node on birch"),
    (57, "did", "dns", "relay-eu-alder", "now resolves to its new node, TTL 60 s"),
    (58, "did", "record", "slot 00000000", "version 1.2 names the new nodes"),
    (66, "did", "filled", "replica-eu-alder", "holds what its peers hold; no client was needed"),
)[len(LAUNCH + TROUBLE + LOSS) :]


def page(after_s: float, timeline: Iterable[Entry], **fields: Any) -> FleetPage:
    """A page `after_s` seconds into the story."""
    defaults: dict[str, Any] = {
        "network": "demo.holdfast.test",
        "servers": servers(),
        "providers": tuple(ProviderLine(name) for name in PROVIDERS),
        "slots": slots(),
        "timeline": tuple(reversed(tuple(timeline))),
        "scale": 20.0,
    }
    return FleetPage(START + after_s, **(defaults | fields))


def before() -> FleetPage:
    """All is well."""
    return page(20, LAUNCH)


def watching() -> FleetPage:
    """Clients report one relay."""
    fleet = tuple(
        msgspec.structs.replace(s, tier=Tier.YELLOW) if s.name == "relay-eu-alder" else s
        for s in servers()
    )
    return page(32, LAUNCH + TROUBLE, servers=fleet)


def during() -> FleetPage:
    """Alder is BLACK; two replacements start, two are yet to be ordered."""
    fleet = servers(alder={"tier": Tier.BLACK, "first_failed_at": START + 36, "sessions": 0})
    spawns = tuple(
        SpawnTile(f"intent{n}", name, Role(name.split("-")[0]), name.split("-")[1], home, state)
        for n, (name, home, state) in enumerate(
            (
                ("relay-eu-alder", "birch", IntentState.ORDERED),
                ("replica-eu-alder", "cedar", IntentState.ORDERED),
                ("relay-ap-alder", "cedar", IntentState.WRITTEN),
                ("replica-ap-alder", "birch", IntentState.WRITTEN),
            )
        )
    )
    gone = tuple(ProviderLine(p, START + 52 if p == "alder" else 0.0) for p in PROVIDERS)
    return page(
        54,
        LAUNCH + TROUBLE + LOSS,
        servers=fleet,
        spawns=spawns,
        providers=gone,
        slots=slots(2, 2),
    )


def after() -> FleetPage:
    """Healed on two providers: whole, and in debt."""
    fleet = []
    for n, s in enumerate(servers()):
        if s.provider == "alder":
            home = ("birch", "cedar")[n % 2]
            s = msgspec.structs.replace(s, provider=home, node=node_id(n + 77))
        fleet.append(s)
    gone = tuple(ProviderLine(p, START + 52 if p == "alder" else 0.0) for p in PROVIDERS)
    return page(
        67,
        LAUNCH + TROUBLE + LOSS + HEALING,
        servers=tuple(fleet),
        providers=gone,
        debts=debts(),
    )


def frozen() -> FleetPage:
    """Two providers fall silent at once, so HQ doubts itself."""
    fleet = servers(
        alder={"tier": Tier.RED, "first_failed_at": START + 100},
        birch={"tier": Tier.RED, "first_failed_at": START + 100},
    )
    return page(110, LAUNCH, servers=fleet, slots=slots(1, 1), frozen=True)


def empty() -> FleetPage:
    """A network that was created a moment ago."""
    return FleetPage(START, "new.holdfast.test")


ALERTS = (
    AlertLine(
        "provider-lost:alder",
        "critical",
        "alder",
        "is lost as a whole; its servers are replaced elsewhere",
        "call the provider; follow it: holdfast hq servers",
        "operator",
        START + 52,
    ),
    AlertLine(
        "disk-nearly-full:replica-eu-birch",
        "warning",
        "replica-eu-birch",
        "has 7 % of its room left",
        "enlarge its disk, or: holdfast hq drain replica-eu-birch",
        "owner of the node (ann)",
        START + 240,
    ),
    AlertLine(
        "snapshot-not-away:hq",
        "notice",
        "hq",
        "every snapshot lies on headquarters' own disk",
        "keep one in the pool: holdfast hq snapshots set --recipient AGE --pool-region REGION",
        "operator",
        START,
        "ann",
    ),
)


def large(count: int = 3_000) -> FleetPage:
    """A fleet of `count` servers on five providers in six regions; one provider is ailing."""
    providers = ("alder", "birch", "cedar", "dogwood", "elm")
    regions = ("af", "ap", "eu", "na", "sa", "us")
    tiers = (Tier.BLACK, Tier.RED, Tier.ORANGE, Tier.YELLOW)
    fleet = []
    for n in range(count):
        provider, region = providers[n % 5], regions[n // 5 % 6]
        ailing = provider == "elm" and n % 11 == 3
        fleet.append(
            ServerTile(
                f"{'relay' if n < count // 2 else 'replica'}-{region}-{n:04d}",
                Role.RELAY if n < count // 2 else Role.REPLICA,
                region,
                provider,
                tier=tiers[n % 4] if ailing else Tier.GREEN,
                first_failed_at=START if ailing else 0.0,
                node=node_id(n),
                address=f"127.1.{n // 250}.{n % 250}:4433",
                sessions=400 + n % 300,
                stored_bytes=40_000_000_000 + n * 1_000_000,
            )
        )
    many = tuple(
        SlotLine(f"{n:032x}", regions[n % 6], 3 - (n % 7 == 0), 3, 250) for n in range(count)
    )
    return FleetPage(
        START + 900,
        "large.holdfast.test",
        tuple(fleet),
        providers=tuple(ProviderLine(name) for name in providers),
        slots=many,
        timeline=tuple(
            Entry(n, START + n, Kind.SAW, "orange", f"relay-eu-{n:04d}", "failed 3 probes in a row")
            for n in range(400, 0, -1)
        ),
    )


class Stage:
    """A page source whose page a test changes."""

    def __init__(self, first: FleetPage) -> None:
        self._page = first
        self._turned = asyncio.Event()
        self._number = 0

    def page(self) -> FleetPage:
        return self._page

    def turn(self, new: FleetPage) -> None:
        """Show `new` and call it out."""
        self._page = new
        self._number += 1
        self._turned.set()

    async def changes(self) -> AsyncIterator[int]:
        while True:
            await self._turned.wait()
            self._turned.clear()
            yield self._number
