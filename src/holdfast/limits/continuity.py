"""Limits of snapshots (seed 004 §12.2)."""

from __future__ import annotations

from typing import Final

from holdfast.limits import MIB

SNAPSHOT_BYTES_MAX: Final = 512 * MIB
"""3,000 servers, 24,000 slots and their log are about half of this before compression."""
SNAPSHOT_SETTLE_REAL_S: Final = 2.0
"""After a change of the fleet: what belongs together is copied together."""
SNAPSHOT_PERIOD_REAL_S_MIN: Final = 10.0
"""However fast the fleet changes: each copy is the whole of it."""
SNAPSHOT_DEVICES_REAL_S: Final = 600.0
"""Rows of devices change with each fetch of a subscription: not a copy for each of them."""
SNAPSHOT_NIGHTLY_S: Final = 24 * 3600.0
"""Wall seconds: a copy a day, also of a fleet that stands still."""
SNAPSHOTS_KEPT: Final = 32
"""In a directory; the pool's replicas keep all of them (D20)."""
SNAPSHOT_REACH_REAL_S: Final = 120.0
"""Until a copy counts as stored by the pool; the next one tries again."""
OBSERVE_S: Final = 300.0
"""Elapsed seconds a restored headquarters only listens: one detection window (D3)."""
TERMS_PER_RESTORE: Final = 1 << 32
"""A restored headquarters begins a new run of terms, above all of its past (D25)."""
REVISIONS_PER_RESTORE: Final = 1 << 20
"""Revisions that may have happened after the snapshot; nodes have seen them."""
