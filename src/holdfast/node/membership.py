"""Joining, renewing and leaving: the agent's side of D6 and D8.

A joiner trusts nobody yet. It fetches the root over TLS that it cannot verify, compares the
fingerprint with the one in its token, connects again and verifies, and only then shows the secret.
Its keys are made here and lie on disk before they are named to anybody, so a crash at any moment
leads back to the same request, which HQ answers alike.
"""

from __future__ import annotations

from typing import Final

from holdfast import __version__
from holdfast.crypto.certificates import BACKDATE_S, make_csr, verify_chain
from holdfast.crypto.certinfo import CertInfo
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.crypto.rootset import trusted_roots
from holdfast.crypto.tlskey import TlsKey
from holdfast.errors import PeerFault
from holdfast.logic.fleet.model import NetworkId, Role, SlotRecord
from holdfast.logic.trust.cert_life import Certificate
from holdfast.logic.trust.revocation import (
    Presented,
    RevocationList,
    Revocations,
    Revoked,
    matches,
)
from holdfast.node.home import Home, Member
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.https_client import JsonClient, fetch_pinned_roots
from holdfast.wire.envelope import sign
from holdfast.wire.hq import (
    Desired,
    JoinReply,
    JoinRequest,
    LeaveRequest,
    NodeIdentity,
    OverrideRequest,
    RenewRequest,
    SlotReply,
    StandbyReply,
    StandbyRequest,
    StapleReply,
)
from holdfast.wire.pool import Empty
from holdfast.wire.records import Override
from holdfast.wire.signed import Type, decode_body
from holdfast.wire.staple import presented, verify_staple
from holdfast.wire.token import JoinToken

JOIN_TIMEOUT_S: Final = 30.0
STANDBY_ASK_S_MIN: Final = 1.0
"""Real seconds between two questions, whatever headquarters answers: none may make us spin."""


async def join(
    home: Home,
    token: JoinToken,
    *,
    listen: str,
    addresses: tuple[str, ...],
    provider: str,
    clock: Clock,
    entropy: Entropy,
    advertise: str = "",
) -> Member:
    """Become a member with `token`; everything about it is on disk when this returns.

    `listen` is where the role will listen, `addresses` is what clients are told (`host:port`),
    `advertise` what of that the owner chose.

    Raises PeerFault when HQ refuses the token or is not the one the token names, OperationFault
    when it is out of reach: then the same call may be made again, by this process or the next.
    """
    identity = home.identity(entropy)
    key = home.pending_key(entropy)
    request = JoinRequest(
        secret=token.secret,
        csr=make_csr(key),
        identity=identity.public,
        identity_signature=_prove(identity, token.network, key),
        addresses=addresses,
        provider=provider,
        version=__version__,
    )
    roots = await fetch_pinned_roots(token.hq, token.roots, clock)
    hq = JsonClient(token.hq, roots, None, clock)
    try:
        reply = await hq.call(
            "POST", "/v1/join", request, JoinReply, JOIN_TIMEOUT_S, repeatable=True
        )
    finally:
        await hq.close()
    _check(reply, roots, token.network, identity, clock.wall())
    if reply.role != token.role and not token.stands_by:
        raise PeerFault(f"HQ made a {reply.role} of a token for a {token.role}", code="role")
    member = Member(
        network=token.network,
        node=reply.node,
        name=reply.name,
        role=reply.role,
        region=reply.region,
        provider=reply.provider,
        owner=reply.owner,
        hq=tuple(token.hq),
        listen=listen,
        heartbeat_s=reply.heartbeat_s,
        cell=reply.cell,
        addresses=addresses,
        advertise=advertise,
    )
    home.pin_roots(trusted_roots(roots, reply.roots, clock.wall()))
    home.install(reply.chain, key)
    home.save_member(member)
    home.forget_pending()
    return member


async def stand_by(token: JoinToken, clock: Clock) -> None:
    """Ask HQ until it calls this machine; then `join` with the same token.

    Raises PeerFault when the token is worthless, OperationFault when HQ is out of reach.
    """
    roots = await fetch_pinned_roots(token.hq, token.roots, clock)
    hq = JsonClient(token.hq, roots, None, clock)
    request = StandbyRequest(token.secret)
    try:
        called = False
        while not called:
            asked_at = clock.elapsed()
            reply = await hq.call(
                "POST", "/v1/standby", request, StandbyReply, JOIN_TIMEOUT_S, repeatable=True
            )
            called = bool(reply.name)
            if not called and clock.elapsed() - asked_at < STANDBY_ASK_S_MIN * clock.scale:
                await clock.sleep_real(STANDBY_ASK_S_MIN)
    finally:
        await hq.close()


def connect(
    home: Home, member: Member, clock: Clock, revocations: RevocationList | None = None
) -> JsonClient:
    """A client of HQ with the certificate that lies in the node's directory now. It believes no
    headquarters that is in `revocations`, or by default in what the node remembers of them."""
    known = known_revocations(home, member) if revocations is None else revocations
    own = (home.chain_file, home.key_file)
    return JsonClient(member.hq, home.roots(), own, clock, revocations=known)


def known_revocations(home: Home, member: Member) -> RevocationList:
    """Who is out, by the list that this node was given last."""
    known = RevocationList(member.network)
    fold_revocations(known, home.memory().desired)
    return known


def fold_revocations(known: RevocationList, desired: Desired | None) -> tuple[Revoked, ...]:
    """The entries new to `known` of what HQ sent; it came from an HQ that our TLS believed. A list
    that cannot be read changes nothing."""
    if desired is None or desired.revocations is None:
        return ()
    try:
        listed = decode_body(Type.REVOCATIONS, Revocations, desired.revocations.signed)
    except PeerFault:
        return ()
    return known.fold(listed) if listed.network == known.network else ()


def life_of(certificate: CertInfo) -> Certificate:
    """What `logic.trust.cert_life` knows of a certificate: its life without the backdating."""
    issued_at = certificate.not_before + BACKDATE_S
    return Certificate(certificate.serial, issued_at, certificate.not_after)


async def renew(
    home: Home, member: Member, hq: JsonClient, *, clock: Clock, entropy: Entropy
) -> CertInfo:
    """A certificate for a new key, in place and in use by `hq` when this returns.

    A crash or a lost reply leaves the old pair in use and the pending key on disk: the next call
    asks for the same key again.
    """
    identity = home.identity(entropy)
    key = home.renewal_key(entropy)
    request = RenewRequest(make_csr(key), _prove(identity, member.network, key))
    reply = await hq.call("POST", "/v1/renew", request, JoinReply, JOIN_TIMEOUT_S, repeatable=True)
    roots = home.roots()
    _check(reply, roots, member.network, identity, clock.wall())
    home.pin_roots(trusted_roots(roots, reply.roots, clock.wall()))
    certificate = home.install(reply.chain, key)
    home.forget_pending()
    hq.reload((home.chain_file, home.key_file), home.roots())
    return certificate


async def exclusion(home: Home, member: Member, clock: Clock) -> Revoked | None:
    """Why headquarters refuses this node, by its signed revocation list; None when it does not name
    it. Asked without a certificate: ours may be the reason. Raises OperationFault and PeerFault."""
    roots, known = home.roots(), known_revocations(home, member)
    hq = JsonClient(member.hq, roots, None, clock, revocations=known)
    try:
        reply = await hq.call("GET", "/v1/revocations", None, StapleReply)
    finally:
        await hq.close()
    now = clock.wall()
    listed = verify_staple(
        roots, reply.staple, Type.REVOCATIONS, Revocations, now, revocations=known
    )
    if listed.network != member.network:
        raise PeerFault("a revocation list of another network", code="network")
    for certificate in (*map(presented, home.chain()), Presented(member.node, "", b"")):
        entry = matches(listed.entries, certificate)
        if entry is not None:
            return entry
    return None


async def leave(hq: JsonClient, reason: str) -> None:
    """Tell HQ that this node's owner wants it out: HQ drains it, then retires it."""
    await hq.call("POST", "/v1/leave", LeaveRequest(reason), Empty)


async def override(
    home: Home, member: Member, hq: JsonClient, slot: str, *, signing: bool, clock: Clock
) -> SlotRecord:
    """The newest record of a slot; with `signing`, HQ gets this node's word that it be followed.

    Raises PeerFault when there is no such slot, or HQ shows something that is no record of ours.
    """
    reply = await hq.call("GET", f"/v1/slots/{slot}", None, SlotReply)
    staple = reply.record
    record = verify_staple(home.roots(), staple, Type.SLOT_RECORD, SlotRecord, clock.wall())
    if record.network != member.network or record.slot.hex() != slot:
        raise PeerFault("HQ shows the record of another slot")
    if signing:
        identity = home.own_identity()
        body = hash_bytes(staple.signed.body)
        word = Override(record.network, record.slot, record.version, body)
        signed = sign(identity, Type.OVERRIDE, word)
        await hq.call("POST", "/v1/overrides", OverrideRequest(signed), Empty)
    return record


def _prove(identity: SigningKey, network: NetworkId, key: TlsKey) -> bytes:
    """The identity's signature over the TLS key (D6)."""
    return sign(identity, Type.NODE_IDENTITY, NodeIdentity(network, key.spki())).signature


def _check(
    reply: JoinReply, roots: tuple[bytes, ...], network: NetworkId, identity: SigningKey, now: float
) -> None:
    """Raises PeerFault unless the certificate says what the reply says, of this very node."""
    name = verify_chain(roots, reply.chain, now)
    expected = (network, Role(reply.role), identity.node)
    told = (name.network, name.role, name.node)
    if told != expected or reply.node != identity.node or name.cell != reply.cell:
        raise PeerFault("HQ's certificate is about somebody else", code="certificate")
