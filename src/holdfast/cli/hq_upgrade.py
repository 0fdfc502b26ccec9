"""`holdfast hq upgrade` and `defer`: send a release through the fleet, and take it back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from holdfast.cli.hq_call import call_hq, part
from holdfast.cli.output import emit
from holdfast.hq.upgrade_admin import Defer, UpgradeOrder, UpgradeView, Why
from holdfast.hq.verbs import Done

Dir = Annotated[Path, Parameter(name="--dir", help="Directory of the headquarters.")]
Json = Annotated[bool, Parameter(name="--json", help="One JSON object as the last line.")]
upgrade = cyclopts.App(name="upgrade", help="Releases on their way.", help_format="plaintext")


@upgrade.default
def start(
    release: str,
    *,
    home: Dir,
    canary: str = "",
    at_once: int = 1,
    soak_s: float | None = None,
    required_in_days: float = 0.0,
    halting: bool = True,
    json: Json = False,
) -> None:
    """Send a release through the fleet: the canary region first, then region by region.

    Each server must be well on it for the soak before the next one gets it. A regression takes
    everything back. Unless you own headquarters' directory, a second operator must agree.

    Parameters
    ----------
    release
        Its name, see `holdfast hq release list`; `installed` is what each machine has installed.
    canary
        The region that goes first; the first by name when empty.
    at_once
        Servers that change at the same time; never two of one slot.
    soak_s
        The network's seconds that a server must be well, five minutes when not given.
    required_in_days
        Days from now until owners who put it off are told that it is required.
    halting
        --no-halting goes on whatever happens: for a release that must get out through trouble.
    """
    order = UpgradeOrder(release, canary, at_once, soak_s, halting, required_in_days)
    done = call_hq(home, "POST", "/upgrade", order, Done)
    text = f"{done.subject} is on its way; follow it: holdfast hq upgrade status"
    emit(done, as_json=json, text=text)


@upgrade.command
def status(*, home: Dir, json: Json = False) -> None:
    """Where the release is, server by server."""
    found = call_hq(home, "GET", "/upgrade", None, UpgradeView)
    emit(found, as_json=json, text=_describe(found))


@upgrade.command
def halt(*, home: Dir, reason: str = "", json: Json = False) -> None:
    """Order no further server; those that were go on.

    Parameters
    ----------
    reason
        Why; it is written to the audit log.
    """
    _say(home, "halt", reason, json, "halted; go on with resume, or take it back with back")


@upgrade.command
def resume(*, home: Dir, json: Json = False) -> None:
    """Go on after a halt."""
    _say(home, "resume", "", json, "goes on")


@upgrade.command
def back(*, home: Dir, reason: str = "", json: Json = False) -> None:
    """Take every server back to what it ran before, one after another, without a soak.

    Parameters
    ----------
    reason
        Why; it is written to the audit log.
    """
    _say(home, "back", reason, json, "goes back; follow it: holdfast hq upgrade status")


def defer(name: str, *, home: Dir, days: float, json: Json = False) -> None:
    """Pass a server over for some days; its owner does the same with `holdfast node defer`.

    Parameters
    ----------
    name
        As `holdfast hq servers` lists it.
    days
        From now; 0 takes it back.
    """
    done = call_hq(home, "POST", f"/servers/{part(name)}/defer", Defer(days), Done)
    emit(done, as_json=json, text=f"{done.subject} is passed over for {days:g} days")


def _say(home: Path, word: str, reason: str, json: bool, text: str) -> None:
    done = call_hq(home, "POST", f"/upgrade/{word}", Why(reason), Done)
    emit(done, as_json=json, text=text)


def _describe(view: UpgradeView) -> str:
    if not view.id:
        return "no upgrade yet; every server runs what is installed on it"
    head = f"{view.release}: {view.state}, canary {view.canary}, back to {view.back_to}"
    lines = [head + (f"\n{view.reason}" if view.reason else "")]
    if view.passed_over:
        lines.append(
            f"{view.passed_over} passed over: ill, or a server of their slots is; see: holdfast hq"
            " servers. It ends once they are well, or put off: holdfast hq defer NAME"
        )
    for place in view.places:
        told = f"  {place.refused}" if place.refused else ""
        lines.append(
            f"{place.name:20} {place.phase:8} wanted {place.wanted:14} runs {place.runs or '?'}"
            + told
        )
    return "\n".join(lines)
