"""Every draw of a run, out of one seeded generator, each noted in the trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from holdfast.rim.entropy import Dice
from holdfast.sim.world.schedule import Trace

T = TypeVar("T")


class Chance:
    """Draws. Whatever is drawn from must have an order of its own: never a set."""

    def __init__(self, seed: int, trace: Trace) -> None:
        self._dice = Dice(seed)
        self._trace = trace
        self.draws = 0

    def fraction(self) -> float:
        """In [0, 1)."""
        self.draws += 1
        drawn = self._dice.random()
        self._trace.note("draw", drawn)
        return drawn

    def happens(self, probability: float) -> bool:
        """True that often. The impossible and the certain cost no draw."""
        if probability <= 0.0:
            return False
        return probability >= 1.0 or self.fraction() < probability

    def between(self, low: float, high: float) -> float:
        """In [low, high)."""
        return low + (high - low) * self.fraction()

    def delay(self, mean: float, least: float = 0.0) -> float:
        """Exponential with that mean, on top of `least`, cut off at ten times the mean."""
        self.draws += 1
        drawn = min(self._dice.expovariate(1.0 / mean), 10 * mean) if mean > 0 else 0.0
        self._trace.note("draw", drawn)
        return least + drawn

    def below(self, count: int) -> int:
        """In 0 .. count - 1."""
        return int(self.fraction() * count)

    def one(self, things: Sequence[T]) -> T:
        """Any of `things`."""
        return things[self.below(len(things))]

    def some(self, things: Sequence[T], count: int) -> list[T]:
        """`count` different ones of `things`, in the order drawn."""
        rest = list(things)
        return [rest.pop(self.below(len(rest))) for _ in range(min(count, len(rest)))]

    def bytes(self, count: int) -> bytes:
        """`count` bytes."""
        self.draws += 1
        drawn = self._dice.randbytes(count)
        self._trace.note("draw", drawn)
        return drawn
