"""Limits of fronts: nodes that carry sealed calls to headquarters (ADR 0044)."""

from __future__ import annotations

from typing import Final

from holdfast.limits import KIB, MIB

FRONT_KEY_S: Final = 2 * 86_400.0
"""A front key is told for two days and told anew every hour: whoever steals a headquarters gets
what is sealed to it for no longer, also from callers whom an old statement is shown."""
FRONT_KEY_DRAWN_S: Final = 30 * 86_400.0
"""A new key after a month; the one before it opens until its last statement has ended."""
FRONT_REQUEST_CLASSES: Final = (4 * KIB, 64 * KIB, 960 * KIB)
"""Verbs and their bodies are below the first; sealed, the last is below API_BODY_BYTES_MAX."""
FRONT_ANSWER_CLASSES: Final = (16 * KIB, 256 * KIB, 2 * MIB, 16 * MIB)
"""Most answers are below the first; the last is API_REPLY_BYTES_MAX."""
FRONT_REQUEST_BYTES_MAX: Final = FRONT_REQUEST_CLASSES[-1] + 32 * KIB
"""With one wrapped key for each of sixteen headquarters."""
FRONT_ANSWER_BYTES_MAX: Final = FRONT_ANSWER_CLASSES[-1] + KIB
FRONT_WINDOW_S: Final = 600.0
"""Wall seconds that a call is good for: a caller's clock may be that wrong, its retries as late."""
FRONT_DONE_BYTES_MAX: Final = 64 * KIB
"""Of an answer that is kept to be given again; a longer one is done and not repeated."""
FRONT_FORGET_REAL_S: Final = 60.0
"""Between looks for changes whose window has passed."""
FRONT_WAIT_REAL_S: Final = 8.0
"""For the outcome of a call that another headquarters has begun."""
FRONT_CHANGES_PER_S: Final = 1.0
"""Changes that strangers ask for through one node, in the long run ..."""
FRONT_CHANGES_BURST: Final = 50.0
"""... and at once; each leaves a row in the control store for the window."""
FRONT_CALLS_PER_S: Final = 50.0
"""Sealed calls of one node that headquarters opens, which costs it half a millisecond each ..."""
FRONT_CALLS_BURST: Final = 400.0
FRONT_AT_ONCE_MAX: Final = 32
"""Calls that one node carries side by side; one more is told to come back."""
FRONT_COPIES_AT_ONCE_MAX: Final = 2
"""A copy may be hundreds of MiB; the node's clients come first."""
FRONT_BODY_REAL_S: Final = 30.0
"""For a caller to send all of a sealed call; it takes no place of those that are carried until
then."""
FRONT_STREAM_REAL_S: Final = 660.0
"""For anything at all on a front's path, by the proxy: a copy, and a minute to ask for it."""
FRONT_HQ_REAL_S: Final = 10.0
"""For one headquarters to answer a carried call, before the next one is asked."""
COPIES_AT_ONCE_MAX: Final = 4
"""That headquarters sends, to as many nodes; one more node is told to come back."""
COPY_PER_S: Final = 0.1
"""Copies that one node is sent in the long run: one that is kept busy asks once a minute ..."""
COPY_BURST: Final = 30.0
"""... and a new one, or one whose line breaks, more at first."""
COPY_PIECE_BYTES: Final = 256 * KIB
FRONT_PERIOD_S: Final = 60.0
"""Elapsed seconds between looks for a newer copy and newer front keys."""
FRONT_RETRY_S: Final = 6.0
"""Elapsed seconds, while headquarters has none of them or is gone."""
HQ_ADDRESSES_MAX: Final = 16
"""Where a node looks for headquarters: the new places, and then the old ones."""
HQ_ADDRESSES_TOLD_MAX: Final = 8
"""Of these, the new places at most: a notice of a thief must leave room for where we came from."""
EPOCHS_AHEAD_MAX: Final = 8
"""A notice may be of so many restores after the last that a node heard of; a thief who names the
last epoch there is would otherwise be followed for ever."""
FRONT_CLOCK_S: Final = 600.0
"""Wall seconds by which the clock of a headquarters and ours may differ."""
COPIES_KEPT: Final = 3
"""By a node, the newest; an older one is there if the newest is damaged."""
FRONT_CALL_REAL_S: Final = 40.0
"""For a node to answer a caller: several headquarters may be hung, each for FRONT_HQ_REAL_S."""
FRONT_LIST_S: Final = FRONT_KEY_S + 86_400.0 + 3_600.0
"""A revocation list may be as old beside a front key of today: a headquarters that could tell the
key signed its list anew every day, and has an hour for it when it comes back."""
FRONT_WITNESS_REAL_S: Final = 5.0
"""For another node to show its revocation list."""
FRONT_GONE_REAL_S: Final = 30.0
"""Headquarters is gone when it answered through no node for so long; another one leads sooner."""
FRONT_COPY_REAL_S: Final = 600.0
FRONT_PATIENCE_REAL_S: Final = 60.0
"""A caller tries all its nodes again and again for this long: until another headquarters leads."""
