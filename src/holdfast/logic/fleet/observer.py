"""What one server thinks of the servers it shares slots with (seed 004 §3.1-§3.2, §4.1-§4.3).

A server hears clients say "I cannot reach relay-eu-042". It believes none of them: reports alone
make a name YELLOW, which costs a probe every 30 seconds and nothing else. What the server then
sees with its own probes is evidence, and goes to HQ as an alert.

    GREEN   nothing to say; every peer is probed once a minute all the same, so that a dead
            server is found with no client in sight (ADR 0002)
    YELLOW  more than ten distinct tags within two minutes, or a fifth of the tags active here
            on shared slots (two at least), or two failed probes in a row
    ORANGE  three failed probes in a row, and the failure is not region-specific
    RED     probes failing without a break for five minutes: this server's own confirmation

One successful probe forgets all failures. An alert goes out on every change, every 30 seconds
while not GREEN, and once more when it clears. Memory is bounded: only names in the current slot
records are tracked, with a cap on tags per name and on active tags.

Times are elapsed seconds of the process that drives the machine; `unix_s` turns one into the
Unix time an alert carries.
"""

from __future__ import annotations

from math import ceil

import msgspec

from holdfast.limits import (
    ACTIVE_WINDOW_S,
    GROUPS_MAX,
    ORANGE_FAILURES,
    ORANGE_REGIONS_MIN,
    PROBE_IDLE_PERIOD_S,
    PROBE_PERIOD_S,
    RED_FAILURE_S,
    REGIONS_MAX,
    REPORTERS_MAX,
    YELLOW_ACTIVE_FRACTION,
    YELLOW_CLIENTS_MIN,
    YELLOW_CLIENTS_OVER,
    YELLOW_PROBES_FAILED,
    YELLOW_WINDOW_S,
)
from holdfast.logic.effects import NOTHING, Effects
from holdfast.logic.fleet.model import NodeId, SlotId, Tier


class Peer(msgspec.Struct, frozen=True):
    """A server that shares slots with this one, from the current slot records."""

    name: str
    node: NodeId
    region: str
    slots: tuple[SlotId, ...]


# --- Events --------------------------------------------------------------------------------------
class Peers(msgspec.Struct, frozen=True):
    """The slot records changed: these are all the peers now, this server itself left out."""

    peers: tuple[Peer, ...]


class Active(msgspec.Struct, frozen=True):
    """A group used a session here. Send it on open, and again at most every minute or so."""

    tag: bytes
    slot: SlotId


class Reported(msgspec.Struct, frozen=True):
    """A group says it cannot reach `name`. The caller has checked that the tag may report."""

    tag: bytes
    name: str
    region: str


class Probed(msgspec.Struct, frozen=True):
    """This server's own probe of `name` ended; it began at elapsed time `began_at`. `node` is the
    node id that was probed."""

    name: str
    node: NodeId
    ok: bool
    began_at: float


class Tick(msgspec.Struct, frozen=True):
    """Time went by. Any period up to a few seconds will do; `timers` says when it matters."""


Event = Peers | Active | Reported | Probed | Tick


# --- Effects.send --------------------------------------------------------------------------------
class StartProbing(msgspec.Struct, frozen=True):
    """Probe `name` every `period_s`. Replaces the period in force; a shorter one starts at once."""

    name: str
    node: NodeId
    period_s: float


class StopProbing(msgspec.Struct, frozen=True):
    """`name` is no peer any more."""

    name: str


class AlertOut(msgspec.Struct, frozen=True):
    """The fields of `wire.hq.Alert`; times are elapsed seconds, 0.0 when there is none.

    `probe_ok` is None before the first probe; `probe_failures` is the run of failures up to now.
    """

    name: str
    node: NodeId
    tier: Tier
    clients: int
    clients_active: int
    regions: tuple[str, ...]
    first_reported_at: float
    probe_ok: bool | None
    probe_failures: int
    first_failed_at: float
    observed_at: float


def unix_s(at: float, now: float, wall_s: float, scale: float) -> float:
    """The Unix time of elapsed time `at`, when elapsed time `now` is Unix time `wall_s`.

    0.0 stays 0.0: it means "never".
    """
    assert scale > 0, "time runs forward"
    return wall_s - (now - at) / scale if at else 0.0


class _Watch:
    """What is known of one peer."""

    __slots__ = (
        "alerted_at",
        "failures",
        "first_failed_at",
        "first_reported_at",
        "kin_regions",
        "last_failed_at",
        "peer",
        "probe_ok",
        "regions",
        "reports",
        "tier",
    )

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.tier = Tier.GREEN
        self.reports: dict[bytes, tuple[float, str]] = {}
        self.regions: dict[str, int] = {}  # of the clients that reported within the window
        self.kin_regions: frozenset[str] = frozenset()  # of all servers that share slots with it
        self.first_reported_at = 0.0
        self.probe_ok: bool | None = None
        self.failures = 0
        self.first_failed_at = 0.0
        self.last_failed_at = 0.0
        self.alerted_at = 0.0

    def expire(self, now: float) -> None:
        """Forget reports that have left the window. Oldest come first."""
        while self.reports:
            tag = next(iter(self.reports))
            if now - self.reports[tag][0] <= YELLOW_WINDOW_S:
                return
            self._drop(tag)
        self.first_reported_at = 0.0

    def report(self, tag: bytes, region: str, now: float) -> None:
        """Take a report; a later one of the same tag replaces it."""
        if tag in self.reports:
            self._drop(tag)
        self.reports[tag] = (now, region)
        self.regions[region] = self.regions.get(region, 0) + 1
        self.first_reported_at = self.first_reported_at or now

    def _drop(self, tag: bytes) -> None:
        region = self.reports.pop(tag)[1]
        self.regions[region] -= 1
        if not self.regions[region]:
            del self.regions[region]


class Observer:
    """The machine. One for each server process; `step` is the only way in."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._watches: dict[str, _Watch] = {}
        self._active: dict[tuple[SlotId, bytes], float] = {}  # longest idle first
        self._idle_since = 0.0  # no tag has been idle for longer than since then
        self._active_in: dict[SlotId, int] = {}  # one entry per shared slot
        self._regions_at: dict[str, float] = {}

    def tier(self, name: str) -> Tier:
        """What this server thinks of `name` now; GREEN for a name it does not know."""
        watch = self._watches.get(name)
        return watch.tier if watch else Tier.GREEN

    def step(self, event: Event, now: float) -> Effects:
        """Take one event at elapsed time `now`. `timers` holds the next elapsed time to tick at."""
        match event:
            case Active():
                self._note_active(event, now)
                return NOTHING
            case Reported():
                return self._reported(event, now)
            case Probed():
                return self._probed(event, now)
            case Peers():
                return self._peers(event)
            case Tick():
                return self._tick(now)

    # --- Peers -----------------------------------------------------------------------------------
    def _peers(self, event: Peers) -> Effects:
        send: list[StartProbing | StopProbing] = []
        peers = {peer.name: peer for peer in event.peers}
        for name in [name for name in self._watches if name not in peers]:
            del self._watches[name]
            send.append(StopProbing(name))
        for name, peer in peers.items():
            known = self._watches.get(name)
            if known is not None and known.peer.node == peer.node:
                known.peer = peer
                continue
            self._watches[name] = _Watch(peer)  # a replacement starts with a clean sheet
            send.append(StartProbing(name, peer.node, PROBE_IDLE_PERIOD_S))
        for watch in self._watches.values():
            slots = set(watch.peer.slots)
            kin = (peer for peer in event.peers if not slots.isdisjoint(peer.slots))
            watch.kin_regions = frozenset(peer.region for peer in kin)
        shared = {slot: 0 for peer in event.peers for slot in peer.slots}
        for key in [key for key in self._active if key[0] not in shared]:
            del self._active[key]
        for slot, _ in self._active:
            shared[slot] += 1
        self._active_in = shared
        return Effects(send=tuple(send))

    # --- Activity --------------------------------------------------------------------------------
    def _note_active(self, event: Active, now: float) -> None:
        if event.slot not in self._active_in:
            return
        key = (event.slot, event.tag)
        if self._active.pop(key, None) is None:
            if len(self._active) >= GROUPS_MAX:
                self._drop_idle(now)
            if len(self._active) >= GROUPS_MAX:
                return
            self._active_in[event.slot] += 1
        self._active[key] = now

    def _drop_idle(self, now: float) -> None:
        """Forget tags that have been idle longer than the window."""
        if now - self._idle_since <= ACTIVE_WINDOW_S:
            return
        while self._active:
            key = next(iter(self._active))
            if now - self._active[key] <= ACTIVE_WINDOW_S:
                self._idle_since = self._active[key]
                return
            del self._active[key]
            self._active_in[key[0]] -= 1

    def _active_with(self, peer: Peer, now: float) -> int:
        """Distinct tags active here on slots shared with `peer`; a tag lives on one slot."""
        self._drop_idle(now)
        if len(peer.slots) == len(self._active_in):
            return len(self._active)
        return sum(self._active_in[slot] for slot in peer.slots)

    # --- Reports and probes ----------------------------------------------------------------------
    def _reported(self, event: Reported, now: float) -> Effects:
        watch = self._watches.get(event.name)
        if watch is None:
            return NOTHING
        watch.expire(now)
        if event.tag not in watch.reports and len(watch.reports) >= REPORTERS_MAX:
            return NOTHING  # long past YELLOW: one more tag says nothing new
        watch.report(event.tag, event.region, now)
        if event.region in self._regions_at or len(self._regions_at) < REGIONS_MAX:
            self._regions_at[event.region] = now
        return self._judge(watch, now)

    def _probed(self, event: Probed, now: float) -> Effects:
        watch = self._watches.get(event.name)
        if watch is None or watch.peer.node != event.node:
            return NOTHING
        if watch.reports:
            watch.expire(now)
        watch.probe_ok = event.ok
        if event.ok:
            watch.failures, watch.first_failed_at, watch.last_failed_at = 0, 0.0, 0.0
            if watch.tier is Tier.GREEN and not watch.reports:
                return NOTHING  # all is well, as nearly always
        elif not watch.failures or now - watch.last_failed_at >= PROBE_PERIOD_S / 2:
            # Closer together they are one failure seen twice, not two checks (§4.2: 30 s apart).
            watch.failures += 1
            watch.first_failed_at = watch.first_failed_at or event.began_at
            watch.last_failed_at = now
        return self._judge(watch, now)

    def _tick(self, now: float) -> Effects:
        send: list[object] = []
        timers: list[float] = []
        for watch in self._watches.values():
            if watch.tier is Tier.GREEN and not watch.reports:
                continue
            watch.expire(now)
            effects = self._judge(watch, now)
            send.extend(effects.send)
            timers.extend(effects.timers)
        return Effects(send=tuple(send), timers=(min(timers),) if timers else ())

    # --- Judgement -------------------------------------------------------------------------------
    def _tier_now(self, watch: _Watch, active: int, now: float) -> Tier:
        failing_s = watch.last_failed_at - watch.first_failed_at
        if watch.failures >= ORANGE_FAILURES:
            if failing_s >= RED_FAILURE_S:
                return Tier.RED
            if not self._is_regional(watch, now):
                return Tier.ORANGE
        small = max(YELLOW_CLIENTS_MIN, ceil(active * YELLOW_ACTIVE_FRACTION))
        enough = min(YELLOW_CLIENTS_OVER + 1, small)
        if watch.failures >= YELLOW_PROBES_FAILED or len(watch.reports) >= enough:
            return Tier.YELLOW
        return Tier.GREEN

    def _is_regional(self, watch: _Watch, now: float) -> bool:
        """True when all evidence here comes from one region, and this server knows of others."""
        evidence = {*watch.regions, self._region}
        if len(evidence) >= ORANGE_REGIONS_MIN:
            return False
        known = evidence | watch.kin_regions
        known |= {r for r, at in self._regions_at.items() if now - at <= ACTIVE_WINDOW_S}
        return len(evidence) < min(ORANGE_REGIONS_MIN, len(known))

    def _judge(self, watch: _Watch, now: float) -> Effects:
        active = self._active_with(watch.peer, now)
        before, watch.tier = watch.tier, self._tier_now(watch, active, now)
        send: list[object] = []
        if (before is Tier.GREEN) != (watch.tier is Tier.GREEN):
            calm = watch.tier is Tier.GREEN
            period_s = PROBE_IDLE_PERIOD_S if calm else PROBE_PERIOD_S
            send.append(StartProbing(watch.peer.name, watch.peer.node, period_s))
        due = watch.tier is not Tier.GREEN and now - watch.alerted_at >= PROBE_PERIOD_S
        if watch.tier is not before or due:
            watch.alerted_at = now
            send.append(self._alert(watch, active, now))
        if watch.tier is not Tier.GREEN:
            return Effects(send=tuple(send), timers=(watch.alerted_at + PROBE_PERIOD_S,))
        return Effects(send=tuple(send))

    def _alert(self, watch: _Watch, active: int, now: float) -> AlertOut:
        return AlertOut(
            name=watch.peer.name,
            node=watch.peer.node,
            tier=watch.tier,
            clients=len(watch.reports),
            clients_active=active,
            regions=tuple(sorted(watch.regions)),
            first_reported_at=watch.first_reported_at,
            probe_ok=watch.probe_ok,
            probe_failures=watch.failures,
            first_failed_at=watch.first_failed_at,
            observed_at=now,
        )
