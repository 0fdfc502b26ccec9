"""One machine of a provider: the production observer, its probes, its own clock, its agent.

The driver follows `relay.probes` and `node.agent`: a probe begins at once when it is ordered and
then every period; the observer ticks every five seconds while it has doubts; alerts wait until
headquarters has taken them, the newest one of each name; heartbeats go out every thirty seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from holdfast.hq.brain_news import testimony
from holdfast.limits import HEARTBEAT_PERIOD_S, PROBE_TIMEOUT_S
from holdfast.logic.effects import NOTHING
from holdfast.logic.fleet.events import Beat
from holdfast.logic.fleet.filled import digest_of
from holdfast.logic.fleet.model import Load, NodeId, Role, Seat, SlotId
from holdfast.logic.fleet.observer import (
    AlertOut,
    Event,
    Observer,
    Peer,
    Peers,
    Probed,
    StartProbing,
    StopProbing,
    Tick,
    unix_s,
)
from holdfast.logic.fleet.rows import SlotRow
from holdfast.sim.world.network import BASE_DELAY_S
from holdfast.wire.hq import Alert, ProbeResult

if TYPE_CHECKING:
    from holdfast.sim.world.fleet import World

TICK_S: Final = 5.0
RETRY_S: Final = 5.0
WELL: Final = Load(free_bytes=1_000, stored_bytes=1_000)
SICK: Final = Load(free_bytes=0, stored_bytes=2_000, writable=False)


class Server:
    """A machine, from its boot to its end. `endpoint` is its place in the network."""

    def __init__(
        self,
        world: World,
        *,
        node: NodeId,
        name: str,
        role: Role,
        region: str,
        provider: str,
        endpoint: int,
        machine: str = "",
    ) -> None:
        self.world = world
        self.node = node
        self.name = name
        self.role = role
        self.region = region
        self.provider = provider
        self.endpoint = endpoint
        self.machine = machine
        self.address = (f"10.{endpoint >> 16 & 255}.{endpoint >> 8 & 255}.{endpoint & 255}:443",)
        self.up = True
        self.retired = False
        self.slow_s = 0.0
        self.full = False
        self.down_since: float | None = None
        self.filled_at = float("inf")
        self._digest = b""
        self.records: dict[SlotId, SlotRow] = {}
        self.observer = Observer(region)
        self.skew = 0.0
        self.drift = 0.0
        self.wall_step = 0.0
        self._origin = world.schedule.now
        self._probing: dict[str, int] = {}
        self._orders = 0
        self._ticking = False
        self._owed: dict[str, Alert] = {}
        self._delivering = False
        self._life = 0

    # --- Life ------------------------------------------------------------------------------------
    def start(self, *, settled: bool = False) -> None:
        """The agent runs. `settled`: it has been running for long, its beats are spread out."""
        self._life += 1
        first = self.world.chance.between(0.0, HEARTBEAT_PERIOD_S) if settled else 1.0
        self.world.schedule.after(first, self._beat, self._life)

    def stop(self) -> None:
        """The machine is off: nothing it had in memory remains."""
        self.up = False
        self._life += 1
        self.down_since = self.world.schedule.now
        self._probing.clear()
        self._owed.clear()
        self._ticking = self._delivering = False
        self.observer = Observer(self.region)

    def resume(self) -> None:
        """It runs again, with what its disk holds."""
        assert not self.up
        self.up = True
        self.down_since = None
        self.start()
        self._meet_peers()

    @property
    def serves(self) -> bool:
        """Whether a client that reaches it can use it."""
        return self.up and not self.retired and not self.full

    def elapsed(self) -> float:
        """Its monotonic clock, with its drift."""
        return (self.world.schedule.now - self._origin) * (1.0 + self.drift) + 1_000.0

    def elapsed_at(self, moment: float) -> float:
        """What its monotonic clock showed, or will show, at a moment of the world's own time."""
        return (moment - self._origin) * (1.0 + self.drift) + 1_000.0

    def drift_to(self, drift: float) -> None:
        """From now on its clocks run that much too fast."""
        shown = self.elapsed()
        self.drift = drift
        self._origin = self.world.schedule.now - (shown - 1_000.0) / (1.0 + drift)

    def wall(self) -> float:
        """What it believes the Unix time is."""
        return self.world.schedule.now + self.skew + self.wall_step

    def filled(self) -> bool:
        """Whether it holds what the peers of its slots hold."""
        return bool(self.records) and self.world.schedule.now >= self.filled_at

    def filled_of(self) -> bytes:
        """The records it knows, as a real one says them."""
        if not self.filled():
            return b""
        if not self._digest:
            self._digest = digest_of((row.slot, row.version) for row in self.records.values())
        return self._digest

    # --- What headquarters wants -----------------------------------------------------------------
    def desire(self, records: Iterable[SlotRow]) -> None:
        """All slots it sits in, as newest recorded."""
        wanted = {row.slot: row for row in records}
        if not self.records and wanted:
            self.filled_at = min(self.filled_at, self.world.fill_at(self))
        held = self.records
        self.records = {
            slot: row if slot not in held or row.version > held[slot].version else held[slot]
            for slot, row in wanted.items()
        }
        self._digest = b""
        self._meet_peers()

    def _meet_peers(self) -> None:
        seats: dict[str, Seat] = {}
        slots: dict[str, list[SlotId]] = {}
        for row in self.records.values():
            for seat in row.seats:
                if seat.node != self.node:
                    seats[seat.name] = seat
                    slots.setdefault(seat.name, []).append(row.slot)
        self.feed(
            Peers(
                tuple(
                    Peer(seat.name, seat.node, seat.region, tuple(slots[seat.name]))
                    for seat in seats.values()
                )
            )
        )

    # --- The observer ----------------------------------------------------------------------------
    def feed(self, event: Event) -> None:
        """One event to the observer; what it wants is done."""
        self.world.trace.note(self.world.schedule.now, self.endpoint, event)
        self.hear(event)

    def hear(self, event: Event) -> None:
        """The same for an event that the trace has already, in some other form."""
        world = self.world
        effects = self.observer.step(event, self.elapsed())
        world.machine_steps += 1
        if effects is NOTHING:
            return
        if effects.send:
            world.trace.note(effects.send)
            for effect in effects.send:
                match effect:
                    case StartProbing(name, node, period_s):
                        self._orders += 1
                        self._probing[name] = self._orders
                        spread = world.first_probe(self, period_s)
                        world.schedule.after(
                            spread, self._probe, name, node, period_s, self._orders
                        )
                    case StopProbing(name):
                        self._probing.pop(name, None)
                    case AlertOut():
                        self._raise(effect)
        if effects.timers and not self._ticking:
            self._ticking = True
            world.schedule.after(TICK_S, self._tick, self._life)

    def _tick(self, life: int) -> None:
        if life != self._life:
            return
        self._ticking = False
        self.feed(Tick())

    def _probe(self, name: str, node: NodeId, period_s: float, order: int) -> None:
        if self._probing.get(name) != order or not self.up:
            return
        world = self.world
        due = world.schedule.now + period_s
        answer = world.answer(self.endpoint, node, PROBE_TIMEOUT_S)
        if answer is not None and answer <= 2 * BASE_DELAY_S:
            self._probed(name, node, True, self.elapsed(), period_s, order, due)
            return
        ok = answer is not None and answer < PROBE_TIMEOUT_S
        after = answer if answer is not None and ok else PROBE_TIMEOUT_S
        world.schedule.after(
            after, self._probed, name, node, ok, self.elapsed(), period_s, order, due
        )

    def _probed(
        self,
        name: str,
        node: NodeId,
        ok: bool,
        began_at: float,
        period_s: float,
        order: int,
        due: float,
    ) -> None:
        if self._probing.get(name) != order or not self.up:
            return
        self.feed(Probed(name, node, ok, began_at))
        if self._probing.get(name) == order:
            self.world.schedule.at(due, self._probe, name, node, period_s, order)

    # --- The agent -------------------------------------------------------------------------------
    def _beat(self, life: int) -> None:
        if life != self._life or self.retired:
            return
        load = SICK if self.full else WELL
        self.world.to_hq(self, Beat(self.node, load, self.address, self.filled(), self.filled_of()))
        self.world.schedule.after(HEARTBEAT_PERIOD_S, self._beat, life)

    def _raise(self, out: AlertOut) -> None:
        now, wall = self.elapsed(), self.wall()

        def unix(at: float) -> float:
            return unix_s(at, now, wall, 1.0)

        probe = None
        if out.probe_ok is not None:
            since = unix(out.first_failed_at)
            probe = ProbeResult(out.name, out.node, out.probe_ok, out.probe_failures, since)
        self._owed[out.name] = Alert(
            name=out.name,
            node=out.node,
            tier=out.tier,
            clients=out.clients,
            clients_active=out.clients_active,
            regions=out.regions,
            first_reported_at=unix(out.first_reported_at),
            probe=probe,
            observed_at=unix(out.observed_at),
        )
        if not self._delivering:
            self._deliver(self._life)

    def _deliver(self, life: int) -> None:
        """Alerts to headquarters, until it has them."""
        if life != self._life:
            return
        self._delivering = False
        for name, alert in list(self._owed.items()):
            if not self.world.to_hq(self, testimony(self.node, alert)):
                self._delivering = True
                self.world.schedule.after(RETRY_S, self._deliver, life)
                return
            self._owed.pop(name, None)
