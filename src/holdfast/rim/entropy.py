"""Randomness, so that a simulator can replay it and a test can pin it."""

from __future__ import annotations

import os
import random
from typing import Protocol


class Entropy(Protocol):
    """Where every random byte outside `crypto` comes from."""

    def bytes(self, count: int) -> bytes:
        """`count` bytes fit for keys and tokens."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A jitter value in [low, high); not for secrets."""
        ...


class SystemEntropy:
    """The kernel's generator."""

    def __init__(self) -> None:
        self._jitter = random.SystemRandom()

    def bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def uniform(self, low: float, high: float) -> float:
        return self._jitter.uniform(low, high)


class SeededEntropy:
    """Deterministic bytes for simulations, drills and vectors. Never for real keys."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


class Dice(random.Random):
    """A seeded generator for fuzzers and simulations: same seed, same throws."""
