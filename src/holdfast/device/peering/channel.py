"""Frames in order between two devices: over a socket of the local network, or through a mailbox on
a slot that both can reach.

A mailbox is an era of its own that grows from a key both have; each frame is a log blob
`[side, number, frame]`. Servers see that two clients exchange a few small blobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from holdfast.crypto.era import Era
from holdfast.errors import OperationFault, PeerFault
from holdfast.fabric.puller import Puller
from holdfast.fabric.slot import Slot
from holdfast.rim.clock import Clock
from holdfast.wire.codec import pack, unpack
from holdfast.wire.pairing import FRAME_BYTES_MAX
from holdfast.wire.pool import BlobClass

POLL_S: Final = 0.5
"""Real seconds between looks into a mailbox: somebody stands there and waits."""


class Channel(Protocol):
    """One conversation. A frame sent is received once, in order."""

    async def send(self, frame: bytes) -> None:
        """Raises OperationFault."""
        ...

    async def receive(self, wait_s: float | None = None) -> bytes:
        """The other side's next frame. Raises OperationFault when none comes, PeerFault for a bad
        one."""
        ...


class Frame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One frame in a mailbox."""

    side: int
    number: int
    data: bytes


class _Box:
    """What lies in a mailbox, by side and number; the first one counts. A `LogSink`."""

    def __init__(self) -> None:
        self.frames: dict[tuple[int, int], bytes] = {}

    def take(self, blob: bytes, payload: bytes) -> None:
        frame = unpack(Frame, payload, bytes_max=FRAME_BYTES_MAX + 64)
        self.frames.setdefault((frame.side, frame.number), frame.data)

    def missing(self) -> Sequence[bytes]:
        return ()

    def name_gap(self, operation: bytes) -> None:
        raise AssertionError("a mailbox has no parents")


class MailboxChannel:
    """A conversation over a slot. `side` is ours, 1 or 2."""

    def __init__(self, slot: Slot, era: Era, side: int, clock: Clock, ends_at: float) -> None:
        """`ends_at`: wall seconds after which nobody answers any more."""
        self._slot = slot
        self._era = era
        self._side = side
        self._clock = clock
        self._ends_at = ends_at
        self._box = _Box()
        self._puller: Puller = slot.puller(era, self._box, remember=False)
        self._sent = self._received = 0

    async def send(self, frame: bytes) -> None:
        """Lay the frame into the mailbox."""
        payload = pack(Frame(self._side, self._sent, frame))
        self._sent += 1
        await self._slot.put_many(self._era, BlobClass.LOG, [payload])

    async def receive(self, wait_s: float | None = None) -> bytes:
        """Look until the next frame is there. Raises OperationFault when the time is over."""
        wanted = (3 - self._side, self._received)
        while wanted not in self._box.frames:
            if self._clock.wall() > self._ends_at:
                raise OperationFault("nobody answered in time; begin again", retryable=False)
            try:
                await self._puller.read()
            except (OperationFault, PeerFault):
                pass
            if wanted not in self._box.frames:
                await self._clock.sleep_real(POLL_S)
        self._received += 1
        return self._box.frames[wanted]
