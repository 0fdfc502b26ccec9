"""Limits of catching liars: attestations, audits, findings and proofs of misbehaviour (D15)."""

from __future__ import annotations

from typing import Final

ATTEST_COST: Final = 16.0
"""Requests that an attestation counts as: a signature costs a server about that much."""
ATTEST_IDS_MAX: Final = 256
"""Ids in one attestation: 8 KiB of them, so that a proof stays small enough to mail."""
AUDIT_NEWEST: Final = 64
"""Receipts that a reading audits at each server, newest first: what a sync just put there."""
AUDIT_OLDER: Final = 32
"""And older ones, from a random place on. A server that drops a share p of what it receipted is
caught in one sync with 1 - (1 - p)^32: 97 % for a tenth."""
AUDIT_BODIES: Final = 2
"""Bodies fetched in an audit, of those at most `AUDIT_BODY_BYTES_MAX` long: saying "present" is
cheap, having it is not."""
AUDIT_BODY_BYTES_MAX: Final = 64 * 1024
AUDIT_PERIOD_S: Final = 60.0
"""Elapsed seconds between audits of one server by a reader that only hears of news."""
HEALTH_LIE_S: Final = 2.5
"""Real seconds a server may say that it is well while it refuses writes: its page is a second old
and the refusal may have ended in between."""
NOTE_RECEIPTS_MAX: Final = 60
"""Receipts in one note to the other devices: about 24 KiB; six servers, ten operations."""
RECEIPT_NOTE_BYTES_MAX: Final = 256 * 1024
EVIDENCE_BYTES_MAX: Final = 128 * 1024
"""A proof holds at most two statements of 8 KiB and a slot record."""
PROOFS_KEPT_MAX: Final = 1_000
"""Proofs a device keeps; a liar could make one with every push. The first ones say enough."""
EVIDENCE_PER_NODE_MAX: Final = 16
"""Proofs HQ keeps about one node and kind: more of the same proves nothing more."""
EVIDENCE_PER_S: Final = 0.2
EVIDENCE_BURST: Final = 20.0
"""Proofs HQ takes from one address; checking one costs it three signatures."""
ACCUSATION_PERIOD_S: Final = 86_400.0
"""Between two audit lines of the same server saying the same of the same peer."""
ACCUSATIONS_MAX: Final = 10_000
"""Accusations HQ remembers having logged; past this the oldest is forgotten and may come twice."""
STRANGERS_MAX: Final = 100
"""Blobs that did not open, of which a reader remembers who showed them; the oldest goes."""
