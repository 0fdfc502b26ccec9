"""Limits of devices that find each other without servers (seed 003, Node Discovery)."""

from __future__ import annotations

from typing import Final

from holdfast.limits import KIB
from holdfast.limits.people import LETTER_BYTES_MAX

WINDOW_PERIOD_S: Final = 600.0
WINDOW_OPEN_S: Final = 10.0
"""Decision D24: ten seconds in ten minutes."""
WINDOW_PORT_FIRST: Final = 20_000
WINDOW_PORTS: Final = 12_000
"""Below the range from which the kernel draws ports of outgoing connections."""
SLACK_BASE_S: Final = 2.0
SLACK_PPM: Final = 500.0
"""D24: cheap crystals run up to 250 ppm off, each way."""
SLACK_S_MAX: Final = 120.0
"""Reached after 2.7 days without contact; a fifth of the period, past which knocking is noise."""
KNOCK_S: Final = 1.0
"""Ten knocks fall into a window; one lost packet loses one of them."""
BEAT_S: Final = 60.0
"""Mean time between heartbeats; each waits a random half to one and a half of it."""
BEATS_MISSED_MAX: Final = 3
BEAT_REPLY_S: Final = 10.0
"""Real seconds for the answer to a heartbeat."""
HOSTS_MAX: Final = 8
"""Addresses one device has, or is seen at."""
PEERS_MAX: Final = 256
"""Devices of a person and their friends that one device knows."""
SEERS_MAX: Final = 8
"""Peers whose word on one device's address is kept; the newest."""
HOPS_MAX: Final = 3
"""Devices between the two ends of a relayed call."""
LINK_FRAME_BYTES_MAX: Final = LETTER_BYTES_MAX + 4 * KIB
LINK_CALLS_MAX: Final = 32
"""Calls of one peer that are under way at the same time."""
LINK_CALL_S: Final = 30.0
"""Real seconds for one call and its answer, relayed or not."""
MOVE_LOOK_S: Final = 5.0
"""How often a device looks at its own addresses."""
