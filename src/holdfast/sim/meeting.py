"""Thousands of meetings of two devices whose clocks are wrong, on the real planner.

Each run draws two clocks up to 2 s off with up to 250 ppm of drift, either way, and up to two days
since they were last compared (a third were never compared). The dialler knows the address and must
be let in by the *first* window that begins; packets take up to 300 ms. `missed` are runs where it
was not. The control has no tolerance.
"""

from __future__ import annotations

import msgspec

from holdfast.limits.peers import SLACK_S_MAX
from holdfast.logic.peers.book import AddressBook, Entry
from holdfast.logic.peers.planner import Planner
from holdfast.logic.peers.windows import Terms, window
from holdfast.rim.entropy import Dice

SKEW_S = 2.0
PPM = 250e-6
AWAY_S_MAX = 2 * 86_400.0
LATENCY_S_MAX = 0.3
START_S = 1_800_000_000.0
STEP_S = 0.01


class Clockwork(msgspec.Struct, frozen=True):
    """A wrong clock."""

    skew_s: float
    drift: float

    def wall(self, true_s: float) -> float:
        """What it shows."""
        return true_s + self.skew_s + (true_s - START_S) * self.drift


def runs(count: int, seed: int, *, tolerant: bool = True) -> int:
    """How many of `count` meetings were missed."""
    terms = Terms() if tolerant else Terms(slack_base_s=0.0, slack_ppm=0.0)
    dice = Dice(seed)
    return sum(not _meets(dice, terms) for _ in range(count))


def _meets(dice: Dice, terms: Terms) -> bool:
    mine, theirs = (
        Clockwork(dice.uniform(-SKEW_S, SKEW_S), dice.uniform(-PPM, PPM)) for _ in range(2)
    )
    secret, away_s = dice.randbytes(32), dice.uniform(0.0, AWAY_S_MAX)
    entry = Entry(b"L" * 32, "listener", secret, b"", met_host="192.0.2.1")
    if dice.random() < 2 / 3:
        entry.contact_at = mine.wall(START_S)
        error = dice.uniform(-LATENCY_S_MAX / 2, LATENCY_S_MAX / 2)
        entry.skew_s = theirs.wall(START_S) - entry.contact_at + error
    else:
        away_s = 0.0  # what clocks show that were never compared is within SKEW_S
    dialler = Planner(dice.randbytes(32), AddressBook([entry]), terms, dice.uniform)
    peer = Entry(b"D" * 32, "dialler", dice.randbytes(32), b"")
    listener = Planner(secret, AddressBook([peer]), terms, dice.uniform)
    there = theirs.wall(START_S + away_s)
    only = window(secret, int(there // terms.period_s) + 1, terms)
    true_s = START_S + away_s + only.opens_at - there - 1.5 * SLACK_S_MAX
    while theirs.wall(true_s) < only.closes_at + 1.5 * SLACK_S_MAX:
        now = mine.wall(true_s)
        for dial in dialler.dials(now):
            arrives = theirs.wall(true_s + dice.uniform(0.0, LATENCY_S_MAX))
            ports = [opening.window.port for opening in listener.openings(arrives)]
            if dial.window.period == only.period and dial.window.port in ports:
                return True
        true_s += max(dialler.wakes_at(now) - now, STEP_S)
    return False
