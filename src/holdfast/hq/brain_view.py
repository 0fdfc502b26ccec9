"""What the brain shows: the fleet, its redundancy, its debts and its story, as plain values.

Times are Unix seconds, 0 for never. `version` grows with every change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from functools import lru_cache

import msgspec

from holdfast.crypto.pure import base32
from holdfast.hq.brain_slots import SlotView as SlotView
from holdfast.hq.brain_slots import SlotViews
from holdfast.hq.brain_words import Kind, kind_of, sentence
from holdfast.limits import TIMELINE_MAX
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.fleet import Fleet
from holdfast.logic.fleet.model import Load, NodeId, Role, Tier
from holdfast.logic.fleet.rows import DebtRow, FreezeRow, IntentRow, ServerRow, ServerState


class ServerView(msgspec.Struct, frozen=True):
    """One logical server. `spawn` is the state of the spawn under way for it, if any."""

    name: str
    role: Role
    region: str
    provider: str
    owner: str
    state: ServerState
    tier: Tier
    tier_at: float
    first_failed_at: float
    node: str
    addresses: tuple[str, ...]
    seated_at: float
    filled: bool
    draining: bool
    silent: bool
    slots: int
    groups: int
    witnesses: int
    """Peers whose probes of it fail just now."""
    load: Load
    spawn: str = ""
    proofs: int = 0
    """Proofs of misbehaviour against the node that sits there."""


class ProviderView(msgspec.Struct, frozen=True):
    """A provider; `lost_at` is 0 while it is up."""

    name: str
    regions: tuple[str, ...]
    state: str
    lost_at: float
    servers: int


class TimelineEntry(msgspec.Struct, frozen=True):
    """One line of what HQ saw, decided or did; `text` is a sentence without its subject."""

    sequence: int
    at: float
    kind: Kind
    verb: str
    subject: str
    text: str


class FleetView(msgspec.Struct, frozen=True):
    """Everything at one moment. `timeline` is newest first."""

    version: int
    at: float
    network: str
    domain: str
    term: int
    scale: float
    servers: tuple[ServerView, ...]
    providers: tuple[ProviderView, ...]
    slots: tuple[SlotView, ...]
    debts: tuple[DebtRow, ...]
    freeze: FreezeRow | None
    intents: tuple[IntentRow, ...]
    """Open ones."""
    timeline: tuple[TimelineEntry, ...]
    relays_min: int
    replicas_min: int
    """The poorest slot's redundancy; the full number when there is no slot."""

    @property
    def frozen(self) -> bool:
        return self.freeze is not None

    @property
    def diversity_debt(self) -> int:
        """Seats in debt, counted slot by slot."""
        return len(self.debts)


class Timeline:
    """The last lines, bounded."""

    def __init__(self) -> None:
        self._entries: deque[TimelineEntry] = deque(maxlen=TIMELINE_MAX)
        self._sequence = 0

    def add(self, lines: Iterable[Audit], at: float, sequence: int = 0) -> None:
        """Append; a `sequence` above our own count moves it on."""
        for line in lines:
            self._sequence = max(self._sequence + 1, sequence)
            self._entries.appendleft(
                TimelineEntry(
                    sequence=self._sequence,
                    at=at,
                    kind=kind_of(line.verb),
                    verb=line.verb,
                    subject=line.subject,
                    text=sentence(line),
                )
            )

    @property
    def entries(self) -> tuple[TimelineEntry, ...]:
        return tuple(self._entries)


def build_view(
    fleet: Fleet,
    timeline: Timeline,
    *,
    accused: Mapping[NodeId, int],
    version: int,
    domain: str,
    scale: float,
    known: SlotViews | None = None,
) -> FleetView:
    """The fleet as it is now. `known` keeps what was shown of the slots."""
    state, known = fleet.state, known or SlotViews()
    slots = known.views(state)
    silent = fleet.liveness.overdue(fleet.now)
    servers = [
        _server(fleet, row, accused, known.groups(name), name in silent)
        for name, row in sorted(state.servers.items())
    ]
    providers = tuple(
        ProviderView(
            name=row.name,
            regions=row.regions,
            state=row.state,
            lost_at=row.lost_at if row.state == "lost" else 0.0,
            servers=len(state.servers_at.get(row.name, ())),
        )
        for _, row in sorted(state.providers.items())
    )
    return FleetView(
        version=version,
        at=fleet.now,
        network=state.network.hex(),
        domain=domain,
        term=state.term,
        scale=scale,
        servers=tuple(servers),
        providers=providers,
        slots=slots,
        debts=tuple(state.debts.values()),
        freeze=fleet.guard.freeze,
        intents=tuple(state.intents[key] for key in state.open),
        timeline=timeline.entries,
        relays_min=known.relays_min,
        replicas_min=known.replicas_min,
    )


_shown = lru_cache(maxsize=8_192)(base32)
"""A node id as people see it; the same thousands at every look."""


def _server(
    fleet: Fleet, row: ServerRow, accused: Mapping[NodeId, int], groups: int, silent: bool
) -> ServerView:
    state = fleet.state
    spawn = fleet.healing.spawn(row.name)
    slots = state.slots_of.get(row.name, ())
    evidence = fleet.tiers.evidence(row.name, fleet.now)
    return ServerView(
        name=row.name,
        role=row.role,
        region=row.region,
        provider=row.provider,
        owner=row.owner,
        state=row.state,
        tier=row.tier,
        tier_at=row.tier_at,
        first_failed_at=row.first_failed_at,
        node=_shown(row.node) if row.node else "",
        addresses=row.addresses,
        seated_at=row.seated_at,
        filled=row.filled,
        draining=row.draining,
        silent=silent,
        slots=len(slots),
        groups=groups,
        witnesses=sum(item.said.probe_ok is False for item in evidence),
        load=fleet.liveness.load(row.name),
        spawn=spawn.state.value if spawn else "",
        proofs=accused.get(row.node, 0) if row.node else 0,
    )


def empty_view(network: str, domain: str, term: int, at: float, scale: float) -> FleetView:
    """A fleet of which nothing is known yet."""
    return FleetView(
        version=0,
        at=at,
        network=network,
        domain=domain,
        term=term,
        scale=scale,
        servers=(),
        providers=(),
        slots=(),
        debts=(),
        freeze=None,
        intents=(),
        timeline=(),
        relays_min=0,
        replicas_min=0,
    )
