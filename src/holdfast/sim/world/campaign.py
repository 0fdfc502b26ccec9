"""Campaigns: seed after seed on the launch topology, all faults on, until the hours are full.

A seed is two phases. *Safety*: three hours of faults, during which nothing that was promised may
break. *Liveness*: the faults end, and within the time that healing may take everything must be
whole: every blob that was ever called stored is held by servers that serve and read by every device
of its group, nothing waits, every seat is filled, recorded and named, and no debt is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from holdfast.limits import SPAWN_PER_MIN_MAX
from holdfast.rim import usage
from holdfast.rim.clock import Clock
from holdfast.sim.world.judges import Judge
from holdfast.sim.world.launch import GROUPS, LaunchWorld, PoolServer
from holdfast.sim.world.swarm import Faults, draw_swarm

SAFETY_S: Final = 3 * 3600.0
LIVENESS_S: Final = 3 * 3600.0
"""What may have to run out: a provider that failed a seat is shunned for an hour, a spawn that does
not join is given up after ten minutes, a debt is repaid one seat of a role in ten minutes."""
CONTAINERS: Final = 18
PROMPT_S: Final = 20.0
"""A dead server costs a push its time-out, once; two relays of three answer at once."""
EPILOGUE_S: Final = 1_500.0
TIMES: Final = {"yellow": (0.0, 100.0), "orange": (40.0, 145.0), "red": (295.0, 375.0)}
"""Seconds from a death to each tier (ADR 0008): up to 60 to the first probe that fails, 10 until
that is known, then two, three and eleven probes; one alert."""


class Outcome(msgspec.Struct):
    """What one seed showed. `found` are the judges' complaints, empty when all held."""

    seed: int
    hours: float
    faults: int
    kinds: dict[str, int]
    written: int
    acked: int
    acked_lost: int
    undelivered: int
    stuck: int
    false_spawns: int
    diversity_violations: int
    stolen_joins: int
    records_refused: int
    locked_out: int
    spawns: int
    spawns_peak_per_min: int
    events: int
    trace_hash: str
    found: list[str]

    @property
    def held(self) -> bool:
        return not self.found


class Report(msgspec.Struct, frozen=True):
    """The JSON of a campaign. `real_time_ratio` is simulated seconds for each CPU second."""

    cluster_hours: float
    containers: int
    seeds: int
    first_seed: int
    faults: int
    kinds: dict[str, int]
    written: int
    acked: int
    acked_lost: int
    stuck: int
    false_spawns: int
    diversity_violations: int
    stolen_joins: int
    locked_out: int
    """Devices that were away while two seats of a role changed, and would follow no record any more
    (D4) until operators overrode it for them."""
    failing_seeds: list[int]
    events: int
    cpu_s: float
    wall_s: float
    real_time_ratio: float
    complaint: str = ""

    @property
    def held(self) -> bool:
        """Whether no judge complained."""
        return not self.failing_seeds


class Trial:
    """One seed."""

    def __init__(
        self,
        seed: int,
        *,
        safety_s: float = SAFETY_S,
        groups: int = GROUPS,
        write_every_s: float = 900.0,
    ) -> None:
        self.seed = seed
        self._safety_s = safety_s
        self.world = LaunchWorld(seed, groups=groups, write_every_s=write_every_s)
        self.judge = Judge(self.world)
        self.began = self.world.schedule.now
        self.swarm = draw_swarm(self.world)
        self.faults = Faults(self.world, self.swarm, self.began + safety_s)
        self.found: list[str] = []

    def safety(self) -> None:
        """The faults."""
        self.world.schedule.run(self.began + self._safety_s)

    def liveness(self, seconds: float = LIVENESS_S) -> None:
        """No faults; ends as soon as everything is whole."""
        world = self.world
        self.faults.calm()
        end = world.schedule.now + seconds
        world.schedule.run(world.schedule.now + 60.0)
        world.writing = False
        while world.schedule.now < end:
            for device in world.devices:
                device.override()
            world.schedule.run(world.schedule.now + 300.0)
            if not self.judge.stuck() and not any(self._lost_and_undelivered()):
                return

    def epilogue(self) -> None:
        """All is well and nothing else happens: one machine dies, and everybody writes at once.
        What the specification says of that holds to the second."""
        world, judge = self.world, self.judge
        victim = world.chance.one(world.standing())
        before, died_at = judge.spawns, world.schedule.now
        world.kill(victim)
        blobs = [device.write() for device in world.devices]
        world.schedule.run(died_at + PROMPT_S)
        late = [blob for blob in blobs if blob not in world.ledger.acked]
        if late:
            self.found.append(f"{len(late)} blobs are not stored {PROMPT_S:.0f} s after a death")
        world.schedule.run(died_at + EPILOGUE_S)
        tiers = {
            line.verb.removeprefix("server."): at - died_at
            for at, line in world.hq.audit
            if at >= died_at and line.subject == victim.name and line.verb.startswith("server.")
        }
        for tier, (first, last) in TIMES.items():
            if not first <= tiers.get(tier, float("inf")) <= last:
                self.found.append(f"{victim.name} {tier} after {tiers.get(tier, 0.0):.0f} s")
        if judge.spawns != before + 1:
            self.found.append(f"{judge.spawns - before} spawns for one death")

    def run(self) -> Outcome:
        """All phases, and the verdict."""
        self.safety()
        self.liveness()
        if not self.judge.stuck():
            self.epilogue()
        return self.outcome()

    def story(self) -> Iterator[str]:
        """Faults, and what HQ saw, decided and did, in order."""
        told = [(at, f"fault {what}") for at, what in self.faults.log]
        told += [(at, f"{a.verb} {a.subject} {a.detail}") for at, a in self.world.hq.audit]
        for at, line in sorted(told, key=lambda item: item[0]):
            yield f"{at - self.began:9.1f}  {line}"

    def outcome(self) -> Outcome:
        """The verdict on what is now."""
        world, judge = self.world, self.judge
        lost, undelivered = self._lost_and_undelivered()
        stuck = judge.stuck()
        found = [f"lost: {name}" for name in lost] + [f"undelivered: {x}" for x in undelivered]
        found += self.found + world.ledger.early + world.ledger.abrupt
        found += stuck + [f"false spawn: {name}" for name in judge.false_spawns]
        if judge.violations_silent:
            found.append(f"{judge.violations_silent} seats owe diversity unrecorded")
        if judge.false_freezes:
            found.append(f"{judge.false_freezes} freezes over a fleet that was well")
        if self.faults.stolen_joins:
            found.append(f"{self.faults.stolen_joins} joins with a stolen token")
        if not stuck and judge.orphans():
            found.append(f"{judge.orphans()} machines that nobody needs run on")
        if judge.spawns_peak_per_min > SPAWN_PER_MIN_MAX:
            found.append(f"{judge.spawns_peak_per_min} spawns in a minute")
        return Outcome(
            seed=self.seed,
            hours=(world.schedule.now - self.began) / 3600.0,
            faults=self.faults.count,
            kinds=self.faults.kinds,
            written=world.written,
            acked=len(world.ledger.acked),
            acked_lost=len(lost),
            undelivered=len(undelivered),
            stuck=len(stuck),
            false_spawns=len(judge.false_spawns),
            diversity_violations=judge.violations_silent,
            stolen_joins=self.faults.stolen_joins,
            records_refused=sum(world.ledger.refused.values()),
            locked_out=world.ledger.overrides,
            spawns=judge.spawns,
            spawns_peak_per_min=judge.spawns_peak_per_min,
            events=world.schedule.events,
            trace_hash=world.trace.hex(),
            found=found,
        )

    def _lost_and_undelivered(self) -> tuple[list[str], list[str]]:
        """Acknowledged blobs that no serving server of their slot can read out, or too few; and
        what some device still has to send or to read."""
        world = self.world
        lost, undelivered = [], []
        holders: dict[bytes, list[PoolServer]] = {}
        for blob, (group, _, _) in world.ledger.acked.items():
            if group.slot not in holders:
                holders[group.slot] = [
                    server
                    for seat in world.hq.records[group.slot].seats
                    if (server := world.machine(seat.node)) is not None and server.serves
                ]
            held = 0
            for server in holders[group.slot]:
                item = server.store.find(group.slot, blob)
                held += item is not None and server.store.read(group.slot, item) is not None
            if not held:
                lost.append(blob.hex()[:12])
            elif held < len(holders[group.slot]):
                undelivered.append(f"{blob.hex()[:8]} is on {held} of {len(holders[group.slot])}")
            for device in group.devices:
                if blob not in device.have:
                    undelivered.append(f"{blob.hex()[:8]} has not come to {device.name}")
        for device in world.devices:
            for blob in device.outbox:
                undelivered.append(f"{blob.hex()[:8]} waits at {device.name}")
        return lost, undelivered


def short_trial(seed: int) -> Trial:
    """Half the faults, a third of the devices, twice the writing: for hunting planted bugs."""
    return Trial(seed, safety_s=SAFETY_S / 2, groups=GROUPS // 3, write_every_s=450.0)


def trials(first_seed: int, cluster_hours: float) -> Iterator[Outcome]:
    """Outcomes, seed by seed, until so many hours are simulated."""
    hours, seed = 0.0, first_seed
    while hours < cluster_hours:
        outcome = Trial(seed).run()
        hours += outcome.hours
        seed += 1
        yield outcome


def campaign(first_seed: int, cluster_hours: float, clock: Clock) -> Report:
    """Run trials and add them up."""
    cpu_at, wall_at = usage.cpu_s(), clock.elapsed()
    outcomes = list(trials(first_seed, cluster_hours))
    cpu_s = usage.cpu_s() - cpu_at
    kinds: dict[str, int] = {}
    for outcome in outcomes:
        for name, count in outcome.kinds.items():
            kinds[name] = kinds.get(name, 0) + count
    hours = sum(outcome.hours for outcome in outcomes)
    failing = [outcome for outcome in outcomes if not outcome.held]
    return Report(
        cluster_hours=round(hours, 2),
        containers=CONTAINERS,
        seeds=len(outcomes),
        first_seed=first_seed,
        faults=sum(outcome.faults for outcome in outcomes),
        kinds=dict(sorted(kinds.items())),
        written=sum(outcome.written for outcome in outcomes),
        acked=sum(outcome.acked for outcome in outcomes),
        acked_lost=sum(outcome.acked_lost for outcome in outcomes),
        stuck=sum(outcome.stuck + outcome.undelivered for outcome in outcomes),
        false_spawns=sum(outcome.false_spawns for outcome in outcomes),
        diversity_violations=sum(outcome.diversity_violations for outcome in outcomes),
        stolen_joins=sum(outcome.stolen_joins for outcome in outcomes),
        locked_out=sum(outcome.locked_out for outcome in outcomes),
        failing_seeds=[outcome.seed for outcome in failing],
        events=sum(outcome.events for outcome in outcomes),
        cpu_s=round(cpu_s, 1),
        wall_s=round(clock.elapsed() - wall_at, 1),
        real_time_ratio=round(hours * 3600.0 / cpu_s, 1),
        complaint="; ".join(f"seed {o.seed}: {'; '.join(o.found[:3])}" for o in failing[:5]),
    )
