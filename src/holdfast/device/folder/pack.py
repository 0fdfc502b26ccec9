"""Filling packs: chunks back to back, up to what one bulk blob holds.

A blob is padded to one of six sizes, so an unfilled pack costs its padding. Several packs stay open
and a chunk goes to the fullest one that still has room: large chunks leave gaps, small ones fill
them. Where a chunk ended up is a `Place`, known at once but for the blob id, which exists only when
the pack has been sealed.
"""

from __future__ import annotations

from holdfast.crypto.blob import PAYLOAD_BYTES_MAX
from holdfast.limits import CHUNK_BYTES_MAX, PACKS_OPEN_MAX
from holdfast.logic.group.changeset import Piece

assert CHUNK_BYTES_MAX <= PAYLOAD_BYTES_MAX, "a chunk that does not shrink must fit one blob"
_FULL_BYTES = 512
"""A pack with less room than this is closed: hardly any chunk is smaller."""


class Place:
    """Where a chunk lies, or will lie. Shared by every file that contains the chunk."""

    __slots__ = ("codec", "hash", "offset", "pack", "plain", "stored")

    def __init__(self, digest: bytes, plain: int) -> None:
        self.hash = digest
        self.plain = plain
        self.pack = b""
        self.offset = 0
        self.stored = 0
        self.codec = 0

    @staticmethod
    def known(piece: Piece) -> Place:
        """The place of a chunk that is stored already."""
        place = Place(piece.hash, piece.plain)
        place.pack, place.offset = piece.pack, piece.offset
        place.stored, place.codec = piece.stored, piece.codec
        return place

    def piece(self) -> Piece:
        """The finished reference; its pack is sealed."""
        assert len(self.pack) == 32, "seal the pack before referring to it"
        return Piece(self.pack, self.offset, self.stored, self.plain, self.codec, self.hash)


class Pack:
    """A pack under construction."""

    def __init__(self) -> None:
        self.size = 0
        self.places: list[Place] = []
        self._parts: list[bytes] = []

    def add(self, place: Place, codec: int, stored: bytes) -> None:
        """Append one chunk."""
        assert self.size + len(stored) <= PAYLOAD_BYTES_MAX
        place.offset, place.stored, place.codec = self.size, len(stored), codec
        self._parts.append(stored)
        self.places.append(place)
        self.size += len(stored)

    def payload(self) -> bytes:
        """The bytes to seal; handed over, not kept."""
        parts, self._parts = self._parts, []
        return b"".join(parts)

    def sealed(self, blob: bytes) -> None:
        """Tell every place where it is."""
        for place in self.places:
            place.pack = blob


class Packer:
    """Best fit over a few open packs."""

    def __init__(self) -> None:
        self._open: list[Pack] = []

    def add(self, place: Place, codec: int, stored: bytes) -> list[Pack]:
        """Put a chunk somewhere; packs that are full now, for sealing."""
        assert not place.stored, "a chunk is packed once"
        done: list[Pack] = []
        room = PAYLOAD_BYTES_MAX - len(stored)
        fitting = [pack for pack in self._open if pack.size <= room]
        if fitting:
            pack = max(fitting, key=lambda candidate: candidate.size)
        else:
            if len(self._open) == PACKS_OPEN_MAX:
                done.append(self._close(max(self._open, key=lambda candidate: candidate.size)))
            pack = Pack()
            self._open.append(pack)
        pack.add(place, codec, stored)
        if pack.size > PAYLOAD_BYTES_MAX - _FULL_BYTES:
            done.append(self._close(pack))
        return done

    def close_all(self) -> list[Pack]:
        """Every open pack, for sealing."""
        done, self._open = self._open, []
        return done

    def _close(self, pack: Pack) -> Pack:
        self._open.remove(pack)
        return pack
