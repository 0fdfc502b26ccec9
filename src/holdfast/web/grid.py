"""The fleet as a table: a row for each provider, a column for each region.

A small fleet is drawn as tiles. A large one is drawn as a mark for each server, with the ailing
ones named beside them; a `Lens` on one cell opens it as tiles. Nothing is left out unsaid: each
cell says how many servers it holds and in which states.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from holdfast.limits import PAGE_TILES_MAX
from holdfast.logic.fleet.model import Role, Tier
from holdfast.logic.fleet.rows import ServerState
from holdfast.web.model import FleetPage, Kind, ProviderLine, ServerTile
from holdfast.web.words import count, state_word

AILING_NAMED_MAX: Final = 6
"""Ailing servers a crowded cell names; its link shows all."""
_GRAVITY: Final = {
    word: rank
    for rank, word in enumerate(
        ("black", "red", "orange", "yellow", "starting", "planned", "green", "retired")
    )
}


class Lens(msgspec.Struct, frozen=True):
    """What the reader asked to see: one kind of entries, or one cell of the grid, or all."""

    kind: Kind | None = None
    provider: str = ""
    region: str = ""

    @property
    def on_cell(self) -> bool:
        """One cell is open."""
        return bool(self.provider and self.region)


class Ailing(msgspec.Struct, frozen=True):
    """Servers of one cell that share a word graver than green: some by name, the rest counted."""

    word: str
    names: tuple[str, ...]
    more: int


class Cell(msgspec.Struct, frozen=True):
    """Servers of one provider in one region. `tiles` is empty in a crowded cell."""

    provider: str
    region: str
    summary: str
    tiles: tuple[ServerTile, ...] = ()
    marks: tuple[ServerTile, ...] = ()
    ailing: tuple[Ailing, ...] = ()


class Row(msgspec.Struct, frozen=True):
    """One provider and its cells, in the order of the regions."""

    provider: ProviderLine
    cells: tuple[Cell, ...]


class Grid(msgspec.Struct, frozen=True):
    """The table. `crowded` says that cells are drawn as marks."""

    regions: tuple[str, ...]
    rows: tuple[Row, ...]
    crowded: bool


def grid(page: FleetPage, lens: Lens) -> Grid:
    """Lay the servers out; only the cell under the lens, when there is one."""
    servers = [s for s in page.servers if _under(s, lens)] if lens.on_cell else page.servers
    known = {line.name: line for line in page.providers}
    names = sorted({s.provider for s in servers} | (set() if lens.on_cell else set(known)))
    regions = tuple(sorted({s.region for s in servers}))
    crowded = len(servers) > PAGE_TILES_MAX and not lens.on_cell
    cells: dict[tuple[str, str], list[ServerTile]] = {}
    for server in servers:
        cells.setdefault((server.provider, server.region), []).append(server)
    rows = []
    for name in names:
        line = known.get(name) or ProviderLine(name)
        made = [_cell(name, r, cells.get((name, r), ()), crowded) for r in regions]
        rows.append(Row(line, tuple(made)))
    return Grid(regions, tuple(rows), crowded)


def _under(server: ServerTile, lens: Lens) -> bool:
    return server.provider == lens.provider and server.region == lens.region


def _cell(provider: str, region: str, servers: Sequence[ServerTile], crowded: bool) -> Cell:
    ordered = tuple(sorted(servers, key=lambda s: (s.role is not Role.RELAY, s.name)))
    words = Counter(map(state_word, ordered))
    summary = _summary(ordered, words)
    if not crowded:
        return Cell(provider, region, summary, tiles=ordered)
    return Cell(provider, region, summary, marks=ordered, ailing=_ailing(ordered))


def _ailing(servers: Iterable[ServerTile]) -> tuple[Ailing, ...]:
    """The gravest first, and named first."""
    by_word: dict[str, list[str]] = {}
    for server in servers:
        if server.ails:
            by_word.setdefault(state_word(server), []).append(server.name)
    found, room = [], AILING_NAMED_MAX
    for word in sorted(by_word, key=_gravity):
        names = sorted(by_word[word])
        found.append(Ailing(word, tuple(names[:room]), len(names) - min(room, len(names))))
        room -= min(room, len(names))
    return tuple(found)


def _gravity(word: str) -> int:
    return _GRAVITY.get(word, len(_GRAVITY))


def _summary(servers: Iterable[ServerTile], words: Counter[str]) -> str:
    """`250 relays, 250 replicas: all green` or `...: 498 green, 2 red`."""
    roles = Counter(s.role for s in servers if s.state is not ServerState.RETIRED)
    held = ", ".join(
        count(roles[role], "relay" if role is Role.RELAY else "replica")
        for role in (Role.RELAY, Role.REPLICA)
        if roles[role]
    )
    states = sorted(words.items(), key=lambda item: -_gravity(item[0]))
    if len(states) == 1:
        return f"{held}: {'all ' if words.total() > 1 else ''}{states[0][0]}"
    return f"{held}: " + ", ".join(f"{number:,} {word}" for word, number in states)


def tier_counts(page: FleetPage) -> tuple[tuple[str, int], ...]:
    """How many servers wear each tier word, gravest last, only those that occur (GREEN always)."""
    words = Counter(map(state_word, page.servers))
    words.setdefault(str(Tier.GREEN), 0)
    return tuple(sorted(words.items(), key=lambda item: -_gravity(item[0])))
