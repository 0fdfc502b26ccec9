"""`holdfast fuzz`: bad input for every decoder, with a planted bug as the control."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import msgspec

from holdfast.cli.output import EXIT_NO, EXIT_OK, emit
from holdfast.errors import UsageError
from holdfast.sim.fuzz import Finding, campaign, fuzz_one, planted

PLANTED_INPUTS = 10_000
WORKERS_MAX = 256


class Report(msgspec.Struct, frozen=True):
    """The JSON of one campaign."""

    inputs: int
    decoders: dict[str, int]
    crashes: int
    slow: int
    planted_found: bool
    findings: tuple[Finding, ...]
    seed: int
    cpu_s: float
    inputs_per_cpu_s: int


def fuzz(*, inputs: int = 1_000_000, seed: int = 1, workers: int = 0, json: bool = False) -> int:
    """Feed bad input to every decoder; fails when one crashes, is slow, or the control is missed.

    Parameters
    ----------
    inputs
        How many inputs in all, spread evenly over the decoders.
    seed
        Same seed, same inputs.
    workers
        Processes; 0 is one per core.
    json
        One JSON object as the last line.
    """
    if inputs < 1 or not 0 <= workers <= WORKERS_MAX:
        raise UsageError(f"--inputs from 1, --workers 0 to {WORKERS_MAX}")
    progress = _show(inputs) if sys.stderr.isatty() else _say_nothing
    outcomes = campaign(inputs, seed, workers or os.cpu_count() or 1, progress)
    found = fuzz_one(planted(), seed, PLANTED_INPUTS).crashes > 0
    total, spent = sum(outcome.inputs for outcome in outcomes), sum(o.cpu_s for o in outcomes)
    report = Report(
        inputs=total,
        decoders={outcome.decoder: outcome.inputs for outcome in outcomes},
        crashes=sum(outcome.crashes for outcome in outcomes),
        slow=sum(outcome.slow for outcome in outcomes),
        planted_found=found,
        findings=tuple(finding for outcome in outcomes for finding in outcome.findings),
        seed=seed,
        cpu_s=round(spent, 1),
        inputs_per_cpu_s=int(total / spent) if spent else 0,
    )
    emit(report, as_json=json, text=_text(report))
    return EXIT_OK if not report.crashes and not report.slow and found else EXIT_NO


def _say_nothing(done: int, found: int) -> None:
    """Nobody is looking."""


def _show(inputs: int) -> Callable[[int, int], None]:
    """A line on the terminal that is written over."""

    def show(done: int, found: int) -> None:
        end = "\n" if done >= inputs else ""
        text = f"\r{done:,} of {inputs:,} inputs, {found} findings"
        print(text, end=end, file=sys.stderr, flush=True)

    return show


def _text(report: Report) -> str:
    lines = [
        f"{report.inputs} inputs over {len(report.decoders)} decoders: "
        f"{report.crashes} crashes, {report.slow} slow",
        f"{report.cpu_s} s of CPU, {report.inputs_per_cpu_s} inputs a second of it",
        f"planted bug {'found' if report.planted_found else 'MISSED'}",
    ]
    lines += [
        f"{finding.decoder} #{finding.number}: {finding.what}\n  {finding.data[:160]}"
        for finding in report.findings
    ]
    return "\n".join(lines)
