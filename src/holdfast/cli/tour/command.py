"""`holdfast tour`: run the story, print the table, give the verdict."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Console

from holdfast.cli.local import LocalNetwork
from holdfast.cli.output import EXIT_NO, EXIT_OK, emit
from holdfast.cli.service import clock_of
from holdfast.cli.tour.report import TourReport, failures, table
from holdfast.cli.tour.story import CROWD, Stage, Story
from holdfast.cli.trees import left_out_of, measure, standard_library
from holdfast.errors import HoldfastError, UsageError
from holdfast.limits import GIB, RED_FAILURE_S
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import SystemEntropy
from holdfast.wire.hq import Terms

SCALE_MAX: Final = 12.0
"""Faster than this, probes of a busy two-core machine time out for no reason but the speed."""
SYNC_BYTES_PER_S: Final = 20e6
SYNC_FILES_PER_S: Final = 1_500
"""A careful guess of what two cores sync while twenty servers share them."""
TERMS: Final = Terms(group_bytes_max=32 * GIB, requests_per_s=5_000.0, requests_burst=50_000.0)
"""Any folder, as fast as the machine goes: the tour declares its own terms (D17)."""


def tour(
    *,
    folder: Path | None = None,
    time_scale: float = 0.0,
    keep: Annotated[Path | None, Parameter(help="Work there, and leave everything.")] = None,
    seed: int = 0,
    json: bool = False,
) -> int:
    """Sync a real folder, lose a whole provider midway, heal, and compare every byte.

    Parameters
    ----------
    folder
        The folder to sync; the standard library of the running Python when none is given. It is
        copied first and never written to.
    time_scale
        How many of the network's seconds pass in one of yours; chosen by the folder's size when 0.
    seed
        Printed with the result; the tour draws real keys and cannot be replayed.
    json
        One JSON object as the last line.
    """
    source = (folder or standard_library()).resolve()
    if not source.is_dir():
        raise UsageError(f"{source} is no folder; give --folder one that exists")
    scale = time_scale or choose_scale(source)
    clock = clock_of(scale)
    report = TourReport(time_scale=scale, seed=seed, clients=CROWD)
    home = keep or Path(tempfile.mkdtemp(prefix="holdfast-tour-"))
    console = Console(stderr=True, highlight=False)
    fault = asyncio.run(_play(home, source, clock, report, console))
    report.seconds = round(clock.elapsed() / scale, 1)
    wrong = [str(fault)] if fault is not None else failures(report)
    report.verdict = "; ".join(wrong) or "held"
    if keep is None and not wrong:
        shutil.rmtree(home, ignore_errors=True)
    elif wrong:
        print(f"everything is left in {home}", file=sys.stderr)
    emit(report, as_json=json, text=_ending(report, wrong))
    return EXIT_NO if wrong else EXIT_OK


def choose_scale(folder: Path) -> float:
    """As fast as lets the second half of the sync end before a replacement can start."""
    tree = measure(folder, left_out_of(folder))
    sync_s = tree.bytes / SYNC_BYTES_PER_S + tree.files / SYNC_FILES_PER_S + 3.0
    return round(max(1.0, min(SCALE_MAX, RED_FAILURE_S / sync_s)), 1)


async def _play(
    home: Path, source: Path, clock: Clock, report: TourReport, console: Console
) -> HoldfastError | None:
    """The story; what ended it early, if anything did."""
    stage, entropy = Stage(home), SystemEntropy()
    for directory in (stage.logs, stage.home / "trees"):
        directory.mkdir(parents=True, exist_ok=True)
    network = LocalNetwork(
        stage.network,
        clock=clock,
        entropy=entropy,
        time_scale=clock.scale,
        report_tag_age_s=0.0,
        terms=TERMS,
    )

    def tell(text: str) -> None:
        console.print(f"[dim]{clock.elapsed() / clock.scale:6.1f} s[/dim]  {text}", soft_wrap=True)

    try:
        await Story(stage, network, clock, entropy, report, tell).play(source)
    except HoldfastError as error:
        return error
    return None


def _ending(report: TourReport, wrong: list[str]) -> str:
    verdict = "It did not hold:\n  " + "\n  ".join(wrong) if wrong else "It held."
    return f"\n{table(report)}\n\n{verdict}"
