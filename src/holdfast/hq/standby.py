"""Machines that stand by, as headquarters meets them (ADR 0045).

A machine that stands by holds a join token without a name. It asks every few seconds whether it is
called; each question is the sign that it would hear a call. To call it, headquarters writes a name
and a role into the row of that token: from then on it is the token of a spawn like any other, good
for one certificate (D8). The row is durable before the machine is told, so who was called before a
crash is told after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from holdfast.errors import OperationFault, PeerFault
from holdfast.hq.brain_ports import IssueToken
from holdfast.hq.tokens import SPAWN_TOKEN_S, SPAWNS, TOKENS, token_row
from holdfast.limits import STANDBY_POLL_S
from holdfast.logic.fleet.rows import IntentRow, TokenRow
from holdfast.logic.trust.join import token_hash
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import ControlStore, Put, unchanged
from holdfast.wire.codec import pack
from holdfast.wire.hq import StandbyReply


class StandbyDesk:
    """The leading headquarters' word to those who wait."""

    def __init__(self, store: ControlStore, clock: Clock, issue_token: IssueToken) -> None:
        self._store = store
        self._clock = clock
        self._issue_token = issue_token
        self._calls: dict[str, asyncio.Event] = {}

    async def issue(self, intent: IntentRow) -> str:
        """The brain's `IssueToken`: a machine that stands by has its token and is called by it."""
        if not intent.warm:
            return await self._issue_token(intent)
        await self._call(intent)
        return ""

    async def ask(self, secret: bytes, seen: Callable[[str], Awaitable[None]]) -> StandbyReply:
        """Whether the machine with this token is called; waits for it a little. `seen` hears of
        which intent it is. Raises PeerFault for a token that is worthless."""
        row = await self._row(secret)
        if not row.name:
            await seen(row.intent)
            await self._wait(row.intent)
            row = await self._row(secret)
        return StandbyReply(row.name, row.role if row.name else None)

    async def _wait(self, intent: str) -> None:
        call = self._calls.setdefault(intent, asyncio.Event())
        try:
            async with self._clock.real_timeout(STANDBY_POLL_S):
                await call.wait()
        except TimeoutError:
            pass
        finally:
            if self._calls.get(intent) is call:
                del self._calls[intent]

    async def _row(self, secret: bytes) -> TokenRow:
        kv = await self._store.get(TOKENS + token_hash(secret).hex())
        if kv is None:
            raise PeerFault("no such token; this machine is not needed", code="token")
        row = token_row(kv)
        if self._clock.wall() >= row.expires_at:
            raise PeerFault("the token is past its time", code="token-expired")
        return row

    async def _call(self, intent: IntentRow) -> None:
        """Write the seat into the token. Doing it again does no harm. Raises OperationFault."""
        while True:
            place = await self._store.get(SPAWNS + intent.id)
            kv = await self._store.get(place.value.decode()) if place is not None else None
            if kv is None:
                raise OperationFault("no token for the machine that stands by", retryable=False)
            row = token_row(kv)
            if row.used_by and row.name != intent.name:
                raise OperationFault("it has joined as somebody else", retryable=False)
            called = msgspec.structs.replace(
                row,
                name=intent.name,
                role=intent.role,
                expires_at=self._clock.wall() + SPAWN_TOKEN_S,
            )
            if (
                row.name == intent.name
                or (
                    await self._store.txn([unchanged(kv.key, kv)], [Put(kv.key, pack(called))])
                ).succeeded
            ):
                break
        if intent.id in self._calls:
            self._calls[intent.id].set()
