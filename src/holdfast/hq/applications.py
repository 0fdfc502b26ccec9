"""Strangers who ask to join: the driver of `logic.trust.admission`.

An applicant gets a secret; its hash is the application's public id. Approval makes no token: the
applicant fetches it with the secret, and fetching again replaces one that was not used, so that no
token lies in the store in the clear and none is good twice. Replacing is one transaction; a token
that is gone any other way is not replaced.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.crypto.pure import base32, base32_decode, hash_bytes
from holdfast.errors import PeerFault, UsageError
from holdfast.hq.audit import AuditLog
from holdfast.hq.config import HqConfig
from holdfast.hq.tokens import TOKENS, Tokens, token_row
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.rows import (
    NODES,
    ApplicationRow,
    NodeRow,
    NodeState,
    TokenRow,
)
from holdfast.logic.trust.admission import (
    Apply,
    Approve,
    Decline,
    Event,
    Setting,
    State,
    Tick,
    Vote,
    step,
    tally,
)
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import (
    Compare,
    ControlStore,
    Delete,
    KeyValue,
    Operation,
    Put,
    unchanged,
)
from holdfast.rim.entropy import Entropy
from holdfast.wire.codec import pack
from holdfast.wire.hq import Application, ApplicationItem, ApplicationReply

APPLICATIONS: Final = "/trust/applications/"
LAST: Final = "/trust/last-application"
"""Id of the newest application."""
TOKEN_S: Final = 24 * 3600.0
_SECRET_BYTES: Final = 20
_ID_BYTES: Final = 10
_DAY_S: Final = 86_400.0


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
        secret = self._entropy.bytes(_SECRET_BYTES)
        event = Apply(
            id=public_id(secret),
            role=application.role,
            owner=application.owner,
            reason=application.reason,
            sponsor=application.sponsor,
            region=self._region(application.region),
        )
        row = await self._step(event.id, event)
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
        token = await self._fetch(kv) if row.state == State.APPROVED.value else ""
        return ApplicationReply(secret_text, row.state, row.answer, token)

    async def _fetch(self, kv: KeyValue) -> str:
        """A token for an approved application, which ends the one before it.

        Empty once that one was used, taken back or forgotten: an approval admits one machine.
        """
        row = _row(kv)
        before = await self._store.get(TOKENS + row.token) if row.token else None
        if row.token and (before is None or token_row(before).used_by):
            return ""

        async def swap(hash: str, compares: list[Compare], operations: list[Operation]) -> None:
            if await self._store.get(kv.key) != kv:
                raise PeerFault("the application changed just now; ask again", code="conflict")
            compares.append(unchanged(kv.key, kv))
            operations.append(Put(kv.key, pack(msgspec.structs.replace(row, token=hash))))
            if before is not None:
                if await self._store.get(before.key) != before:
                    raise PeerFault("the token was used just now; ask again", code="conflict")
                compares.append(unchanged(before.key, before))
                operations.append(Delete(before.key))

        token = await self._tokens.create(
            TokenRow(
                role=row.role,
                name=token_row(before).name if before is not None else "",
                region=row.region,
                provider="",
                owner=row.owner,
                cell="",
                expires_at=self._clock.wall() + TOKEN_S,
            ),
            swap,
            replaces=row.token,
        )
        await self._audit([Audit("token.created", token.name, {"application": row.id})])
        return str(token)

    # --- Deciding --------------------------------------------------------------------------------
    async def approve(self, id: str, author: str, reason: str) -> ApplicationRow:
        """The operator says yes. Raises UsageError where the policy does not let them."""
        return await self._operate(id, Approve(author, reason))

    async def decline(self, id: str, author: str, reason: str) -> ApplicationRow:
        """The operator says no, with a reason."""
        return await self._operate(id, Decline(author, reason))

    async def vote(self, id: str, voter: NodeRow, yes: bool) -> None:
        """A member node's vote counts for its owner. Raises PeerFault when there is no vote."""
        await self._step(id, Vote(voter.owner, yes))

    async def tick(self) -> None:
        """End votes whose time is over and applications nobody answered."""
        for row in await self._rows():
            if row.state == State.QUEUED.value:
                await self._step(row.id, Tick())

    async def items(self) -> tuple[ApplicationItem, ...]:
        """All applications, oldest first."""
        rows = sorted(await self._rows(), key=lambda row: row.at)
        setting = await self._setting(rows, "")
        return tuple(_item(row, tally(row, setting)) for row in rows)

    async def _operate(self, id: str, event: Event) -> ApplicationRow:
        try:
            return await self._step(id, event)
        except PeerFault as fault:
            raise UsageError(f"{fault}; see holdfast hq applications") from fault

    async def _step(self, id: str, event: Event) -> ApplicationRow:
        """One event on one application: what it persists is durable, then logged."""
        key = APPLICATIONS + id
        while True:
            kv = await self._store.get(key)
            row = _row(kv) if kv else None
            last = await self._store.get(LAST)
            owner = event.owner if isinstance(event, Apply) else ""
            setting = await self._setting(await self._rows(), owner)
            effects = step(row, event, setting, self._clock.wall())
            if not effects.persist:
                assert row is not None
                return row
            (after,) = effects.persist
            assert isinstance(after, ApplicationRow)
            compares: list[Compare] = [unchanged(key, kv)]
            operations: list[Operation] = [Put(key, pack(after))]
            if row is None:  # the caps were counted over the others: one comes after another
                compares.append(unchanged(LAST, last))
                operations.append(Put(LAST, id.encode()))
            if (await self._store.txn(compares, operations)).succeeded:
                await self._audit(
                    [Audit(f"application.{a.verb}", a.subject, a.detail) for a in effects.audit]
                )
                return after

    async def _setting(self, rows: list[ApplicationRow], owner: str) -> Setting:
        waiting = [row for row in rows if row.state == State.QUEUED.value]
        since = self._clock.wall() - _DAY_S
        nodes = await self._store.range(NODES)
        members = [msgspec.msgpack.decode(kv.value, type=NodeRow) for kv in nodes.items]
        return Setting(
            policy=self._config.admission,
            owners=frozenset(row.owner for row in members if row.state is NodeState.ACTIVE),
            sponsor_required=self._config.sponsor_required,
            waiting=len(waiting),
            waiting_of_owner=sum(row.owner == owner for row in waiting),
            opened_today=sum(row.state == State.APPROVED.value and row.at > since for row in rows),
        )

    async def _rows(self) -> list[ApplicationRow]:
        reply = await self._store.range(APPLICATIONS)
        return [_row(kv) for kv in reply.items]

    def _region(self, asked: str) -> str:
        """The region meant. Raises PeerFault for one that this network is not in."""
        regions = self._config.regions
        region = asked or (regions[0] if regions else "")
        if region not in regions:
            raise PeerFault(f"this network is in {', '.join(regions) or 'no region'}")
        return region


def public_id(secret: bytes) -> str:
    """How others name the application whose applicant holds `secret`."""
    return base32(hash_bytes(secret)[:_ID_BYTES])


def _item(row: ApplicationRow, votes: tuple[int, int]) -> ApplicationItem:
    return ApplicationItem(
        id=row.id,
        role=row.role,
        owner=row.owner,
        reason=row.reason,
        sponsor=row.sponsor,
        region=row.region,
        state=row.state,
        yes=votes[0],
        no=votes[1],
    )


def _row(kv: KeyValue) -> ApplicationRow:
    return msgspec.msgpack.decode(kv.value, type=ApplicationRow)
