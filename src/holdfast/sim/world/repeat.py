"""Determinism: the same seeds under several hash seeds, each in a process of its own.

Python orders sets and dictionaries of strings by a secret that changes with each process. A run
that depends on it depends on nothing anybody chose, so a failing seed would not fail again.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.sim.world.campaign import Trial

HASH_SEEDS: Final = ("0", "1", "4242")
SAFETY_S: Final = 600.0
LIVENESS_S: Final = 60.0
GROUPS: Final = 12


class Report(msgspec.Struct, frozen=True):
    """`identical`: seeds whose hash was the same under all hash seeds; `distinct`: how many
    different hashes there were. `notes` are events, effects and draws under the hashes."""

    seeds: int
    first_seed: int
    hash_seeds: tuple[str, ...]
    identical: int
    distinct: int
    notes: int
    differing: list[int]

    @property
    def held(self) -> bool:
        return self.identical == self.distinct == self.seeds


def trace_of(seed: int) -> tuple[str, int]:
    """The hash of a short trial with all faults on, and what it covers."""
    trial = Trial(seed, safety_s=SAFETY_S, groups=GROUPS)
    trial.safety()
    trial.faults.calm()
    trial.world.schedule.run(trial.world.schedule.now + LIVENESS_S)
    return trial.world.trace.hex(), trial.world.trace.notes


def compare(first_seed: int, runs: list[list[tuple[str, int]]]) -> Report:
    """One list of hashes for each hash seed."""
    seeds = len(runs[0])
    assert all(len(run) == seeds for run in runs)
    differing = [
        first_seed + index for index in range(seeds) if len({run[index] for run in runs}) > 1
    ]
    return Report(
        seeds=seeds,
        first_seed=first_seed,
        hash_seeds=HASH_SEEDS,
        identical=seeds - len(differing),
        distinct=len({digest for digest, _ in runs[0]}),
        notes=sum(notes for _, notes in runs[0]),
        differing=differing[:100],
    )
