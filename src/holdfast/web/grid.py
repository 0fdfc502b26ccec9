"""The fleet as a table: a row for each provider, a column for each region.

A small fleet is drawn as tiles. A large one is drawn as a mark for each server, with the ailing
ones named beside them; a `Lens` on one cell opens it as tiles. Nothing is left out unsaid: each
cell says how many servers it holds and in which states.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import msgspec

from holdfast.hq.brain_words import Kind
from holdfast.limits import PAGE_TILES_MAX
from holdfast.logic.fleet.model import Role, Tier
from holdfast.logic.fleet.rows import ServerState
from holdfast.web.model import FleetPage, ProviderLine, ServerTile, SpawnTile
from holdfast.web.words import count, state_word

_Tile = TypeVar("_Tile", ServerTile, SpawnTile)

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
    spawns: tuple[SpawnTile, ...] = ()
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
    servers, spawns = _by_place(page.servers), _by_place(page.spawns)
    places = set(servers) | set(spawns)
    known = {line.name: line for line in page.providers}
    if lens.on_cell:
        places &= {(lens.provider, lens.region)}
    names = {provider for provider, _ in places} | (set() if lens.on_cell else set(known))
    regions = tuple(sorted({region for _, region in places}))
    crowded = len(page.servers) > PAGE_TILES_MAX and not lens.on_cell

    def cell(provider: str, region: str) -> Cell:
        place = (provider, region)
        return _cell(place, servers.get(place, ()), spawns.get(place, ()), crowded)

    rows = [
        Row(known.get(name) or ProviderLine(name), tuple(cell(name, r) for r in regions))
        for name in sorted(names)
    ]
    return Grid(regions, tuple(rows), crowded)


def _by_place(items: Iterable[_Tile]) -> dict[tuple[str, str], list[_Tile]]:
    """By (provider, region); relays first, then by name."""
    found: dict[tuple[str, str], list[_Tile]] = {}
    for item in sorted(items, key=lambda item: (item.role is not Role.RELAY, item.name)):
        found.setdefault((item.provider, item.region), []).append(item)
    return found


def _cell(
    place: tuple[str, str],
    servers: Sequence[ServerTile],
    spawns: Sequence[SpawnTile],
    crowded: bool,
) -> Cell:
    words = Counter(map(state_word, servers))
    summary = _summary(servers, words)
    if crowded:
        if spawns:
            summary += f"; {count(len(spawns), 'replacement')} coming"
        return Cell(*place, summary, marks=tuple(servers), ailing=_ailing(servers))
    return Cell(*place, summary, tiles=tuple(servers), spawns=tuple(spawns))


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


_NOUNS: Final = {
    Role.RELAY: "relay",
    Role.REPLICA: "replica",
    Role.ENTRY: "entry node",
    Role.CORE: "core",
}


def _summary(servers: Sequence[ServerTile], words: Counter[str]) -> str:
    """`250 relays, 250 replicas: all green` or `...: 498 green, 2 red`."""
    if not servers:
        return "no servers"
    roles = Counter(s.role for s in servers if s.state is not ServerState.RETIRED)
    held = ", ".join(count(roles[role], noun) for role, noun in _NOUNS.items() if roles[role])
    states = sorted(words.items(), key=lambda item: -_gravity(item[0]))
    if len(states) == 1:
        return f"{held}: {'all ' if words.total() > 1 else ''}{states[0][0]}"
    return f"{held}: " + ", ".join(f"{number:,} {word}" for word, number in states)


def tier_counts(page: FleetPage) -> tuple[tuple[str, int], ...]:
    """How many servers wear each tier word, gravest last, only those that occur (GREEN always).

    Machines on their way count as starting.
    """
    words = Counter(map(state_word, page.servers))
    words["starting"] += len(page.spawns)
    words = +words
    words.setdefault(str(Tier.GREEN), 0)
    return tuple(sorted(words.items(), key=lambda item: -_gravity(item[0])))
