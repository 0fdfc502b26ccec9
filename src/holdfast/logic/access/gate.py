"""What others may use of a core: exactly so much, no faster than so, and after its owner.

The owner is first (seed 000: a reserve, not a constant load). While the owner's traffic flows, all
others together get a fiftieth of its rate, and never less than a floor; while it rests, they get
what the policy allows. The quota is in bytes and is cut at the byte.
"""

from __future__ import annotations

from typing import Final

from holdfast.limits.access import RESERVE_FLOOR_BYTES_PER_S

OWN_ACTIVE_BYTES_PER_S: Final = 32 * 1024
"""Less than this of the owner is a page that refreshes itself."""
SHARE: Final = 0.02
BURST_S: Final = 0.1
"""How much of a second's allowance may pass at once."""


class Gate:
    """The meter of reserve traffic. Times are real seconds of any steady clock."""

    def __init__(self, now: float) -> None:
        self.upload = 0
        self.download = 0
        self.limit = 0
        """Bytes that may pass in all; nothing before orders have come."""
        self.rate = 0.0
        """Bytes a second; 0 for no limit."""
        self._policy_rate = 0.0
        self._debt = 0.0
        self._at = now

    @property
    def used(self) -> int:
        return self.upload + self.download

    def allow(self, limit: int, policy_rate: float) -> bool:
        """New orders; whether what is open must be closed now."""
        self.limit, self._policy_rate = limit, policy_rate
        self.rate = policy_rate
        return self.used >= limit

    def own(self, rate: float) -> None:
        """How fast the owner's own traffic flows now."""
        if rate < OWN_ACTIVE_BYTES_PER_S:
            self.rate = self._policy_rate
            return
        yielded = max(RESERVE_FLOOR_BYTES_PER_S, rate * SHARE)
        self.rate = min(yielded, self._policy_rate) if self._policy_rate else yielded

    def take(self, count: int, *, up: bool) -> int:
        """How many of `count` bytes may pass; they are counted."""
        allowed = max(0, min(count, self.limit - self.used))
        if up:
            self.upload += allowed
        else:
            self.download += allowed
        self._debt += allowed
        return allowed

    def wait_s(self, now: float) -> float:
        """How long to rest so that the rate is kept."""
        if not self.rate:
            self._debt, self._at = 0.0, now
            return 0.0
        self._debt = max(0.0, self._debt - (now - self._at) * self.rate)
        self._at = now
        excess = self._debt - self.rate * BURST_S
        return excess / self.rate if excess > 0 else 0.0
