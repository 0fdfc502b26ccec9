"""People's redundancy: how many slots and groups have how many copies."""

from __future__ import annotations

import msgspec

from holdfast.limits import RELAYS_PER_SLOT, REPLICAS_PER_SLOT
from holdfast.logic.fleet.rows import ServerState
from holdfast.web.model import FleetPage


class Level(msgspec.Struct, frozen=True):
    """Slots at one number of copies. `share` is their part of all slots, 0 to 1."""

    key: str
    label: str
    slots: int
    groups: int
    share: float


def levels(page: FleetPage) -> tuple[Level, ...]:
    """Full, one short, and below, in that order; each slot counts in exactly one."""
    full, short = f"{RELAYS_PER_SLOT} of {RELAYS_PER_SLOT}", RELAYS_PER_SLOT - 1
    bounds = (
        ("full", full, RELAYS_PER_SLOT, RELAYS_PER_SLOT),
        ("short", f"{short} of {RELAYS_PER_SLOT}", short, short),
        ("low", f"{short - 1} or none", 0, short - 1),
    )
    found = []
    for key, label, least, most in bounds:
        slots = [s for s in page.slots if least <= min(s.copies, RELAYS_PER_SLOT) <= most]
        share = len(slots) / len(page.slots) if page.slots else 0.0
        found.append(Level(key, label, len(slots), sum(s.groups for s in slots), share))
    assert sum(level.slots for level in found) == len(page.slots), "a slot was counted twice"
    return tuple(found)


class Figure(msgspec.Struct, frozen=True):
    """One of the few numbers beside the headline: `12` `of 12` under `Servers that answer`."""

    label: str
    value: str
    of: str
    good: bool


def figures(page: FleetPage) -> tuple[Figure, ...]:
    """Servers that answer, copies of the poorest slot, debt."""
    fleet = [s for s in page.servers if s.state is not ServerState.RETIRED]
    answer = sum(1 for s in fleet if s.answers)
    found = [
        Figure("Servers answer", f"{answer:,}", f"of {len(fleet):,}", answer == len(fleet)),
    ]
    if (poorest := lowest(page)) is not None:
        relays, replicas = poorest
        found.append(_at_least("Relays, at least", relays, RELAYS_PER_SLOT))
        found.append(_at_least("Replicas, at least", replicas, REPLICAS_PER_SLOT))
    found.append(
        Figure(
            "Diversity debt", f"{len(page.debts):,}", "seats" if page.debts else "", not page.debts
        )
    )
    return tuple(found)


def _at_least(label: str, number: int, most: int) -> Figure:
    return Figure(label, str(number), f"of {most}", number >= most)


class Debtor(msgspec.Struct, frozen=True):
    """A server that owes diversity on some slots."""

    name: str
    provider: str
    slots: int
    since: float


def debtors(page: FleetPage) -> tuple[Debtor, ...]:
    """Diversity debt by server, the one that owes most first."""
    found: dict[tuple[str, str], Debtor] = {}
    for debt in page.debts:
        before = found.get((debt.name, debt.provider))
        found[debt.name, debt.provider] = Debtor(
            debt.name,
            debt.provider,
            before.slots + 1 if before else 1,
            min(before.since, debt.since) if before else debt.since,
        )
    return tuple(sorted(found.values(), key=lambda debtor: (-debtor.slots, debtor.name)))


def lowest(page: FleetPage) -> tuple[int, int] | None:
    """The fewest relays and the fewest replicas any slot has; None without slots."""
    if not page.slots:
        return None
    return min(s.relays for s in page.slots), min(s.replicas for s in page.slots)
