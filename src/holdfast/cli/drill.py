"""`holdfast drill`: one fault or one malice each, on real processes, judged from outside.

Each drill works in a directory of its own, which is left behind when the drill fails, and ends with
status 1 when what it checks did not hold. Seeds choose victims and orders; keys are real.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import cyclopts
import msgspec

from holdfast.cli.drills.crash import KINDS, Crash
from holdfast.cli.drills.forged import Forged
from holdfast.cli.output import EXIT_NO, EXIT_OK, emit
from holdfast.cli.service import clock_of
from holdfast.crypto.certinfo import from_pem
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.drills.disk_full import DiskFull
from holdfast.sim.drills.hostile import Hostile
from holdfast.sim.drills.join_race import JoinRace
from holdfast.sim.drills.slowloris import Slowloris, allow_descriptors

app = cyclopts.App(name="drill", help_format="plaintext")


class Report(Protocol):
    """The JSON of a drill, and whether what it checks held."""

    @property
    def held(self) -> bool: ...


R = TypeVar("R", bound=Report)
Keep = Annotated[Path | None, cyclopts.Parameter(help="Work there, and leave everything.")]


@app.command(name="join-race")
def join_race(
    *, tokens: int = 1_000, clients: int = 16, seed: int = 1, keep: Keep = None, json: bool = False
) -> int:
    """Many nodes race for each join token at two headquarters on one store.

    Parameters
    ----------
    tokens
        How many races.
    clients
        Racers in each, every one with an identity of its own.
    seed
        Who asks which process, in which order.
    json
        One JSON object as the last line.
    """
    if tokens < 1 or clients < 2:
        raise UsageError("a race needs a token and two clients")
    clock, entropy = SystemClock(), SystemEntropy()
    return _play(
        "join-race",
        lambda home: JoinRace(home, clock, entropy, seed).run(tokens, clients),
        keep=keep,
        json=json,
    )


@app.command
def crash(
    *,
    trials: int = 100,
    clients: int = 12,
    acks: int = 100,
    victims: str = ",".join(KINDS),
    seed: int = 1,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """Kill relays, replicas, headquarters, agents and a device under load; nothing may be lost.

    Parameters
    ----------
    trials
        How many kills, the five kinds of victim by turns.
    clients
        Clients that write and remember what was acknowledged.
    acks
        Acknowledgements before each kill.
    victims
        Kinds of victims, comma-separated.
    seed
        Which victims, in which order, when; and the files of the device.
    json
        One JSON object as the last line.
    """
    kinds = tuple(victims.split(","))
    if min(trials, clients, acks) < 1 or not set(kinds) <= set(KINDS):
        raise UsageError(f"--trials, --clients, --acks from 1; --victims of {', '.join(KINDS)}")
    clock, entropy = SystemClock(), SystemEntropy()
    return _play(
        "crash",
        lambda home: Crash(home, clock, entropy, seed).run(trials, clients, acks, kinds),
        keep=keep,
        json=json,
    )


@app.command(name="forged-reports")
def forged_reports(
    *,
    reports: int = 100_000,
    liars: int = 64,
    time_scale: float = 8.0,
    seed: int = 1,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """Report healthy servers dead, over and over, while one machine really dies.

    Parameters
    ----------
    reports
        How many forged reports relays accept, at least.
    liars
        Groups that make them.
    time_scale
        How many of the network's seconds pass in one of yours.
    seed
        Who dies, and who is reported.
    json
        One JSON object as the last line.
    """
    if min(reports, liars) < 1:
        raise UsageError("--reports and --liars are at least 1")
    clock, entropy = clock_of(time_scale), SystemEntropy()
    return _play(
        "forged-reports",
        lambda home: Forged(home, clock, entropy, seed).run(reports, liars),
        keep=keep,
        json=json,
    )


@app.command
def slowloris(
    *,
    hostile: int = 10_000,
    honest: int = 200,
    seconds: float = 30.0,
    seed: int = 1,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """Hang thousands of connections on one relay and see what honest clients feel.

    Parameters
    ----------
    hostile
        Connections that are silent, or send a byte now and then.
    honest
        Clients that push and verify receipts meanwhile.
    seconds
        How long honest clients are measured, once without and once with the hostile ones.
    seed
        When honest clients come, and which of their connections are new.
    json
        One JSON object as the last line.
    """
    if hostile < 1 or honest < 1 or seconds <= 0:
        raise UsageError("--hostile and --honest are at least 1, --seconds above 0")
    clock, entropy = SystemClock(), SystemEntropy()
    return _play(
        "slowloris",
        lambda home: Slowloris(home, clock, entropy, seed).run(hostile, honest, seconds),
        keep=keep,
        json=json,
    )


@app.command(show=False)
def hostile(*, address: str, roots: Path, count: int, tally: Path) -> None:
    """The hostile process of `slowloris`; runs as long as its parent."""
    allow_descriptors(count)
    pinned = from_pem(roots.read_bytes())
    asyncio.run(_hostile(address, pinned, count, tally))


async def _hostile(address: str, roots: Sequence[bytes], count: int, tally: Path) -> None:
    await Hostile(address, roots, SystemClock(), count).run(tally)


@app.command(name="disk-full")
def disk_full(
    *,
    trials: int = 100,
    size_mib: int = 512,
    seed: int = 1,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """Fill a relay's disk, a real tmpfs, and make room again; nothing may be lost. As root.

    Parameters
    ----------
    trials
        How many times.
    size_mib
        The disk, of which a relay keeps 64 in reserve. Each trial leaves a few on it.
    seed
        How much room there is, and what is pushed.
    json
        One JSON object as the last line.
    """
    if trials < 1 or size_mib < 2 * trials + 128:
        raise UsageError("--trials from 1; --size-mib at least 128 and 2 for each trial")
    clock, entropy = SystemClock(), SystemEntropy()
    return _play(
        "disk-full",
        lambda home: DiskFull(home, clock, entropy, seed).run(trials, size_mib),
        keep=keep,
        json=json,
    )


def _play(
    name: str, drill: Callable[[Path], Awaitable[R]], *, keep: Path | None, json: bool
) -> int:
    """Run one drill in its directory and print what it found."""
    home = keep or Path(tempfile.mkdtemp(prefix=f"holdfast-{name}-"))
    home.mkdir(parents=True, exist_ok=True)

    async def play() -> R:
        return await drill(home)

    report = asyncio.run(play())
    if keep is None and report.held:
        shutil.rmtree(home, ignore_errors=True)
    elif not report.held:
        print(f"everything is left in {home}", file=sys.stderr)
    emit(report, as_json=json, text=_text(name, report))
    return EXIT_OK if report.held else EXIT_NO


def _text(name: str, report: Report) -> str:
    found = msgspec.to_builtins(report, enc_hook=str)
    width = max(map(len, found))
    lines = [f"  {key:<{width}}  {value}" for key, value in found.items()]
    return "\n".join([f"{name}: {'held' if report.held else 'DID NOT HOLD'}", *lines])
