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
        self._encoder.encode_into(what, self._buffer, -1)
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


Item = tuple[float, int, Action, tuple[Any, ...]]


class Schedule:
    """What is to come. `now` is simulated seconds since the Unix epoch.

    A calendar: one heap for the second that is now, a list for each later one. A fleet of thousands
    keeps tens of thousands of things waiting, and one heap of them all is mostly cache misses.
    """

    def __init__(self, start: float, trace: Trace) -> None:
        self.now = start
        self.trace = trace
        self.events = 0
        self._near: list[Item] = []
        self._second = int(start)
        """Whatever is due within this second, or before, is in `_near`."""
        self._later: dict[int, list[Item]] = {}
        self._seconds: list[int] = []
        self._count = 0

    def at(self, when: float, action: Action, *given: Any) -> None:
        """Do `action(*given)` at `when`; at once, but not before what is due, if that is past."""
        self._count += 1
        when = when if when > self.now else self.now
        page = self._later.get(int(when))
        if page is None:
            self._put((when, self._count, action, given))
        else:
            page.append((when, self._count, action, given))

    def _put(self, item: Item) -> None:
        second = int(item[0])
        if second <= self._second:
            heapq.heappush(self._near, item)
            return
        page = self._later.get(second)
        if page is None:
            self._later[second] = [item]
            heapq.heappush(self._seconds, second)
        else:
            page.append(item)

    def after(self, seconds: float, action: Action, *given: Any) -> None:
        """Do `action(*given)` after so many seconds."""
        self.at(self.now + seconds, action, *given)

    def run(self, until: float) -> None:
        """Let everything happen that is due up to `until`."""
        pop = heapq.heappop
        while self._near or self._turn(until):
            near = self._near
            while near and near[0][0] <= until:
                self.now, _, action, given = pop(near)
                self.events += 1
                action(*given)
            if self._near:
                break
        self.now = max(self.now, until)

    def _turn(self, until: float) -> bool:
        """Turn to the next second in which anything is due; False when that is after `until`."""
        if not self._seconds or self._seconds[0] > until:
            return False
        self._second = heapq.heappop(self._seconds)
        self._near = self._later.pop(self._second)
        self._near.sort()  # a sorted list is a heap; no two have the same time and count
        return True

    def jump(self, seconds: float) -> None:
        """Let time pass in which nothing happens: whatever was to come comes later by as much."""
        assert seconds >= 0
        waiting = self._near + [item for page in self._later.values() for item in page]
        self.now += seconds
        self._second = int(self.now)
        self._near, self._later, self._seconds = [], {}, []
        for when, count, action, given in waiting:
            self._put((when + seconds, count, action, given))
