"""Tiles of a log, as c2sp.org/tlog-tiles serves them: immutable pieces of 256 hashes.

`/tile/<L>/<N>[.p/<W>]` is hashes N * 256 and on of tree level 8 L, `/tile/entries/<N>[.p/<W>]` the
leaves themselves, each after its length in two bytes. N is written in groups of three digits, all
but the last with an x: 1234067 is `x001/x234/067`. A partial, last tile has its width W there too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from holdfast.errors import PeerFault
from holdfast.logic.trust.merkle import Tree

TILE_WIDTH: Final = 256
TILE_HEIGHT: Final = 8
LEVEL_MAX: Final = 5
ENTRIES: Final = -1
_PATH: Final = re.compile(
    r"(entries|[0-5])((?:/x[0-9]{3}){0,4}/[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?"
)


class Tile(msgspec.Struct, frozen=True):
    """One tile: `level` is `ENTRIES` for leaves; `width` 256 for a full one."""

    level: int
    number: int
    width: int = TILE_WIDTH

    @property
    def start(self) -> int:
        """Index of its first hash in its level, or of its first leaf."""
        return self.number * TILE_WIDTH


def parse_tile(path: str) -> Tile:
    """Read what follows `/tile/` in a path. Raises PeerFault (`not-found`)."""
    found = _PATH.fullmatch(path)
    if found is None:
        raise PeerFault("no such tile", code="not-found")
    level, number, width = found.groups()
    count = int(width) if width else TILE_WIDTH
    tile = Tile(
        ENTRIES if level == "entries" else int(level),
        int(number.replace("/", "").replace("x", "")),
        count,
    )
    if (width and count >= TILE_WIDTH) or tile_path(tile) != path:
        raise PeerFault("no such tile", code="not-found")
    return tile


def tile_path(tile: Tile) -> str:
    """The path after `/tile/`."""
    digits = f"{tile.number:03}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    number = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    level = "entries" if tile.level == ENTRIES else str(tile.level)
    return f"{level}/{number}" + ("" if tile.width == TILE_WIDTH else f".p/{tile.width}")


def hashes_of(tree: Tree, tile: Tile) -> bytes:
    """The tile's hashes, back to back. Raises PeerFault (`not-found`) past the tree's end."""
    row = tree.row(tile.level * TILE_HEIGHT, tile.start, tile.start + tile.width)
    if len(row) != tile.width:
        raise PeerFault("the log is not that long", code="not-found")
    return b"".join(row)


def entries_of(leaves: Sequence[bytes]) -> bytes:
    """The leaves of an entries tile, each after its length (u16)."""
    return b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves)


def parse_entries(data: bytes) -> list[bytes]:
    """The leaves of an entries tile. Raises PeerFault."""
    leaves, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        leaf = data[at + 2 : at + 2 + size]
        if at + 2 > len(data) or len(leaf) != size:
            raise PeerFault("a tile of entries that is cut short")
        leaves.append(leaf)
        at += 2 + size
    return leaves
