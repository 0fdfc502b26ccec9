"""`hello` and `open`: who may speak here, for what (D17, D23)."""

from __future__ import annotations

import asyncio

from holdfast.crypto.pure import hash_bytes, node_id
from holdfast.errors import PeerFault
from holdfast.logic.fleet.model import SlotRecord
from holdfast.relay.desk import Desk
from holdfast.relay.sessions import Caller, Kind
from holdfast.wire.envelope import verify
from holdfast.wire.faults import Refusal
from holdfast.wire.pool import (
    VERSION,
    HelloReply,
    HelloRequest,
    OpenReply,
    OpenRequest,
    SessionProof,
)
from holdfast.wire.signed import Type


def hello(desk: Desk, request: HelloRequest) -> HelloReply:
    """Name ourselves and hand out a challenge. Raises PeerFault (`version`)."""
    if VERSION not in request.versions:
        raise PeerFault(f"this server speaks version {VERSION} only", code="version")
    return HelloReply(
        version=VERSION,
        identity=desk.identity.public,
        incarnation=desk.store.incarnation,
        challenge=desk.challenges.make(),
        wall_s=desk.clock.wall(),
        revocations=desk.revocations.version,
    )


async def open_session(desk: Desk, request: OpenRequest) -> OpenReply:
    """Check the proof, spend a ticket if there is one to spend, and open. Raises PeerFault and
    Refusal."""
    if desk.leaving or desk.retired:
        raise Refusal("this server is leaving", code="draining")
    proof = verify(Type.SESSION, SessionProof, request.proof)
    check_node(desk, proof)
    if proof.leaf not in desk.leaves():
        raise PeerFault("a proof made over another connection", code="signature")
    desk.challenges.check(proof.challenge)
    seated = desk.seats.find(proof.slot)
    signer = request.proof.signer
    if request.peer:
        caller = _open_peer(desk, signer, seated.record)
    else:
        tag = hash_bytes(signer)
        if request.ticket and desk.tickets.required and desk.tickets.terms(tag) is None:
            # Durable first: in a thread, since the disk is waited for.
            await asyncio.to_thread(desk.tickets.admit, tag, request.ticket)
            desk.store.allow(desk.store_bytes_max)
        caller = desk.sessions.open(Kind.GROUP, proof.slot, tag=tag)
        desk.readmit(caller)
        desk.touch(caller)
    known = request.record
    stapled = known is None or known < seated.record.version
    return OpenReply(
        session=caller.token,
        idle_s=desk.sessions.idle_s,
        incarnation=desk.store.incarnation,
        head=desk.store.head(proof.slot, caller.tag) if caller.tag else 0,
        record=seated.staple if stapled else None,
        revocations=None
        if request.peer
        else desk.statements.revocations_after(request.revocations),
        witnesses=None if request.peer else desk.statements.witnesses_after(request.witnesses),
        quota_bytes=desk.quota_of(caller),
        used_bytes=desk.store.used_bytes(proof.slot, caller.tag) if caller.tag else 0,
    )


def check_node(desk: Desk, proof: SessionProof) -> None:
    """Raises PeerFault for a proof that was made for another server: whoever asked for it there
    must not use it here."""
    if proof.node != desk.node:
        raise PeerFault("a proof made for another server", code="signature")


def _open_peer(desk: Desk, signer: bytes, record: SlotRecord) -> Caller:
    """A server of the same slot, by the newest record we have."""
    node = node_id(signer)
    if node == desk.node or record.seat_of(node) is None:
        raise PeerFault("no server of this slot", code="forbidden")
    if desk.is_revoked(node):
        raise PeerFault("that node has been excluded", code="forbidden")
    return desk.sessions.open(Kind.NODE, record.slot, node=node)
