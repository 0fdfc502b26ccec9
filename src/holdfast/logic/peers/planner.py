"""What a device does next to be found and to find: ports to open, peers to knock at, heartbeats.

Pure: the driver brings the time and carries out. A peer that is connected gets heartbeats at
random times; one that is not is knocked at throughout each of its windows, at every address it may
have. A device that moved, and one whose peer moved, need no rule of their own: the connection is
gone, and the book has newer addresses as soon as a third peer has told them.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from holdfast.limits.peers import BEAT_S
from holdfast.logic.peers.book import AddressBook, Entry
from holdfast.logic.peers.windows import Terms, Window, held, opens_next

Uniform = Callable[[float, float], float]
"""A draw from [low, high)."""


class Dial(msgspec.Struct, frozen=True):
    """Knock at a peer, at each host."""

    device: bytes
    hosts: tuple[str, ...]
    window: Window
    secret: bytes


class Opening(msgspec.Struct, frozen=True):
    """A port of ours that is to be open now, and the secret a knock must know."""

    window: Window
    secret: bytes


class Planner:
    """`own` is this device's window secret; `uniform` draws the times of heartbeats."""

    def __init__(self, own: bytes, book: AddressBook, terms: Terms, uniform: Uniform) -> None:
        self.own = own
        self.book = book
        self.terms = terms
        self._uniform = uniform
        self._beat_s = BEAT_S * terms.period_s / Terms().period_s
        self._knocked: dict[bytes, float] = {}
        self._beats: dict[bytes, float] = {}

    # --- being found ---------------------------------------------------------------------------
    def openings(self, now: float) -> tuple[Opening, ...]:
        """What is open at `now` on our clock; never more than the schedule says."""
        return tuple(
            Opening(found, secret)
            for secret in self._secrets()
            for found in held(secret, now, self.terms)
        )

    def _secrets(self) -> tuple[bytes, ...]:
        """Our own, and the first ones of peers that do not know it yet."""
        firsts = (entry.mine for entry in self.book if entry.mine)
        return tuple(dict.fromkeys((self.own, *firsts))) if len(self.book) else ()

    # --- finding -------------------------------------------------------------------------------
    def connected(self, device: bytes, now: float) -> None:
        """A connection stands: beat at once, then now and then."""
        self._beats[device] = now

    def lost(self, device: bytes) -> None:
        """No connection any more: knock at the next window."""
        self._beats.pop(device, None)
        self._knocked.pop(device, None)

    def dials(self, now: float) -> tuple[Dial, ...]:
        """Peers to knock at now."""
        due = []
        for entry in self._away():
            hosts = entry.hosts()
            if not hosts or now < self._knocked.get(entry.device, 0.0) + self.terms.knock_s:
                continue
            there, slack_s = now + entry.skew_s, self._slack(entry, now)
            for found in held(entry.secret, there, self.terms, slack_s):
                self._knocked[entry.device] = now
                due.append(Dial(entry.device, hosts, found, entry.secret))
        return tuple(due)

    def beats(self, now: float) -> tuple[bytes, ...]:
        """Peers to send a heartbeat now; the next one comes at a random time."""
        due = tuple(device for device, at in self._beats.items() if at <= now)
        for device in due:
            self._beats[device] = now + self._uniform(0.5, 1.5) * self._beat_s
        return due

    def news(self, now: float) -> None:
        """Something moved: tell everybody who is connected at once."""
        self._beats = dict.fromkeys(self._beats, now)

    def wakes_at(self, now: float) -> float:
        """When to look again, wall seconds after `now`."""
        times = [now + self.terms.period_s, *self._beats.values()]
        for secret in self._secrets():
            closing = [found.closes_at for found in held(secret, now, self.terms)]
            times += closing or [opens_next(secret, now, self.terms)]
        for entry in self._away():
            there, slack_s = now + entry.skew_s, self._slack(entry, now)
            if held(entry.secret, there, self.terms, slack_s):
                times.append(self._knocked.get(entry.device, now) + self.terms.knock_s)
            else:
                begins = opens_next(entry.secret, there, self.terms, slack_s)
                times.append(begins - entry.skew_s)
        return max(now, min(times))

    def _away(self) -> list[Entry]:
        return [entry for entry in self.book if entry.device not in self._beats]

    def _slack(self, entry: Entry, now: float) -> float:
        """Clocks never compared are taken to be within the base of true time, both of them."""
        if not entry.contact_at:
            return 2 * self.terms.slack_base_s if self.terms.slack_base_s else 0.0
        return self.terms.slack(now - entry.contact_at) + entry.error_s
