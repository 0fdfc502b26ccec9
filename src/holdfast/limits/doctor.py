"""Where `holdfast doctor` draws its lines."""

from __future__ import annotations

from typing import Final

from holdfast.limits import (
    BALLAST_BYTES,
    CONNECTIONS_MAX,
    DISK_RESERVE_BYTES,
    HEADROOM_FRACTION_MIN,
)

SKEW_S_NOTED: Final = 2.0
"""Meeting windows tolerate two seconds (D24)."""
SKEW_S_MAX: Final = 60.0
"""A session's challenge lives for a minute; certificates are backdated by an hour."""
DISK_FREE_BYTES_MIN: Final = DISK_RESERVE_BYTES + BALLAST_BYTES
"""Below this a store refuses every write."""
DISK_FREE_FRACTION_MIN: Final = HEADROOM_FRACTION_MIN
SYNC_US_MIN: Final = 10.0
"""A system call and a trip to a controller's cache cost more; without a device it takes 2 us."""
SYNC_US_MAX: Final = 500_000.0
"""Half a second for one block: a tenth of what makes a server gray (D28)."""
DESCRIPTORS_MIN: Final = CONNECTIONS_MAX + 1_024
"""A full house of clients, and segments, peers and logs."""
REPORT_AGE_S_MAX: Final = 60.0
"""The agent writes its status every five real seconds."""
HQ_SILENT_S_MAX: Final = 600.0
"""Twenty heartbeats without an answer."""
CERT_ENDS_DAYS_MIN: Final = 9.0
"""Day 81 of 90: urgent in the node's own words."""
INTERMEDIATE_ENDS_DAYS_MIN: Final = 90.0
"""A node certificate issued now would be cut short by it."""
ROOT_ENDS_DAYS_MIN: Final = 730.0
"""An intermediate issued now would be cut short by it."""
REVOCATIONS_AGE_S_MAX: Final = 3 * 86_400.0
"""HQ signs it anew every day."""
