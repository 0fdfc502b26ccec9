"""Limits of the access layer: cells, path epochs, quotas, accounting."""

from __future__ import annotations

from typing import Final, NamedTuple

from holdfast.limits import GIB, KIB, MIB

# --- Cells ---------------------------------------------------------------------------------------
CELLS_MAX: Final = 64
"""Cells of a network; Sigil Gate, whose model this is, counts tens to hundreds of nodes."""
CELL_DEVICES_MAX: Final = 10_000
"""Devices of one cell: every entry is told all of them at once, about 1 MiB of orders."""
CELL_NODES_MAX: Final = 256
"""Entries and cores of one cell together."""
DEVICES_PER_MEMBER_MAX: Final = 32
LANES_MAX: Final = 256
"""Owners with a core in one cell; each is a listener in every entry's proxy."""

# --- Path epochs (seed 001) ----------------------------------------------------------------------
EPOCH_PERIOD_S: Final = 2 * 3_600.0
"""Sigil Gate rotates its paths every two hours ..."""
EPOCH_OFFSET_S_MAX: Final = 1_800.0
"""... plus up to half an hour, so that no two cells turn together."""
EPOCH_OVERLAP_S: Final = 26 * 3_600.0
"""No epoch is closed sooner after its successor: v2rayNG refreshes every 24 hours, if at all."""
EPOCH_LEAD_S: Final = 2.0
"""Real seconds for which entries serve a new epoch before any client is told of it."""
EPOCH_AGE_S_MAX: Final = 14 * 86_400.0
"""A device that has not refreshed for so long has to fetch its subscription again."""
EPOCHS_MAX: Final = 512
"""Epochs served side by side, each two routes; 14 days of two hours are 168."""
EPOCH_SECRET_BYTES: Final = 8
"""16 hexadecimal digits, as in Sigil Gate: a prober guesses one in 2^64."""

DRAIN_S: Final = 600.0
"""An entry or a core that goes serves on for this long: most of what is open ends by itself."""
SWITCH_S: Final = 60.0
"""It serves on for this long after the last device fetched a subscription without it: the client
starts anew with that, and what it had open ends ..."""
SWITCH_REAL_S_MIN: Final = 3.0
"""... and, in drills that let time pass faster, for so many real seconds: starting takes one."""

# --- Choice of core ------------------------------------------------------------------------------
CORE_WEIGHT_MAX: Final = 100
CORE_HEALTH_PERIOD_S: Final = 1.0
CORE_HEALTH_TIMEOUT_S: Final = 0.8
CORE_HEALTH_FAILURES: Final = 2
"""A core that answers no check for two seconds gets no new connections."""

# --- Exit policy ---------------------------------------------------------------------------------
POLICY_RULES_MAX: Final = 256
"""Destinations an owner may name."""
RESERVE_BYTES_DEFAULT: Final = 10 * GIB
"""What an owner lends to others a month before having said anything."""
RESERVE_FLOOR_BYTES_PER_S: Final = 64 * KIB
"""What reserve traffic keeps while the owner uses the core: enough for a page, not a film."""


# --- Envoy (ADR 0047) ----------------------------------------------------------------------------
class Window(NamedTuple):
    """How much may be under way to us, of one stream and of all on a connection.

    What a slow reader does not take stays under way and uses up both. So a connection that people
    share has room for many streams, or a few slow ones would stop all others on it.
    """

    stream_bytes: int
    connection_bytes: int


CLIENT_WINDOW: Final = Window(4 * MIB, 16 * MIB)
"""Uploads of one client: bounded, since anybody may be one."""
HOP_WINDOW: Final = Window(1 * MIB, 128 * MIB)
"""Between entry and core, shared by all of a lane: at 100 ms there and back, 10 MB/s a stream."""
LOCAL_WINDOW: Final = Window(512 * KIB, 128 * MIB)
"""From the entry's own Xray, a socket away, shared by all clients."""
PROXY_BUFFER_BYTES: Final = 1 * MIB
"""What Envoy reads ahead for a side that does not take it, each connection and way."""
ENVOY_CONNECTIONS_MAX: Final = 50_000
"""Of clients to one Envoy; Envoy refuses more before they cost it anything."""
PANIC_PERCENT: Final = 50.0
"""All cores of all priorities at once seem dead: then it is us who are slow, and we try anyway."""

# --- Names blocked (Sigil Gate, failover) --------------------------------------------------------
BLOCK_WINDOW_S: Final = 120.0
BLOCK_CLIENTS_MIN: Final = 8
"""Fewer clients than this vanish by chance."""
BLOCK_FRACTION: Final = 0.25
"""Fewer than a quarter of the usual clients left while heartbeats go on: the name is blocked."""

# --- Accounting ----------------------------------------------------------------------------------
USAGE_PERIOD_S: Final = 2.0
"""Real seconds between readings of the counters: what a proxy that is killed can lose."""
USAGE_ROWS_MAX: Final = CELL_DEVICES_MAX
USAGE_REPORT_BYTES_MAX: Final = 4 * MIB

# --- Subscriptions -------------------------------------------------------------------------------
SUBSCRIPTION_TOKEN_BYTES: Final = 24
"""192 random bits: neither guessed nor linked to anything."""
SUBSCRIPTION_UPDATE_H: Final = 1
"""Hiddify reads whole hours only."""
FETCH_NOTE_S: Final = 60.0
"""A device that fetches again sooner is not written down again; clients refresh by the hour."""
FETCHES_PER_TXN_MAX: Final = 100
"""Below TXN_OPERATIONS_MAX."""
CLIENT_ID_BYTES_MAX: Final = 256
"""Of an `x-hwid` header; those that are sent are below 64."""
SKELETONS_MAX: Final = 2_048
"""Rendered bodies kept: cells times formats times states, at most 50 KiB each."""
SUBSCRIPTION_CONNECTIONS_MAX: Final = 4_096
"""A front keeps hundreds open; each costs some 20 KiB."""
CONTACT_BYTES_MAX: Final = 32
"""An HMAC-SHA256."""
