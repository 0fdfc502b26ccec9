"""Limits of watching a fleet: alerts, metrics, and what each role's machine is expected to do."""

from __future__ import annotations

from typing import Final

from holdfast.limits import MIB

# --- Alerts --------------------------------------------------------------------------------------
ALERT_LOOK_S: Final = 10.0
"""Between two looks for alerts, elapsed seconds: a third of a heartbeat, so that none is missed."""
ALERT_LOOK_REAL_S_MIN: Final = 0.5
"""In drills: looking at a large fleet takes tens of milliseconds of HQ's loop."""
ALERTS_NAMED_MAX: Final = 20
"""Alerts of one kind that name their subject; the rest is counted in one more. A lost provider is
one thing to do, not a thousand."""
ALERT_EVENT_KEPT_S: Final = 7 * 86_400.0
"""What happened once and nobody acknowledged is shown for a week, elapsed seconds."""
HOLD_S: Final = 60.0
"""A condition that is shorter is no alert: two heartbeats."""
CLEAR_S: Final = 120.0
"""And one that comes back sooner has not ended."""
DEBT_HOLD_S: Final = 3_600.0
"""Debt is repaid by itself when the provider returns; after an hour it will not be soon."""
CHECKPOINT_LATE_S: Final = 600.0
"""Checkpoints are signed every second and cosigned by long poll; ten minutes is a fault."""
SNAPSHOT_LATE_S: Final = 2 * 86_400.0
"""One is taken each night: two missed. Wall-clock seconds."""
INTERMEDIATE_ALERT_DAYS: Final = 90
"""The root is in a safe, and its custodians have to meet."""
INTERMEDIATE_CRITICAL_DAYS: Final = 14
NODE_CERT_ALERT_DAYS: Final = 14
"""Renewal begins 60 days before the end: something has stood in its way for weeks."""
DISK_FREE_SHARE_MIN: Final = 0.10
"""Less free than this begins the alert; servers refuse writes at their own, lower reserve."""
DISK_FREE_SHARE_OK: Final = 0.15
"""More free than this ends it."""
CONDUCT_HOLD_S: Final = 300.0
"""A backup, an update, a filling peer: all of them end. Ten heartbeats of it are something else."""
AUDIT_ROWS_PER_LOOK: Final = 5_000
"""Rows of the audit log read in one look; more are read in the next."""

# --- What a role's machine does ------------------------------------------------------------------
BUSY_MIN: Final = 0.80
"""Share of the machine's processors in use that calls for an explanation."""
REQUESTS_PER_BUSY: Final = 50.0
"""Requests a second that explain a busy server: a hundredth of what one sustains on two cores, so
that also a slow machine under a light load is believed."""
FORWARDED_BYTES_PER_BUSY: Final = 250_000.0
"""Bytes a second through an entry or a core that explain a busy one: 2 Mbit/s; a small machine
forwards a hundred times as much."""
BYTES_PER_REQUEST: Final = 2 * MIB
"""What one request may move, both the body and what it makes the server fetch: twice the largest
blob."""
BYTES_PER_S_QUIET: Final = 2_000_000.0
"""Bytes a second nobody has to explain: heartbeats, probes, updates, reconciling."""
LOPSIDED_SHARE_MAX: Final = 0.5
"""An entry or a core passes on what it gets, so both directions are alike; half may be missing to
headers, retries and the owner's own use of the machine."""
LOPSIDED_BYTES_PER_S_MIN: Final = 5_000_000.0
"""Below 40 Mbit/s the two directions are not compared."""

# --- Metrics -------------------------------------------------------------------------------------
METRIC_SERVERS_MAX: Final = 5_000
"""Servers with series of their own: seven each, 35,000 in all, which one Prometheus takes in a
second. A larger fleet is told by role and tier only."""
