"""Who has been heard of lately (D27): soft state, asked as `overdue(now)`, no timer for each node.

Silence is a hint, never a verdict: it marks nobody RED. It tells a majority from a minority of
witnesses, a provider's lost servers from those that still answer, and HQ that it may itself be
the one that is cut off. Only silence that HQ listened to counts: time during which HQ itself stood
still (a stalled process, a suspended laptop) is taken out.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Protocol

from holdfast.logic.fleet.model import Load

IDLE = Load()


class Liveness(Protocol):
    """What the tier machine asks. The simulator answers from its own truth."""

    def overdue(self, now: float) -> AbstractSet[str]:
        """Names not heard of for longer than the silence limit."""
        ...

    def spoke(self, name: str) -> bool:
        """Whether `name` was heard of at all since this process began to listen."""
        ...

    def spoke_within(self, name: str, seconds: float, now: float) -> bool:
        """Whether `name` was heard of in the last `seconds`."""
        ...

    def load(self, name: str) -> Load:
        """The last load figures of `name`."""
        ...


class Heartbeats:
    """Liveness from heartbeats. `silent_s` is Unix seconds."""

    def __init__(self, silent_s: float) -> None:
        self._silent_s = silent_s
        self._heard: dict[str, float] = {}  # least recently heard first
        self._silent: dict[str, float] = {}
        self._spoke: set[str] = set()
        self._deaf_s = 0.0
        self._loads: dict[str, Load] = {}

    def expect(self, name: str, now: float) -> None:
        """`name` has a new node, or this process just started: its silence counts from now."""
        self.hear(name, now)
        self._spoke.discard(name)
        self._loads.pop(name, None)

    def hear(self, name: str, now: float, load: Load | None = None) -> None:
        """`name` gave a sign of life."""
        self._spoke.add(name)
        self._heard.pop(name, None)
        self._heard[name] = now - self._deaf_s
        self._silent.pop(name, None)
        if load is not None:
            self._loads[name] = load

    def deaf(self, seconds: float) -> None:
        """HQ heard nobody for so long, and it was its own fault."""
        assert seconds >= 0
        self._deaf_s += seconds

    def overdue(self, now: float) -> AbstractSet[str]:
        while self._heard:
            name, at = next(iter(self._heard.items()))
            if now - self._deaf_s - at <= self._silent_s:
                break
            self._silent[name] = self._heard.pop(name)
        return self._silent.keys()

    def spoke(self, name: str) -> bool:
        return name in self._spoke

    def spoke_within(self, name: str, seconds: float, now: float) -> bool:
        at = self._heard.get(name, self._silent.get(name))
        if at is None or name not in self._spoke:
            return False
        return now - self._deaf_s - at < seconds

    def load(self, name: str) -> Load:
        return self._loads.get(name, IDLE)
