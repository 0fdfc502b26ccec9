"""`holdfast node defer`: an owner puts upgrades of their machine off (ADR 0041)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from holdfast.cli.output import emit
from holdfast.errors import UsageError
from holdfast.limits.upgrade import DEFER_DAYS_MAX
from holdfast.node.home import Home
from holdfast.node.releases import Releases
from holdfast.rim.clock import SystemClock

_DAY_S = 86_400.0


def defer(
    *,
    dir: Annotated[Path, Parameter(help="The node's own directory.", env_var="HOLDFAST_DIR")],
    days: float,
    json: Annotated[bool, Parameter(help="One JSON object as the last line.", negative="")] = False,
) -> None:
    """Put upgrades of this node off for some days. It counts at once, agent running or not.

    Headquarters passes the node over, and says so when a release is required; the node serves on.

    Parameters
    ----------
    days
        From now; 0 takes it back.
    """
    if not 0 <= days <= DEFER_DAYS_MAX:
        raise UsageError(f"--days is 0 to {DEFER_DAYS_MAX}; later, put it off again")
    home = Home(dir)
    if home.member() is None:
        raise UsageError(f"{dir} has not joined a network, so nobody upgrades it")
    until = SystemClock().wall() + days * _DAY_S if days else 0.0
    Releases(home).defer(until)
    text = f"upgrades are put off for {days:g} days" if days else "upgrades come as they come"
    emit({"deferred_until": until}, as_json=json, text=text)
