"""Join tokens: made here, shown once, known afterwards by the hash of their secret only (D8).

A token for a spawn is bound to its intent, and an intent has one token at a time: asked again after
a crash, the earlier one, if nobody used it, stops being good in the transaction that makes the
next. So one intent gives one certificate, whatever the provider did with our order (D25).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from holdfast.errors import OperationFault, UsageError
from holdfast.hq.authority import Authority
from holdfast.limits import JOIN_TOKEN_S_MAX
from holdfast.logic.fleet.model import ACCESS, OPERATOR, STORES
from holdfast.logic.fleet.rows import SERVERS, IntentRow, ServerRow, TokenRow
from holdfast.logic.fleet.state import DOWN
from holdfast.logic.fleet.topology import server_name
from holdfast.logic.trust.join import token_hash
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import (
    Compare,
    ControlStore,
    Delete,
    KeyValue,
    Operation,
    Put,
    absent,
    unchanged,
)
from holdfast.rim.entropy import Entropy
from holdfast.wire.token import SECRET_BYTES, JoinToken

TOKENS: Final = "/trust/tokens/"
SPAWNS: Final = "/trust/spawns/"
"""Intent id -> key of the token that is good for it."""
NAMES: Final = "/trust/names/"
"""Logical name -> key of the token it was last promised with; a promise ends with its token."""
SPAWN_TOKEN_S: Final = 3_600.0
"""Six times what a spawn may take (`SPAWN_TIMEOUT_S`)."""
STANDBY_TOKEN_S: Final = 365 * 86_400.0
"""A machine that stood by for a year is replaced: its software is as old."""
KEPT_S: Final = 30 * 86_400.0
"""A used or expired token is remembered this long, so that who asks with it is told why not."""
NUMBERS_MAX: Final = 9_999
ROLES_TO_JOIN: Final = "relay, replica, entry or core"
Beside = Callable[[str, list[Compare], list[Operation]], Awaitable[None]]
"""Adds to the transaction that makes the token with this hash, in hex."""


class Tokens:
    """Makes tokens that lead to `addresses` (`host:port` of the API)."""

    def __init__(
        self,
        store: ControlStore,
        authority: Authority,
        clock: Clock,
        entropy: Entropy,
        addresses: Sequence[str],
    ) -> None:
        self._store = store
        self._authority = authority
        self._clock = clock
        self._entropy = entropy
        self._addresses = tuple(addresses)

    async def create(
        self, row: TokenRow, beside: Beside | None = None, *, replaces: str = ""
    ) -> JoinToken:
        """Write `row` (a name is chosen when it has none) and give the token for it.

        The name is promised in the same transaction. `beside` gives what else that compares and
        writes; it is asked again for every attempt, and what it raises ends them. `replaces` is the
        hash of a token that `beside` deletes, whose name is free then. Raises UsageError for a life
        over `JOIN_TOKEN_S_MAX`, a role that does not join, or a name that is taken.
        """
        self._check(row)
        while True:
            named = row if row.name else msgspec.structs.replace(row, name=await self._name(row))
            place = NAMES + named.name
            promised = await self._store.get(place)
            why = await self._taken(named.name, promised, replaces)
            if why and row.name:
                raise UsageError(f"{row.name} {why}; choose another name")
            if why:
                continue  # just now; choose again
            token, key = self._draw(named)
            compares: list[Compare] = [absent(key), unchanged(place, promised)]
            operations: list[Operation] = [_put(key, named), Put(place, key.encode())]
            if beside is not None:
                await beside(key.removeprefix(TOKENS), compares, operations)
            if (await self._store.txn(compares, operations)).succeeded:
                return token

    async def for_intent(self, intent: IntentRow) -> str:
        """The token of a spawn as text: the brain's `IssueToken`.

        Raises OperationFault, not retryable, when the intent's token is used: its machine joined.
        """
        row = TokenRow(
            role=intent.role,
            name=intent.name,
            region=intent.region,
            provider=intent.provider,
            owner=intent.owner or OPERATOR,
            cell="",
            expires_at=self._clock.wall() + (SPAWN_TOKEN_S if intent.name else STANDBY_TOKEN_S),
            intent=intent.id,
        )
        place = SPAWNS + intent.id
        while True:
            token, key = self._draw(row)
            before = await self._store.get(place)
            compares: list[Compare] = [unchanged(place, before), absent(key)]
            operations: list[Operation] = [_put(key, row), Put(place, key.encode())]
            if before is not None:
                await self._withdraw(before.value.decode(), compares, operations)
            if (await self._store.txn(compares, operations)).succeeded:
                return str(token)

    async def _withdraw(
        self, key: str, compares: list[Compare], operations: list[Operation]
    ) -> None:
        """Add what ends an earlier token of an intent, if it is still unused."""
        kv = await self._store.get(key)
        if kv is None:
            return
        if token_row(kv).used_by:
            raise OperationFault("the token of this spawn is used already", retryable=False)
        compares.append(unchanged(key, kv))
        operations.append(Delete(key))

    async def items(self) -> tuple[tuple[str, TokenRow], ...]:
        """(hash in hex, row) of every token remembered."""
        reply = await self._store.range(TOKENS)
        return tuple((kv.key.removeprefix(TOKENS), token_row(kv)) for kv in reply.items)

    async def revoke(self, hash_hex: str) -> TokenRow:
        """Make an unused token worthless. Raises UsageError for an unknown or used one."""
        key = TOKENS + hash_hex
        while True:
            kv = await self._store.get(key)
            if kv is None:
                raise UsageError(f"no token {hash_hex[:16]}; see holdfast hq token list")
            row = token_row(kv)
            if row.used_by:
                raise UsageError("that token is used; revoke the node that used it instead")
            if (await self._store.txn([unchanged(key, kv)], [Delete(key)])).succeeded:
                return row

    async def forget_old(self) -> int:
        """Drop tokens that expired long ago; how many."""
        before = self._clock.wall() - KEPT_S
        reply = await self._store.range(TOKENS)
        old = [kv for kv in reply.items if token_row(kv).expires_at < before]
        for kv in old:
            operations: list[Operation] = [Delete(kv.key)]
            intent = token_row(kv).intent
            if intent:
                operations.append(Delete(SPAWNS + intent))
            await self._store.txn([unchanged(kv.key, kv)], operations)
        return len(old)

    def _check(self, row: TokenRow) -> None:
        if row.role not in STORES | ACCESS:
            raise UsageError(f"nobody joins as {row.role.value}; use {ROLES_TO_JOIN}")
        if (row.role in ACCESS) != bool(row.cell):
            raise UsageError("an entry or a core joins a cell, and nobody else does")
        life_s = row.expires_at - self._clock.wall()
        if not 0 < life_s <= JOIN_TOKEN_S_MAX:
            raise UsageError(f"a token lives at most {JOIN_TOKEN_S_MAX / 3600:g} hours")
        if not (row.region.isalnum() and row.region.islower() and row.region.isascii()):
            raise UsageError(f"region {row.region!r}: lower-case letters, as in eu")

    def _draw(self, row: TokenRow) -> tuple[JoinToken, str]:
        """A token for `row` with a new secret, and the key its hash makes."""
        secret = self._entropy.bytes(SECRET_BYTES)
        token = JoinToken(
            network=self._authority.network,
            hq=self._addresses,
            roots=self._authority.fingerprints,
            role=row.role,
            name=row.name,
            cell=row.cell,
            expires_at=int(row.expires_at),
            secret=secret,
        )
        return token, TOKENS + token_hash(secret).hex()

    async def _name(self, row: TokenRow) -> str:
        """The first logical name of the role and region that nobody has or was promised."""
        servers = await self._store.range(f"{SERVERS}{row.role.value}-{row.region}-")
        taken = {kv.key.removeprefix(SERVERS) for kv in servers.items}
        taken |= {promised.name for _, promised in await self.items()}
        for number in range(1, NUMBERS_MAX + 1):
            name = server_name(row.role, row.region, number)
            if name not in taken:
                return name
        raise UsageError(f"{row.region} is full: {NUMBERS_MAX} servers of one role")

    async def _taken(self, name: str, promised: KeyValue | None, replaces: str) -> str:
        """Why nobody else may be promised `name` now; empty when it is free."""
        kv = await self._store.get(SERVERS + name)
        if kv is not None:
            server = msgspec.msgpack.decode(kv.value, type=ServerRow)
            if server.node and server.tier not in DOWN and not server.leaving:
                return "serves already"
        if promised is None or promised.value.decode() == TOKENS + replaces:
            return ""
        token = await self._store.get(promised.value.decode())
        if token is None:
            return ""
        row = token_row(token)
        if row.used_by:
            return "" if kv is not None else "has just joined"
        return "is promised to another token" if self._clock.wall() < row.expires_at else ""


def token_row(kv: KeyValue) -> TokenRow:
    """The row of a token."""
    return msgspec.msgpack.decode(kv.value, type=TokenRow)


def _put(key: str, row: TokenRow) -> Put:
    return Put(key, msgspec.msgpack.encode(row))
