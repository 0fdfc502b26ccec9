"""`holdfast hq plan`: the fleet that so many users need, and its bill (seed 004 §11)."""

from __future__ import annotations

from holdfast.cli.output import emit
from holdfast.errors import UsageError
from holdfast.logic.fleet.growth import Growth, Stage, plan_growth


def plan(*, users: int = 10_000, json: bool = False) -> None:
    """The fleet that so many users need: groups, containers, who belongs where, the monthly cost.

    Parameters
    ----------
    users
        Users in all.
    json
        One JSON object as the last line.
    """
    if users < 1:
        raise UsageError("--users from 1")
    growth = plan_growth(users)
    emit(growth, as_json=json, text=_text(growth))


def _text(growth: Growth) -> str:
    lines = [f"{growth.users} users: {_line(growth.stage)}", ""]
    lines += [f"  {_line(stage)}; when: {stage.trigger}" for stage in growth.milestones]
    lines += ["", "  users of        belong to"]
    for row in growth.assignment:
        note = " (interim)" if row.interim else ""
        lines.append(f"  {row.home:<15} {row.group}{note}")
    return "\n".join(lines)


def _line(stage: Stage) -> str:
    size = f"{stage.groups} groups, {stage.relays} relays, {stage.containers} containers"
    carries = f"on {stage.hosts} hosts, up to {stage.users_max} users"
    return f"{stage.name}: {size} {carries}, {stage.monthly_eur} EUR a month"
