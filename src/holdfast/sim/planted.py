"""Hunting all planted bugs, each in a process of its own, and the honest code beside them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec

from holdfast.rim import batch
from holdfast.sim.hunt import read_bug


class Hunt(msgspec.Struct, frozen=True):
    """What became of one bug. `like` is the failure of others that it repeats, empty if none."""

    name: str
    module: str
    lesson: str
    like: str
    found: bool
    seed: int | None
    what: str
    cpu_s: float


class Report(msgspec.Struct, frozen=True):
    """`control` is True when the honest code, over every seed that found a bug, shows nothing."""

    planted: int
    found: int
    repeats_of_others: int
    seeds_max: int
    cpu_s_median: float
    cpu_s_worst: float
    control: bool
    not_found: list[str]
    hunts: list[Hunt]

    @property
    def held(self) -> bool:
        return self.planted == self.found > 0 and self.control


def _words(file: Path | None, seeds: int) -> list[str]:
    path = [str(file)] if file is not None else []
    return [sys.executable, "-m", "holdfast.sim.hunt", *path, "--seeds", str(seeds)]


def hunt_all(files: Sequence[Path], *, seeds: int, at_once: int, timeout_s: float) -> Report:
    """Hunt each; a process that dies or hangs has found nothing. Raises ValueError for a file that
    is no planted bug, OperationFault when no process can be started."""
    bugs = [read_bug(file) for file in files]
    work = [batch.Work(_words(file, seeds)) for file in files]
    printed = batch.outputs(work, at_once=at_once, timeout_s=timeout_s)
    hunts = []
    for bug, text in zip(bugs, printed, strict=True):
        said = json.loads(text.splitlines()[-1]) if text else {}
        hunts.append(
            Hunt(
                name=bug.name,
                module=bug.module,
                lesson=bug.lesson,
                like=bug.like,
                found=said.get("found", False),
                seed=said.get("seed"),
                what=said.get("what", "the process died or hung"),
                cpu_s=said.get("cpu_s", timeout_s),
            )
        )
    last = max((hunt.seed for hunt in hunts if hunt.seed), default=1)
    honest = batch.outputs([batch.Work(_words(None, last))], at_once=1, timeout_s=timeout_s)[0]
    clean = honest is not None and not json.loads(honest.splitlines()[-1])["found"]
    times = [hunt.cpu_s for hunt in hunts if hunt.found]
    return Report(
        planted=len(hunts),
        found=len(times),
        repeats_of_others=sum(bool(hunt.like) for hunt in hunts),
        seeds_max=seeds,
        cpu_s_median=round(median(times), 1) if times else 0.0,
        cpu_s_worst=max(times, default=0.0),
        control=clean,
        not_found=[hunt.name for hunt in hunts if not hunt.found],
        hunts=hunts,
    )
