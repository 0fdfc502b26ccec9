"""How often strangers may ask: a token bucket for each address and one for all of them.

Rates are per real second: a flood does not run faster when a drill squeezes time. An address is an
IPv4 address or an IPv6 /64, of which one customer has billions.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import Final

from holdfast.errors import PeerFault
from holdfast.rim.clock import Clock

SOURCES_MAX: Final = 10_000
"""Addresses remembered; past this the one unheard for longest starts with a full bucket again."""


class Bucket:
    """`burst` at once, `rate` a second for ever."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def level(self, now: float) -> float:
        """Tokens there now."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return self._tokens

    def take(self) -> None:
        """One token less."""
        self._tokens -= 1.0


class Rates:
    """Buckets by source, and one over all sources with `crowd` times as much."""

    def __init__(self, clock: Clock, rate: float, burst: float, *, crowd: float = 20.0) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._everybody = Bucket(rate * crowd, burst * crowd, self._now())
        self._sources: OrderedDict[str, Bucket] = OrderedDict()

    def check(self, source: str) -> None:
        """Raises PeerFault (`too-many`) when the bucket of `source`, or everybody's, is empty."""
        now = self._now()
        if min(self._of(source, now).level(now), self._everybody.level(now)) < 1.0:
            raise PeerFault("too many requests; try again in a minute", code="too-many")

    def spend(self, source: str) -> None:
        """Count one request of `source`."""
        self._of(source, self._now()).take()
        self._everybody.take()

    def charge(self, source: str) -> None:
        """`check`, then `spend`."""
        self.check(source)
        self.spend(source)

    def _of(self, source: str, now: float) -> Bucket:
        key = _network_of(source)
        bucket = self._sources.get(key)
        if bucket is None:
            bucket = self._sources[key] = Bucket(self._rate, self._burst, now)
            if len(self._sources) > SOURCES_MAX:
                self._sources.popitem(last=False)
        self._sources.move_to_end(key)
        return bucket

    def _now(self) -> float:
        return self._clock.elapsed() / self._clock.scale


def _network_of(source: str) -> str:
    try:
        address = ip_address(source)
    except ValueError:
        return source
    if isinstance(address, IPv6Address):
        return address.packed[:8].hex()
    return source
