"""The state of the fleet in words: what a person reads first, and a screen reader speaks.

Pure functions of a `FleetPage`. One rule orders the headline: the worst thing that is true now
comes first, what it costs people comes second.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from holdfast.limits import RELAYS_PER_SLOT, REPLICAS_PER_SLOT
from holdfast.logic.fleet.model import Role, Tier
from holdfast.logic.fleet.rows import IntentState, ServerState
from holdfast.web.copies import counted
from holdfast.web.model import FleetPage, ServerTile, SpawnTile

NAMES_MAX: Final = 3
"""A sentence names this many servers, then counts the rest."""


class Tone(StrEnum):
    """How the headline is coloured; the words say the same."""

    CALM = "calm"
    BUSY = "busy"
    WATCH = "watch"
    FAILING = "failing"
    LOST = "lost"


class Headline(msgspec.Struct, frozen=True):
    """`title` is one sentence; `details` are the sentences that follow it."""

    tone: Tone
    title: str
    details: tuple[str, ...]


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 server`, `12 servers`, `3,000 servers`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listing(names: Sequence[str], noun: str = "other", most: int = NAMES_MAX) -> str:
    """`a`, `a and b`, `a, b and c`, `a, b, c and 4 others`."""
    shown = list(names[:most])
    if len(names) > most:
        shown.append(count(len(names) - most, noun))
    if len(shown) <= 1:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def size(count_bytes: int) -> str:
    """Bytes in at most three digits: `0 B`, `34 MB`, `1.2 GB`; decimal units."""
    value = float(count_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            digits = 1 if unit != "B" and value < 9.95 else 0
            return f"{value:,.{digits}f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def state_word(server: ServerTile) -> str:
    """The word on a tile: its tier, or where it is on its way to one."""
    if server.state is ServerState.SPAWNING:
        return "starting"
    if server.state is ServerState.ACTIVE:
        return str(server.tier)
    return str(server.state)


def spawn_word(spawn: SpawnTile) -> str:
    """The word on the tile of a machine on its way."""
    return {
        IntentState.WRITTEN: "decided",
        IntentState.ORDERED: "starting",
        IntentState.JOINED: "joining",
    }.get(spawn.state, str(spawn.state))


def headline(page: FleetPage) -> Headline:
    """The worst thing that is true now, then what it costs."""
    if page.frozen:
        return Headline(Tone.LOST, "HQ has frozen itself.", (_frozen(page), copies_sentence(page)))
    tone, title, details = _trouble(page)
    return Headline(tone, title, tuple(text for text in (*details, *_costs(page)) if text))


def _frozen(page: FleetPage) -> str:
    reason = page.frozen_reason or (
        "Much of the fleet seems dead over several providers at once, so HQ suspects itself."
    )
    return f"{reason.rstrip('.')}. It starts and moves nothing; the fleet goes on serving."


def _trouble(page: FleetPage) -> tuple[Tone, str, tuple[str, ...]]:
    """(tone, title, details) of the worst trouble."""
    fleet = [server for server in page.servers if server.state is not ServerState.RETIRED]
    lost = [line.name for line in page.providers if line.lost]
    if lost:
        return _provider_lost(page, fleet, lost)
    by_tier = {tier: [s for s in fleet if s.tier is tier] for tier in Tier}
    down = by_tier[Tier.RED] + by_tier[Tier.BLACK]
    if down:
        verb = "is" if len(down) == 1 else "are"
        return Tone.LOST, f"{_named(down)} {verb} down.", (_starting(page),)
    if failing := by_tier[Tier.ORANGE]:
        verb = "fails its" if len(failing) == 1 else "fail their"
        title = f"{_named(failing)} {verb} checks."
        return Tone.FAILING, title, ("HQ has chosen where to replace; nothing is ordered yet.",)
    if watched := by_tier[Tier.YELLOW]:
        them = "it" if len(watched) == 1 else "them"
        title = f"HQ is watching {_named(watched)}."
        return Tone.WATCH, title, (f"Some clients or peers could not reach {them}.",)
    waiting = [s for s in fleet if s.state is not ServerState.ACTIVE]
    if not fleet:
        return Tone.BUSY, "No server has joined yet.", ()
    if waiting:
        ready = len(fleet) - len(waiting)
        title = (
            f"{ready:,} of {count(len(fleet), 'server')} {'answers' if ready == 1 else 'answer'}."
        )
        return Tone.BUSY, title if ready else "No server answers yet.", (_waiting(waiting),)
    title = "The only server answers." if len(fleet) == 1 else f"All {len(fleet):,} servers answer."
    return Tone.CALM, title, ()


def _provider_lost(
    page: FleetPage, fleet: list[ServerTile], lost: list[str]
) -> tuple[Tone, str, tuple[str, ...]]:
    noun, verb = ("Provider", "is") if len(lost) == 1 else ("Providers", "are")
    title = f"{noun} {listing(lost)} {verb} lost."
    silent = sum(1 for server in fleet if not server.answers)
    if silent:
        verb = "does" if silent == 1 else "do"
        share = f"{silent:,} of {count(len(fleet), 'server')} {verb} not answer."
        return Tone.LOST, title, (share, _starting(page))
    if not counted(page).short:
        title = title.rstrip(".") + "; its work goes on elsewhere."
        return Tone.WATCH, title, ()
    return Tone.LOST, title, ("Its servers were replaced elsewhere.",)


def _named(servers: list[ServerTile]) -> str:
    """A few by name, many by number, and by provider where they share one."""
    if len(servers) <= NAMES_MAX:
        return listing(sorted(server.name for server in servers))
    providers = {server.provider for server in servers}
    where = f" at {providers.pop()}" if len(providers) == 1 else ""
    return count(len(servers), "server") + where


def _starting(page: FleetPage) -> str:
    if not page.spawns:
        return ""
    where = sorted({spawn.provider for spawn in page.spawns})
    verb = "is" if len(page.spawns) == 1 else "are"
    return f"{count(len(page.spawns), 'replacement')} {verb} starting on {listing(where)}."


def _waiting(waiting: list[ServerTile]) -> str:
    verb = "is" if len(waiting) == 1 else "are"
    return f"{count(len(waiting), 'server')} {verb} starting for the first time."


def _costs(page: FleetPage) -> tuple[str, ...]:
    return copies_sentence(page), filling_sentence(page), debt_sentence(page)


def copies_sentence(page: FleetPage) -> str:
    """What people can count on, in one sentence."""
    if not page.slots:
        return "No slot has been handed out yet."
    known = counted(page)
    full = f"{RELAYS_PER_SLOT} of {RELAYS_PER_SLOT} relays and "
    full += f"{REPLICAS_PER_SLOT} of {REPLICAS_PER_SLOT} replicas"
    if not known.short:
        return f"Every slot has {full}."
    relays, replicas = known.poorest_short
    lowest = f"{relays} of {RELAYS_PER_SLOT} relays and {replicas} of {REPLICAS_PER_SLOT} replicas"
    if known.short == len(page.slots):
        return f"Every slot is short of copies; the poorest has {lowest}."
    share = f"{known.short:,} of {count(len(page.slots), 'slot')}"
    verb = "is" if known.short == 1 else "are"
    return f"{share} {verb} short of copies; the poorest has {lowest}."


def filling_sentence(page: FleetPage) -> str:
    """Replicas that joined and are still being levelled by their peers; empty when none."""
    filling = [
        s.name for s in page.servers if s.role is Role.REPLICA and s.answers and not s.filled
    ]
    if not filling:
        return ""
    verb = "is" if len(filling) == 1 else "are"
    return f"{listing(sorted(filling))} {verb} filling from peers."


def debt_sentence(page: FleetPage) -> str:
    """Diversity debt in one sentence; empty when there is none."""
    if not page.debts:
        return ""
    names = {debt.name for debt in page.debts}
    verb = "shares" if len(names) == 1 else "share"
    rest = "a provider with others of their slots until diversity can be repaid."
    return f"{count(len(names), 'server')} {verb} {rest}"
