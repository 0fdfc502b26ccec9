"""What the fleet page shows, and nothing of how: one immutable `FleetPage` for each version.

The page is a plain value, so that templates decide nothing, tests need no network, and
`/fleet.json` is the page itself. Times are Unix seconds, 0 meaning never; sizes are bytes.
"""

from __future__ import annotations

import msgspec

from holdfast.hq.brain_view import TimelineEntry
from holdfast.limits import RELAYS_PER_SLOT, REPLICAS_PER_SLOT
from holdfast.logic.fleet.model import Role, Tier
from holdfast.logic.fleet.rows import IntentState, ServerState


class ServerTile(msgspec.Struct, frozen=True):
    """One logical server and the node that sits there now.

    `node` is the first characters of the node id; empty while nobody has joined. `filled` says
    whether a replica holds what its slot peers hold, `silent` that HQ misses its heartbeat.
    """

    name: str
    role: Role
    region: str
    provider: str
    owner: str = ""
    state: ServerState = ServerState.ACTIVE
    tier: Tier = Tier.GREEN
    first_failed_at: float = 0.0
    node: str = ""
    address: str = ""
    sessions: int = 0
    stored_bytes: int = 0
    filled: bool = True
    silent: bool = False
    draining: bool = False
    full: bool = False
    proofs: int = 0
    """Proofs of misbehaviour against the node that sits there."""

    @property
    def answers(self) -> bool:
        """Seated, and not known to fail: GREEN and YELLOW servers serve (seed 004 §4.1)."""
        return self.state is ServerState.ACTIVE and self.tier in (Tier.GREEN, Tier.YELLOW)

    @property
    def ails(self) -> bool:
        """Worth a person's eye: not GREEN, or not seated yet. Retired ones rest in peace."""
        if self.state is ServerState.RETIRED:
            return False
        return self.state is not ServerState.ACTIVE or self.tier is not Tier.GREEN


class SpawnTile(msgspec.Struct, frozen=True):
    """A machine on its way that will take the seat `name`, drawn where it will stand.

    `state` is written (decided), ordered (the provider said yes) or joined (about to be seated).
    """

    id: str
    name: str
    role: Role
    region: str
    provider: str
    state: IntentState
    reason: str = "heal"


class ProviderLine(msgspec.Struct, frozen=True):
    """A hosting provider; `lost_at` is 0 while it is up."""

    name: str
    lost_at: float = 0.0

    @property
    def lost(self) -> bool:
        """BLACK (seed 004 §4.4)."""
        return self.lost_at > 0


class SlotLine(msgspec.Struct, frozen=True):
    """How many servers of a slot hold copies now. `id` is hex; `groups` live there."""

    id: str
    region: str
    relays: int
    replicas: int
    groups: int = 0

    @property
    def copies(self) -> int:
        """The smaller of the two kinds, which is what a person can count on."""
        return min(self.relays, self.replicas)

    @property
    def whole(self) -> bool:
        """Every relay and every replica holds its copy."""
        return self.relays >= RELAYS_PER_SLOT and self.replicas >= REPLICAS_PER_SLOT


class DebtLine(msgspec.Struct, frozen=True):
    """A seat that shares a failure domain with another seat of its slot (diversity debt)."""

    slot: str
    name: str
    provider: str
    since: float


class AlertLine(msgspec.Struct, frozen=True):
    """Something that calls for a person. `whose` says for whom it is, `step` what to do."""

    id: str
    severity: str
    subject: str
    what: str
    step: str
    whose: str
    began_at: float
    acknowledged_by: str = ""


class FleetPage(msgspec.Struct, frozen=True):
    """Everything the page shows. Timeline entries are newest first.

    `scale` is how many elapsed seconds pass in one real one (more than 1 in a drill).
    """

    at: float
    network: str = ""
    servers: tuple[ServerTile, ...] = ()
    spawns: tuple[SpawnTile, ...] = ()
    providers: tuple[ProviderLine, ...] = ()
    slots: tuple[SlotLine, ...] = ()
    debts: tuple[DebtLine, ...] = ()
    frozen: bool = False
    frozen_reason: str = ""
    timeline: tuple[TimelineEntry, ...] = ()
    scale: float = 1.0
    alerts: tuple[AlertLine, ...] = ()
