"""Drawing tickets against a grant (D17): the device blinds, HQ signs, the device unblinds.

The keys are believed only as far as everybody sees the same ones: their statement must be logged
and cosigned by two owners, where the network has that many. A key of its own for each person would
make tickets talk.
"""

from __future__ import annotations

from holdfast.crypto.pure import sha256
from holdfast.device.headquarters import Headquarters
from holdfast.device.state import DeviceState
from holdfast.errors import PeerFault, UsageError
from holdfast.limits.trust import TICKETS_PER_REQUEST_MAX
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type
from holdfast.wire.staple import verify_staple
from holdfast.wire.tickets import Grant, TicketClass, TicketKeys, TicketRequest


async def draw(
    state: DeviceState, headquarters: Headquarters, grant: Grant, clock: Clock, entropy: Entropy
) -> int:
    """Draw every ticket of a grant; how many came. Raises UsageError, PeerFault, OperationFault."""
    home = state.home_locator()
    if grant.network != home.network:
        raise UsageError("this grant is of another network")
    item = _class_of(await headquarters.ticket_keys(home), state, grant.kind, clock)
    drawn, left = 0, grant.tickets
    wallet = state.store.wallet
    while left:
        asked = wallet.blind(home.network, item, min(left, TICKETS_PER_REQUEST_MAX), entropy)
        key = sha256(item.spki)
        request = TicketRequest(grant.secret, key, tuple(one.blinded for one in asked))
        reply = await headquarters.tickets(home, request)
        if len(reply.signatures) != len(asked):
            raise PeerFault("headquarters signed another number of tickets than asked")
        drawn += wallet.take(home.network, item, asked, reply.signatures)
        left = min(left - len(asked), reply.left)
    return drawn


def _class_of(staple: Staple, state: DeviceState, kind: str, clock: Clock) -> TicketClass:
    """The newest key of a class, in a statement that everybody sees. Raises PeerFault."""
    home, trust = state.home_locator(), state.store.records.trust
    known = trust.revocations(home.network)
    keys = verify_staple(
        home.roots, staple, Type.TICKET_KEYS, TicketKeys, clock.wall(), revocations=known
    )
    keys.check()
    owners = trust.cosigners(home.network, home.roots, staple)
    if len(owners) < trust.needed(home.network):
        raise PeerFault("the ticket keys are not witnessed yet; try again in a minute")
    found = [item for item in keys.classes if item.name == kind and item.expires_at > clock.wall()]
    if not found:
        raise UsageError(f"headquarters has no key for {kind!r} tickets now")
    return max(found, key=lambda item: item.expires_at)
