"""`holdfast sim`: the production machines in a simulated world, judged from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cyclopts
import msgspec

from holdfast.cli.output import EXIT_NO, EXIT_OK, emit
from holdfast.errors import OperationFault, UsageError
from holdfast.rim import batch
from holdfast.rim.clock import SystemClock
from holdfast.rim.process import holdfast_command
from holdfast.sim.planted import hunt_all
from holdfast.sim.world import repeat
from holdfast.sim.world.absence import absence
from holdfast.sim.world.campaign import Trial
from holdfast.sim.world.campaign import campaign as run_campaign
from holdfast.sim.world.day import Day, Plan, cohorts_agree
from holdfast.sim.world.heal import Heal
from holdfast.sim.world.plot import draw_day

app = cyclopts.App(name="sim", help_format="plaintext")
RELAYS_MIN = 12
PLANTED = Path(__file__).parents[3] / "tests" / "planted"
HUNT_S = 1_800.0


@app.command
def run(
    *,
    relays: int = 3_000,
    users: int = 2_000_000,
    hours: float = 24.0,
    provider_loss: bool = False,
    hq_gone_days: float = 0.0,
    lead_gone_days: float = 0.0,
    seed: int = 1,
    cohorts: bool = True,
    json: bool = False,
) -> int:
    """A day of a fleet at full scale: the production logic, every fault, no real second waited.

    Parameters
    ----------
    relays
        Relays and replicas together, half of each.
    users
        Spread evenly over the slots; each has three relays and three replicas.
    hours
        Simulated hours.
    provider_loss
        A third of the fleet goes with its provider, and comes back later.
    hq_gone_days
        Instead of that day: headquarters gone for so long, on the launch topology with its data.
    lead_gone_days
        With it: no operator does anything for so long.
    seed
        Same seed, same day, to the last draw.
    cohorts
        First check on 60 servers that users as cohorts lead to the same tiers and spawns as users
        one by one.
    json
        One JSON object as the last line.
    """
    if relays < RELAYS_MIN or users < 1 or hours <= 0:
        raise UsageError(f"--relays from {RELAYS_MIN}, --users and --hours positive")
    if hq_gone_days > 0:
        gone = absence(hq_gone_days, lead_gone_days, seed)
        emit(gone, as_json=json, text=_text(gone, gone.held))
        return EXIT_OK if gone.held else EXIT_NO
    clock = SystemClock()
    checked = cohorts_agree(seed, clock) if cohorts else None
    day = Day(Plan(relays, users, hours, seed, provider_loss), clock)
    report = day.run(checked)
    emit(report, as_json=json, text=_text(report, report.held))
    return EXIT_OK if report.held else EXIT_NO


@app.command
def campaign(*, cluster_hours: float = 100.0, seed: int = 1, json: bool = False) -> int:
    """The launch topology with all faults on, seed after seed: nothing promised may be lost.

    Parameters
    ----------
    cluster_hours
        Simulated hours in all; a seed is three to six of them.
    seed
        The first seed; the others follow it.
    json
        One JSON object as the last line.
    """
    if cluster_hours <= 0:
        raise UsageError("--cluster-hours is positive")
    report = run_campaign(seed, cluster_hours, SystemClock())
    emit(report, as_json=json, text=_text(report, report.held))
    return EXIT_OK if report.held else EXIT_NO


@app.command
def replay(seed: int, *, json: bool = False) -> int:
    """One seed of the campaign again, with its story.

    Parameters
    ----------
    seed
        As a campaign named it.
    json
        The verdict as one JSON object; without it, the story before it.
    """
    trial = Trial(seed)
    outcome = trial.run()
    if not json:
        for line in trial.story():
            print(line)
    emit(outcome, as_json=json, text=_text(outcome, outcome.held))
    return EXIT_OK if outcome.held else EXIT_NO


@app.command
def determinism(*, seeds: int = 1_000, seed: int = 1, json: bool = False) -> int:
    """The same seeds under three hash seeds of Python: the same traces, to the last draw.

    Parameters
    ----------
    seeds
        How many, each with ten minutes of faults.
    seed
        The first.
    json
        One JSON object as the last line.
    """
    if seeds < 1:
        raise UsageError("--seeds from 1")
    words = holdfast_command("sim", "hashes", "--seed", str(seed), "--seeds", str(seeds))
    work = [batch.Work(words, {"PYTHONHASHSEED": value}) for value in repeat.HASH_SEEDS]
    printed = batch.outputs(work, at_once=1, timeout_s=60.0 + 10.0 * seeds)
    runs = []
    for text in printed:
        if text is None:
            raise OperationFault("a process that was to repeat the seeds failed; see above")
        lines = [line.split() for line in text.splitlines()]
        runs.append([(digest, int(notes)) for digest, notes in lines])
    report = repeat.compare(seed, runs)
    emit(report, as_json=json, text=_text(report, report.held))
    return EXIT_OK if report.held else EXIT_NO


@app.command(show=False)
def hashes(*, seeds: int, seed: int) -> None:
    """One line for each seed: the trace's hash, and how many notes it covers."""
    for number in range(seed, seed + seeds):
        print(*repeat.trace_of(number), flush=True)


@app.command
def planted(
    *,
    where: Annotated[Path, cyclopts.Parameter(name="--dir")] = PLANTED,
    patch: Path | None = None,
    seeds: int = 24,
    at_once: int = 2,
    json: bool = False,
) -> int:
    """Bugs planted in the logic, each hunted by the campaign in a process of its own.

    Parameters
    ----------
    where
        Directory of planted bugs.
    patch
        Hunt this one instead, anybody's.
    seeds
        Seeds tried before a bug counts as not found.
    at_once
        Processes.
    json
        One JSON object as the last line.
    """
    files = [patch] if patch is not None else sorted(where.glob("*.toml"))
    if not files or seeds < 1 or at_once < 1:
        raise UsageError(f"no planted bugs in {where}; give --dir or --patch")
    try:
        report = hunt_all(files, seeds=seeds, at_once=at_once, timeout_s=HUNT_S)
    except ValueError as error:
        raise UsageError(str(error)) from error
    lines = [
        f"{h.name:<28} {'found' if h.found else 'MISSED'} {h.cpu_s:7.1f} s  {h.what}"
        for h in report.hunts
    ]
    emit(report, as_json=json, text="\n".join(lines))
    return EXIT_OK if report.held else EXIT_NO


@app.command
def heal(*, deaths: int = 10_000, standbys: int = 6, seed: int = 1, json: bool = False) -> int:
    """Deaths one after another in a fleet of 600, and how long each seat was without a machine.

    Parameters
    ----------
    deaths
        How many.
    standbys
        Machines that stand by in every region of every provider (ADR 0045).
    seed
        When, and how long clouds take.
    json
        One JSON object as the last line.
    """
    if deaths < 1 or standbys < 0:
        raise UsageError("--deaths from 1, --standbys from 0")
    report = Heal(deaths, seed, standbys=standbys).run()
    emit(report, as_json=json, text=_text(report, report.held))
    return EXIT_OK if report.held else EXIT_NO


@app.command
def plot(
    out: Path,
    *,
    relays: int = 600,
    users: int = 400_000,
    hours: float = 6.0,
    seed: int = 1,
    json: bool = False,
) -> int:
    """A day with a provider loss as a picture: redundancy, tiers, debts, times to heal. SVG.

    Parameters
    ----------
    out
        File to write.
    relays
        Relays and replicas together.
    users
        Users.
    hours
        Simulated hours.
    seed
        Same seed, same picture.
    json
        The day's report as one JSON object.
    """
    if relays < RELAYS_MIN or users < 1 or hours <= 0:
        raise UsageError(f"--relays from {RELAYS_MIN}, --users and --hours positive")
    day = Day(Plan(relays, users, hours, seed, provider_loss=True), SystemClock())
    report = day.run()
    out.write_text(draw_day(day))
    emit(report, as_json=json, text=f"{out}: {'held' if report.held else 'DID NOT HOLD'}")
    return EXIT_OK if report.held else EXIT_NO


def _text(report: object, held: bool) -> str:
    found = msgspec.to_builtins(report, enc_hook=str)
    width = max(map(len, found))
    lines = [f"  {key:<{width}}  {value}" for key, value in found.items()]
    return "\n".join(["held" if held else "DID NOT HOLD", *lines])
