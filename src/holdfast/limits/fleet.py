"""Limits of the fleet at scale."""

from __future__ import annotations

from typing import Final

REPAY_PERIOD_S: Final = 10.0
"""How often HQ looks for debts that can be repaid: with a provider lost, a thousand seats owe for
hours, and none of them can move before a provider is back."""
USERS_PER_GROUP_MAX: Final = 1_000_000
"""Two groups carry one to two million (seed 004 §11.7); the upper figure."""
HOST_EUR_PER_MONTH: Final = 35
VOLUME_EUR_PER_MONTH: Final = 20
"""§11.6: six hosts and six volumes are 330 euros a month."""

# --- Rebalancing ---------------------------------------------------------------------------------
BALANCE_GOAL: Final = 1.05
"""The fullest server of a role and region over their mean: nearer than a slot's own spread of
groups is not worth a change that every client of the slot must follow."""
REBALANCE_PERIOD_S: Final = 5.0
"""How often HQ looks for the next moves: it counts every slot each time."""
FOLLOW_S: Final = 60.0
"""How much later than HQ a client may follow a record: cosignatures, a watch that is slow. Slots
are moved that much more rarely than clients would follow; nothing here is in a hurry."""
LET_GO_S: Final = 120.0
"""How long a server that gave a slot keeps its sessions at least: clients' way to the new one."""
MOVES_PER_MIN: Final = 12
MOVES_PER_MIN_MAX: Final = 120
"""Each move is a signed record, a leaf of the log and a round of cosignatures."""
MOVES_INTO_MAX: Final = 4
"""Slots that one server fills at a time: past that it reads more than it serves."""
BALANCE_LOOK_MAX: Final = 32
"""Fullest servers, and lightest ones, that are tried for one move; a step stays below 50 ms."""
BALANCE_DEBTS_MAX: Final = 128
"""Debts that cannot be repaid which are looked at for one set of moves; the next set begins with
others. A lost provider leaves thousands."""
MOVES_SHOWN_MAX: Final = 250
"""Moves of one plan that are shown: it is made between two heartbeats."""

# --- Rotation ------------------------------------------------------------------------------------
ROTATE_DAYS_MIN: Final = 1.0
"""A server younger than a day has hardly filled; who wants it gone drains it."""
ROTATE_DAYS_MAX: Final = 3_650.0
ROTATE_AT_ONCE_MAX: Final = 16
"""Every one is a machine paid twice while it fills."""
