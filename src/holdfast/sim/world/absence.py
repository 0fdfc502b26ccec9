"""Nobody at home: headquarters gone for a month, its operator for half a year (seed 004 §12.9).

The launch topology goes on. For `lead_gone_days` no operator does anything. From day 60, the worst
day for it because every certificate has just become due, headquarters is gone for `hq_gone_days`.
Machines die now and then. Every six hours each server shakes hands with each of its peers and each
device with its six servers; in between time is skipped, because nothing happens in it.

The *grace rule* is D6: a certificate of 90 days is renewed at day 30, so that 60 are left whenever
headquarters goes, and a revocation list grown old raises an alarm and stops nothing. The control
turns it off: renewal a week before the end, as is common, and no service on a stale list. It must
fail.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.limits import CERT_RENEW_FRACTION, NODE_CERT_DAYS, RELAYS_PER_SLOT
from holdfast.logic.fleet.model import NodeId
from holdfast.logic.trust.cert_life import Certificate, CertLife, Phase, Renew, phase_of
from holdfast.logic.trust.revocation import is_stale
from holdfast.rim import usage
from holdfast.sim.world.judges import Judge
from holdfast.sim.world.launch import LaunchWorld, PoolServer

DAY_S: Final = 86_400.0
ROUND_S: Final = 6 * 3600.0
AWAKE_S: Final = 150.0
"""Of each round: two idle probes, five heartbeats, two polls of every device."""
HQ_GONE_FROM_DAY: Final = 60.0
DEATHS_EVERY_DAYS: Final = 9.0
STALE_S: Final = 7 * DAY_S
LATE_RENEWAL_S: Final = 7 * DAY_S
HEAL_S_MAX: Final = 3_600.0


class Report(msgspec.Struct, frozen=True):
    """The JSON. `control` is True when the same month fails with the grace rule off."""

    hq_gone_days: float
    lead_gone_days: float
    handshakes: int
    handshakes_failed: int
    renewals: int
    renewals_failed: int
    stale_alarms: int
    deaths: int
    healed: int
    written: int
    acked: int
    acked_lost: int
    days_at_relays_max: int
    control: bool
    control_handshakes_failed: int
    stuck: int
    cpu_s: float
    real_time_ratio: float
    trace_hash: str
    seed: int

    @property
    def held(self) -> bool:
        return (
            self.handshakes_failed == self.acked_lost == self.stuck == 0
            and self.handshakes > 0
            and self.control
        )


class Absence:
    """One run, with the grace rule or without."""

    def __init__(
        self,
        hq_gone_days: float,
        days: float,
        seed: int,
        *,
        gone_from_day: float = HQ_GONE_FROM_DAY,
        grace: bool = True,
    ) -> None:
        self.world = LaunchWorld(seed, groups=12, write_every_s=600.0)
        self.judge = Judge(self.world)
        self._grace = grace
        self._days = days
        self._began = self.world.schedule.now
        self._gone = (
            self._began + gone_from_day * DAY_S,
            self._began + (gone_from_day + hq_gone_days) * DAY_S,
        )
        self._lives: dict[NodeId, CertLife] = {}
        self._lists: dict[NodeId, float] = {}
        self._alarmed: set[NodeId] = set()
        self._serial = 0
        self._die_at = self._began + DEATHS_EVERY_DAYS * DAY_S
        self.handshakes = self.failed = self.renewals = self.renewals_failed = 0
        self.stale_alarms = self.deaths = self.healed = self.relay_days = 0

    def run(self) -> None:
        """Round by round to the end."""
        world, schedule = self.world, self.world.schedule
        while schedule.now < self._began + self._days * DAY_S:
            self._headquarters()
            self._maybe_die()
            schedule.run(schedule.now + AWAKE_S)
            if world.hq.up:
                self._heal()
            self._renew()
            self._shake_hands()
            days = (len({d for v in s.store.days.values() for d in v}) for s in self._relays())
            self.relay_days = max(self.relay_days, max(days, default=0))
            schedule.jump(ROUND_S - AWAKE_S)
        world.writing = False
        schedule.run(schedule.now + 2 * HEAL_S_MAX)

    # --- What happens ----------------------------------------------------------------------------
    def _headquarters(self) -> None:
        world, now = self.world, self.world.schedule.now
        gone = self._gone[0] <= now < self._gone[1]
        if gone and world.hq.up:
            world.hold_hq_down()
        elif not gone and world.hq_held_down:
            world.let_hq_up()

    def _maybe_die(self) -> None:
        world = self.world
        standing = world.standing()
        everybody = sum(len(cloud.machines) for cloud in world.clouds.values())
        if world.schedule.now < self._die_at or len(standing) < everybody:
            return
        self._die_at += world.chance.between(0.5, 1.5) * DEATHS_EVERY_DAYS * DAY_S
        self.deaths += 1
        world.kill(world.chance.one(standing))

    def _heal(self) -> None:
        """Time is not skipped while headquarters works on a loss."""
        world = self.world
        end = world.schedule.now + HEAL_S_MAX
        before = len(world.standing()) < 12
        while self.judge.stuck() and world.schedule.now < end:
            world.schedule.run(world.schedule.now + 60.0)
        self.healed += before and len(world.standing()) == 12

    # --- Certificates ----------------------------------------------------------------------------
    def _life(self, server: PoolServer) -> CertLife:
        life = self._lives.get(server.node)
        if life is None:
            life = self._lives[server.node] = CertLife(self._certificate())
        return life

    def _certificate(self) -> Certificate:
        self._serial += 1
        now = self.world.schedule.now
        return Certificate(str(self._serial), now, now + NODE_CERT_DAYS * DAY_S)

    def _renew(self) -> None:
        """Every agent looks at its certificate, and at its revocation list."""
        world, now = self.world, self.world.schedule.now
        for server in self._serving():
            if world.hq.up:
                self._lists[server.node] = now
                self._alarmed.discard(server.node)
            issued_at = int(self._lists.setdefault(server.node, now))
            if is_stale(issued_at, now, STALE_S) and server.node not in self._alarmed:
                self._alarmed.add(server.node)
                self.stale_alarms += 1
            self._renew_one(server, now)

    def _renew_one(self, server: PoolServer, now: float) -> None:
        life = self._life(server)
        asks = any(isinstance(item, Renew) for item in life.tick(now).send)
        if not self._grace:
            asks = now >= life.certificate.expires_at - LATE_RENEWAL_S
        if not asks:
            return
        if self.world.hq.up:
            self.renewals += 1
            life.renewed(self._certificate())
        else:
            self.renewals_failed += 1
            life.failed(now, self.world.chance.fraction())

    # --- Handshakes ------------------------------------------------------------------------------
    def _shake_hands(self) -> None:
        world = self.world
        for server in self._serving():
            seats = {seat.node for row in server.records.values() for seat in row.seats}
            for node in sorted(seats - {server.node}):
                self._shake(server, world.machine(node))
        for device in world.devices:
            for seat in device.fanout.seats.servers:
                self._shake(None, world.machine(seat.node))

    def _shake(self, caller: PoolServer | None, server: PoolServer | None) -> None:
        """A handshake of two that both run."""
        if server is None or not server.serves:
            return
        now = self.world.schedule.now
        self.handshakes += 1
        ends = [server] if caller is None else [server, caller]
        good = all(phase_of(self._life(end).certificate, now) is not Phase.EXPIRED for end in ends)
        if not self._grace:
            good &= not any(is_stale(int(self._lists.get(e.node, now)), now, STALE_S) for e in ends)
        self.failed += not good

    # --- Reading ---------------------------------------------------------------------------------
    def _serving(self) -> list[PoolServer]:
        return [s for s in self.world.standing() if isinstance(s, PoolServer)]

    def _relays(self) -> list[PoolServer]:
        return [server for server in self._serving() if server.name.startswith("relay")]

    def lost(self) -> int:
        """Blobs called stored that not every serving replica of their slot can read out."""
        world, lost = self.world, 0
        for blob, (group, _, _) in world.ledger.acked.items():
            seats = world.hq.records[group.slot].seats[RELAYS_PER_SLOT:]
            for seat in seats:
                server = world.machine(seat.node)
                item = server.store.find(group.slot, blob) if server is not None else None
                if server is None or item is None or server.store.read(group.slot, item) is None:
                    lost += 1
                    break
        return lost


def absence(hq_gone_days: float, lead_gone_days: float, seed: int) -> Report:
    """With the grace rule, and the control without."""
    assert 0 < CERT_RENEW_FRACTION < 1
    cpu_at = usage.cpu_s()
    days = max(lead_gone_days, HQ_GONE_FROM_DAY + hq_gone_days + 1.0)
    run = Absence(hq_gone_days, days, seed)
    run.run()
    control = Absence(hq_gone_days, HQ_GONE_FROM_DAY + hq_gone_days, seed, grace=False)
    control.run()
    cpu_s = usage.cpu_s() - cpu_at
    return Report(
        hq_gone_days=hq_gone_days,
        lead_gone_days=days,
        handshakes=run.handshakes,
        handshakes_failed=run.failed,
        renewals=run.renewals,
        renewals_failed=run.renewals_failed,
        stale_alarms=run.stale_alarms,
        deaths=run.deaths,
        healed=run.healed,
        written=run.world.written,
        acked=len(run.world.ledger.acked),
        acked_lost=run.lost(),
        days_at_relays_max=run.relay_days,
        control=control.failed > 0,
        control_handshakes_failed=control.failed,
        stuck=len(run.judge.stuck()),
        cpu_s=round(cpu_s, 1),
        real_time_ratio=round((days + HQ_GONE_FROM_DAY + hq_gone_days) * DAY_S / cpu_s, 1),
        trace_hash=run.world.trace.hex(),
        seed=seed,
    )
