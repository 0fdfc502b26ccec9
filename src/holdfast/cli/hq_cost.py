"""`holdfast hq cost`: what the fleet that runs now costs (`hq plan` says what another would)."""

from __future__ import annotations

from holdfast.cli.hq_call import call_hq
from holdfast.cli.hq_options import Dir, Json
from holdfast.cli.output import emit
from holdfast.errors import UsageError
from holdfast.hq.brain_view import FleetView
from holdfast.logic.fleet.cost import Cost
from holdfast.logic.fleet.cost import cost as cost_of
from holdfast.logic.fleet.rows import ServerState


def cost(*, home: Dir, price: list[str] | None = None, json: Json = False) -> None:
    """What the machines that headquarters ordered cost a month, by provider.

    Parameters
    ----------
    price
        provider=euros: what a machine there costs a month; once for each. A third of the plan's
        host where none is given.
    """
    prices = dict(map(_price, price or ()))
    view = call_hq(home, "GET", "/fleet", None, FleetView)
    known = {each.name for each in view.providers} | {each.provider for each in view.servers}
    if strangers := prices.keys() - known:
        raise UsageError(f"no provider {', '.join(sorted(strangers))}; see: holdfast hq status")
    active = [s for s in view.servers if s.state is ServerState.ACTIVE]
    found = cost_of(
        [(server.provider, server.owner) for server in active],
        [intent.provider for intent in view.intents if intent.action == "spawn"],
        sum(slot.groups for slot in view.slots),
        prices,
    )
    emit(found, as_json=json, text=_text(found))


def _price(text: str) -> tuple[str, float]:
    provider, _, euros = text.partition("=")
    try:
        price = float(euros)
    except ValueError:
        price = -1.0
    if not provider or not 0 <= price < 1e6:
        raise UsageError(f"--price {text}: write provider=euros, for a machine and a month")
    return provider, price


def _text(found: Cost) -> str:
    lines = [
        f"{bill.provider:16} {bill.machines:5} machines, {bill.coming} coming, "
        f"{bill.eur_per_machine:g} EUR each: {bill.monthly_eur:,.2f} EUR"
        for bill in found.bills
    ]
    lines.append(f"together {found.monthly_eur:,.2f} EUR a month for {found.groups:,} groups")
    if found.theirs:
        lines.append(f"{found.theirs} machines are their owners' to pay")
    return "\n".join(lines)
