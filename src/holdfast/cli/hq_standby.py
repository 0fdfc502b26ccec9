"""`holdfast hq standby`: machines that are there before they are needed (ADR 0045)."""

from __future__ import annotations

from holdfast.cli.hq_call import call_hq
from holdfast.cli.hq_options import Dir, Json
from holdfast.cli.output import emit
from holdfast.hq.fleet_admin import StandbyOrder, StandbyView


def standby(per_place: int | None = None, *, home: Dir, json: Json = False) -> None:
    """How many machines stand by; with a number, keep so many from now on.

    A machine that stands by is ordered, booted and idle. When a server is RED its seat goes to one
    at the same provider and region, in seconds, and another is ordered in its stead.

    Parameters
    ----------
    per_place
        For every region of every provider in use; 0 gives them all back.
    """
    if per_place is None:
        view = call_hq(home, "GET", "/standby", None, StandbyView)
    else:
        view = call_hq(home, "POST", "/standby", StandbyOrder(per_place), StandbyView)
    text = f"{view.per_place} wanted in every place; {view.ready} of {view.ordered} stand by"
    emit(view, as_json=json, text=text)
