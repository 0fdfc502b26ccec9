"""The keys with which headquarters orders machines: what is known of each but its value (§5.4).

One row for each provider, under `/credentials/<provider>` of the control store. The value is
sealed on the disk of the headquarters that uses it (`hq.credentials`) and is in no row. Times are
Unix seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from holdfast.crypto.pure import derive_key

CREDENTIALS: Final = "/credentials/"
NEEDED: Final = frozenset({"servers"})
"""What headquarters uses a key for; a key that may do more loses more when it leaks."""
_DAY_S: Final = 86_400.0


class CredentialRow(msgspec.Struct, frozen=True):
    """`set_at` 0: a schedule was made before a key was set. `scopes` are empty where the provider
    does not say what a key may do. `every_days` 0: no schedule."""

    provider: str
    fingerprint: str = ""
    set_at: float = 0.0
    author: str = ""
    scopes: tuple[str, ...] = ()
    every_days: float = 0.0
    reminded_at: float = 0.0

    @property
    def next_at(self) -> float:
        """When the next rotation is due; 0 without a schedule."""
        return self.set_at + self.every_days * _DAY_S if self.every_days and self.set_at else 0.0

    @property
    def is_wide(self) -> bool:
        """Whether the key may do more than make, list and destroy machines."""
        return bool(set(self.scopes) - NEEDED)


def credentials_due(rows: Iterable[CredentialRow], now: float) -> tuple[CredentialRow, ...]:
    """The keys whose rotation is due, the longest overdue first."""
    due = [row for row in rows if 0 < row.next_at <= now]
    return tuple(sorted(due, key=lambda row: (row.next_at, row.provider)))


def fingerprint(network: bytes, provider: str, value: str) -> str:
    """Sixteen hex digits that tell two keys apart and nothing about either: a key is too long to
    be guessed, and the same key of two networks or providers looks different."""
    material = b"\0".join((network, provider.encode(), value.encode()))
    return derive_key("holdfast v1 credential fingerprint", material, length=8).hex()
