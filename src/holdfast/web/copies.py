"""People's redundancy: how many slots and groups have how many copies.

A large fleet has tens of thousands of slots, so they are counted once for each tuple of them: the
same tuple comes again with every version of the page in which no slot changed.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

from holdfast.limits import RELAYS_PER_SLOT, REPLICAS_PER_SLOT
from holdfast.logic.fleet.rows import ServerState
from holdfast.web.model import FleetPage, SlotLine

_FULL: Final = RELAYS_PER_SLOT


class Level(msgspec.Struct, frozen=True):
    """Slots at one number of copies. `share` is their part of all slots, 0 to 1."""

    key: str
    label: str
    slots: int
    groups: int
    share: float


class Counted(msgspec.Struct, frozen=True):
    """All slots in few numbers. `slots` and `groups` by copies, 0 to 3; `short` lack a copy;
    `poorest` is (relays, replicas) over all slots, `poorest_short` over the short ones."""

    slots: tuple[int, ...]
    groups: tuple[int, ...]
    short: int
    poorest: tuple[int, int]
    poorest_short: tuple[int, int]

    @property
    def total(self) -> int:
        return sum(self.slots)


class _Memory:
    """The last tuple that was counted."""

    slots: tuple[SlotLine, ...] = ()
    counted: Counted | None = None


def counted(page: FleetPage) -> Counted:
    """Count the slots of a page, or remember."""
    if _Memory.counted is None or _Memory.slots is not page.slots:
        found = _count(page.slots)
        _Memory.slots, _Memory.counted = page.slots, found
        return found
    return _Memory.counted


def _count(slots: tuple[SlotLine, ...]) -> Counted:
    """In one pass over the kinds of slots, of which there are at most sixteen."""
    kinds: Counter[tuple[int, int]] = Counter()
    groups: Counter[tuple[int, int]] = Counter()
    for slot in slots:
        kind = (slot.relays, slot.replicas)
        kinds[kind] += 1
        groups[kind] += slot.groups
    by_copies, groups_by_copies = [0] * (_FULL + 1), [0] * (_FULL + 1)
    for kind, number in kinds.items():
        copies = min(*kind, _FULL)
        by_copies[copies] += number
        groups_by_copies[copies] += groups[kind]
    short = [kind for kind in kinds if kind[0] < RELAYS_PER_SLOT or kind[1] < REPLICAS_PER_SLOT]
    return Counted(
        slots=tuple(by_copies),
        groups=tuple(groups_by_copies),
        short=sum(kinds[kind] for kind in short),
        poorest=_least(list(kinds)),
        poorest_short=_least(short),
    )


def _least(kinds: list[tuple[int, int]]) -> tuple[int, int]:
    relays = min((kind[0] for kind in kinds), default=RELAYS_PER_SLOT)
    return relays, min((kind[1] for kind in kinds), default=REPLICAS_PER_SLOT)


def levels(page: FleetPage) -> tuple[Level, ...]:
    """Full, one short, and below, in that order; each slot counts in exactly one."""
    full, short = f"{RELAYS_PER_SLOT} of {RELAYS_PER_SLOT}", RELAYS_PER_SLOT - 1
    bounds = (
        ("full", full, RELAYS_PER_SLOT, RELAYS_PER_SLOT),
        ("short", f"{short} of {RELAYS_PER_SLOT}", short, short),
        ("low", f"{short - 1} or none", 0, short - 1),
    )
    found, known = [], counted(page)
    for key, label, least, most in bounds:
        slots = sum(known.slots[least : most + 1])
        share = slots / known.total if known.total else 0.0
        found.append(Level(key, label, slots, sum(known.groups[least : most + 1]), share))
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
    return counted(page).poorest if page.slots else None
