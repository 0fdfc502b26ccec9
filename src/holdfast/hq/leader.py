"""Which HQ acts: one lease-bound key, one growing term (D25).

Whoever makes `/hq/leader` in one transaction with the next `/hq/term` acts until its lease ends.
A deposed leader may not know it yet; that does no harm, because everything it writes compares the
term (`guard`), and agents refuse lower terms. The lease is counted in real seconds, whatever the
time scale: it guards against a process that hangs, and processes hang in real time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import (
    Compare,
    ControlStore,
    Delete,
    Get,
    Operation,
    Put,
    TxnReply,
    absent,
    present,
    unchanged,
    value_is,
)

LEADER: Final = "/hq/leader"
TERM: Final = "/hq/term"
LEASE_REAL_S: Final = 5.0
"""A leader that hangs longer than this loses the lead."""
RENEW_REAL_S: Final = 1.0
_log = logging.getLogger("holdfast.hq")


def guard(term: int) -> Compare:
    """Holds while `term` is the newest: what every write of an acting HQ compares."""
    return value_is(TERM, str(term).encode())


class Leadership:
    """Campaigns for ever. `lead` is called with the term when we win, and cancelled when we lose;
    `term` is the newest term this process has led, 0 for none."""

    def __init__(
        self,
        store: ControlStore,
        clock: Clock,
        name: str,
        lead: Callable[[int], Awaitable[None]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._name = name
        self._lead = lead
        self.term = 0
        self.acting = False

    async def run(self) -> None:
        """Until cancelled; then the lead is given up at once, so that another may take it."""
        while True:
            try:
                await self._bury_past_self()
                await self._vacancy()
                await self._campaign()
            except OperationFault as fault:
                _log.warning("leadership: %s", fault)
                await self._clock.sleep_real(RENEW_REAL_S)

    async def _campaign(self) -> None:
        lease = await self._store.grant(LEASE_REAL_S * self._clock.scale)
        try:
            if await self._win(lease):
                await self._reign(lease)
        finally:
            with contextlib.suppress(OperationFault):
                await self._store.revoke(lease)

    async def _win(self, lease: int) -> bool:
        kv = await self._store.get(TERM)
        term = int(kv.value) + 1 if kv else 1
        reply = await self._store.txn(
            [absent(LEADER), unchanged(TERM, kv)],
            [Put(LEADER, self._name.encode(), lease), Put(TERM, str(term).encode())],
        )
        if reply.succeeded:
            self.term = term
        return reply.succeeded

    async def _reign(self, lease: int) -> None:
        """Lead while the lease can be renewed and nobody has taken a newer term."""
        _log.info("leading, term %d", self.term)
        self.acting = True
        work = asyncio.ensure_future(self._lead(self.term))
        renewing = asyncio.create_task(self._renew(lease))
        try:
            await asyncio.wait({work, renewing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.acting = False
            for task in (work, renewing):
                task.cancel()
            await asyncio.gather(work, renewing, return_exceptions=True)
        for task in (work, renewing):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _renew(self, lease: int) -> None:
        """Returns when the lead is lost, or when nobody can say that it is not."""
        while True:
            try:
                async with self._clock.real_timeout(LEASE_REAL_S):
                    await self._store.keep_alive(lease)
                    reply = await self._store.txn([guard(self.term), present(LEADER)], [])
            except TimeoutError:
                _log.error("the control store hangs; giving the lead up")
                return
            if not reply.succeeded:
                _log.warning("another headquarters leads")
                return
            await self._clock.sleep_real(RENEW_REAL_S)

    async def _bury_past_self(self) -> None:
        """End the lead of an earlier process of our own name: a directory has one process at a
        time, so it was killed, and nobody need wait for its lease to end."""
        kv = await self._store.get(LEADER)
        if kv is not None and kv.value == self._name.encode():
            await self._store.txn([unchanged(LEADER, kv)], [Delete(LEADER)])

    async def _vacancy(self) -> None:
        """Return when nobody leads."""
        while (kv := await self._store.get(LEADER)) is not None:
            watch = self._store.watch(LEADER, kv.mod_revision + 1)
            with contextlib.suppress(TimeoutError):
                async with self._clock.real_timeout(RENEW_REAL_S):
                    await anext(watch)


class FencedStore:
    """A control store for what runs under one term: every transaction compares that term, whether
    its author thought of it or not. A deposed brain that reads the newest term cannot adopt it."""

    def __init__(self, store: ControlStore, term: int) -> None:
        self._store = store
        self._guard = guard(term)
        self.get = store.get
        self.range = store.range
        self.watch = store.watch
        self.grant = store.grant
        self.keep_alive = store.keep_alive
        self.revoke = store.revoke
        self.compact = store.compact
        self.revision = store.revision
        self.close = store.close

    async def txn(
        self,
        compares: Sequence[Compare],
        success: Sequence[Operation],
        failure: Sequence[Operation] = (),
    ) -> TxnReply:
        """As the store's. Raises OperationFault, not retryable, when the term is over.

        `failure` is for conditions of the author's own: it may only read, because it runs without
        the guard. Whoever compares the term himself is told by the reply.
        """
        assert all(isinstance(item, Get) for item in failure), "a branch without a guard"
        if any(item.key == TERM and item != self._guard for item in compares):
            raise _over()
        if self._guard in compares:
            return await self._store.txn(compares, success, failure)
        reply = await self._store.txn([self._guard, *compares], success, failure)
        if not reply.succeeded and not (await self._store.txn([self._guard], [])).succeeded:
            raise _over()
        return reply


def _over() -> OperationFault:
    return OperationFault("this term is over; another headquarters leads", retryable=False)
