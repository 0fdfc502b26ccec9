"""The virtual clock, what is still to come, and the hash of all that has been.

Things due at the same moment happen in the order in which they were asked for, so a run depends
on nothing but its seed. Time goes straight from one thing to the next.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Final

import msgspec
from blake3 import blake3

BUFFER_BYTES: Final = 1 << 16
Action = Callable[..., None]


class Trace:
    """A running hash over everything noted, and how many notes there were."""

    def __init__(self) -> None:
        self._hash = blake3()
        self._encoder = msgspec.msgpack.Encoder(enc_hook=_refuse)
        self._buffer = bytearray()
        self.notes = 0
        self.listener: Callable[[tuple[Any, ...]], None] | None = None
        """Sees every note as well; for people who look for the first difference of two runs."""

    def note(self, *what: Any) -> None:
        """Take in `what`: numbers, texts, bytes, structs and sequences of them, never sets."""
        self.notes += 1
        self._buffer += self._encoder.encode(what)
        if self.listener is not None:
            self.listener(what)
        if len(self._buffer) >= BUFFER_BYTES:
            self._flush()

    def hex(self) -> str:
        """The hash of all notes so far."""
        self._flush()
        return str(self._hash.hexdigest())

    def _flush(self) -> None:
        self._hash.update(bytes(self._buffer))
        self._buffer.clear()


def _refuse(thing: Any) -> Any:
    raise TypeError(f"a trace cannot hold {type(thing).__name__}: it may have no fixed order")


class Schedule:
    """What is to come. `now` is simulated seconds since the Unix epoch."""

    def __init__(self, start: float, trace: Trace) -> None:
        self.now = start
        self.trace = trace
        self.events = 0
        self._heap: list[tuple[float, int, Action, tuple[Any, ...]]] = []
        self._count = 0

    def at(self, when: float, action: Action, *given: Any) -> None:
        """Do `action(*given)` at `when`; at once, but not before what is due, if that is past."""
        self._count += 1
        heapq.heappush(self._heap, (max(when, self.now), self._count, action, given))

    def after(self, seconds: float, action: Action, *given: Any) -> None:
        """Do `action(*given)` after so many seconds."""
        self.at(self.now + seconds, action, *given)

    def run(self, until: float) -> None:
        """Let everything happen that is due up to `until`."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= until:
            self.now, _, action, given = pop(heap)
            self.events += 1
            action(*given)
        self.now = max(self.now, until)

    def jump(self, seconds: float) -> None:
        """Let time pass in which nothing happens: whatever was to come comes later by as much."""
        assert seconds >= 0
        self.now += seconds
        self._heap = [
            (when + seconds, count, action, given) for when, count, action, given in self._heap
        ]
