"""Limits of the transparency log, its witnesses and tickets (D4, D15, D17)."""

from __future__ import annotations

from typing import Final

NOTE_BYTES_MAX: Final = 64 * 1024
"""A checkpoint with a hundred cosignatures is a quarter of it."""
NOTE_SIGNATURES_MAX: Final = 100
LOG_ENTRY_BYTES_MAX: Final = 60_000
"""tlog-tiles gives an entry's length 16 bits; larger statements are logged by their hash."""
CHECKPOINT_PERIOD_S: Final = 1.0
"""Real seconds between checkpoints at most: a burst of leaves wakes every witness once."""
TICKET_BYTES_MAX: Final = 1_024
"""A ticket of the longest key (4096 bits) is 600 bytes."""
TICKET_CLASSES_MAX: Final = 8
"""Keys in use at once: members hide among those who drew under the same one."""
TICKETS_PER_REQUEST_MAX: Final = 32
"""A blind signature costs HQ ten milliseconds: a third of a second for one request."""
TICKET_GRANT_TICKETS_MAX: Final = 1_000
TICKET_GRANT_S_MAX: Final = 90 * 86_400.0
TICKET_KEY_DAYS: Final = 90
TICKET_KEY_RENEW_DAYS: Final = 45
"""A key signs for half its life, so that every ticket is good for as long again."""
WITNESSES_NEEDED: Final = 2
"""k of D4: cosignatures of distinct owners that a changed slot record must bring."""
WITNESSES_MAX: Final = 16
"""Witnesses that clients are told of: eight owners with two nodes each outvote any two liars."""
WITNESSES_PER_OWNER_MAX: Final = 2
NEWS_S: Final = 600.0
"""A client asks one server after another for newer statements this often, elapsed: how long a
revoked server may go on with clients whose sessions never end."""
WITNESS_CHANGE_S_MIN: Final = 3_600.0
"""Clients refuse a second change of the witness set sooner: an hour in which owners can look."""
