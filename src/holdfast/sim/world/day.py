"""A day of a fleet at full scale: what goes wrong in it, and what is found at its end.

    from the first minute   a twentieth of the machines is slow, forged reports come in bursts,
                            clouds and DNS fail now and then, machines die and hosts reboot
    hour 2                  with `provider_loss`, a third of the fleet goes with its provider
    six hours later         the provider is back, with all its machines
    the last two hours      no new faults: everything must become whole again

Two relays of one slot dead at once would be below two whatever headquarters does, so while a
provider is lost no further machine is killed in a slot that has one missing already; everything
else goes on.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from holdfast.limits import SPAWN_PER_MIN_MAX
from holdfast.rim import usage
from holdfast.rim.clock import Clock
from holdfast.sim.world.clouds import CloudOptions
from holdfast.sim.world.fleet import Shape, World
from holdfast.sim.world.judges import Judge
from holdfast.sim.world.servers import Server

PROVIDERS: Final = ("amber", "birch", "cedar")
REGIONS: Final = ("eu", "ap")
SLOW_FRACTION: Final = 0.05
SLOW_MEAN_S: Final = 3.0
"""A probe has ten seconds: one in thirty answers of a slow machine comes too late."""
FORGED_EVERY_S: Final = 60.0
FORGED_REPORTS: Final = 200
DEATHS_PER_DAY_AND_THOUSAND: Final = 4.0
REBOOTS_PER_DAY_AND_THOUSAND: Final = 20.0
REBOOT_S_MAX: Final = 180.0
LOSS_AFTER_S: Final = 2 * 3600.0
LOSS_S: Final = 6 * 3600.0
CALM_S: Final = 2 * 3600.0
REPLACED_MIN_MAX: Final = 30.0
TIMELINE: Final = ("server.", "spawn.", "provider.", "freeze.", "debt.")
CLOUDS: Final = CloudOptions(
    failure_probability=0.01, late_failure_probability=0.01, dud_probability=0.003
)


class Plan(msgspec.Struct, frozen=True):
    """What to simulate."""

    relays: int
    users: int
    hours: float
    seed: int
    provider_loss: bool
    singly: bool = False


class Report(msgspec.Struct, frozen=True):
    """The JSON of one run. `real_time_ratio` is simulated seconds for each CPU second."""

    relays: int
    users: int
    hours: float
    seed: int
    users_below_2: int
    replaced_within_min: float
    diversity_violations: int
    diversity_debt_peak: int
    diversity_debt_end: int
    debt_repaid_within_h: float
    false_spawns: int
    spawns: int
    spawn_cap_per_min: int
    spawns_peak_per_min: int
    deaths: int
    reboots: int
    slow_nodes: int
    forged_reports: int
    records_refused: int
    stuck: int
    machine_steps: int
    contacts: int
    events: int
    cpu_s: float
    wall_s: float
    real_time_ratio: float
    rss_mb: float
    trace_hash: str
    cohort_check: bool | None
    complaint: str = ""

    @property
    def held(self) -> bool:
        """Whether everything that must hold did."""
        return (
            self.users_below_2 == self.diversity_violations == self.false_spawns == 0
            and self.diversity_debt_end == self.records_refused == self.stuck == 0
            and self.replaced_within_min <= REPLACED_MIN_MAX
            and self.spawns_peak_per_min <= self.spawn_cap_per_min
            and self.cohort_check is not False
        )


class Day:
    """One run. `judge` and `world` stay, for plots and tests."""

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self.plan = plan
        self._clock = clock
        self._cpu_at = usage.cpu_s()
        self._wall_at = clock.elapsed()
        per_region = plan.relays // (2 * len(REGIONS))
        slots = plan.relays // 6 * 16
        shape = Shape(
            PROVIDERS, REGIONS, per_region, max(1, plan.users // slots), singly=plan.singly
        )
        self.world = World(shape, plan.seed, clouds=CLOUDS)
        self.world.zone.failure_probability = 0.01
        self.judge = Judge(self.world)
        self.deaths = self.reboots = 0
        self._began = self.world.schedule.now
        self._quiet_at = self._began + max(plan.hours * 3600.0 - CALM_S, plan.hours * 1800.0)
        self._lost: list[str] = []
        self._lost_at = self._replaced_at = self._repaid_at = 0.0
        self._arm()

    # --- The day ---------------------------------------------------------------------------------
    def run(self, cohort_check: bool | None = None) -> Report:
        """Let the day go by and see what is left."""
        world, plan = self.world, self.plan
        end = self._began + plan.hours * 3600.0
        collecting = gc.isenabled()
        gc.disable()  # millions of small things that live for long and are in no cycles
        try:
            world.schedule.run(end)
        finally:
            if collecting:
                gc.enable()
        return self._report(cohort_check)

    def timeline(self) -> list[tuple[float, str, str]]:
        """Every change of a tier, every spawn and every seat, in order."""
        return [
            (at, line.verb, line.subject)
            for at, line in self.world.hq.audit
            if line.verb.startswith(TIMELINE)
        ]

    def _arm(self) -> None:
        world, schedule = self.world, self.world.schedule
        everybody = world.standing()
        for server in world.chance.some(everybody, max(1, int(SLOW_FRACTION * len(everybody)))):
            world.slow(server, SLOW_MEAN_S)
        thousands = self.plan.relays / 1000.0
        self._again(self._die, 86_400 / (DEATHS_PER_DAY_AND_THOUSAND * thousands))
        self._again(self._reboot, 86_400 / (REBOOTS_PER_DAY_AND_THOUSAND * thousands))
        self._again(self._forge, FORGED_EVERY_S)
        if self.plan.provider_loss:
            lost_after_s = min(LOSS_AFTER_S, self.plan.hours * 3600.0 / 8)
            back_after_s = min(LOSS_S, self.plan.hours * 3600.0 / 4)
            schedule.after(lost_after_s, self._lose)
            schedule.after(lost_after_s + back_after_s, world.return_provider, PROVIDERS[0])

    def _again(self, fault: Callable[[], None], mean_s: float) -> None:
        self.world.schedule.after(self.world.chance.delay(mean_s), self._fire, fault, mean_s)

    def _fire(self, fault: Callable[[], None], mean_s: float) -> None:
        if self.world.schedule.now < self._quiet_at:
            fault()
            self._again(fault, mean_s)

    def _die(self) -> None:
        server = self._victim()
        if server is not None:
            self.deaths += 1
            self.world.kill(server)

    def _reboot(self) -> None:
        server = self._victim()
        if server is not None:
            self.reboots += 1
            self.world.kill(server)
            down_s = self.world.chance.between(5.0, REBOOT_S_MAX)
            self.world.schedule.after(down_s, self.world.revive, server)

    def _victim(self) -> Server | None:
        """Any machine all of whose companions serve."""
        world = self.world
        for server in world.chance.some(world.standing(), 8):
            row = next(iter(server.records.values()), None)
            names = (row.relays + row.replicas) if row is not None else ()
            peers = [world.seated(name) for name in names]
            if peers and all(peer is not None and peer.serves for peer in peers):
                return server
        return None

    def _forge(self) -> None:
        world = self.world
        server = world.chance.one(world.standing())
        victims = sorted({s.name for r in server.records.values() for s in r.seats})
        victims = [name for name in victims if name != server.name]
        if victims:
            world.forge(server, world.chance.one(victims), FORGED_REPORTS, server.region)

    def _lose(self) -> None:
        world = self.world
        self._lost_at = world.schedule.now
        self._lost = [server.name for server in world.lose_provider(PROVIDERS[0])]
        self._watch()

    def _watch(self) -> None:
        """When everybody has been replaced, and when every debt is repaid."""
        world = self.world
        if not self._replaced_at and self._is_replaced(self._lost):
            self._replaced_at = world.schedule.now
        if self._replaced_at and not self._repaid_at and self.judge.debts_now() == 0:
            self._repaid_at = world.schedule.now
            return
        world.schedule.after(5.0 if not self._replaced_at else 60.0, self._watch)

    def _is_replaced(self, names: Sequence[str]) -> bool:
        """Whether all these seats have a machine that serves and that every record names."""
        for name in names:
            server = self.world.seated(name)
            if server is None or not server.serves or not server.records:
                return False
        return True

    # --- The report ------------------------------------------------------------------------------
    def _report(self, cohort_check: bool | None) -> Report:
        world, judge, plan = self.world, self.judge, self.plan
        cpu_s = usage.cpu_s() - self._cpu_at
        stuck = judge.stuck()
        never = float("inf") if self._lost else 0.0
        replaced = (self._replaced_at - self._lost_at) / 60 if self._replaced_at else never
        repaid = (self._repaid_at - self._lost_at) / 3600 if self._repaid_at else never
        return Report(
            relays=len(world.hq.records) // 16 * 6,
            users=sum(world.crowd.redundancy),
            hours=plan.hours,
            seed=plan.seed,
            users_below_2=world.crowd.below_two_max,
            replaced_within_min=round(replaced, 2),
            diversity_violations=judge.violations_silent,
            diversity_debt_peak=judge.debt_peak,
            diversity_debt_end=judge.debts_now(),
            debt_repaid_within_h=round(repaid, 2),
            false_spawns=len(judge.false_spawns),
            spawns=judge.spawns,
            spawn_cap_per_min=SPAWN_PER_MIN_MAX,
            spawns_peak_per_min=judge.spawns_peak_per_min,
            deaths=self.deaths,
            reboots=self.reboots,
            slow_nodes=world.slow_nodes,
            forged_reports=world.forged_reports,
            records_refused=sum(world.crowd.refused.values()),
            stuck=len(stuck),
            machine_steps=world.machine_steps,
            contacts=world.crowd.contacts,
            events=world.schedule.events,
            cpu_s=round(cpu_s, 1),
            wall_s=round(self._clock.elapsed() - self._wall_at, 1),
            real_time_ratio=round(plan.hours * 3600.0 / cpu_s, 1),
            rss_mb=round(usage.rss_mb(), 1),
            trace_hash=world.trace.hex(),
            cohort_check=cohort_check,
            complaint="; ".join((judge.false_spawns + stuck)[:5]),
        )


def cohorts_agree(
    seed: int, clock: Clock, *, hours: float = 2.0, relays: int = 60, users: int = 40_000
) -> bool:
    """Users singly and users as cohorts: whether they lead to the same tiers and spawns."""
    lines = []
    for singly in (True, False):
        plan = Plan(relays, users, hours, seed, provider_loss=True, singly=singly)
        day = Day(plan, clock)
        day.run()
        lines.append(day.timeline())
    return bool(lines[0]) and lines[0] == lines[1]
