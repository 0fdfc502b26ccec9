"""Where copies are, what is at risk, and whether a holder may go (seed 003, "Data store").

At least two copies of everything on devices the person chose; loss of any machine loses nothing.
Nothing here moves a blob: it counts what holders say they have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from holdfast.errors import UsageError
from holdfast.limits.people import COPIES_MIN


class Copies(msgspec.Struct, frozen=True):
    """How one set of blobs is spread."""

    blobs: int
    least: int
    """Copies of the blob that has fewest."""
    at_risk: int
    """Blobs that one more loss would lose: those with fewer than two copies."""
    held: tuple[tuple[str, int], ...]
    """(holder, how many of them it has), by name."""


def count(wanted: Iterable[bytes], held: Mapping[str, frozenset[bytes]]) -> Copies:
    """Copies of `wanted` over holders by name."""
    blobs = frozenset(wanted)
    copies = {blob: sum(blob in has for has in held.values()) for blob in blobs}
    return Copies(
        blobs=len(blobs),
        least=min(copies.values(), default=0),
        at_risk=sum(number < COPIES_MIN for number in copies.values()),
        held=tuple((name, len(blobs & has)) for name, has in sorted(held.items())),
    )


def check_drop(name: str, wanted: Iterable[bytes], held: Mapping[str, frozenset[bytes]]) -> None:
    """Raises UsageError when dropping the holder `name` would leave anything with fewer than two
    copies."""
    rest = {other: has for other, has in held.items() if other != name}
    left = count(wanted, rest)
    if left.blobs and left.least < COPIES_MIN:
        raise UsageError(
            f"without {name}, {left.at_risk} of {left.blobs} blobs would have fewer than"
            f" {COPIES_MIN} copies; choose another holder first, and let it catch up"
        )
