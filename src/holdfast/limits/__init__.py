"""Every limit, once, with its reason.

Times are elapsed seconds unless a name says otherwise. Sizes are bytes. A limit that a test has
not tripped through the public door does not exist (0k-sync had a limiter that nothing called).
The pool's limits stand here; every other area has a module of its own beside this one.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# --- Blobs (D10-D12) -----------------------------------------------------------------------------
BLOB_BYTES_MAX: Final = 1 * MIB
"""Measured best of 256 KiB, 1 MiB and 4 MiB (624, 927, 797 MB/s); the message cap of 0k-sync."""
BLOB_BUCKETS: Final = (1 * KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 1 * MIB)
"""Padded sizes of a whole blob. Six sizes leak less than a length; packs fill the largest."""
INLINE_BYTES_MAX: Final = 16 * KIB
"""A pull carries bodies up to this; larger ones are fetched by `get`, where wanted (D12)."""
BORN_SKEW_DAYS_MAX: Final = 2
"""A relay refuses a blob born further off than this from its own day (D11)."""

# --- A relay's front door (seed 004 §11.3) -------------------------------------------------------
SESSIONS_MAX: Final = 10_000
REQUESTS_PER_S_MAX: Final = 10_000
GROUP_BYTES_MAX: Final = 1 * GIB
GROUPS_MAX: Final = 10_000
STORE_BYTES_MAX: Final = 100 * GIB
"""`max_db_size` of §11.3; a replica's policy raises it (ADR 0006)."""
REQUEST_BYTES_MAX: Final = 4 * MIB + 64 * KIB
"""Four full blobs and a header: enough to fill a pipe, little enough for 10,000 sessions."""
HEADER_BYTES_MAX: Final = 64 * KIB
BLOBS_PER_PUSH_MAX: Final = 256
IDS_PER_REQUEST_MAX: Final = 1_000
PULL_ITEMS_MAX: Final = 1_000
WATCH_TAGS_MAX: Final = 256
WATCH_WAIT_S_MAX: Final = 60.0
SESSION_IDLE_S: Final = 600.0
"""An idle session is forgotten after this; opening a new one costs one signature."""
NODE_SESSIONS_MAX: Final = 1_024
"""Sessions of servers on top of those: five peers of 128 slots, and probes."""
SESSION_EVICT_S: Final = 60.0
"""Real seconds without use before a full table gives a session's place away: one long poll."""
HEALTH_PERIOD_S: Final = 1.0
"""Real seconds for which a public page is kept: asking is free, counting is not."""
CHALLENGE_LIFE_S: Final = 60.0
"""Wall seconds: long enough for a slow link, short enough that a stolen one is stale."""
TOKEN_BUCKET_UNIT_BYTES: Final = 64 * KIB
SESSION_REQUESTS_PER_S: Final = 200.0
"""Per tag. 0k-sync allows 100 messages a minute per device; a first sync needs more (D17)."""
SESSION_REQUESTS_BURST: Final = 4_000.0
PEER_REQUESTS_PER_S: Final = 5_000.0
"""A server of the same slot, refilling: 300 MiB/s in units of 64 KiB."""
PEER_REQUESTS_BURST: Final = 50_000.0
LISTED_ROWS_PER_TOKEN: Final = 2_000
"""A listing looks at every row of its tag: 1 ms of another core for each token."""
ACTIVE_NOTE_S: Final = 60.0
"""How often the use of a session is told to the observer (it asks for every minute or so)."""
GET_THREAD_BYTES: Final = 128 * KIB
"""A reply larger than this is read and hashed beside the event loop."""

# --- Retention (D11, D13) ------------------------------------------------------------------------
RELAY_TTL_DAYS: Final = 7
"""0k-sync's default TTL."""
RELAY_TTL_DAYS_HARD: Final = 30
"""Past this a relay drops even what no replica confirmed, and reports it (D13)."""
RECONCILE_PERIOD_S: Final = 30.0
RECONCILE_UNAWARE_S: Final = 10.0
"""The next round when a peer had not heard of our seat yet: headquarters is about to tell it."""

# --- Fan-out (D13) -------------------------------------------------------------------------------
RELAYS_PER_SLOT: Final = 3
REPLICAS_PER_SLOT: Final = 3
STORED_QUORUM: Final = 2
REPLICATED_QUORUM: Final = 2
FILL_GRACE_S: Final = 2 * RECONCILE_PERIOD_S
"""Replicas get bulk blobs from relays; after two reconcile periods the client pushes itself."""
FILL_CHECK_S: Final = 5.0
"""First question to a replica whether it has a bulk blob; each later one waits twice as long."""
PUSHES_IN_FLIGHT_MAX: Final = 2
"""Requests under way per server: one travels while the other is written to disk."""
BACKOFF_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Waits after failures in a row (0k-sync's steps); the last one repeats."""
BACKOFF_JITTER_FRACTION: Final = 0.5
"""Up to this share of the wait is added, so that a thousand clients do not return as one."""

# --- Detection (seed 004 §4) ---------------------------------------------------------------------
YELLOW_CLIENTS_OVER: Final = 10
"""More than ten unique clients (§4.1) ..."""
YELLOW_WINDOW_S: Final = 120.0
"""... within two minutes (§4.1)."""
YELLOW_ACTIVE_FRACTION: Final = 0.2
"""A small relay: a fifth of the clients active there (ADR 0002; the fixed ten never fires)."""
YELLOW_CLIENTS_MIN: Final = 2
"""... of which at least two: one client alone turns nothing."""
ACTIVE_WINDOW_S: Final = 600.0
"""A tag that used a session within this is active: as long as an idle session lives."""
REPORTERS_MAX: Final = 1_024
"""Tags remembered per reported name: far past every threshold, little memory under a flood."""
REGIONS_MAX: Final = 64
"""Distinct region names a server remembers from reports; clients choose them freely."""
YELLOW_PROBES_FAILED: Final = 2
"""Or two failed probes by slot peers, with no client in sight (ADR 0002)."""
PROBE_PERIOD_S: Final = 30.0
"""Health checks at 30-second intervals (§4.1)."""
PROBE_IDLE_PERIOD_S: Final = 30.0
"""While GREEN every slot peer is probed this often, so that no death needs a client to be seen; of
five peers the second has seen it within 24 seconds in 99 of 100 cases (ADR 0045)."""
ORANGE_FAILURES: Final = 3
"""Three in a row, 90 seconds of sustained failure (§4.2)."""
ORANGE_REGIONS_MIN: Final = 2
"""Not region-specific (§4.2); witnesses or clients of one region alone do not make ORANGE when
more than one region has clients there."""
RED_FAILURE_S: Final = 300.0
"""Five minutes of continuous failure (§4.3)."""
RED_WITNESSES_MIN: Final = 2
"""Independent relays that confirm it themselves (§4.3)."""
BLACK_SERVERS_MIN: Final = 2
"""Several relays of one provider RED together (§4.4)."""
BLACK_WINDOW_S: Final = 300.0
"""Together: RED within one RED hold-down of each other."""
SILENT_S: Final = 90.0
"""A node whose heartbeat is older than three periods is overdue: a hint, never a verdict."""
HEARTBEAT_PERIOD_S: Final = 30.0
EVIDENCE_S: Final = 90.0
"""A witness repeats itself every probe period; three periods later its word has aged out."""
BLACK_FRACTION_MIN: Final = 0.1
"""... and at least a tenth of its servers not answering: two of a thousand are bad luck."""
PROVIDER_MUTE_SURVEYS: Final = 2
"""A cloud API silent this often in a row is the last one a replacement is ordered from."""
PROVIDER_BACK_SURVEYS: Final = 2
"""A lost provider is back when its cloud API answered this often in a row ..."""
PROVIDER_LOST_S_MIN: Final = 300.0
"""... and either one of its nodes spoke again or this long has passed since the loss."""
SURVEY_PERIOD_S: Final = 30.0
"""How often HQ lists each provider's machines: finds orphans, strangers and returned clouds."""
GRAY_COMMIT_P99_MS: Final = 5_000.0
"""A server this slow to commit is as good as down for a phone on a bus (D28)."""
FREEZE_FRACTION: Final = 0.5
"""If at least half the fleet over more than one provider looks dead at once, HQ suspects itself."""
FREEZE_PROVIDERS_MIN: Final = 2
SPAWN_PER_MIN_MAX: Final = 60
"""A budget, so that no bug and no lie can turn into an invoice."""
SPAWN_TIMEOUT_S: Final = 600.0
"""A spawn that has not joined by then is reaped and ordered again."""
SPAWN_TRIES_MAX: Final = 3
"""Orders that one provider may fail before the spawn moves to another."""
SPAWN_AVOID_S: Final = 3_600.0
"""A provider that failed a seat is the last choice for that seat for an hour."""
SPAWN_RETRY_S: Final = 10.0
SPAWN_RETRY_S_MAX: Final = 300.0
"""Wait before an order is repeated: doubles from the first to the second."""
FILL_SETTLE_S: Final = 60.0
"""A server's `filled` counts from two heartbeats after its newest record: until then it may be
speaking of the records it had before."""
INTENT_KEPT_S: Final = 86_400.0
"""A finished intent is forgotten after a day; the audit log keeps it."""
TIMELINE_MAX: Final = 500
"""Lines of what HQ saw, decided and did that its page shows; the audit log has them all."""
ADDRESSES_MAX: Final = 8
"""A node's own addresses: a few families and interfaces."""
ADDRESS_CHANGE_S_MIN: Final = 60.0
"""A server's second move within this waits: each one is sixteen records and a DNS change."""
SPAWN_REAL_S_MIN: Final = 90.0
"""Real seconds a machine may take to boot and join, however fast a drill's clock runs."""
START_REAL_S_MIN: Final = 30.0
"""Real seconds from a seat to the first heartbeat of who got it, before it counts as dead."""
STANDBY_POLL_S: Final = 10.0
"""Real seconds that headquarters lets a machine wait which asks whether it is needed."""
STANDBY_SILENT_S: Final = 25.0
"""Real seconds: two polls and a retry. Who has not asked for longer is not called; who was called
and has not joined by then is given up, and a machine ordered in its place."""
STANDBYS_PER_PLACE_MAX: Final = 16
"""More machines than a provider's region has servers of one slot gain nothing."""
ANSWER_REAL_S_MIN: Final = 5.0
"""Real seconds before silence, old evidence or a newcomer's word counts: busy machines are slow."""
DNS_TTL_S: Final = 60
"""Sixty seconds or less (§7.3)."""

# --- Allocation (seed 004 §6) --------------------------------------------------------------------
SLOTS_PER_TRIPLE: Final = 16
"""Slots that share one set of six servers, so that a share of users can move (ADR 0004)."""
HEADROOM_FRACTION_MIN: Final = 0.1
"""A server with less room than this gets no new slot (§6.1.4)."""
RECORD_CHANGE_S_MIN: Final = 600.0
"""Clients refuse a second change of a slot sooner than ten minutes after the first (D4)."""

# --- Certificates and joining (D6, D8) -----------------------------------------------------------
NODE_CERT_DAYS: Final = 90
NODE_CERT_RENEW_DAYS: Final = 30
INTERMEDIATE_DAYS: Final = 548
ROOT_DAYS: Final = 7_305
JOIN_TOKEN_S_MAX: Final = 24 * 3600.0
INVITE_S_MAX: Final = 600.0
"""Ten minutes (D21; 0k-sync's invite life)."""
CERT_RENEW_FRACTION: Final = NODE_CERT_RENEW_DAYS / NODE_CERT_DAYS
"""A third of a certificate's life, day 30 of 90, also where an ending intermediate cut it short."""
CERT_OVERDUE_FRACTION: Final = 0.5
"""Day 45: two weeks of failed renewals, as many left to act in."""
CERT_URGENT_FRACTION: Final = 0.9
"""Day 81: nine days to the end."""
RENEW_RETRY_S: Final = 600.0
"""First wait after a failed renewal; it doubles up to ..."""
RENEW_RETRY_S_MAX: Final = 24 * 3600.0
APPLICATIONS_MAX: Final = 1_000
"""Waiting at once: strangers may write into this queue."""
APPLICATIONS_PER_OWNER_MAX: Final = 3
APPLICATION_S: Final = 30 * 86_400.0
"""Nobody answered in a month: declined, and the queue does not grow for ever."""
APPLICATION_TEXT_MAX: Final = 2_000
VOTE_S: Final = 7 * 86_400.0
VOTE_QUORUM_FRACTION: Final = 0.5
OPEN_JOINS_PER_DAY_MAX: Final = 20
"""Under the open policy: a flood of strangers becomes a trickle that somebody notices."""

# --- TLS and HTTP servers (seed 004 §11.1; real seconds) -----------------------------------------
TLS_HANDSHAKE_S: Final = 10.0
"""A handshake is two round trips; a half-open connection costs memory until it ends."""
TLS_CLOSE_S: Final = 5.0
"""A peer that does not read its last bytes is cut after this."""
CONNECTIONS_MAX: Final = 10_000
"""Of one listener; half the file descriptors of a default systemd unit."""
HTTP_HEADER_S: Final = 10.0
"""From the first byte of a request to the end of its header: slowloris ends here."""
HTTP_BODY_S: Final = 30.0
"""Between two pieces of a request's body."""
HTTP_KEEP_ALIVE_S: Final = 75.0
HTTP_IDLE_S: Final = 50.0
"""A client drops an idle connection before the server does, so that no request meets the end."""
HTTP_HEADER_BYTES_MAX: Final = 16 * KIB
API_BODY_BYTES_MAX: Final = 1 * MIB
API_REPLY_BYTES_MAX: Final = 16 * MIB
"""A desired state with the records of several thousand slots."""
CLIENT_CONNECTIONS_MAX: Final = 8

# --- Control store (D26): etcd's own limits ------------------------------------------------------
TXN_OPERATIONS_MAX: Final = 128
VALUE_BYTES_MAX: Final = 1 * MIB

# --- Group log and folders (D18) -----------------------------------------------------------------
OPERATION_BYTES_MAX: Final = 900 * KIB
"""One signed operation, before sealing: fits a padded 1 MiB blob with room for the envelope."""
PARENTS_MAX: Final = 64
PATH_BYTES_MAX: Final = 4_096
NAME_BYTES_MAX: Final = 255
LABEL_BYTES_MAX: Final = 64
"""A device's name as people see it, UTF-8; it ends up inside file names of conflict copies."""
REPLACES_MAX: Final = 1_024
"""Versions one change may replace: that many devices would have to edit one file at once."""
LINK_BYTES_MAX: Final = 4_095
"""A symbolic link's target; Linux's own bound."""
CHUNK_BYTES_MIN: Final = 64 * KIB
CHUNK_BYTES_AVG: Final = 256 * KIB
CHUNK_BYTES_MAX: Final = 640 * KIB
"""FastCDC's bounds. A file up to the average is one chunk. With eight open packs random data fills
its packs to 97 %; a bound near the blob's own size would leave a fifth of them empty."""
PACKS_OPEN_MAX: Final = 8
CHUNKS_INLINE_MAX: Final = 32
"""Chunks named in the log itself (10 MB of a file); longer lists become a recipe."""
RECIPE_SEGMENT_CHUNKS_MAX: Final = 8_192
"""Chunks listed by one segment: 65 bytes each at most, so a segment always fits one chunk."""
RECIPE_SEGMENTS_MAX: Final = 4_096
"""Times a segment of 512 MiB at the smallest chunk: one level is enough for 2 TiB."""
SNAPSHOT_FILES_MAX: Final = 4_096
SNAPSHOT_BYTES_MAX: Final = 64 * MIB
"""Files and bytes per round of a snapshot: what a kill can cost, what memory must hold, and after
how much another device can begin: 64 MiB are half a second of work."""
OUTBOX_BYTES_MAX: Final = 8 * GIB
OUTBOX_SHOWN_MAX: Final = 100_000
"""Ids shown to another device at once: they fit one frame, and more is asked for when these are
there."""

# --- The web page --------------------------------------------------------------------------------
LOGIN_CODE_S: Final = 600.0
"""Real seconds: a login link is for the person who just asked for it."""
LOGIN_CODES_MAX: Final = 16
LOGIN_SESSION_S: Final = 12 * 3600.0
"""Real seconds: a working day, then a new link."""
LOGIN_SESSIONS_MAX: Final = 64
PAGE_PERIOD_S: Final = 0.25
"""Real seconds between two versions of the page, however fast the fleet changes."""
PAGE_LOOP_SHARE: Final = 0.1
"""Part of HQ's event loop that looking at the fleet may take."""
PAGE_LOOK_S: Final = 5.0
"""Real seconds after which the page looks at the fleet even if nothing called."""
PAGE_STREAMS_MAX: Final = 64
"""Open event streams: one for each visible tab."""
PAGE_KEEPALIVE_S: Final = 15.0
PAGE_TIMELINE_MAX: Final = 200
"""Newest entries a page shows; the audit log holds the rest."""
PAGE_TILES_MAX: Final = 60
"""Servers drawn as full tiles; a larger fleet is drawn as marks, and by name where it ails."""
PAGE_FOUND_MAX: Final = 200
"""Tiles on one page, of a cell that was opened or servers that were searched for: ten screens."""
PAGE_FIND_LETTERS_MAX: Final = 100
PAGE_HISTORY_MAX: Final = 600
"""Points of the redundancy chart; older ones are merged and keep their lowest."""

# --- Blob storage --------------------------------------------------------------------------------
SEGMENT_BYTES_MAX: Final = 256 * MIB
"""A born day's file is closed past this: small enough to move or encode in one go."""
COMMIT_BYTES_MAX: Final = 16 * MIB
"""Bounds how long one commit keeps the next one waiting."""
LATE_ROWS_MAX: Final = 1_024
"""Rows of the index kept in memory: twice as many save 1 us more a row, and take as long to read
back after a crash as they took to save."""
LATE_BYTES_MAX: Final = 8 * MIB
"""Blobs whose rows are in memory: what an opening after a crash reads at most."""
COMMIT_BLOBS_MAX: Final = 1_024
"""Paths in receipts stay at ten hashes."""
WRITE_QUEUE_BYTES_MAX: Final = 128 * MIB
"""Bodies waiting for the disk; past this a push is told to come back."""
DISK_RESERVE_BYTES: Final = 64 * MIB
"""Left free on the disk: the index must be able to grow after the last blob."""
BALLAST_BYTES: Final = 8 * MIB
"""Held by a file that is given up when a store must open on a disk without a free byte: reading
`LATE_ROWS_MAX` rows back writes up to 5.2 MiB of log beside an index of 600,000."""
CANARY_BYTES_MAX: Final = 4 * MIB
"""What probes wrote is thrown away past this; nobody reads a canary after a minute."""
OPEN_SEGMENTS_MAX: Final = 64
INDEX_ROWS_PER_STATEMENT: Final = 512
"""Nine values a row: 4,608 parameters (SQLite's bound is 32,766) in 10 KiB of text, which apsw
keeps compiled up to 16 KiB. One step for all of them."""

# --- The pool's connections (real seconds) -------------------------------------------------------
POOL_CONNECTIONS_MAX: Final = 20_000
"""Twice the sessions; Granian's backpressure. The hard limit of descriptors here is 20,000."""
LISTEN_BACKLOG: Final = 4_096
BODIES_IN_FLIGHT_BYTES_MAX: Final = 256 * MIB
"""Bodies being received at once: 64 full requests, or 64,000 small ones."""
HEAD_READ_S: Final = 30.0
"""For the headers of a request, which bounds how long an idle connection is kept."""
BODY_READ_S: Final = 60.0
"""For a body: 4 MiB at 0.6 Mbit/s."""
QUIET_S: Final = WATCH_WAIT_S_MAX + HEAD_READ_S + 10.0
"""Nobody says anything for the longest poll, then for as long as an idle connection is kept: the
rest is for a slow network. After that a connection is dead or means no good."""
STALLED_PERIOD_S: Final = 2.5
"""Between two looks at all connections: 1 us each, 20,000 of them 1 % of a core."""
STALLED_SLICE: Final = 128
"""Connections looked at before others have their turn: an eighth of a millisecond."""
DRAIN_S: Final = 20.0
"""An old certificate's server may finish what it has in flight."""
SERVER_START_S: Final = 10.0
CONNECTIONS_PER_SERVER: Final = 4
POOL_CONNECT_S: Final = 10.0
POOL_REQUEST_S: Final = 30.0
REPLY_BYTES_MAX: Final = 16 * MIB
"""A client reads no more: four times the largest honest reply."""
RESPONSE_HEAD_BYTES_MAX: Final = 8 * KIB
"""Apache's bound for a line, for the whole head of an answer."""
RECONCILE_SLOTS_AT_ONCE: Final = 4
RECONCILE_BUCKETS_AT_ONCE: Final = 8
"""Buckets of one day asked for together: a day has 256, and one after another they wait in line."""
RECONCILE_BATCHES_AT_ONCE: Final = 3
"""Batches of up to 4 MiB: one travels, one is checked, one is written."""
RECONCILE_BOGUS_MAX: Final = 65_536
"""Ids of garbage that a peer offered, remembered so that it is fetched once."""
PROBE_TIMEOUT_S: Final = 10.0
"""A third of the probe period, in real seconds: connection, session, write and read."""
TOGETHER_LOOK_REAL_S: Final = 0.5
"""How often a relay looks at how busy its threads are ..."""
TOGETHER_BUSY_SHARE: Final = 0.5
"""... and from what part of a CPU on those that share the interpreter's lock stay on one ..."""
TOGETHER_REST_SHARE: Final = 0.25
"""... until they take less than this: below, turns are too rare to matter ..."""
TOGETHER_IDLE_SHARE: Final = 0.05
"""... or until less than this of all CPUs is idle: then none has to be woken for a turn."""
STATUS_PERIOD_S: Final = 5.0
"""How often a role tells its agent how it is."""
STATUS_REAL_S_MIN: Final = 0.5
"""... but in a drill no more often than this."""
