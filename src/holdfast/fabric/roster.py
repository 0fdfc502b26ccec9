"""The six servers of a slot as one client follows them: records, sessions, failover, reports.

Everything goes through `call`: it opens what has to be opened, keeps the health of each server,
and turns what a server says about itself into one of three outcomes: it works; it asks to be left
alone for a while; it cannot be reached, which starts an episode, a backoff, and one report to each
survivor (`logic.pool.health`).

A newer record can come stapled with any opening. At a cold start, with no record known, two
servers are asked before the newest of what they show is followed (D1); later every record is
judged against the one followed (D4). A record that comes too soon waits here for its time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import HoldfastError, OperationFault, PeerFault
from holdfast.fabric.database import DiskFault
from holdfast.fabric.findings import Accused, FindingBook
from holdfast.fabric.herald import Herald
from holdfast.fabric.link import Link, Target
from holdfast.fabric.network import Network
from holdfast.fabric.records import RecordBook
from holdfast.fabric.session import Have, Session
from holdfast.fabric.wallet import Wallet
from holdfast.limits import BACKOFF_S
from holdfast.limits.trust import NEWS_S
from holdfast.logic.fleet.model import Role, SlotId, SlotRecord, Version
from holdfast.logic.pool.health import Health
from holdfast.logic.pool.lies import BY_CODE
from holdfast.logic.pool.seats import Seats, seats_of
from holdfast.logic.trust.adoption import Verdict
from holdfast.logic.trust.witnesses import WitnessSet
from holdfast.wire.faults import Refusal
from holdfast.wire.locator import Locator
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type, decode_body
from holdfast.wire.staple import verify_staple

T = TypeVar("T")
_log = logging.getLogger(__name__)
COLD_START_SERVERS = 2
UNWITNESSED_RETRY_S = 5.0
"""Witnesses need a few seconds; a record that came before them is asked for again after this."""
NOT_WAITED_FOR = frozenset({"full", "read-only", "draining"})
"""A server that says this may say it for hours; the outbox does not wait for it."""
BROKEN = frozenset(BY_CODE)
"""A server whose answers are no good is alive, named for it, and of no use for a while."""


class Listener(Protocol):
    """Who wants to hear of changes; the uploader."""

    def seated(self, seats: Seats) -> None: ...

    def down(self, name: str) -> None: ...

    def up(self, name: str) -> None: ...


class Roster:
    """The servers of the slot that `locator` names."""

    def __init__(
        self,
        network: Network,
        locator: Locator,
        records: RecordBook,
        wallet: Wallet | None = None,
        findings: FindingBook | None = None,
    ) -> None:
        """`findings` is where servers are named whose answers cannot be true."""
        self.network = network
        self._findings = findings
        self.slot: SlotId = locator.slot
        self.health = Health()
        self.refused: Verdict | None = None
        """Why the newest record offered is not followed, if it is not."""
        self._hints = {seat.name: seat.addresses for seat in locator.seats()}
        self._replicas = {seat.name for seat in locator.replicas}
        self._records = records
        self._wallet = wallet
        self._links: dict[str, Link] = {}
        self._listeners: list[Listener] = []
        self._down: set[str] = set()
        self._too_soon: tuple[Staple, float] | None = None
        self._cold: dict[str, Staple] | None = None
        self._cold_sets: list[Staple] = []
        self._ask_again_at = network.clock.elapsed() + NEWS_S * network.entropy.uniform(0.5, 1.0)
        self._turn = 0
        self._asking: asyncio.Task[None] | None = None
        self._key: SigningKey | None = None
        self._herald = Herald(self)
        self._seat_links()

    # --- who is there --------------------------------------------------------------------------
    @property
    def record(self) -> SlotRecord | None:
        """The record this client follows; None before the first."""
        known = self._records.known(self.slot)
        return known.record if known else None

    @property
    def staple(self) -> Staple | None:
        """It as HQ signed it."""
        return self._records.staple(self.slot)

    @property
    def version(self) -> Version | None:
        """Its version."""
        return self.record.version if self.record else None

    @property
    def unwitnessed(self) -> bool:
        """Whether the followed record has no cosignature."""
        known = self._records.known(self.slot)
        return known is None or known.unwitnessed

    def seats(self) -> Seats:
        """The seats of the followed record. Only after `start`."""
        assert self.record is not None, "start first"
        return seats_of(self.record)

    def names(self, role: Role | None = None) -> tuple[str, ...]:
        """Names of the servers, from the record or else from the locator."""
        if self.record is not None:
            return seats_of(self.record).names(role)
        return tuple(n for n in self._hints if role in (None, self._role(n)))

    def ready(self, role: Role | None = None) -> tuple[str, ...]:
        """Servers of a role that may be tried now; those that answer, and quickly, come first."""
        names = [name for name in self.names(role) if self.may_try(name)]
        failing = self.health.failing()
        return tuple(sorted(names, key=lambda n: (n in failing, self._links[n].latency_s)))

    def may_try(self, name: str) -> bool:
        """Whether `name` has a seat and is not being left alone."""
        return name in self._links and (self.network.clock.elapsed() >= self.health.retry_at(name))

    def troubled(self, name: str) -> bool:
        """Whether `name` did not answer last time, or said that it is of no use for now."""
        return name in self._down

    @property
    def key(self) -> SigningKey | None:
        """An access key in use on this slot, for errands that are nobody's in particular."""
        return self._key

    def leave_alone(self, name: str) -> None:
        """`name` is of no use for a while."""
        self._told_to_wait(name, "draining", 0.0)

    def link(self, name: str) -> Link:
        """The way to `name`, which has a seat."""
        return self._links[name]

    def listen(self, listener: Listener) -> None:
        """Tell `listener` of changes from now on."""
        self._listeners.append(listener)

    # --- asking --------------------------------------------------------------------------------
    async def start(self, key: SigningKey) -> None:
        """Have a record to follow, asking two servers if there is none yet.

        Raises OperationFault when no server of the locator, nor DNS, leads to one.
        """
        self._key = self._key or key
        if self.record is not None:
            return
        self._cold = {}
        tasks = [asyncio.create_task(self._ask_cold(name, key)) for name in self._hints]
        try:
            for answered in asyncio.as_completed(tasks):
                await answered
                if len(self._cold) >= COLD_START_SERVERS:
                    break
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            staples, self._cold = list(self._cold.values()), None
            self._follow_first_witnesses()
        if not staples:
            raise OperationFault(
                f"none of {', '.join(self._hints)} shows a record of the slot; check the network,"
                " or ask for a newer locator"
            )
        await self._take(self._newest(staples))

    async def call(self, name: str, key: SigningKey, work: Callable[[Session], Awaitable[T]]) -> T:
        """Run `work` with a session of `key` at `name`.

        Raises OperationFault (not reached, or to be left alone) and PeerFault (it refuses). What
        `work` raises is taken for the server's doing, but for a DiskFault.
        """
        self._key = self._key or key
        if not self.may_try(name):
            raise OperationFault(f"{name} does not answer; it is tried again later")
        asked_at = self.network.clock.elapsed()
        session: Session | None = None
        try:
            session = await self._session(name, key)
            result = await work(session)
        except Refusal as refusal:
            self._told_to_wait(name, refusal.code, refusal.retry_after_s)
            if refusal.code == "draining" and session is not None:
                with suppress(HoldfastError):  # it lost its seat, and knows who has it
                    await self._news(session)
            raise
        except DiskFault:
            raise
        except OperationFault:
            await self._failed(name)
            raise
        except PeerFault as fault:
            await self._refused(name, fault, asked_at, hash_bytes(key.public))
            raise
        self._answered(name, asked_at)
        return result

    async def refresh(self, key: SigningKey) -> None:
        """Ask one server that answers whether it knows a newer record."""

        async def reopen(session: Session) -> None:
            await self._news(session)

        failing = self.health.failing()
        names = [name for name in self.ready() if name not in failing]
        self._turn += 1  # another server each time: the quickest may be the one that keeps silent
        for number in range(len(names)):
            try:
                await self.call(names[(number + self._turn) % len(names)], key, reopen)
            except HoldfastError:
                continue
            return

    async def ping(self, name: str, key: SigningKey) -> bool:
        """Try a server that does not answer, with a fresh opening. Whether it does now."""

        async def reopen(session: Session) -> None:
            await session.reopen(session.token)

        try:
            await self.call(name, key, reopen)
        except HoldfastError:
            return False
        return True

    async def close(self) -> None:
        """Drop everything; what is under way fails."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        await self._herald.close()
        for link in self._links.values():
            await link.close()

    # --- sessions ------------------------------------------------------------------------------
    async def _session(self, name: str, key: SigningKey) -> Session:
        await self._reconsider()
        link = self._links.get(name)
        if link is None:
            raise OperationFault(f"{name} has no seat any more")
        async with link.lock:
            session = link.session(hash_bytes(key.public))
            if session is not None:
                return session
            session = await link.open(key, self._target(name), self._have())
            if self._wallet is not None:
                session.ticket = partial(self._wallet.ticket, self.network.id, session.tag)
            await self._stapled(name, session)
            if self._cold is None and not self._seated(name, session.node):
                await link.close()
                raise OperationFault(f"the node behind {name} is not in the slot's record")
            return session

    def _have(self) -> Have:
        """What servers need not show us; a record without its cosignatures is asked for again."""
        trust, network = self._records.trust, self.network.id
        lacking = self.unwitnessed and trust.needed(network) > 0
        return Have(None if lacking else self.version, *trust.versions(network))

    async def _stapled(self, name: str, session: Session) -> None:
        """A server showed statements it thinks are newer than ours."""
        await self._excluded(session.revocation_list)
        if session.witness_set is not None:
            if self._cold is not None:
                self._cold_sets.append(session.witness_set)
            else:
                self._take_witnesses(session.witness_set)
        if session.record is None:
            return
        if self._cold is not None:
            self._cold[name] = session.record
            return
        try:
            await self._take(session.record)
        except PeerFault:
            self.refused = Verdict.FOREIGN

    async def _news(self, session: Session) -> None:
        """Open again, which shows what is newer than ours."""
        session.saw(self._have())
        await session.reopen(session.token)
        await self._stapled("", session)

    async def _excluded(self, staple: Staple | None) -> None:
        """Servers on a new revocation list are dropped at once."""
        if staple is None:
            return
        trust, network = self._records.trust, self.network
        try:
            fresh = trust.take_revocations(network.id, network.roots, staple)
        except PeerFault as fault:
            _log.warning("a revocation list that is no good: %s", fault)
            return
        for link in self._links.values() if fresh else ():
            if link.excluded:
                await link.close()

    def _take_witnesses(self, staple: Staple) -> None:
        network = self.network
        try:
            self._records.trust.take_witnesses(network.id, network.roots, staple)
        except PeerFault as fault:
            _log.warning("a witness set that is no good: %s", fault)

    async def _ask_cold(self, name: str, key: SigningKey) -> None:
        try:
            await self._session(name, key)
        except OperationFault:
            self._note_failure(name)
        except PeerFault:
            return

    def _target(self, name: str) -> Target:
        record = self.record
        if record is not None:
            seat = next(seat for seat in record.seats() if seat.name == name)
            return Target(seat.addresses, seat.node)
        return Target(self._hints[name])

    def _seated(self, name: str, node: bytes) -> bool:
        server = self.seats().named(name)
        return server is not None and server.node == node

    def _role(self, name: str) -> Role:
        return Role.REPLICA if name in self._replicas else Role.RELAY

    # --- records -------------------------------------------------------------------------------
    def _newest(self, staples: list[Staple]) -> Staple:
        """The one with the highest version among those that verify."""
        clock, found = self.network.clock, []
        for staple in staples:
            try:
                record = verify_staple(
                    self.network.roots,
                    staple,
                    Type.SLOT_RECORD,
                    SlotRecord,
                    clock.wall(),
                    revocations=self._records.trust.revocations(self.network.id),
                )
            except PeerFault:
                continue
            if record.slot == self.slot and record.is_whole():
                found.append((record.version, staple))
        if not found:
            raise OperationFault(
                "no server shows a record that this network's roots vouch for; check the locator"
            )
        return max(found, key=lambda pair: pair[0])[1]

    def _follow_first_witnesses(self) -> None:
        """The newest of the sets that servers showed; the rules refuse older ones."""
        sets, self._cold_sets = self._cold_sets, []
        for staple in sorted(sets, key=_version_of, reverse=True):
            self._take_witnesses(staple)

    async def _take(self, staple: Staple) -> None:
        """Offer a record to the adoption rules and act on the outcome."""
        network = self.network
        judgement = self._records.offer(self.slot, network.roots, staple, k=network.k)
        if judgement.verdict is Verdict.ADOPT:
            self._too_soon = self.refused = None
            self._seat_links()
            for listener in self._listeners:
                listener.seated(self.seats())
            await self._drop_strangers()
        elif judgement.verdict is Verdict.TOO_SOON:
            self._too_soon, self.refused = (staple, judgement.retry_at), judgement.verdict
        elif judgement.verdict not in (Verdict.SAME, Verdict.OLDER):
            self.refused = judgement.verdict
            self._ask_again_at = self.network.clock.elapsed() + UNWITNESSED_RETRY_S
        elif judgement.verdict is Verdict.SAME and self.refused is Verdict.UNWITNESSED:
            self.refused = None

    async def _reconsider(self) -> None:
        """Follow a record that came too soon, once its time has come; ask for news now and then,
        and soon for the cosignatures of a record that came without."""
        now = self.network.clock.elapsed()
        asking = self._asking is not None and not self._asking.done()
        if now >= self._ask_again_at and self._key and self._cold is None and not asking:
            soon = self.refused is Verdict.UNWITNESSED
            wait_s = NEWS_S * self.network.entropy.uniform(0.5, 1.0)
            self._ask_again_at = now + (UNWITNESSED_RETRY_S if soon else wait_s)
            self._asking = asyncio.create_task(self.refresh(self._key))
        if self._too_soon is None or self.network.clock.elapsed() < self._too_soon[1]:
            return
        staple, self._too_soon = self._too_soon[0], None
        await self._take(staple)

    def _seat_links(self) -> None:
        """A link for every seat, none for others; health starts anew for new nodes."""
        names = self.names()
        for name in names:
            if name not in self._links:
                self._links[name] = Link(self.network, self._records.trust, self.slot, name)
        record = self.record
        nodes = {seat.name: seat.node for seat in record.seats()} if record else {}
        for name in self.health.seated({name: nodes.get(name, b"") for name in names}):
            self._down.discard(name)

    async def _drop_strangers(self) -> None:
        """Close links to nodes that lost their seat, except while they are being opened."""
        for name, link in list(self._links.items()):
            if name not in self.names():
                del self._links[name]
                await link.close()
            elif link.node is not None and not self._seated(name, link.node):
                await link.close()

    # --- health --------------------------------------------------------------------------------
    def _answered(self, name: str, asked_at: float) -> None:
        self.health.answered(name, asked_at)
        if name in self._down and name not in self.health.failing():
            self._down.discard(name)
            for listener in self._listeners:
                listener.up(name)
        self._herald.tell(name)

    async def _failed(self, name: str) -> None:
        if name in self._links:
            await self._links[name].close()
        if not self._note_failure(name):
            return
        for other in self.names():
            self._herald.tell(other)

    def _note_failure(self, name: str) -> bool:
        """Count one failure; several requests that fail together are one."""
        now = self.network.clock.elapsed()
        if now < self.health.retry_at(name) or name not in self._links:
            return False
        jitter = self.network.entropy.uniform(0.0, 1.0)
        self.health.failed(name, now, self.network.clock.wall(), jitter)
        self._hold_nothing_back(name)
        return True

    async def _refused(self, name: str, fault: PeerFault, asked_at: float, tag: bytes) -> None:
        """What a refusal says of the server. Raises OperationFault when it says: not this one."""
        if fault.code == "certificate":
            await self._failed(name)
            raise OperationFault(str(fault)) from fault
        if fault.code == "slot":
            self._told_to_wait(name, "slot", 0.0)
            raise OperationFault(f"{name} does not serve this slot yet: {fault}") from fault
        if fault.code in BROKEN:
            self._name_liar(name, fault, tag)
            self.leave_alone(name)
            raise OperationFault(f"{name} answers nonsense: {fault}") from fault
        self._answered(name, asked_at)

    def _name_liar(self, name: str, fault: PeerFault, tag: bytes) -> None:
        node = self._links[name].node if name in self._links else None
        if self._findings is not None and node is not None:
            accused = Accused(name, node, self.slot, tag)
            wall_s = self.network.clock.wall()
            self._findings.note(accused, BY_CODE[fault.code], str(fault), wall_s)

    def _told_to_wait(self, name: str, code: str, wait_s: float) -> None:
        clock = self.network.clock
        long = code in NOT_WAITED_FOR
        wait_s = max(wait_s * clock.scale, BACKOFF_S[-1] if long else 0.0)
        self.health.asked_to_wait(name, clock.elapsed(), wait_s)
        if long or code == "slot":
            self._hold_nothing_back(name)

    def _hold_nothing_back(self, name: str) -> None:
        if name not in self._down:
            self._down.add(name)
            for listener in self._listeners:
                listener.down(name)


def _version_of(staple: Staple) -> Version:
    """The version a witness set claims; verified when it is taken."""
    try:
        return decode_body(Type.WITNESSES, WitnessSet, staple.signed).version
    except PeerFault:
        return Version(0, 0)
