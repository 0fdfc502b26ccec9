"""Limits of the fleet at scale."""

from __future__ import annotations

from typing import Final

REPAY_PERIOD_S: Final = 10.0
"""How often HQ looks for debts that can be repaid: with a provider lost, a thousand seats owe for
hours, and none of them can move before a provider is back."""
