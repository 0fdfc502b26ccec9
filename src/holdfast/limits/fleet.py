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
