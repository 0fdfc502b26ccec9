"""Long polls: one request waits for news of many tags.

A watcher is an event hung under each of its (slot, tag) pairs. A commit that moves a head sets the
events under it, a new slot record those of the slot, the end of the service all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from holdfast.logic.fleet.model import SlotId

Pair = tuple[bytes, bytes]
"""(slot, tag)."""


class Watchers:
    """Everybody who waits."""

    def __init__(self) -> None:
        self._waiting: dict[Pair, set[asyncio.Event]] = {}

    def __len__(self) -> int:
        return len({id(event) for events in self._waiting.values() for event in events})

    def hang(self, pairs: Iterable[Pair]) -> asyncio.Event:
        """An event that is set by news of any of the pairs. Take it down again."""
        event = asyncio.Event()
        for pair in pairs:
            self._waiting.setdefault(pair, set()).add(event)
        return event

    def take_down(self, pairs: Iterable[Pair], event: asyncio.Event) -> None:
        """Forget the event."""
        for pair in pairs:
            events = self._waiting.get(pair)
            if events is not None:
                events.discard(event)
                if not events:
                    del self._waiting[pair]

    def committed(self, slot: SlotId, tag: bytes, head: int) -> None:
        """A commit moved a head (a store `Listener`)."""
        for event in self._waiting.get((slot, tag), ()):
            event.set()

    def changed(self, slots: Iterable[SlotId]) -> None:
        """The records of these slots changed."""
        changed = set(slots)
        for (slot, _), events in self._waiting.items():
            if slot in changed:
                for event in events:
                    event.set()

    def wake_all(self) -> None:
        """Let everybody answer now."""
        for events in self._waiting.values():
            for event in events:
                event.set()
