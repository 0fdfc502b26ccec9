"""What a device asks of HQ: root certificates for pins it holds, a slot, the record of a slot.

HQ learns that somebody asked for a slot and from where; not who, and not what for. Everything it
answers is checked: roots against pins, records against roots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from holdfast.errors import OperationFault, UsageError
from holdfast.logic.fleet.model import NetworkId
from holdfast.logic.trust.revocation import RevocationList
from holdfast.rim.clock import Clock
from holdfast.rim.https import JsonClient, fetch_pinned_roots
from holdfast.wire.hq import EvidenceReply, EvidenceReport, SlotReply, SlotRequest, StapleReply
from holdfast.wire.locator import Locator
from holdfast.wire.records import Staple
from holdfast.wire.tickets import TicketReply, TicketRequest

Excluded = Callable[[NetworkId], RevocationList]


class Headquarters(Protocol):
    """The questions, and one thing to tell. All raise OperationFault and PeerFault."""

    async def roots(self, locator: Locator) -> Locator:
        """`locator` with every pinned root that can be had; at least one."""
        ...

    async def new_slot(self, locator: Locator, region: str) -> Staple:
        """The record of a slot for a new person near `region`."""
        ...

    async def record(self, locator: Locator, slot: bytes) -> Staple:
        """The newest record of `slot`."""
        ...

    async def ticket_keys(self, locator: Locator) -> Staple:
        """The keys under which tickets are signed."""
        ...

    async def tickets(self, locator: Locator, request: TicketRequest) -> TicketReply:
        """Blind signatures against a grant."""
        ...

    async def accuse(self, locator: Locator, evidence: bytes) -> bool:
        """Hand in a proof of misbehaviour; whether HQ kept it."""
        ...


class RealHeadquarters:
    """HQ at the addresses that a locator gives."""

    def __init__(self, clock: Clock, excluded: Excluded = RevocationList) -> None:
        """`excluded` gives the revocation list that is known of a network."""
        self._clock = clock
        self._excluded = excluded

    async def roots(self, locator: Locator) -> Locator:
        """Fetches only when the locator carries no root itself."""
        if locator.roots:
            return locator
        if not locator.hq:
            raise UsageError(
                "this locator carries neither a root nor HQ's address; ask for a complete one"
            )
        return locator.with_roots(await fetch_pinned_roots(locator.hq, locator.pins, self._clock))

    async def new_slot(self, locator: Locator, region: str) -> Staple:
        """Asks HQ to allocate."""
        client = self._client(locator)
        try:
            reply = await client.call("POST", "/v1/slots", SlotRequest(region), SlotReply)
        finally:
            await client.close()
        return reply.record

    async def record(self, locator: Locator, slot: bytes) -> Staple:
        """Asks HQ for one slot."""
        client = self._client(locator)
        try:
            reply = await client.call("GET", f"/v1/slots/{slot.hex()}", None, SlotReply)
        finally:
            await client.close()
        return reply.record

    async def ticket_keys(self, locator: Locator) -> Staple:
        """Asks HQ."""
        client = self._client(locator)
        try:
            return (await client.call("GET", "/v1/ticket-keys", None, StapleReply)).staple
        finally:
            await client.close()

    async def tickets(self, locator: Locator, request: TicketRequest) -> TicketReply:
        """Asks HQ; repeating it costs nothing."""
        client = self._client(locator)
        try:
            return await client.call("POST", "/v1/tickets", request, TicketReply, repeatable=True)
        finally:
            await client.close()

    async def accuse(self, locator: Locator, evidence: bytes) -> bool:
        """Tells nothing of who found it."""
        client = self._client(locator)
        try:
            report = EvidenceReport(evidence)
            reply = await client.call(
                "POST", "/v1/evidence", report, EvidenceReply, repeatable=True
            )
            return reply.kept
        finally:
            await client.close()

    def _client(self, locator: Locator) -> JsonClient:
        if not locator.hq:
            raise OperationFault("the locator names no HQ; ask for one that names a slot")
        known = self._excluded(locator.network)
        return JsonClient(locator.hq, locator.roots, None, self._clock, revocations=known)
