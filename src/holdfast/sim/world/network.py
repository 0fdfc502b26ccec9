"""Who reaches whom, how late, and how often not.

The vocabulary is that of TigerBeetle's packet simulator. A *call* is a request and its reply over
one connection: lost packets are sent again after 0.2, 0.4, 0.8 ... seconds, as TCP does, so loss
costs time first and the call only when time is up. A *partition* blocks whole directions: a
request may arrive, be carried out, and its reply never come back. A *clogged* path delivers
nothing for a while and everything afterwards; a call over it waits.

Endpoints are small numbers: 0 is headquarters, servers and groups of clients count from 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from holdfast.sim.world.chance import Chance

HQ: Final = 0
RETRANSMIT_S: Final = 0.2
"""First retransmission; each later one waits twice as long (RFC 6298 with Linux's floor)."""
BASE_DELAY_S: Final = 0.02


class NetworkOptions(msgspec.Struct, frozen=True):
    """How bad the network is. Means are seconds, probabilities are per packet or per second."""

    one_way_delay_mean: float = 0.0
    packet_loss_probability: float = 0.0
    path_clog_probability: float = 0.0
    path_clog_duration_mean: float = 20.0
    partition_mode: str = "none"
    """none, isolate_single, uniform_size, isolate_provider, partial or isolate_hq."""
    partition_symmetry: str = "symmetric"
    """symmetric, or asymmetric: what is cut off hears and is not heard, or the reverse."""
    partition_probability: float = 0.0
    partition_duration_mean: float = 60.0


class Trip(NamedTuple):
    """When a request arrives and when its reply is back, in seconds from now; None: never."""

    arrives: float | None
    returns: float | None


QUICK: Final = Trip(BASE_DELAY_S, 2 * BASE_DELAY_S)
NEVER: Final = Trip(None, None)


class Network:
    """The state of all paths."""

    def __init__(self, options: NetworkOptions, chance: Chance) -> None:
        self.options = options
        self._chance = chance
        self._blocked: dict[tuple[int, int], int] = {}
        self._deaf: dict[int, int] = {}
        self._mute: dict[int, int] = {}
        self._clogged: dict[tuple[int, int], float] = {}
        self.is_lossy = bool(options.packet_loss_probability or options.one_way_delay_mean)

    # --- Faults ----------------------------------------------------------------------------------
    def block(self, sources: Iterable[int], targets: Iterable[int]) -> list[tuple[int, int]]:
        """Cut one direction between two groups; what to give to `unblock`."""
        sinks = list(targets)
        pairs = [(a, b) for a in sources for b in sinks if a != b]
        for pair in pairs:
            self._blocked[pair] = self._blocked.get(pair, 0) + 1
        return pairs

    def unblock(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Undo one `block`."""
        for pair in pairs:
            _lower(self._blocked, pair)

    def isolate(self, endpoint: int, *, mute: bool = True, deaf: bool = True) -> None:
        """Nothing leaves (`mute`), nothing arrives (`deaf`)."""
        if mute:
            self._mute[endpoint] = self._mute.get(endpoint, 0) + 1
        if deaf:
            self._deaf[endpoint] = self._deaf.get(endpoint, 0) + 1

    def join(self, endpoint: int, *, mute: bool = True, deaf: bool = True) -> None:
        """Undo one `isolate`."""
        if mute:
            _lower(self._mute, endpoint)
        if deaf:
            _lower(self._deaf, endpoint)

    @property
    def is_cut(self) -> bool:
        """Whether any path is blocked."""
        return bool(self._blocked)

    def is_isolated(self, endpoint: int) -> bool:
        """Whether every call to it fails."""
        return endpoint in self._mute or endpoint in self._deaf

    def clog(self, source: int, target: int, until: float) -> None:
        """Hold back what goes from `source` to `target`."""
        self._clogged[source, target] = until

    def calm(self) -> None:
        """All faults end: the liveness phase."""
        self._blocked.clear()
        self._deaf.clear()
        self._mute.clear()
        self._clogged.clear()
        self.options = NetworkOptions()
        self.is_lossy = False

    # --- Calls -----------------------------------------------------------------------------------
    def passes(self, source: int, target: int) -> bool:
        """Whether the direction is open at all."""
        return not (
            source in self._mute or target in self._deaf or (source, target) in self._blocked
        )

    def call(self, source: int, target: int, now: float, patience_s: float) -> Trip:
        """A request and its reply, given up after `patience_s`."""
        if not (self.is_lossy or self._blocked or self._deaf or self._mute or self._clogged):
            return QUICK
        there = self.way(source, target, now, patience_s)
        if there is None:
            return NEVER
        back = self.way(target, source, now + there, patience_s - there)
        return Trip(there, None if back is None else there + back)

    def way(self, source: int, target: int, now: float, patience_s: float) -> float | None:
        """Seconds until something sent now arrives, None when not in time."""
        if not self.passes(source, target):
            return None
        wait = max(0.0, self._clogged.get((source, target), 0.0) - now)
        if self.is_lossy:
            options, resend = self.options, RETRANSMIT_S
            wait += self._chance.delay(options.one_way_delay_mean, BASE_DELAY_S)
            while self._chance.happens(options.packet_loss_probability):
                wait, resend = wait + resend, 2 * resend
                if wait > patience_s:
                    return None
        else:
            wait += BASE_DELAY_S
        return wait if wait <= patience_s else None


def _lower(counts: dict[Any, int], key: Any) -> None:
    left = counts.get(key, 0) - 1
    if left > 0:
        counts[key] = left
    else:
        counts.pop(key, None)
