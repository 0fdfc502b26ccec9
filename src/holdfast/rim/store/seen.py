"""Which blobs may be in the store: never wrong about one that is, seldom about one that is not.

A push of something new is the common case, and asking the index about it costs a walk down a tree
and the interpreter lock. Two bits for each blob in a field of sixteen times as many bits (a Bloom
filter) answer for all but one or two in a hundred. Blob ids are hashes already: their own bits are
the places. Whoever grinds ids that collide gets the question asked, as it always was before.

A full layer gets another one of four times its size beside it (Almeida et al., Scalable Bloom
Filters, 2007), so nothing is ever computed again. What leaves the store keeps its bits until the
next opening.
"""

from __future__ import annotations

import struct
from typing import Final

_BITS_PER_BLOB: Final = 16
_GROWTH: Final = 4
_PLACES = struct.Struct("<8xQQ8x")


class Seen:
    """A set of blob ids that may say yes too often. Two bytes of memory for each."""

    def __init__(self, room: int = 1 << 16) -> None:
        """`room`: ids of the first layer, a power of two."""
        assert room & (room - 1) == 0
        self._layers: list[tuple[bytearray, int]] = []
        self._room = room
        self._left = 0
        self._grow()

    def add(self, blob: bytes) -> None:
        """Know an id of 32 bytes from now on."""
        if not self._left:
            self._room *= _GROWTH
            self._grow()
        self._left -= 1
        field, mask = self._layers[-1]
        first, second = _PLACES.unpack(blob)
        field[(first & mask) >> 3] |= 1 << (first & 7)
        field[(second & mask) >> 3] |= 1 << (second & 7)

    def __contains__(self, blob: bytes) -> bool:
        first, second = _PLACES.unpack(blob)
        for field, mask in self._layers:
            if (
                field[(first & mask) >> 3] >> (first & 7) & 1
                and field[(second & mask) >> 3] >> (second & 7) & 1
            ):
                return True
        return False

    def _grow(self) -> None:
        bits = self._room * _BITS_PER_BLOB
        self._layers.append((bytearray(bits >> 3), bits - 1))
        self._left = self._room
