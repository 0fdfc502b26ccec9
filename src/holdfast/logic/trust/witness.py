"""A witness of the transparency log, as one pure machine (D4, D15; c2sp.org/tlog-witness).

It cosigns a checkpoint only if everything it cosigned before is a prefix of it. What it cosigned
last is its whole state, durable before the cosignature leaves: `persist` holds it, `send` the
`Cosign`. An offer that does not extend it is answered with an `Accuse` instead, once for each
checkpoint: the two notes together prove to anybody that the log's key signed both.
"""

from __future__ import annotations

import msgspec

from holdfast.errors import PeerFault
from holdfast.logic.effects import Audit, Effects
from holdfast.logic.trust.checkpoint import Checkpoint
from holdfast.logic.trust.merkle import EMPTY_ROOT, Path, verify_consistency


class Seen(msgspec.Struct, frozen=True):
    """What was cosigned last: size, root, and the note with the log's own signature."""

    size: int = 0
    root: bytes = EMPTY_ROOT
    note: bytes = b""


class Cosign(msgspec.Struct, frozen=True):
    """Sign this checkpoint."""

    checkpoint: Checkpoint


class Accuse(msgspec.Struct, frozen=True):
    """Two notes by one log that do not go together. `reason` is `forked` or `truncated`."""

    reason: str
    held: bytes
    offered: bytes


class Witness:
    """One node's memory of one log."""

    def __init__(self, origin: str, seen: Seen) -> None:
        self.origin = origin
        self.seen = seen
        self._accused: set[Checkpoint] = set()

    def offer(self, checkpoint: Checkpoint, note: bytes, proof: Path) -> Effects:
        """A checkpoint whose log signature the caller has verified, and the proof that it extends
        `seen`. Raises PeerFault for another log's."""
        if checkpoint.origin != self.origin:
            raise PeerFault(f"a checkpoint of {checkpoint.origin}, not of {self.origin}")
        seen = self.seen
        if checkpoint.size < seen.size:
            return self._accuse("truncated", checkpoint, note)
        old = (seen.size, seen.root)
        if not verify_consistency(*old, checkpoint.size, checkpoint.root, proof):
            return self._accuse("forked", checkpoint, note)
        if old == (checkpoint.size, checkpoint.root):
            return Effects(send=(Cosign(checkpoint),))
        self.seen = Seen(checkpoint.size, checkpoint.root, note)
        return Effects(persist=(self.seen,), send=(Cosign(checkpoint),))

    def _accuse(self, reason: str, checkpoint: Checkpoint, note: bytes) -> Effects:
        if checkpoint in self._accused:
            return Effects()
        self._accused.add(checkpoint)
        detail = {
            "held_size": self.seen.size,
            "held_root": self.seen.root.hex(),
            "offered_size": checkpoint.size,
            "offered_root": checkpoint.root.hex(),
        }
        return Effects(
            send=(Accuse(reason, self.seen.note, note),),
            audit=(Audit(f"log-{reason}", self.origin, detail),),
        )
