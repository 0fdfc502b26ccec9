"""What the verbs of a server share: its store, its sessions, its slots, its counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from holdfast.crypto.keys import SigningKey
from holdfast.limits import ACTIVE_NOTE_S, REPORTERS_MAX
from holdfast.logic.fleet.model import NetworkId, NodeId, Role
from holdfast.logic.trust.revocation import Presented, RevocationList
from holdfast.relay.policy import RelayPolicy
from holdfast.relay.rates import Bucket, Rates
from holdfast.relay.seats import Seats
from holdfast.relay.sessions import Caller, Challenges, Kind, Sessions
from holdfast.relay.statements import Statements
from holdfast.relay.tickets import TicketBook
from holdfast.relay.watch import Watchers
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.store.port import BlobStore
from holdfast.wire.hq import Accusation, Terms

_DAY_S = 86_400


class Desk:
    """One server's state behind the door. Everything here lives in the event loop."""

    def __init__(
        self,
        *,
        identity: SigningKey,
        network: NetworkId,
        role: Role,
        roots: tuple[bytes, ...],
        store: BlobStore,
        policy: RelayPolicy,
        clock: Clock,
        entropy: Entropy,
        tickets: TicketBook | None = None,
    ) -> None:
        self.identity = identity
        self.node: NodeId = identity.node
        self.network = network
        self.role = role
        self.roots = roots
        self.store = store
        self.policy = policy
        self.clock = clock
        self.seats = Seats(self.node, roots)
        self.revocations = RevocationList(network)
        self.statements = Statements(roots, self.revocations)
        self.tickets = tickets or TicketBook(None, network, clock)
        self.challenges = Challenges(clock, entropy)
        self.sessions = Sessions(clock, entropy, policy.sessions_max, policy.session_idle_s)
        self.watchers = Watchers()
        self.leaves: Callable[[], frozenset[bytes]] = frozenset
        self.retired = False
        self.leaving = False
        self.report_tag_age_s = float(_DAY_S)
        self.terms: Terms | None = None
        """What HQ grants each group here; the policy's own figures when None."""
        self.note_active: Callable[[bytes, bytes], None] = lambda tag, slot: None
        self.note_report: Callable[[bytes, str, str], None] = lambda tag, name, region: None
        self.accuse: Callable[[Accusation], None] = lambda accusation: None
        self.requests = 0
        self.faults = 0
        """Requests that failed and were no fault of whoever asked."""
        self.counts: Counter[str] = Counter()
        """Events by name, for /metrics: `push`, `refused_quota`, ..."""
        rate = policy.requests_per_s
        everybody = Bucket(rate, max(rate, 1.0), self.real_s())
        self.rates = Rates(everybody, policy.sessions_max + REPORTERS_MAX)

    def real_s(self) -> float:
        """Real seconds from an arbitrary start."""
        return self.clock.elapsed() / self.clock.scale

    def today(self) -> int:
        """The born day of now."""
        return int(self.clock.wall()) // _DAY_S

    def is_revoked(self, node: NodeId) -> bool:
        """Whether the revocation list names the node."""
        return self.revocations.find(Presented(node, "", b"")) is not None

    def charge(self, caller: Caller, cost: float) -> None:
        """Count a request against its tag or node. Raises Refusal (`rate`)."""
        policy = self.policy
        if caller.kind is Kind.NODE:
            rate, burst = policy.peer_requests_per_s, policy.peer_requests_burst
            self.rates.charge(caller.node, rate, burst, cost, self.real_s())
            return
        rate, burst = policy.tag_requests_per_s, policy.tag_requests_burst
        terms = caller.terms or self.terms
        if terms is not None:
            rate, burst = terms.requests_per_s, terms.requests_burst
        self.rates.charge(caller.tag, rate, burst, cost, self.real_s())

    @property
    def store_bytes_max(self) -> int:
        """The largest quota of any group: what the store itself keeps to."""
        return max(self.group_bytes_max, self.tickets.bytes_max)

    def quota_of(self, caller: Caller) -> int:
        """The quota of a session's tag."""
        return caller.terms.group_bytes_max if caller.terms else self.group_bytes_max

    @property
    def group_bytes_max(self) -> int:
        """The quota of a group without a ticket."""
        return self.terms.group_bytes_max if self.terms else self.policy.store.group_bytes_max

    def readmit(self, caller: Caller) -> bool:
        """Look again whether a session's tag may push: another session may have spent a ticket."""
        if not self.tickets.required:
            caller.admitted = True
        elif caller.kind is Kind.GROUP:
            caller.terms = self.tickets.terms(caller.tag)
            first_at = self.store.first_at(caller.slot, caller.tag)
            caller.admitted = self.tickets.may_push(caller.tag, first_at)
        return caller.admitted

    def touch(self, caller: Caller) -> None:
        """Tell the observer now and then that a group is active here."""
        if caller.kind is not Kind.GROUP:
            return
        now = self.clock.elapsed()
        if now - caller.active_at >= ACTIVE_NOTE_S:
            caller.active_at = now
            self.note_active(caller.tag, caller.slot)
