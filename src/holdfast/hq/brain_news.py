"""What reaches the brain from outside, checked, bounded and in the fleet machine's terms."""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.errors import PeerFault
from holdfast.limits import ADDRESSES_MAX, REGIONS_MAX
from holdfast.logic.audit import AUDIT, AUDIT_HEAD, Head, audit_key
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.events import Beat
from holdfast.logic.fleet.model import NodeId
from holdfast.logic.fleet.rows import AuditRow
from holdfast.logic.fleet.tiers import Witnessed
from holdfast.rim.control.store import ControlStore
from holdfast.wire.address import split_address
from holdfast.wire.hq import Alert, Heartbeat

REGION_LETTERS_MAX: Final = 32


def testimony(witness: NodeId, alert: Alert) -> Witnessed:
    """An alert, with the length of the failure by the witness's own clock: a skewed one lies only
    about itself."""
    probe = alert.probe
    failed_s = 0.0
    if probe is not None and not probe.ok and probe.first_failed_at:
        failed_s = max(0.0, alert.observed_at - probe.first_failed_at)
    return Witnessed(
        witness=witness,
        name=alert.name,
        node=alert.node,
        tier=alert.tier,
        clients=alert.clients,
        clients_active=alert.clients_active,
        regions=tuple(text[:REGION_LETTERS_MAX] for text in alert.regions[:REGIONS_MAX]),
        probe_ok=probe.ok if probe else None,
        failures=probe.failures if probe else 0,
        failed_s=failed_s,
    )


def sign_of_life(node: NodeId, beat: Heartbeat) -> Beat:
    """A heartbeat. Raises PeerFault for addresses nobody could dial."""
    if len(beat.addresses) > ADDRESSES_MAX:
        raise PeerFault(f"{len(beat.addresses)} addresses, limit {ADDRESSES_MAX}")
    for text in beat.addresses:
        split_address(text)
    return Beat(node, beat.load, beat.addresses, beat.filled, beat.filled_of)


async def audit_tail(store: ControlStore, lines_max: int) -> list[tuple[AuditRow, Audit]]:
    """The end of the audit log, oldest first, so that the story survives a restart."""
    kv = await store.get(AUDIT_HEAD)
    if kv is None:
        return []
    head = msgspec.msgpack.decode(kv.value, type=Head)
    first = max(0, head.sequence - lines_max)
    reply = await store.range(AUDIT, after=audit_key(first) if first else "")
    rows = [msgspec.msgpack.decode(item.value, type=AuditRow) for item in reply.items]
    return [(row, Audit(row.verb, row.subject, msgspec.json.decode(row.detail))) for row in rows]
