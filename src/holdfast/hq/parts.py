"""What one HQ process is made of, as its API and its admin port see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.errors import OperationFault
from holdfast.hq.access import Access
from holdfast.hq.applications import Applications
from holdfast.hq.audit import AuditLog
from holdfast.hq.authority import Authority
from holdfast.hq.brain import Brain
from holdfast.hq.checkpoints import Checkpoints
from holdfast.hq.config import HqConfig
from holdfast.hq.copies import Copies
from holdfast.hq.credentials import CredentialBook
from holdfast.hq.desired import DesiredBook
from holdfast.hq.evidence import EvidenceBook
from holdfast.hq.join import Joining
from holdfast.hq.keeper import Keeper
from holdfast.hq.releases import ReleaseBook
from holdfast.hq.revocation import RevocationBook
from holdfast.hq.rollouts import Rollouts
from holdfast.hq.standby import StandbyDesk
from holdfast.hq.subscriptions import Subscriptions
from holdfast.hq.tickets import TicketOffice
from holdfast.hq.tokens import Tokens
from holdfast.hq.transparency import TransparencyLog
from holdfast.hq.witnesses import WitnessBook
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import ControlStore
from holdfast.rim.dns.zone import Zone
from holdfast.wire.locator import Locator

if TYPE_CHECKING:
    from holdfast.hq.alerts import AlertBook
    from holdfast.hq.front import FrontDesk


@dataclass
class Parts:
    """Built by `hq.main`. `brain` is there while this process leads."""

    config: HqConfig
    clock: Clock
    store: ControlStore
    authority: Authority
    audit: AuditLog
    log: TransparencyLog
    tokens: Tokens
    joining: Joining
    applications: Applications
    revocations: RevocationBook
    desired: DesiredBook
    witnesses: WitnessBook
    checkpoints: Checkpoints
    tickets: TicketOffice
    zone: Zone
    access: Access
    evidence: EvidenceBook
    subscriptions: Subscriptions
    credentials: CredentialBook
    copies: Copies
    releases: ReleaseBook
    api_addresses: tuple[str, ...] = ()
    dns_addresses: tuple[str, ...] = ()
    brain: Brain | None = None
    rollouts: Rollouts | None = None
    """Moves releases through the fleet while this process leads."""
    keeper: Keeper | None = None
    """Takes snapshots while this process leads, when the configuration asks for them."""
    alerts: AlertBook | None = None
    """What calls for a person; looked at while this process leads."""
    front: FrontDesk | None = None
    """Takes calls that came through nodes, once the ports are open."""
    snapshot_locator: Callable[[], Awaitable[Locator]] | None = None
    """Where the pool keeps them."""
    standbys: StandbyDesk | None = None
    """Where machines that stand by ask, while this process leads."""

    def standby_desk(self) -> StandbyDesk:
        """Where machines that stand by ask. Raises OperationFault as `acting` does."""
        self.acting()
        assert self.standbys is not None, "it comes and goes with the brain"
        return self.standbys

    def acting(self) -> Brain:
        """The brain. Raises OperationFault when another HQ leads: callers ask the next address."""
        if self.brain is None:
            raise OperationFault("this headquarters does not lead; ask another one")
        return self.brain

    def rolling(self) -> Rollouts:
        """The rollouts. Raises OperationFault when another HQ leads."""
        if self.rollouts is None:
            raise OperationFault("this headquarters does not lead; ask another one")
        return self.rollouts
