"""Port windows (D24): when which port of a device is open.

A listener has one window secret, known to its peers. In every period of its clock

    h      = BLAKE3-keyed(secret, "window" | period u64)
    port   = WINDOW_PORT_FIRST + (h[0:4] mod WINDOW_PORTS)
    opens  = period * period_s + (h[4:8] / 2**32) * (period_s - open_s)

and the port closes `open_s` later. A peer knocks from `slack` before to `slack` after, on the
listener's clock as far as it knows it. Seed 003 asks for clocks "with a low margin of error
relative to the duration of each port opening"; slack is what stands in when they are not.
"""

from __future__ import annotations

import math
from functools import lru_cache

import msgspec

from holdfast.crypto.pure import derive_key, keyed_hash
from holdfast.limits.peers import (
    KNOCK_S,
    SLACK_BASE_S,
    SLACK_PPM,
    SLACK_S_MAX,
    WINDOW_OPEN_S,
    WINDOW_PERIOD_S,
    WINDOW_PORT_FIRST,
    WINDOW_PORTS,
)


class Terms(msgspec.Struct, frozen=True):
    """The schedule's lengths in wall seconds; drills run them faster, all by one factor."""

    period_s: float = WINDOW_PERIOD_S
    open_s: float = WINDOW_OPEN_S
    slack_base_s: float = SLACK_BASE_S
    slack_ppm: float = SLACK_PPM
    slack_s_max: float = SLACK_S_MAX
    knock_s: float = KNOCK_S

    def faster(self, scale: float) -> Terms:
        """The same schedule, `scale` times faster."""
        return Terms(
            self.period_s / scale,
            self.open_s / scale,
            self.slack_base_s / scale,
            self.slack_ppm,
            self.slack_s_max / scale,
            self.knock_s / scale,
        )

    def slack(self, since_contact_s: float) -> float:
        """How far two clocks may have gone apart since their skew was measured, seconds."""
        drift = self.slack_ppm * 1e-6 * max(0.0, since_contact_s)
        return min(self.slack_base_s + drift, self.slack_s_max)


class Window(msgspec.Struct, frozen=True):
    """One opening, in wall seconds of the listener."""

    period: int
    port: int
    opens_at: float
    closes_at: float

    def holds(self, now: float, slack_s: float = 0.0) -> bool:
        """Whether `now` is inside, or within `slack_s` of it."""
        return self.opens_at - slack_s <= now < self.closes_at + slack_s


@lru_cache(1_024)
def window(secret: bytes, period: int, terms: Terms) -> Window:
    """The window of one period."""
    drawn = keyed_hash(secret, b"window", period.to_bytes(8, "big"))
    port = WINDOW_PORT_FIRST + int.from_bytes(drawn[:4], "big") % WINDOW_PORTS
    offset = int.from_bytes(drawn[4:8], "big") / 2**32 * (terms.period_s - terms.open_s)
    opens_at = period * terms.period_s + offset
    return Window(period, port, opens_at, opens_at + terms.open_s)


def around(secret: bytes, now: float, terms: Terms) -> tuple[Window, ...]:
    """Windows of the period of `now`, the one before and the one after."""
    period = math.floor(now / terms.period_s)
    return tuple(window(secret, p, terms) for p in range(max(0, period - 1), period + 2))


def held(secret: bytes, now: float, terms: Terms, slack_s: float = 0.0) -> tuple[Window, ...]:
    """The windows that hold `now`: two, when slack makes the ones of adjacent periods overlap."""
    return tuple(w for w in around(secret, now, terms) if w.holds(now, slack_s))


def opens_next(secret: bytes, now: float, terms: Terms, slack_s: float = 0.0) -> float:
    """When the next window begins that has not begun yet, `slack_s` early."""
    starts = (w.opens_at - slack_s for w in around(secret, now, terms))
    return min((start for start in starts if start > now), default=now + terms.period_s)


def first_secret(pairing: bytes, listener: bytes) -> bytes:
    """Window secret of `listener` for a peer it has only met in person: both know `pairing`."""
    return derive_key("holdfast v1 first window", pairing + listener)


def knock(secret: bytes, period: int, nonce: bytes) -> bytes:
    """What a peer says first, so that a stranger who hits an open port learns nothing: the nonce
    of 16 bytes, and BLAKE3-keyed(secret, "knock" | period u64 | nonce)."""
    return nonce + keyed_hash(secret, b"knock", period.to_bytes(8, "big"), nonce)


def mark(secret: bytes) -> bytes:
    """By this two who know a device's window secret find out that both know it."""
    return keyed_hash(secret, b"mark")
