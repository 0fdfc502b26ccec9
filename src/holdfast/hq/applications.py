"""Strangers who ask to join: the network's admission policy decides who gets a token.

    invite   nobody: tokens are handed out by the operator (`holdfast hq token create`)
    approve  whoever the operator approves
    vote     whoever enough owners of member nodes vote for, one vote an owner
    open     everybody, at once

An applicant gets a secret; its hash is the application's public id. Approval makes no token: the
applicant fetches it with the secret, and fetching again replaces one that was not used, so that no
token lies in the store in the clear and none is good twice.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.crypto.pure import base32, base32_decode, hash_bytes
from holdfast.errors import PeerFault, UsageError
from holdfast.hq.audit import AuditLog
from holdfast.hq.config import Admission, HqConfig
from holdfast.hq.tokens import TOKENS, Tokens, token_row
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.model import OPERATOR, Role
from holdfast.logic.fleet.rows import ApplicationRow, NodeRow, TokenRow
from holdfast.logic.trust.join import token_hash
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import ControlStore, KeyValue, Put, absent, unchanged
from holdfast.rim.entropy import Entropy
from holdfast.wire.codec import pack
from holdfast.wire.hq import Application, ApplicationItem, ApplicationReply

APPLICATIONS: Final = "/trust/applications/"
VOTES: Final = "/trust/votes/"
QUEUED_MAX: Final = 1_000
"""Applications nobody has answered: past this, new ones are turned away."""
TEXT_LETTERS_MAX: Final = 64
REASON_LETTERS_MAX: Final = 500
TOKEN_S: Final = 24 * 3600.0
_SECRET_BYTES: Final = 20
_ID_BYTES: Final = 10
QUEUED, APPROVED, DECLINED = "queued", "approved", "declined"


class Applications:
    """The queue and its answers."""

    def __init__(
        self,
        store: ControlStore,
        tokens: Tokens,
        audit: AuditLog,
        clock: Clock,
        entropy: Entropy,
        config: HqConfig,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._audit = audit
        self._clock = clock
        self._entropy = entropy
        self._config = config

    # --- Applicants ------------------------------------------------------------------------------
    async def apply(self, application: Application) -> ApplicationReply:
        """Take an application under the policy. Raises PeerFault when it will not do."""
        if self._config.admission is Admission.INVITE:
            raise PeerFault(
                "this network admits by invitation; ask its operator for a token", code="forbidden"
            )
        region = self._check(application)
        if len(await self._rows(QUEUED)) >= QUEUED_MAX:
            raise PeerFault("too many applications wait already; try later", code="too-many")
        secret = self._entropy.bytes(_SECRET_BYTES)
        welcome = self._config.admission is Admission.OPEN
        row = ApplicationRow(
            id=public_id(secret),
            role=application.role,
            owner=application.owner,
            reason=application.reason,
            sponsor=application.sponsor,
            state=APPROVED if welcome else QUEUED,
            at=self._clock.wall(),
            answer="open network" if welcome else "",
            region=region,
        )
        key = APPLICATIONS + row.id
        reply = await self._store.txn([absent(key)], [Put(key, pack(row))])
        assert reply.succeeded, "eighty random bits do not repeat"
        detail = {"role": row.role.value, "owner": row.owner, "sponsor": row.sponsor}
        await self._audit([Audit("application.received", row.id, detail)])
        return ApplicationReply(base32(secret), row.state, row.answer)

    async def state(self, secret_text: str) -> ApplicationReply:
        """The answer so far, with a fresh token once approved. Raises PeerFault."""
        try:
            secret = base32_decode(secret_text)
        except ValueError as error:
            raise PeerFault("no such application", code="not-found") from error
        kv = await self._store.get(APPLICATIONS + public_id(secret))
        if kv is None:
            raise PeerFault("no such application", code="not-found")
        row = _row(kv)
        token = await self._fetch(kv) if row.state == APPROVED else ""
        return ApplicationReply(secret_text, row.state, row.answer, token)

    async def _fetch(self, kv: KeyValue) -> str:
        """A token for an approved application; the one before it ends unless it was used."""
        row = _row(kv)
        if row.token:
            before = await self._store.get(TOKENS + row.token)
            if before is not None and token_row(before).used_by:
                return ""
            if before is not None:
                await self._tokens.revoke(row.token)
        token = await self._tokens.create(
            TokenRow(
                role=row.role,
                name="",
                region=row.region,
                provider="",
                owner=row.owner,
                cell="",
                expires_at=self._clock.wall() + TOKEN_S,
            )
        )
        hashed = token_hash(token.secret).hex()
        named = msgspec.structs.replace(row, token=hashed)
        reply = await self._store.txn([unchanged(kv.key, kv)], [Put(kv.key, pack(named))])
        if not reply.succeeded:
            await self._tokens.revoke(hashed)
            raise PeerFault("the application changed just now; ask again", code="conflict")
        await self._audit([Audit("token.created", token.name, {"application": row.id})])
        return str(token)

    # --- Deciding --------------------------------------------------------------------------------
    async def approve(self, id: str, author: str, reason: str) -> ApplicationRow:
        """The operator says yes. Raises UsageError for an unknown or answered application."""
        return await self._answer(id, APPROVED, author, reason)

    async def decline(self, id: str, author: str, reason: str) -> ApplicationRow:
        """The operator says no, with a reason."""
        if not reason:
            raise UsageError("a declined applicant is owed a reason; give --reason")
        return await self._answer(id, DECLINED, author, reason)

    async def vote(self, id: str, voter: NodeRow, yes: bool) -> None:
        """A member node's vote counts for its owner. Raises PeerFault when there is no vote."""
        if self._config.admission is not Admission.VOTE:
            raise PeerFault("this network does not vote on applications", code="forbidden")
        kv = await self._store.get(APPLICATIONS + id)
        if kv is None or _row(kv).state != QUEUED:
            raise PeerFault("no such application is open", code="not-found")
        word = b"yes" if yes else b"no"
        await self._store.txn([], [Put(f"{VOTES}{id}/{_owner_key(voter.owner)}", word)])
        detail = {"owner": voter.owner, "vote": word.decode()}
        await self._audit([Audit("application.voted", id, detail)])
        ayes, noes = await self._votes(id)
        if ayes >= self._config.votes:
            await self._answer(id, APPROVED, "vote", f"{ayes} of {ayes + noes} owners agree")
        elif noes >= self._config.votes:
            await self._answer(id, DECLINED, "vote", f"{noes} of {ayes + noes} owners are against")

    async def items(self, state: str = "") -> tuple[ApplicationItem, ...]:
        """Applications in `state` (all by default), oldest first."""
        rows = sorted(await self._rows(state), key=lambda row: row.at)
        return tuple([await self._item(row) for row in rows])

    async def _item(self, row: ApplicationRow) -> ApplicationItem:
        ayes, noes = await self._votes(row.id)
        return ApplicationItem(
            id=row.id,
            role=row.role,
            owner=row.owner,
            reason=row.reason,
            sponsor=row.sponsor,
            region=row.region,
            state=row.state,
            yes=ayes,
            no=noes,
        )

    async def _answer(self, id: str, state: str, author: str, reason: str) -> ApplicationRow:
        while True:
            kv = await self._store.get(APPLICATIONS + id)
            if kv is None:
                raise UsageError(f"no application {id}; see holdfast hq applications")
            row = _row(kv)
            if row.state != QUEUED:
                raise UsageError(f"application {id} is {row.state} already")
            answered = msgspec.structs.replace(row, state=state, answer=reason[:REASON_LETTERS_MAX])
            reply = await self._store.txn([unchanged(kv.key, kv)], [Put(kv.key, pack(answered))])
            if reply.succeeded:
                detail = {"author": author, "reason": answered.answer, "owner": row.owner}
                await self._audit([Audit(f"application.{state}", id, detail)])
                return answered

    async def _rows(self, state: str) -> list[ApplicationRow]:
        reply = await self._store.range(APPLICATIONS)
        rows = [_row(kv) for kv in reply.items]
        return [row for row in rows if not state or row.state == state]

    async def _votes(self, id: str) -> tuple[int, int]:
        reply = await self._store.range(f"{VOTES}{id}/")
        ayes = sum(kv.value == b"yes" for kv in reply.items)
        return ayes, len(reply.items) - ayes

    def _check(self, application: Application) -> str:
        """The region meant. Raises PeerFault for what a row may not hold."""
        if application.role not in (Role.RELAY, Role.REPLICA):
            raise PeerFault("one may apply as relay or replica")
        for text, most in (
            (application.owner, TEXT_LETTERS_MAX),
            (application.sponsor, TEXT_LETTERS_MAX),
            (application.reason, REASON_LETTERS_MAX),
        ):
            if len(text) > most or not text.isprintable():
                raise PeerFault(f"a text is over {most} letters or unprintable")
        if not application.owner or application.owner == OPERATOR:
            raise PeerFault("say whose machine it is; it cannot be the operator's")
        regions = self._config.regions
        region = application.region or (regions[0] if regions else "")
        if region not in regions:
            raise PeerFault(f"this network is in {', '.join(regions) or 'no region'}")
        return region


def public_id(secret: bytes) -> str:
    """How others name the application whose applicant holds `secret`."""
    return base32(hash_bytes(secret)[:_ID_BYTES])


def _row(kv: KeyValue) -> ApplicationRow:
    return msgspec.msgpack.decode(kv.value, type=ApplicationRow)


def _owner_key(owner: str) -> str:
    """An owner's name may hold anything printable; a key may not."""
    return base32(hash_bytes(owner.encode()))
