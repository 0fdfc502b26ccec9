"""What a device that is not served gets, so that its client really stops.

An empty list is a failed import to v2rayNG, which then keeps the servers it had; so do others. A
device that is revoked, suspended, expired or over its quota therefore gets one server that leads
nowhere and whose name says why. A device that is served, whose cell has no entry just now, gets no
answer at all (503): there keeping what one has is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from holdfast.logic.access.model import Transport
from holdfast.logic.access.render.negotiate import Client
from holdfast.logic.access.subscription import Endpoint, SubscriptionState, SubscriptionView

TEXTS: Final[Mapping[SubscriptionState, str]] = {
    SubscriptionState.EXPIRED: "Expired: ask for a new term",
    SubscriptionState.OVER_QUOTA: "Quota used up",
    SubscriptionState.SUSPENDED: "Suspended: ask your operator",
    SubscriptionState.REVOKED: "No longer valid: ask your operator",
}
ELSEWHERE: Final = "This link belongs to another device"
NOWHERE: Final = "127.0.0.1"
NOWHERE_PORT: Final = 9
NOBODY: Final = "00000000-0000-4000-8000-000000000000"


def shown(view: SubscriptionView, client: Client, notice: str = "") -> SubscriptionView:
    """`view` as renderers take it: at least one endpoint, none that the client cannot read.

    `notice` overrides why there is no service. The result has no endpoint only when the device is
    served and its cell has no entry.
    """
    if notice or view.state is not SubscriptionState.ACTIVE:
        line = _dummy(notice or TEXTS[view.state])
        return msgspec.structs.replace(view, credential=NOBODY, endpoints=(line,), roots="")
    kept = tuple(e for e in view.endpoints if client.xhttp or e.transport is Transport.GRPC)
    return msgspec.structs.replace(view, endpoints=kept)


def _dummy(text: str) -> Endpoint:
    return Endpoint(
        name=text,
        host=NOWHERE,
        port=NOWHERE_PORT,
        sni="notice.invalid",
        transport=Transport.GRPC,
        path="none",
        region="",
        cell="",
    )
