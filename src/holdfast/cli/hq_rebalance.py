"""`holdfast hq rebalance`: slots are moved from loaded servers to light ones."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from holdfast.cli.hq_call import call_hq
from holdfast.cli.hq_options import Dir, Json
from holdfast.cli.output import emit
from holdfast.errors import UsageError
from holdfast.hq.rebalance_admin import RebalanceOrder, Rebalancing
from holdfast.hq.verbs import Done
from holdfast.limits.fleet import MOVES_PER_MIN

SHOWN_MAX = 40


def rebalance(
    *,
    home: Dir,
    dry_run: bool = False,
    stop: bool = False,
    moves_per_min: Annotated[int, Parameter(help="Slots that may move in a minute.")] = (
        MOVES_PER_MIN
    ),
    json: Json = False,
) -> None:
    """Move slots from loaded servers to light ones, gradually, under their clients.

    Parameters
    ----------
    dry_run
        Change nothing; print how it stands, what would move, and how even it would be.
    stop
        Make no more moves; those under way are carried through.
    """
    if dry_run and stop:
        raise UsageError("--dry-run or --stop, not both")
    if stop:
        done = call_hq(home, "DELETE", "/rebalance", None, Done)
        emit(done, as_json=json, text="stopped; moves under way are carried through")
        return
    if not dry_run:
        call_hq(home, "POST", "/rebalance", RebalanceOrder(moves_per_min), Done)
    found = call_hq(home, "GET", "/rebalance", None, Rebalancing)
    emit(found, as_json=json, text=_text(found))


def _text(found: Rebalancing) -> str:
    lines = [
        f"fullest over mean: {found.imbalance:.3f} now, {found.imbalance_planned:.3f} after "
        f"{len(found.planned)} moves"
    ]
    if found.on:
        lines.append(
            f"rebalancing for {found.author}: {found.moved} moved, {len(found.under_way)} under "
            f"way, at most {found.moves_per_min} a minute; end it: holdfast hq rebalance --stop"
        )
    lines += [f"  {m.slot[:12]}  {m.former} -> {m.name}  is being filled" for m in found.under_way]
    lines += [
        f"  {m.slot[:12]}  {m.former} -> {m.name}  load {m.load}"
        + ("  repays a debt" if m.repays else "")
        for m in found.planned[:SHOWN_MAX]
    ]
    if len(found.planned) > SHOWN_MAX:
        lines.append(f"  and {len(found.planned) - SHOWN_MAX} more; all of them: --json")
    return "\n".join(lines)
