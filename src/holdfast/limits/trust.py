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
WITNESSES_NEEDED: Final = 2
"""k of D4: cosignatures of distinct owners that a changed slot record must bring."""
WITNESSES_MAX: Final = 16
"""Witnesses that clients are told of: eight owners with two nodes each outvote any two liars."""
WITNESSES_PER_OWNER_MAX: Final = 2
WITNESS_CHANGE_S_MIN: Final = 3_600.0
"""Clients refuse a second change of the witness set sooner: an hour in which owners can look."""
