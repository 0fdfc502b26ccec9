"""`holdfast drill liars`: hostile relays and replicas, and the processes that play them."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.cli.drills.play import Keep, play
from holdfast.errors import OperationFault, UsageError
from holdfast.rim.clock import Clock, SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.files import read_file
from holdfast.rim.process import Child, holdfast_command, spawn
from holdfast.sim.drills.liars import BY_NAME, KINDS, Liars, LiarsReport, Outcome

AT_ONCE: Final = 6
"""Trials under way in one process: most of a trial is waiting."""


def liars(
    *,
    seeds: int = 50,
    kinds: str = "",
    workers: int = 0,
    seed: int = 1,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """Lying relays and replicas, behind real sockets: every one is named, nothing is lost.

    Parameters
    ----------
    seeds
        Trials of each kind of lie.
    kinds
        Kinds of lies, comma-separated; all of them when empty.
    workers
        Processes, each with six servers of its own; 0 is one per core.
    seed
        Who lies, when, and about what.
    json
        One JSON object as the last line.
    """
    names = tuple(kinds.split(",")) if kinds else tuple(kind.name for kind in KINDS)
    if seeds < 1 or not set(names) <= set(BY_NAME):
        raise UsageError(f"--seeds from 1; --kinds of {', '.join(BY_NAME)}")
    count = min(workers or os.cpu_count() or 1, seeds)
    return play(
        "liars",
        lambda home: _run(home, SystemClock(), names, seeds, seed, count),
        keep=keep,
        json=json,
    )


async def _run(
    home: Path, clock: Clock, names: tuple[str, ...], seeds: int, seed: int, workers: int
) -> LiarsReport:
    began = clock.elapsed()
    report = LiarsReport(seeds, seed, kinds=len(names))
    children: list[Child[Any]] = []
    try:
        for number in range(workers):
            children.append(await _start(home, names, seeds, seed, number, workers))
        statuses = await asyncio.gather(*(child.wait() for child in children))
    finally:
        for child in children:
            child.kill()
    for number, status in enumerate(statuses):
        data = read_file(home / f"outcomes-{number}.json")
        if status or data is None:
            raise OperationFault(f"a process of the drill failed; see {home}/liars-{number}.log")
        shard = msgspec.json.decode(data, type=Shard)
        report.heard_mib = round(report.heard_mib + shard.heard_bytes / 2**20, 1)
        for outcome in shard.outcomes:
            report.add(outcome)
    report.seconds = round(clock.elapsed() - began, 1)
    return report


async def _start(
    home: Path, names: tuple[str, ...], seeds: int, seed: int, number: int, workers: int
) -> Child[Any]:
    command = holdfast_command(
        "drill",
        "liars-shard",
        f"--home={home}",
        f"--kinds={','.join(names)}",
        f"--seeds={seeds}",
        f"--seed={seed}",
        f"--number={number}",
        f"--workers={workers}",
    )
    return await spawn(command, log=home / f"liars-{number}.log")


class Shard(msgspec.Struct):
    """What one process found."""

    outcomes: list[Outcome]
    heard_bytes: int


def liars_shard(
    *, home: Path, kinds: str, seeds: int, seed: int, number: int, workers: int
) -> None:
    """Every `workers`-th trial, and the controls of every `workers`-th kind."""
    logging.getLogger("holdfast").setLevel(logging.CRITICAL)
    names = kinds.split(",")
    plan = [
        (name, seed * 1_000 + trial)
        for trial in range(seeds)
        for name in names
        if trial % workers == number
    ]
    controls = [(name, seed * 1_000) for name in names[number::workers]]
    shard = asyncio.run(_play_shard(home / f"{number}", plan, controls))
    (home / f"outcomes-{number}.json").write_bytes(msgspec.json.encode(shard))


async def _play_shard(
    home: Path, plan: list[tuple[str, int]], controls: list[tuple[str, int]]
) -> Shard:
    world = Liars(home, SystemClock(), SystemEntropy())
    outcomes: list[Outcome] = []
    await world.start()

    def done(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if len(outcomes) % 50 == 0:
            print(f"{len(outcomes)} of {len(plan)} trials", file=sys.stderr, flush=True)

    try:
        await world.play(plan, AT_ONCE, done)
        for name, seed in controls:
            outcomes.append(await world.control(name, seed))
    finally:
        await world.stop()
    return Shard(outcomes, world.ears.heard_bytes)
