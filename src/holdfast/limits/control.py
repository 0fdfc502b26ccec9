"""Limits of the control store over a network (D26). Real seconds: etcd counts no other."""

from __future__ import annotations

from typing import Final

from holdfast.limits import KIB

TXN_BYTES_MAX: Final = 1_200 * KIB
"""etcd refuses requests over 1.5 MiB (`--max-request-bytes`); keys, Raft and encoding fit in
between."""
CALL_REAL_S: Final = 2.0
"""One request to one member; a member without a leader would let us wait for seven."""
CALL_TRIES: Final = 4
"""Members asked in turn before a read or a renewal counts as failed."""
WATCH_IDLE_REAL_S: Final = 5.0
"""A watch that hears nothing this long is opened anew at the next member: one that was cut off
in silence looks just the same."""
WATCH_LINE_BYTES_MAX: Final = 64 * 1024 * KIB
"""One message of a watch: a revision of 128 full values, base64, twice over."""
ETCD_START_REAL_S: Final = 30.0
"""From the start of three members to their first leader, on a busy machine."""

# --- Operators -----------------------------------------------------------------------------------
OPERATORS_MAX: Final = 64
"""Named persons who run one network; each call looks through them."""
PENDING_S: Final = 86_400.0
"""How long an action waits for a second person, wall-clock seconds: one night's sleep."""
PENDING_MAX: Final = 100
"""Actions that wait at once."""
REFUSALS_TOLD_MAX: Final = 4_096
"""Refusals that are in the audit log for one run of headquarters: who and what, once each."""
BODY_LOGGED_BYTES: Final = 500
"""Of what somebody asked for, in the audit log: an order of ours is shorter."""

# --- Servers -------------------------------------------------------------------------------------
DRAIN_NAMES_MAX: Final = 1_000
"""Servers drained by one order: a provider's whole share of the largest fleet."""
DRAINS_ALONE_MAX: Final = 3
"""Servers that may drain at once by orders for one each: more is a mass drain, for two persons."""

# --- Providers' keys -----------------------------------------------------------------------------
CREDENTIAL_BYTES_MAX: Final = 8 * KIB
"""A service account's token of Kubernetes is the longest there is: a kilobyte or two."""
CREDENTIAL_DAYS_MAX: Final = 3_650.0
