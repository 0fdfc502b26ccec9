"""`holdfast sim`: the production machines in a simulated world, judged from outside."""

from __future__ import annotations

import cyclopts
import msgspec

from holdfast.cli.output import EXIT_NO, EXIT_OK, emit
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.sim.world.day import Day, Plan, cohorts_agree

app = cyclopts.App(name="sim", help_format="plaintext")
RELAYS_MIN = 12


@app.command
def run(
    *,
    relays: int = 3_000,
    users: int = 2_000_000,
    hours: float = 24.0,
    provider_loss: bool = False,
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
    clock = SystemClock()
    checked = cohorts_agree(seed, clock) if cohorts else None
    day = Day(Plan(relays, users, hours, seed, provider_loss), clock)
    report = day.run(checked)
    emit(report, as_json=json, text=_text(report, report.held))
    return EXIT_OK if report.held else EXIT_NO


def _text(report: object, held: bool) -> str:
    found = msgspec.to_builtins(report, enc_hook=str)
    width = max(map(len, found))
    lines = [f"  {key:<{width}}  {value}" for key, value in found.items()]
    return "\n".join(["held" if held else "DID NOT HOLD", *lines])
