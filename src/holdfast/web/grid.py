"""The fleet as a table: a row for each provider, a column for each region.

A small fleet is drawn as tiles. A large one is drawn as a mark for each server, with the ailing
ones named beside them; a `Lens` on one cell, or on the servers that a word finds, opens it as
tiles. What is not green comes first, providers as well as servers. Nothing is left out unsaid: each
cell says how many servers it holds and in which states.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import msgspec

from holdfast.hq.brain_words import Kind
from holdfast.limits import PAGE_FOUND_MAX, PAGE_TILES_MAX
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
    """What the reader asked to see: one kind of entries, one cell of the grid, the servers that a
    word finds, or all."""

    kind: Kind | None = None
    provider: str = ""
    region: str = ""
    find: str = ""

    @property
    def on_cell(self) -> bool:
        """One cell is open."""
        return bool(self.provider and self.region)

    @property
    def narrow(self) -> bool:
        """Not the whole fleet."""
        return self.on_cell or bool(self.find)


class Ailing(msgspec.Struct, frozen=True):
    """Servers of one cell that share a word graver than green: some by name, the rest counted."""

    word: str
    names: tuple[str, ...]
    more: int


class Cell(msgspec.Struct, frozen=True):
    """Servers of one provider in one region. `tiles` is empty in a crowded cell; `more` are left
    out of them."""

    provider: str
    region: str
    summary: str
    tiles: tuple[ServerTile, ...] = ()
    more: int = 0
    spawns: tuple[SpawnTile, ...] = ()
    marks: tuple[ServerTile, ...] = ()
    ailing: tuple[Ailing, ...] = ()


class Row(msgspec.Struct, frozen=True):
    """One provider and its cells, in the order of the regions."""

    provider: ProviderLine
    cells: tuple[Cell, ...]


class Grid(msgspec.Struct, frozen=True):
    """The table. `crowded` says that cells are drawn as marks, `large` that the fleet is too large
    for tiles; `found` counts the servers of the table."""

    regions: tuple[str, ...]
    rows: tuple[Row, ...]
    crowded: bool
    large: bool = False
    found: int = 0


def grid(page: FleetPage, lens: Lens) -> Grid:
    """Lay the servers out; only what is under the lens, when there is one."""
    seen = page.servers if not lens.find else tuple(_found(page.servers, lens.find))
    large = len(page.servers) > PAGE_TILES_MAX
    servers = _by_place(seen, gravest_first=large)
    spawns = _by_place(() if lens.find else page.spawns)
    places = set(servers) | set(spawns)
    known = {line.name: line for line in page.providers}
    if lens.on_cell:
        places &= {(lens.provider, lens.region)}
    names = {provider for provider, _ in places} | (set() if lens.narrow else set(known))
    regions = tuple(sorted({region for _, region in places}))
    crowded = large and not lens.narrow
    room = PAGE_FOUND_MAX

    def cell(provider: str, region: str) -> Cell:
        nonlocal room
        place = (provider, region)
        laid = _cell(place, servers.get(place, ()), spawns.get(place, ()), crowded, room)
        room -= len(laid.tiles)
        return laid

    order = sorted(names)
    if large:  # a provider that ails is not to be looked for at the end
        order.sort(key=lambda name: min(_worst(servers.get((name, r), ())) for r in regions))
    rows = [
        Row(known.get(name) or ProviderLine(name), tuple(cell(name, r) for r in regions))
        for name in order
    ]
    count = sum(len(items) for place, items in servers.items() if place in places)
    return Grid(regions, tuple(rows), crowded, large, count)


def _found(servers: Iterable[ServerTile], words: str) -> Iterable[ServerTile]:
    """The servers in which every one of `words` occurs: in name, place, owner, node or state."""
    wanted = words.lower().split()
    for server in servers:
        text = " ".join(
            (server.name, server.provider, server.region, server.owner, server.node,
             server.address, state_word(server))
        ).lower()  # fmt: skip
        if all(word in text for word in wanted):
            yield server


def _worst(servers: Sequence[ServerTile]) -> int:
    """The gravity of the gravest; they come gravest first."""
    return _gravity(state_word(servers[0])) if servers else len(_GRAVITY)


def _by_place(
    items: Iterable[_Tile], *, gravest_first: bool = False
) -> dict[tuple[str, str], list[_Tile]]:
    """By (provider, region); relays first, then by name, after what ails where that is asked."""

    def order(item: _Tile) -> tuple[int, bool, str]:
        grave = gravest_first and isinstance(item, ServerTile)
        weight = _gravity(state_word(item)) if grave else 0  # type: ignore[arg-type]
        return weight, item.role is not Role.RELAY, item.name

    found: dict[tuple[str, str], list[_Tile]] = {}
    for item in sorted(items, key=order):
        found.setdefault((item.provider, item.region), []).append(item)
    return found


def _cell(
    place: tuple[str, str],
    servers: Sequence[ServerTile],
    spawns: Sequence[SpawnTile],
    crowded: bool,
    room: int,
) -> Cell:
    words = Counter(map(state_word, servers))
    summary = _summary(servers, words)
    if crowded:
        if spawns:
            summary += f"; {count(len(spawns), 'replacement')} coming"
        return Cell(*place, summary, marks=tuple(servers), ailing=_ailing(servers))
    tiles, more = tuple(servers[: max(room, 0)]), max(0, len(servers) - max(room, 0))
    return Cell(*place, summary, tiles=tiles, more=more, spawns=tuple(spawns))


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
