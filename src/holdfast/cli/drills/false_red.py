"""`holdfast drill false-red`: forged reports and lost packets, in simulated time."""

from __future__ import annotations

from pathlib import Path

import msgspec

from holdfast.cli.drills.play import Keep, play
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.sim.drills.rumour import Rumour, Tally, Weather


class FalseRedReport(msgspec.Struct):
    """What it came to, with and without probes that verify."""

    seed: int
    reports_per_min: int
    loss: float
    slow_observers: int = 0
    minutes: float = 0.0
    reports: int = 0
    deaths: int = 0
    true_red: int = 0
    false_red: int = 0
    spawns: int = 0
    """Machines ordered for servers that were well."""
    replaced: int = 0
    yellow: int = 0
    spawns_forged_without_verification: int = 0
    false_red_without_verification: int = 0
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """All the dead were found and replaced, nobody else was, and that takes verification."""
        right = self.true_red == self.deaths <= self.replaced and not self.false_red
        heard = self.reports > 0 and self.yellow > 0 and self.deaths > 0
        control = self.spawns_forged_without_verification > 0
        return right and heard and control and not self.spawns


def false_red(
    *,
    reports_per_min: int = 100_000,
    loss: float = 0.2,
    slow: float = 0.05,
    deaths: int = 3,
    minutes: float = 20.0,
    seed: int = 1,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """Report every server dead all the while; only the dead may be replaced.

    Production observers and fleet logic of 18 servers, in simulated time.

    Parameters
    ----------
    reports_per_min
        Forged reports that servers take, all together.
    loss
        Share of packets that are lost.
    slow
        Share of servers whose own probes often run out of time.
    deaths
        Servers that really die.
    minutes
        Simulated minutes.
    seed
        Who dies, and what is lost.
    json
        One JSON object as the last line.
    """
    if min(reports_per_min, deaths) < 1 or not (0 <= loss < 1 and 0 <= slow < 1) or minutes < 12:
        raise UsageError(
            "--reports-per-min and --deaths are at least 1, --loss and --slow below 1, "
            "--minutes at least 12: a death takes five to be believed"
        )
    weather = Weather(reports_per_min, loss, slow, deaths)
    report = FalseRedReport(seed, reports_per_min, loss)

    async def drill(_: Path) -> FalseRedReport:
        clock = SystemClock()
        _count(report, Rumour(weather, seed).run(minutes))
        gullible = msgspec.structs.replace(weather, verify=False)
        believed = Rumour(gullible, seed).run(minutes)
        report.spawns_forged_without_verification = believed.spawns
        report.false_red_without_verification = believed.false_red
        report.seconds = round(clock.elapsed(), 1)
        return report

    return play("false-red", drill, keep=keep, json=json)


def _count(report: FalseRedReport, tally: Tally) -> None:
    for name in tally.__struct_fields__:
        setattr(report, name, getattr(tally, name))
