"""Token buckets: how much a tag, a peer or everybody together may ask (D17, seed 004 §11.3).

A request costs 1 and another 1 for each 64 KiB it moves. Buckets are refilled when they are looked
at, so a thousand idle ones cost nothing. Rates are per real second: the network and the disk do
not run faster when a drill squeezes time.
"""

from __future__ import annotations

from collections import OrderedDict

from holdfast.limits import TOKEN_BUCKET_UNIT_BYTES
from holdfast.wire.faults import Refusal


def cost_of(moved_bytes: int) -> float:
    """Tokens for a request that moves this many bytes."""
    return 1.0 + moved_bytes / TOKEN_BUCKET_UNIT_BYTES


class Bucket:
    """One token bucket; `now` is real seconds from any start."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, cost: float, now: float) -> float:
        """Take `cost` tokens: 0.0, or the seconds until they will be there and none taken.

        A cost above the burst is let through when the bucket is full, and paid off after."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        needed = min(cost, self._burst)
        if self._tokens < needed:
            return (needed - self._tokens) / self._rate
        self._tokens -= cost
        return 0.0


class Rates:
    """The bucket of everybody, and one for each key seen lately."""

    def __init__(self, everybody: Bucket, keys_max: int) -> None:
        self._everybody = everybody
        self._keys_max = keys_max
        self._buckets: OrderedDict[bytes, Bucket] = OrderedDict()

    def admit(self, now: float) -> None:
        """Count one request of anybody. Raises Refusal (`busy`)."""
        wait_s = self._everybody.take(1.0, now)
        if wait_s:
            raise Refusal("the server is at its request rate", code="busy", retry_after_s=wait_s)

    def charge(self, key: bytes, rate: float, burst: float, cost: float, now: float) -> None:
        """Count a request of `key` (a tag or a node id). Raises Refusal (`rate`)."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(rate, burst, now)
            if len(self._buckets) > self._keys_max:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        wait_s = bucket.take(cost, now)
        if wait_s:
            raise Refusal("too many requests for this tag", code="rate", retry_after_s=wait_s)
