"""Ten thousand deaths, and how long each seat was without a machine.

In every set of six servers one machine dies, a relay or a replica in turn, again and again; nothing
else goes wrong. *Restored* is when the successor serves and every record of its slots names it.
The times are the seed's own: clouds take 30 seconds and more to make a machine (seed 004 §4.3).
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.rim import usage
from holdfast.sim.percentile import percentile
from holdfast.sim.world.clouds import CloudOptions
from holdfast.sim.world.fleet import Shape, World
from holdfast.sim.world.judges import Judge
from holdfast.sim.world.servers import Server

PROVIDERS: Final = ("amber", "birch", "cedar")
PER_REGION: Final = 150
USERS_PER_SLOT: Final = 25
PAUSE_S: Final = 900.0
"""After a seat is restored. With relays and replicas in turn records never wait for D4, and no
provider has a tenth of its machines dead at once, which would rightly be called its loss."""
CLOUDS: Final = CloudOptions(call_delay_mean=0.5, boot_s_min=30.0, boot_delay_mean=8.0)


class Report(msgspec.Struct, frozen=True):
    """Seconds from a death. `red`: HQ is sure; `restored`: see above; `spawn`: from the order to
    the machine's first call, the clouds' part of it, or that of the machine that stood by."""

    deaths: int
    standbys: int
    servers: int
    users: int
    sim_hours: float
    sim_red_p50_s: float
    sim_red_p99_s: float
    sim_restored_p50_s: float
    sim_restored_p99_s: float
    sim_restored_max_s: float
    sim_restored_from_first_failure_p99_s: float
    spawn_p50_s: float
    spawn_p99_s: float
    false_spawns: int
    users_below_2: int
    spawns: int
    cpu_s: float
    seed: int

    @property
    def held(self) -> bool:
        """One spawn for each death, nobody below two; figures are reported as they are."""
        return self.false_spawns == self.users_below_2 == 0 and self.spawns == self.deaths


class Heal:
    """The scenario."""

    def __init__(
        self, deaths: int, seed: int, *, per_region: int = PER_REGION, standbys: int = 0
    ) -> None:
        shape = Shape(
            PROVIDERS,
            ("eu", "ap"),
            per_region,
            USERS_PER_SLOT,
            replica_fill_s=120.0,
            standbys=standbys,
        )
        self.world = World(shape, seed, clouds=CLOUDS)
        self.judge = Judge(self.world)
        self._deaths = deaths
        self._seed = seed
        self._killed = 0
        self._began = self.world.schedule.now
        self._pending: dict[str, tuple[Server, float]] = {}
        self.red: list[float] = []
        self.restored: list[float] = []
        self.from_failure: list[float] = []
        self.spawn: list[float] = []
        sets = {row.relays + row.replicas for row in self.world.hq.records.values()}
        for number, names in enumerate(sorted(sets)):
            at = self.world.chance.between(0.0, 2 * PAUSE_S)
            self.world.schedule.after(at, self._kill, names, number % 6)

    def run(self) -> Report:
        """Until every death is healed."""
        cpu_at, world = usage.cpu_s(), self.world
        world.schedule.after(1.0, self._look)
        while len(self.restored) < self._deaths:
            world.schedule.run(world.schedule.now + 600.0)
        self._read_story()
        return Report(
            deaths=len(self.restored),
            standbys=world.shape.standbys,
            servers=len({row.slot for row in world.hq.records.values()}) // 16 * 6,
            users=sum(world.crowd.redundancy),
            sim_hours=round((world.schedule.now - self._began) / 3600.0, 2),
            sim_red_p50_s=percentile(self.red, 0.5, 1),
            sim_red_p99_s=percentile(self.red, 0.99, 1),
            sim_restored_p50_s=percentile(self.restored, 0.5, 1),
            sim_restored_p99_s=percentile(self.restored, 0.99, 1),
            sim_restored_max_s=round(max(self.restored), 1),
            sim_restored_from_first_failure_p99_s=percentile(self.from_failure, 0.99, 1),
            spawn_p50_s=percentile(self.spawn, 0.5, 1),
            spawn_p99_s=percentile(self.spawn, 0.99, 1),
            false_spawns=len(self.judge.false_spawns),
            users_below_2=world.crowd.below_two_max,
            spawns=self.judge.spawns,
            cpu_s=round(usage.cpu_s() - cpu_at, 1),
            seed=self._seed,
        )

    def _kill(self, names: tuple[str, ...], turn: int) -> None:
        if self._killed >= self._deaths:
            return
        server = self.world.seated(names[turn])
        assert server is not None
        self._killed += 1
        self._pending[names[turn]] = (server, self.world.schedule.now)
        self.world.kill(server)

    def _look(self) -> None:
        world, now = self.world, self.world.schedule.now
        for name, (dead, died_at) in list(self._pending.items()):
            server = world.seated(name)
            if server is None or server is dead or not server.serves:
                continue
            slots = world.hq.slots_at.get(server.node, {})
            if len(slots) < len(dead.records):
                continue
            del self._pending[name]
            self.restored.append(now - died_at)
            names = next(iter(world.hq.records[slot] for slot in slots))
            six = names.relays + names.replicas
            turn = (six.index(name) + 3) % 6 if six.index(name) < 3 else (six.index(name) - 2) % 3
            world.schedule.after(PAUSE_S, self._kill, six, turn)
        world.schedule.after(1.0, self._look)

    def _read_story(self) -> None:
        """Times between the lines of HQ's own audit log."""
        ordered: dict[str, float] = {}
        for at, line in self.world.hq.audit:
            match line.verb:
                case "spawn.ordered":
                    ordered[line.subject] = at
                case "node.joined" if line.subject in ordered:
                    self.spawn.append(at - ordered.pop(line.subject))
                case "server.red":
                    self.red.append(float(line.detail["failed_s"]))
                case "server.seated" if line.detail["reason"] == "heal":
                    self.from_failure.append(float(line.detail["failed_s"]))
