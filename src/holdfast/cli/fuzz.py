"""`holdfast fuzz`: bad input for every decoder, with a planted bug as the control."""

from __future__ import annotations

import os

import msgspec

from holdfast.cli.output import EXIT_NO, EXIT_OK, emit
from holdfast.sim.fuzz import Finding, campaign, fuzz_one, planted

PLANTED_INPUTS = 10_000


class Report(msgspec.Struct, frozen=True):
    """The JSON of one campaign."""

    inputs: int
    decoders: dict[str, int]
    crashes: int
    slow: int
    planted_found: bool
    findings: tuple[Finding, ...]
    seed: int


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
    outcomes = campaign(inputs, seed, workers or os.cpu_count() or 1)
    found = fuzz_one(planted(), seed, PLANTED_INPUTS).crashes > 0
    report = Report(
        inputs=sum(outcome.inputs for outcome in outcomes),
        decoders={outcome.decoder: outcome.inputs for outcome in outcomes},
        crashes=sum(outcome.crashes for outcome in outcomes),
        slow=sum(outcome.slow for outcome in outcomes),
        planted_found=found,
        findings=tuple(finding for outcome in outcomes for finding in outcome.findings),
        seed=seed,
    )
    emit(report, as_json=json, text=_text(report))
    return EXIT_OK if not report.crashes and not report.slow and found else EXIT_NO


def _text(report: Report) -> str:
    lines = [
        f"{report.inputs} inputs over {len(report.decoders)} decoders: "
        f"{report.crashes} crashes, {report.slow} slow",
        f"planted bug {'found' if report.planted_found else 'MISSED'}",
    ]
    lines += [
        f"{finding.decoder} #{finding.number}: {finding.what}\n  {finding.data[:160]}"
        for finding in report.findings
    ]
    return "\n".join(lines)
