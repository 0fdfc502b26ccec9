"""Limits of upgrades (ADR 0041)."""

from __future__ import annotations

from typing import Final

from holdfast.limits import MIB

RELEASE_KEY_DAYS: Final = 730
"""A release key lies with people, offline; two years are two ceremonies in four."""
ARTIFACT_BYTES_MAX: Final = 12 * MIB
"""An archive travels in one reply of headquarters' API; ours is about 1 MiB."""
UNPACKED_BYTES_MAX: Final = 128 * MIB
"""What an archive may become on a node's disk: a bomb stops here."""
ARTIFACT_FILES_MAX: Final = 10_000
RELEASES_MAX: Final = 200
"""Releases that headquarters knows: one a week for four years."""
RELEASE_NAME_LETTERS_MAX: Final = 64
AT_ONCE_MAX: Final = 64
"""Servers that change at once in the largest fleet: a thousand then take a quarter of a day."""
SOAK_S: Final = 300.0
"""The network's seconds a server must be well on a release before the next one gets it: as long as
failure must last to be believed (seed 004 §4.3)."""
DOUBT_S: Final = 90.0
"""Doubt about an upgraded server that lasts this long is a regression: three heartbeats, as long
as evidence lives."""
DOUBT_REAL_S_MIN: Final = 6.0
"""... in a drill no less: a process that starts is given that much."""
OVERDUE_S: Final = 1_800.0
"""From the order until a server is kept, its soak apart: fetching, starting, a new index."""
OVERDUE_REAL_S_MIN: Final = 60.0
FAULTS_SHARE_OVER: Final = 0.1
"""More of a server's requests fail by its own fault than before the upgrade, by this share."""
DEFER_DAYS_MAX: Final = 90
"""An owner may put an upgrade off this long, and again: who never upgrades says so at least."""

# --- On a node -----------------------------------------------------------------------------------
READY_REAL_S: Final = 60.0
"""A role that has not said that it is warm, or serves, in this time will not: a loaded machine
takes ten seconds."""
PROVE_S: Final = 120.0
"""The network's seconds a role of a new release must live before its node trusts it."""
PROVE_REAL_S_MIN: Final = 5.0
FETCH_WAITS_REAL_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Between tries to get an archive and put it on the disk. There is no last one: that headquarters
or the disk has no room for it now says nothing of the release."""
UNSERVED_MAX: Final = 3
"""Times in a row that a trusted release's role may end before it serves. One is a port in use or
a loaded machine; after three its tree is taken for damaged and fetched again."""
LOCK_REAL_S: Final = 30.0
"""A warm role waits this long for its predecessor to let go of the data."""
