"""`holdfast hq rotate`: servers get fresh machines, in their turn, while they serve."""

from __future__ import annotations

from typing import Literal

import cyclopts

from holdfast.cli.hq_call import call_hq, part
from holdfast.cli.hq_options import Dir, Json
from holdfast.cli.output import emit
from holdfast.errors import UsageError
from holdfast.hq.rotation_admin import MassRotate, RotationView, Schedule
from holdfast.hq.verbs import Done

app = cyclopts.App(name="rotate", help="Renew servers' machines in their turn, while they serve.")


@app.default
def rotate(
    *names: str, home: Dir, older_than: float = 0.0, at_once: int = 1, json: Json = False
) -> None:
    """Put servers on fresh machines, the oldest first; their clients lose nothing.

    Parameters
    ----------
    names
        As `holdfast hq servers` lists them; several at once need a second operator.
    older_than
        All whose machine is older than so many days, in place of names.
    at_once
        How many may be under way at a time; of one slot it is one at most.
    """
    if len(names) == 1 and not older_than:
        if at_once != 1:
            raise UsageError("--at-once is for several servers")
        done = call_hq(home, "POST", f"/servers/{part(names[0])}/rotate", None, Done)
    elif names or older_than:
        order = MassRotate(names, older_than, at_once)
        done = call_hq(home, "POST", "/rotate", order, Done)
    else:
        raise UsageError(
            "name servers, or --older-than DAYS; for a standing order: holdfast hq rotate "
            "schedule --every-days DAYS"
        )
    follow = "follow it: holdfast hq rotate schedule show"
    emit(done, as_json=json, text=f"{done.subject}: each in its turn; {follow}")


@app.command
def schedule(
    what: Literal["set", "show", "off"] = "set",
    *,
    home: Dir,
    every_days: float = 0.0,
    at_once: int = 1,
    json: Json = False,
) -> None:
    """Renew every machine that grows older than so many days, by itself.

    Parameters
    ----------
    what
        set (with --every-days; needs a second operator), show, or off.
    every_days
        How old a machine may become.
    at_once
        How many may be under way at a time.
    """
    if what == "off":
        done = call_hq(home, "DELETE", "/rotation", None, Done)
        emit(done, as_json=json, text="off; a turn that has begun is carried through")
        return
    if what == "set":
        if not every_days:
            raise UsageError("say --every-days DAYS, or: schedule show, schedule off")
        call_hq(home, "PUT", "/rotation", Schedule(every_days, at_once), Done)
    found = call_hq(home, "GET", "/rotation", None, RotationView)
    emit(found, as_json=json, text=_text(found))


def _text(found: RotationView) -> str:
    lines = [f"the oldest machine is {found.oldest_days:g} days old"]
    if found.every_days:
        lines.insert(
            0,
            f"machines are renewed every {found.every_days:g} days, {found.at_once} at a time, "
            f"by order of {found.author}",
        )
    else:
        lines.insert(0, "no standing order")
    lines += [
        f"  {turn.name:20} {'turns now' if turn.began_at else 'waits'} (asked by {turn.author})"
        for turn in found.turns
    ]
    lines += [f"  {name:20} is due" for name in found.due]
    return "\n".join(lines)
