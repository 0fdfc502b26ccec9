"""Joining and renewing: the driver of `logic.trust.join` (D6, D8).

The order is the law: examine, rule, sign, then commit in one transaction the burned token, the
certificate, the node and the leaf of the transparency log, and only then release the reply. A
certificate whose transaction failed is thrown away and the ruling is made anew, so of fifty who
come with one token at once, one gets a certificate and the others are refused and named.
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Final

import msgspec

from holdfast.crypto.certificates import cert_info, csr_spki
from holdfast.crypto.pure import base32, node_id, sha256, verify_ed25519
from holdfast.errors import PeerFault
from holdfast.hq.audit import AuditLog
from holdfast.hq.authority import Authority
from holdfast.hq.tokens import TOKENS, token_row
from holdfast.hq.transparency import CERTIFICATE, Leaf, TransparencyLog
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.model import NodeId
from holdfast.logic.fleet.rows import CertificateRow, NodeRow, NodeState, TokenRow, node_key
from holdfast.logic.trust.join import (
    Attempt,
    Held,
    Outcome,
    Proof,
    Ruling,
    audit_of,
    rule,
    standing_of,
    token_hash,
)
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import (
    Compare,
    ControlStore,
    KeyValue,
    Put,
    absent,
    unchanged,
)
from holdfast.wire.address import split_address
from holdfast.wire.codec import pack, unpack
from holdfast.wire.hq import JoinReply, JoinRequest, NodeIdentity, RenewRequest
from holdfast.wire.signed import Type, body_of, signing_input
from holdfast.wire.token import SECRET_BYTES

CERTIFICATES: Final = "/trust/certificates/"
KEYS: Final = "/trust/keys/"
"""SHA-256 of an SPKI, hex -> serial of the one certificate it ever gets."""
ADDRESSES_MAX: Final = 8
"""Addresses of one node."""
_REPLY_BYTES_MAX: Final = 256 * 1024
_TEXT_LETTERS_MAX: Final = 200


class Joining:
    """Admits nodes and renews their certificates."""

    def __init__(
        self,
        store: ControlStore,
        authority: Authority,
        log: TransparencyLog,
        audit: AuditLog,
        clock: Clock,
        heartbeat_s: float,
    ) -> None:
        self._store = store
        self._authority = authority
        self._log = log
        self._audit = audit
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._turn = asyncio.Lock()

    # --- Joining ---------------------------------------------------------------------------------
    async def join(self, request: JoinRequest, source: str) -> JoinReply:
        """The reply to a join request from `source`. Raises PeerFault with the ruling's code."""
        attempt, spki = self._examine(request)
        node = node_id(request.identity)
        async with self._turn:  # a queue in here is cheaper than losing transactions
            ruling, held, reply = await self._decide(request, attempt, node, spki)
        if held.token is not None:
            await self._audit([audit_of(ruling, held, node, source)])
        if reply is None:
            raise PeerFault(ruling.text, code=ruling.code)
        return reply

    def _examine(self, request: JoinRequest) -> tuple[Attempt, bytes]:
        """The cryptography of a request, before anything is looked up; and the key it is for."""
        spki, proof = b"", Proof.GOOD
        try:
            spki = csr_spki(request.csr)
        except PeerFault:
            proof = Proof.BAD_REQUEST
        if len(request.secret) != SECRET_BYTES or len(request.version) > _TEXT_LETTERS_MAX:
            proof = Proof.BAD_REQUEST
        if proof is Proof.GOOD and not _addresses_will_do(request.addresses):
            proof = Proof.BAD_ADDRESS
        if proof is Proof.GOOD and not self._owns(
            request.identity, spki, request.identity_signature
        ):
            proof = Proof.BAD_SIGNATURE
        key_hash = sha256(spki) if spki else b""
        attempt = Attempt(proof, request.identity, key_hash, request.network, request.role)
        return attempt, spki

    def _owns(self, identity: bytes, spki: bytes, signature: bytes) -> bool:
        """Whether `identity` signed that this TLS key is its own, in this network."""
        body = body_of(Type.NODE_IDENTITY, NodeIdentity(self._authority.network, spki))
        well_sized = len(identity) == 32 and len(signature) == 64
        return well_sized and verify_ed25519(identity, signature, signing_input(body))

    async def _decide(
        self, request: JoinRequest, attempt: Attempt, node: NodeId, spki: bytes
    ) -> tuple[Ruling, Held, JoinReply | None]:
        """Rule and act until the transaction goes through on what the ruling was made from."""
        key = TOKENS + token_hash(request.secret).hex()
        while True:
            token_kv = await self._store.get(key)
            node_kv = await self._store.get(node_key(node))
            known = await self._certificate_of(spki)
            if known is not None and (known.node != node or node_kv is None):
                attempt = msgspec.structs.replace(attempt, proof=Proof.OTHERS_KEY)
            token = token_row(token_kv) if token_kv else None
            member = node_row(node_kv) if node_kv else None
            held = Held(token, _burned_for(token), standing_of(member.state if member else None))
            ruling = rule(attempt, held, self._authority.network, self._clock.wall())
            if ruling.outcome is Outcome.REFUSE or token is None or token_kv is None:
                return ruling, held, None
            if ruling.outcome is Outcome.REPLAY:
                return ruling, held, unpack(JoinReply, token.reply, bytes_max=_REPLY_BYTES_MAX)
            reply = await self._admit(request, token_kv, node_kv, spki)
            if reply is not None:
                return ruling, held, reply

    async def _admit(
        self, request: JoinRequest, token_kv: KeyValue, node_kv: KeyValue | None, spki: bytes
    ) -> JoinReply | None:
        """Sign, commit, release; None when somebody changed something in between."""
        token, node = token_row(token_kv), node_id(request.identity)
        chain = self._authority.issue(spki, token.role, node, token.name, token.cell)
        row = self._row(request, token, node, chain[0])
        reply = self._reply(row, chain)
        burned = msgspec.structs.replace(token, used_by=node, reply=pack(reply))
        place = node_key(node)
        done = await self._commit(
            chain,
            node,
            [unchanged(token_kv.key, token_kv), unchanged(place, node_kv)],
            [Put(token_kv.key, pack(burned)), Put(place, pack(row))],
        )
        return reply if done else None

    def _row(self, request: JoinRequest, token: TokenRow, node: NodeId, leaf: bytes) -> NodeRow:
        info = cert_info(leaf)
        return NodeRow(
            node=node,
            identity=request.identity,
            name=token.name,
            role=token.role,
            region=token.region,
            provider=token.provider or request.provider[:_TEXT_LETTERS_MAX],
            owner=token.owner,
            addresses=request.addresses,
            serial=info.serial,
            cert_expires_at=info.not_after,
            joined_at=self._clock.wall(),
            intent=token.intent,
            cell=token.cell,
        )

    # --- Renewing --------------------------------------------------------------------------------
    async def renew(self, node: NodeId, request: RenewRequest) -> JoinReply:
        """A certificate for a new TLS key of a member (same identity, same name).

        Asked again for the key of the certificate in use, it gives that one again: the reply got
        lost. Raises PeerFault.
        """
        spki = csr_spki(request.csr)
        async with self._turn:
            row, chain, new = await self._renew(node, spki, request.identity_signature)
        if new:
            detail = {"node": base32(node), "serial": row.serial}
            await self._audit([Audit("certificate.renewed", row.name, detail)])
        return self._reply(row, chain)

    async def _renew(
        self, node: NodeId, spki: bytes, signature: bytes
    ) -> tuple[NodeRow, tuple[bytes, bytes], bool]:
        place = node_key(node)
        while True:
            kv = await self._store.get(place)
            row = node_row(kv) if kv else None
            if row is None or row.state is not NodeState.ACTIVE:
                raise PeerFault("this node is no member any more", code="forbidden")
            if not self._owns(row.identity, spki, signature):
                raise PeerFault("the identity key did not sign this TLS key", code="signature")
            known = await self._certificate_of(spki)
            if known is not None:
                if known.serial != row.serial:
                    raise PeerFault("this TLS key had a certificate; make a new key", code="key")
                return row, (known.der, known.issuer), False
            chain = self._authority.issue(spki, row.role, node, row.name, row.cell)
            info = cert_info(chain[0])
            renewed = msgspec.structs.replace(
                row, serial=info.serial, cert_expires_at=info.not_after
            )
            if await self._commit(chain, node, [unchanged(place, kv)], [Put(place, pack(renewed))]):
                return renewed, chain, True

    # --- Both ------------------------------------------------------------------------------------
    async def _commit(
        self,
        chain: tuple[bytes, bytes],
        node: NodeId,
        compares: list[Compare],
        puts: list[Put],
    ) -> bool:
        """One transaction: `puts`, the certificate, its key and its leaf in the log, or nothing."""
        info = cert_info(chain[0])
        row = CertificateRow(
            serial=info.serial,
            node=node,
            der=chain[0],
            issued_at=self._clock.wall(),
            expires_at=info.not_after,
            issuer=chain[1],
        )
        leaf = await self._log.prepare([Leaf(CERTIFICATE, chain[0])])
        at, key = CERTIFICATES + info.serial, KEYS + info.key_hash.hex()
        reply = await self._store.txn(
            [*compares, absent(at), absent(key), *leaf.compares],
            [*puts, Put(at, pack(row)), Put(key, info.serial.encode()), *leaf.puts],
        )
        if reply.succeeded:
            self._log.took(leaf)
        return reply.succeeded

    async def _certificate_of(self, spki: bytes) -> CertificateRow | None:
        """The certificate this TLS key has had, if any."""
        kv = await self._store.get(KEYS + sha256(spki).hex())
        kv = await self._store.get(CERTIFICATES + kv.value.decode()) if kv else None
        return msgspec.msgpack.decode(kv.value, type=CertificateRow) if kv else None

    def _reply(self, row: NodeRow, chain: tuple[bytes, bytes]) -> JoinReply:
        return JoinReply(
            chain=chain,
            node=row.node,
            name=row.name,
            role=row.role,
            region=row.region,
            provider=row.provider,
            owner=row.owner,
            roots=self._authority.roots,
            heartbeat_s=self._heartbeat_s,
            cell=row.cell,
        )


def node_row(kv: KeyValue) -> NodeRow:
    """The row of a node."""
    return msgspec.msgpack.decode(kv.value, type=NodeRow)


def _burned_for(token: TokenRow | None) -> bytes:
    """SHA-256 of the TLS key that burned a token; empty for one that is not burned."""
    if token is None or not token.used_by:
        return b""
    reply = unpack(JoinReply, token.reply, bytes_max=_REPLY_BYTES_MAX)
    return cert_info(reply.chain[0]).key_hash


def _addresses_will_do(addresses: tuple[str, ...]) -> bool:
    """Whether clients and DNS can use them: IP literals with a port, of one host each."""
    if len(addresses) > ADDRESSES_MAX:
        return False
    try:
        hosts = [ip_address(split_address(text)[0]) for text in addresses]
    except (PeerFault, ValueError):
        return False
    return not any(host.is_unspecified or host.is_multicast for host in hosts)
