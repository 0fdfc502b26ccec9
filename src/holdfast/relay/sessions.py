"""Who is talking to this server: sessions, and the challenge that opens them (D17).

A challenge is not remembered: it is the time and a keyed hash of it under a secret of this
process, so ten thousand hellos cost no memory. A session is remembered, in order of last use; the
idle ones fall off the front.
"""

from __future__ import annotations

import hmac
import struct
from collections import OrderedDict
from collections.abc import Callable
from enum import StrEnum

from holdfast.crypto.pure import keyed_hash
from holdfast.errors import PeerFault
from holdfast.limits import CHALLENGE_LIFE_S, NODE_SESSIONS_MAX, SESSION_EVICT_S
from holdfast.logic.fleet.model import NodeId, SlotId
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.wire.faults import Refusal
from holdfast.wire.hq import Terms

TOKEN_BYTES = 16
_STAMP = struct.Struct(">d16s")


class Kind(StrEnum):
    """What a session speaks for."""

    GROUP = "group"
    NODE = "node"


class Caller:
    """An open session: one tag, or one node, and one slot."""

    __slots__ = (
        "active_at",
        "admitted",
        "kind",
        "node",
        "slot",
        "tag",
        "terms",
        "token",
        "used_at",
    )

    def __init__(self, token: bytes, kind: Kind, slot: SlotId, tag: bytes, node: NodeId) -> None:
        self.token = token
        self.kind = kind
        self.slot = slot
        self.tag = tag
        """Of a group; empty for a node."""
        self.node = node
        """Of a node; empty for a group."""
        self.used_at = 0.0
        self.active_at = float("-inf")
        self.admitted = True
        """Whether the tag may push: it has spent a ticket, or needs none."""
        self.terms: Terms | None = None
        """What its ticket grants; the common terms when None."""


class Challenges:
    """Makes challenges and knows its own again."""

    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy
        self._secret = entropy.bytes(32)

    def make(self) -> bytes:
        """A new challenge, good for `CHALLENGE_LIFE_S` wall seconds."""
        stamp = _STAMP.pack(self._clock.wall(), self._entropy.bytes(16))
        return stamp + keyed_hash(self._secret, stamp)

    def check(self, challenge: bytes) -> None:
        """Raises PeerFault unless it is ours and fresh."""
        stamp, proof = challenge[: _STAMP.size], challenge[_STAMP.size :]
        if not hmac.compare_digest(keyed_hash(self._secret, stamp), proof):
            raise PeerFault("a challenge of another server", code="signature")
        made_at, _ = _STAMP.unpack(stamp)
        if not -CHALLENGE_LIFE_S <= self._clock.wall() - made_at <= CHALLENGE_LIFE_S:
            raise PeerFault("a challenge that has expired", code="signature")


class Sessions:
    """All open sessions, least recently used first."""

    def __init__(self, clock: Clock, entropy: Entropy, sessions_max: int, idle_s: float) -> None:
        self._clock = clock
        self._entropy = entropy
        self._sessions_max = sessions_max
        self.idle_s = idle_s
        self._open: OrderedDict[bytes, Caller] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def open(self, kind: Kind, slot: SlotId, *, tag: bytes = b"", node: NodeId = b"") -> Caller:
        """A new session; when there is no place, in that of the one longest unused, if that has
        been idle for a while. Raises Refusal (`busy`)."""
        self.expire()
        # Some places are for servers alone: a flood of strangers must not look like our death.
        places = self._sessions_max + (NODE_SESSIONS_MAX if kind is Kind.NODE else 0)
        if len(self._open) >= places and not self._evict():
            raise Refusal("no session is free", code="busy", retry_after_s=5.0)
        caller = Caller(self._entropy.bytes(TOKEN_BYTES), kind, slot, tag, node)
        caller.used_at = self._now()
        self._open[caller.token] = caller
        return caller

    def find(self, token: bytes) -> Caller:
        """The session of a token, its idle time begun anew. Raises PeerFault (`session`)."""
        caller = self._open.get(token)
        now = self._now()
        if caller is None or now - caller.used_at > self.idle_s:
            raise PeerFault("no such session", code="session")
        caller.used_at = now
        self._open.move_to_end(token)
        return caller

    def _evict(self) -> bool:
        """Strangers' sessions that were opened and left must not keep everybody out; whoever is
        evicted opens again at the price of one signature."""
        oldest = next(iter(self._open.values()))
        if self._now() - oldest.used_at < SESSION_EVICT_S:
            return False
        del self._open[oldest.token]
        return True

    def expire(self) -> None:
        """Forget sessions that have been idle too long."""
        limit = self._now() - self.idle_s
        while self._open:
            oldest = next(iter(self._open.values()))
            if oldest.used_at >= limit:
                return
            del self._open[oldest.token]

    def _now(self) -> float:
        """Real seconds: a client on a slow link is not faster in a drill."""
        return self._clock.elapsed() / self._clock.scale

    def each(self, work: Callable[[Caller], object]) -> None:
        """Do something with every open session."""
        for caller in self._open.values():
            work(caller)

    def drop(self, condemned: Callable[[Caller], bool]) -> int:
        """End all sessions of a kind at once; how many there were."""
        tokens = [token for token, caller in self._open.items() if condemned(caller)]
        for token in tokens:
            del self._open[token]
        return len(tokens)
