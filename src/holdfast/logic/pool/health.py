"""Which servers answer, when to try the others again, and whom to tell (seed 004 §3.1, §7.1).

A server that fails starts an *episode*: it is tried again after 1, 2, 4, 8, 16, 30, 30, ... s
plus jitter, and every surviving server is told once that it cannot be reached and since when.
The client diagnoses nothing and coordinates with nobody (§7.2). An answer, or another node behind
the name, ends the episode. A server that says it is busy is alive: it is left alone as long as it
asks, and nobody is told.

The machine draws no randomness: jitter arrives with the event, a number in [0, 1).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from holdfast.limits import BACKOFF_JITTER_FRACTION, BACKOFF_S
from holdfast.logic.fleet.model import NodeId


class Report(msgspec.Struct, frozen=True):
    """Tell `recipient` that `name` cannot be reached since `first_failed_at` (Unix seconds)."""

    recipient: str
    name: str
    first_failed_at: float


class Episode(msgspec.Struct):
    """A run of failures of one server. `failures` is at least 1; `told` are server names.

    `first_failed_at` is Unix time, `failed_at` the elapsed time of the newest failure.
    """

    first_failed_at: float
    failures: int = 0
    failed_at: float = 0.0
    told: set[str] = msgspec.field(default_factory=set)


class Health:
    """The health of the servers of one slot, as this client sees it."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeId] = {}
        self._episodes: dict[str, Episode] = {}
        self._retry_at: dict[str, float] = {}

    def seated(self, nodes: dict[str, NodeId]) -> tuple[str, ...]:
        """The slot has these servers now; names whose node is new start afresh and are returned."""
        fresh = tuple(name for name, node in nodes.items() if self._nodes.get(name) != node)
        for name in (*fresh, *(set(self._nodes) - set(nodes))):
            self._episodes.pop(name, None)
            self._retry_at.pop(name, None)
        self._nodes = dict(nodes)
        return fresh

    def failed(self, name: str, now: float, wall_s: float, jitter: float) -> float:
        """`name` did not answer. Returns the elapsed time before which it is left alone."""
        assert 0.0 <= jitter <= 1.0
        episode = self._episodes.setdefault(name, Episode(wall_s))
        episode.failures += 1
        episode.failed_at = now
        step = BACKOFF_S[min(episode.failures, len(BACKOFF_S)) - 1]
        self._retry_at[name] = now + step * (1.0 + BACKOFF_JITTER_FRACTION * jitter)
        return self._retry_at[name]

    def asked_to_wait(self, name: str, now: float, wait_s: float) -> float:
        """`name` is alive and busy. Returns the elapsed time before which it is left alone."""
        self._retry_at[name] = now + min(max(wait_s, BACKOFF_S[0]), BACKOFF_S[-1])
        return self._retry_at[name]

    def answered(self, name: str, asked_at: float) -> bool:
        """`name` answered what was asked at `asked_at`. True when that ends an episode.

        An answer to a question older than the newest failure says nothing: a server that is
        shutting down finishes what it had begun.
        """
        episode = self._episodes.get(name)
        if episode is not None and asked_at < episode.failed_at:
            return False
        self._retry_at.pop(name, None)
        return self._episodes.pop(name, None) is not None

    def retry_at(self, name: str) -> float:
        """The elapsed time from which `name` may be tried; 0 when at once."""
        return self._retry_at.get(name, 0.0)

    def failing(self) -> frozenset[str]:
        """Servers in an episode now."""
        return frozenset(self._episodes)

    def failures(self, name: str) -> int:
        """Failures in a row of `name`, 0 when it answers."""
        episode = self._episodes.get(name)
        return episode.failures if episode else 0

    def reports_owed(self, recipient: str) -> tuple[Report, ...]:
        """What `recipient`, which answers, has not been told yet."""
        if recipient in self._episodes:
            return ()
        return tuple(
            Report(recipient, name, episode.first_failed_at)
            for name, episode in self._episodes.items()
            if recipient not in episode.told
        )

    def told(self, reports: Iterable[Report]) -> None:
        """These reports were delivered; none is sent twice in an episode."""
        for report in reports:
            episode = self._episodes.get(report.name)
            if episode is not None and episode.first_failed_at == report.first_failed_at:
                episode.told.add(report.recipient)
