"""What the fleet costs now: the machines that headquarters ordered, by provider (seed 004 §11.6).

The price is the seed's: a host with its volume, whose size carries a relay, a replica and an
archive node. Whatever a provider really charges is told by the caller. Machines of participants are
theirs to pay, and counted apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from holdfast.limits.fleet import HOST_EUR_PER_MONTH, VOLUME_EUR_PER_MONTH
from holdfast.logic.fleet.growth import CONTAINERS_PER_HOST
from holdfast.logic.fleet.model import OPERATOR

MACHINE_EUR_PER_MONTH: Final = (HOST_EUR_PER_MONTH + VOLUME_EUR_PER_MONTH) / CONTAINERS_PER_HOST
"""A third of a host."""


class Bill(msgspec.Struct, frozen=True):
    """One provider. `coming`: machines ordered for seats that others still hold, paid twice until
    those go. Money in euros a month."""

    provider: str
    machines: int
    coming: int
    eur_per_machine: float
    monthly_eur: float


class Cost(msgspec.Struct, frozen=True):
    """The whole fleet. `theirs` counts machines that others brought."""

    bills: tuple[Bill, ...]
    machines: int
    theirs: int
    groups: int
    monthly_eur: float
    eur_per_1000_groups: float


def cost(
    servers: Iterable[tuple[str, str]],
    coming: Iterable[str],
    groups: int,
    prices: Mapping[str, float],
) -> Cost:
    """`servers` are (provider, owner) of every machine in service, `coming` the providers of those
    on their way; `prices` are euros a month for a machine, by provider, where not the seed's."""
    rows = list(servers)
    ours = Counter(provider for provider, owner in rows if owner == OPERATOR)
    ordered = Counter(coming)
    bills = []
    for provider in sorted(ours | ordered):
        price = prices.get(provider, MACHINE_EUR_PER_MONTH)
        count = ours[provider] + ordered[provider]
        monthly = round(count * price, 2)
        bills.append(Bill(provider, ours[provider], ordered[provider], round(price, 2), monthly))
    total = round(sum(bill.monthly_eur for bill in bills), 2)
    return Cost(
        bills=tuple(bills),
        machines=sum(ours.values()),
        theirs=len(rows) - sum(ours.values()),
        groups=groups,
        monthly_eur=total,
        eur_per_1000_groups=round(total * 1000 / groups, 2) if groups else 0.0,
    )
