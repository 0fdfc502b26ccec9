"""Limits of publishing names on a primary name server (RFC 2136)."""

from __future__ import annotations

from typing import Final

PRIMARY_NAMES_PER_UPDATE: Final = 300
"""Record sets changed by one message, about 100 bytes each: well below DNS's 64 KiB over TCP."""
PRIMARY_LIFETIME_S: Final = 15.0
"""Real seconds for one exchange with the primary, a zone transfer included."""
PRIMARY_BACKOFF_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Real seconds between attempts that fail."""
PRIMARY_LATE_MAX: Final = 5
"""Times in a row that others may be found to have written first."""
PRIMARY_GATHER_S: Final = 0.1
"""Real seconds before a change is sent: names of a lost provider change together."""
PRIMARY_RECHECK_S: Final = 300.0
"""Real seconds after which the primary is read again although nothing changed here: others may
have written there."""
