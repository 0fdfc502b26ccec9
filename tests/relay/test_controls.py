"""Every defence of a relay, switched off: the attack it is there for succeeds (THREATS).

One row is a defence, how it is switched off in this process, and an attack through the relay's own
socket. Each attack is made twice, on a pool of its own: with the defence it fails, without it
succeeds. A defence whose attack fails either way is not what stops it, and its row fails.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from tests.relay.harness import Pool, today
from tests.relay.tickets import Office

from holdfast.crypto.blindrsa import BlindPublicKey
from holdfast.crypto.blob import seal
from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import HoldfastError
from holdfast.fabric import session as fabric_session
from holdfast.fabric.session import Have, Session
from holdfast.logic.fleet.model import SlotRecord, Tier
from holdfast.relay import opening, verbs
from holdfast.relay.desk import Desk
from holdfast.relay.door import VERBS
from holdfast.relay.policy import RelayPolicy
from holdfast.relay.rates import Rates
from holdfast.relay.sessions import Challenges, Sessions
from holdfast.relay.tickets import TicketBook
from holdfast.rim import pool_server
from holdfast.rim.entropy import Dice
from holdfast.rim.pool_client import tls_context
from holdfast.rim.pool_server import PoolServer
from holdfast.rim.stalled import StalledConnections
from holdfast.rim.store.disk import DiskStore
from holdfast.rim.store.port import StorePolicy
from holdfast.sim.drills.lies import Corrupts, ForgesReceipts
from holdfast.sim.drills.lying import Ears, Liar, LyingDoor
from holdfast.wire.envelope import sign
from holdfast.wire.pool import (
    BlobClass,
    HelloReply,
    HelloRequest,
    OpenReply,
    OpenRequest,
    ReconcileReply,
    ReconcileRequest,
    SessionProof,
)
from holdfast.wire.signed import Type

ONE, TWO = "relay-eu-001", "relay-eu-002"
HANG_S = 0.8
"""How long a connection is held that must not be; four times what the rows allow it."""
Patch = pytest.MonkeyPatch


class Stage:
    """One relay under attack, and a second one of the same slot."""

    def __init__(self, pool: Pool, record: SlotRecord) -> None:
        self.pool = pool
        self.slot = record.slot
        self.office = Office(pool.network)

    @property
    def relay(self) -> Any:
        return self.pool.servers[ONE].running

    @property
    def desk(self) -> Desk:
        desk: Desk = self.relay.desk
        return desk

    async def open(self, era: Era | None = None, ticket: bytes = b"") -> Session:
        """A stranger's session, or a group's."""
        key = (era or self.pool.era()).access
        return await Session.open(self.pool.client(ONE), key, self.slot, have=Have(ticket=ticket))

    async def member(self) -> tuple[Session, Era]:
        """A session of a group that has a blob here."""
        era = self.pool.era()
        session = await self.open(era)
        await session.push(BlobClass.LOG, [blob(era)])
        return session, era

    def tickets(self, **terms: Any) -> None:
        """From now on the first push of a tag spends a ticket."""
        self.office.offer("plain", **terms)
        self.pool.ticket_keys = self.office.keys()
        for server in self.pool.servers.values():
            self.pool.tell(server)

    def lies(self, name: str, kind: type[Liar], tag: bytes) -> Liar:
        """A server lies to a tag from now on."""
        server = self.pool.servers[name].running
        door = LyingDoor(server.desk, Ears())
        server.server._handler = door
        liar = door.liars[tag] = kind(server.desk, self.slot, tag, Dice(1))
        return liar

    async def proof(self, **fields: Any) -> None:
        """Open with a proof that differs from an honest one in `fields`. Raises PeerFault."""
        client = self.pool.client(ONE)
        await client.connect()
        hello, _ = await client.call("hello", HelloRequest((1,)), HelloReply)
        honest = SessionProof(hello.challenge, self.desk.node, client.leaf, self.slot)
        proof = sign(
            self.pool.era().access, Type.SESSION, msgspec.structs.replace(honest, **fields)
        )
        await client.call("open", OpenRequest(proof, False, None), OpenReply)

    async def hangs(self, sent: bytes, *, tls: bool) -> bool:
        """Whether a connection on which this was sent and no more stays open for `HANG_S`."""
        context = tls_context(self.pool.roots) if tls else None
        port = self.pool.servers[ONE].port
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(sent)
        try:
            async with asyncio.timeout(HANG_S):
                await reader.read(4096)
            return False
        except TimeoutError:
            return True
        finally:
            writer.transport.abort()


Attack = Callable[[Stage], Awaitable[object]]


class Row(NamedTuple):
    """`off` switches the defence off before the servers start, `off_at` in a running one. `setup`
    makes limits small enough to be reached, for both runs. An attack succeeds when it returns
    true, and fails when it returns false or is refused."""

    defence: str
    attack: Attack
    off: Callable[[Patch], object] = lambda patch: None
    off_at: Callable[[Stage], object] = lambda stage: None
    setup: Callable[[Patch], object] = lambda patch: None
    policy: RelayPolicy = RelayPolicy()
    report_tag_age_s: float = 0.0


def blob(era: Era, payload: bytes = b"x", born: int | None = None) -> bytes:
    return seal(era, 1, payload, today() if born is None else born)


def _nothing(*_: Any, **__: Any) -> None:
    """A check that checks nothing."""


async def _asleep(*_: Any) -> None:
    """A sweeper that sweeps nothing."""


def _set(where: object, name: str, put: object) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(where, name, put)


def _limit(name: str, put: object) -> Callable[[Patch], None]:
    """A limit, where the module that keeps to it reads it."""
    return lambda patch: patch.setattr(f"holdfast.{name}", put)


# --- Rates, rooms, places ------------------------------------------------------------------------
async def flood_of_strangers(stage: Stage) -> bool:
    client = stage.pool.client(ONE)
    for _ in range(60):
        await client.call("hello", HelloRequest((1,)), HelloReply)
    return True


async def flood_of_a_tag(stage: Stage) -> bool:
    session = await stage.open()
    for _ in range(12):
        await session.have([bytes(32)])
    return True


async def flood_of_a_peer(stage: Stage) -> bool:
    session = await stage.pool.peer_session(ONE, stage.pool.servers[TWO], stage.slot)
    for _ in range(12):
        await session.days()
    return True


async def one_group_fills_the_disk(stage: Stage) -> bool:
    session, era = await stage.member()
    for n in range(5):
        await session.push(BlobClass.LOG, [blob(era, b"%d" % n)])
    return True


async def a_small_ticket_fills_the_disk(stage: Stage) -> bool:
    stage.tickets(bytes_max=2_048)
    era = stage.pool.era()
    session = await stage.open(era, stage.office.draw("plain"))
    for n in range(4):
        await session.push(BlobClass.LOG, [blob(era, b"%d" % n)])
    return True


async def sessions_without_end(stage: Stage) -> bool:
    for _ in range(6):
        await stage.open()
    return len(stage.desk.sessions) >= 6


async def strangers_take_all_places_and_leave(stage: Stage) -> bool:
    """Succeeds when somebody who comes later is turned away."""
    await _take_all_places(stage)
    await asyncio.sleep(0.1)
    return await _refused(stage.open())


async def strangers_lock_the_neighbour_out(stage: Stage) -> bool:
    """Succeeds when a server of the slot finds no place: it would hold us for dead."""
    await _take_all_places(stage)
    return await _refused(stage.pool.peer_session(ONE, stage.pool.servers[TWO], stage.slot))


async def _take_all_places(stage: Stage) -> None:
    for _ in range(8):
        if await _refused(stage.open()):
            return


async def _refused(work: Awaitable[object]) -> bool:
    try:
        await work
    except HoldfastError as error:
        return getattr(error, "code", "") == "busy"
    return False


# --- Who is speaking -----------------------------------------------------------------------------
async def a_proof_made_for_another_server(stage: Stage) -> bool:
    """A hostile server passes our challenge on to its own client, and the answer back to us."""
    await stage.proof(node=stage.pool.servers[TWO].node)
    return True


async def a_proof_made_over_another_connection(stage: Stage) -> bool:
    """Somebody in the middle, with a certificate of their own."""
    await stage.proof(leaf=os.urandom(32))
    return True


async def a_proof_over_a_foreign_challenge(stage: Stage) -> bool:
    """One that the attacker chose, and had signed long ago."""
    await stage.proof(challenge=stage.pool.servers[TWO].running.desk.challenges.make())
    return True


async def an_old_proof_again(stage: Stage) -> bool:
    challenge = stage.desk.challenges.make()
    await asyncio.sleep(0.2)
    await stage.proof(challenge=challenge)
    return True


async def a_stranger_speaks_as_a_server(stage: Stage) -> bool:
    await Session.open(stage.pool.client(ONE), SigningKey(os.urandom(32)), stage.slot, peer=True)
    return True


async def an_excluded_server_speaks(stage: Stage) -> bool:
    stage.pool.revoke(stage.pool.servers[TWO])
    await stage.pool.peer_session(ONE, stage.pool.servers[TWO], stage.slot)
    return True


async def a_group_reads_the_whole_slot(stage: Stage) -> bool:
    """Whose tags are here, how much and when: a server's verb."""
    await stage.member()
    session = await stage.open()
    request = ReconcileRequest(session.token)
    reply, _ = await session.client.call("reconcile", request, ReconcileReply)
    return bool(reply.days)


# --- What is stored ------------------------------------------------------------------------------
async def born_in_the_future(stage: Stage) -> bool:
    """A blob that no relay would ever forget."""
    era = stage.pool.era()
    await (await stage.open(era)).push(BlobClass.LOG, [blob(era, born=today() + 1_000)])
    return True


async def born_long_ago(stage: Stage) -> bool:
    """A blob that a relay drops as soon as it has signed for it."""
    era = stage.pool.era()
    await (await stage.open(era)).push(BlobClass.LOG, [blob(era, born=today() - 1_000)])
    return True


async def a_neighbour_sends_another_body(stage: Stage) -> bool:
    """Reconciling from a server that changes what it hands out. Succeeds when it is kept under
    the name of what it is not."""
    era, body = stage.pool.era(), b""
    session = await Session.open(stage.pool.client(TWO), era.access, stage.slot)
    body = blob(era)
    await session.push(BlobClass.LOG, [body])
    door = stage.lies(TWO, Corrupts, era.tag)
    server = stage.pool.servers[TWO].running.server
    door.change = lambda data, others: data[:-1] + bytes((data[-1] ^ 1,))  # type: ignore[attr-defined]
    server._handler = _ToEverybody(server._handler, door)
    await stage.relay.reconciler.round()
    return bool(stage.desk.store.sizes(stage.slot, era.tag, [hash_bytes(body)]))


class _ToEverybody:
    """A door that lies to servers too."""

    def __init__(self, door: LyingDoor, liar: Liar) -> None:
        self._door = door
        self._liar = liar

    async def answer(self, verb: str, body: bytes) -> tuple[int, bytes]:
        if verb == "get":
            return await self._liar.answer(self._door._inner, verb, body)
        return await self._door.answer(verb, body)


async def a_receipt_that_proves_nothing(stage: Stage) -> bool:
    """Succeeds when the client takes a push for stored that the server never signed for."""
    era = stage.pool.era()
    session = await stage.open(era)
    stage.lies(ONE, ForgesReceipts, era.tag)
    await session.push(BlobClass.LOG, [blob(era)])
    return True


# --- Death reports -------------------------------------------------------------------------------
def _counted(stage: Stage) -> bool:
    return stage.desk.counts["reports_counted"] > 0


async def a_tag_without_blobs_reports(stage: Stage) -> bool:
    await (await stage.open()).report(TWO, 0.0, "eu")
    return _counted(stage)


async def a_young_tag_reports(stage: Stage) -> bool:
    session, _ = await stage.member()
    await session.report(TWO, 0.0, "eu")
    return _counted(stage)


async def a_tag_without_a_ticket_reports(stage: Stage) -> bool:
    session, _ = await stage.member()
    stage.tickets()
    await session.report(TWO, 0.0, "eu")
    return _counted(stage)


async def one_tag_reports_many_times(stage: Stage) -> bool:
    """Succeeds when a neighbour that is well comes under suspicion."""
    session, _ = await stage.member()
    for _ in range(20):
        await session.report(TWO, 0.0, "eu")
    observer = stage.relay._watchman._observer
    return bool(observer.tier(TWO) is not Tier.GREEN)


def _each_report_a_new_tag(stage: Stage) -> None:
    note = stage.desk.note_report
    stage.desk.note_report = lambda tag, name, region: note(os.urandom(32), name, region)


# --- Tickets -------------------------------------------------------------------------------------
async def a_push_without_a_ticket(stage: Stage) -> bool:
    stage.tickets()
    await stage.member()
    return True


async def one_ticket_for_two_tags(stage: Stage) -> bool:
    stage.tickets()
    ticket = stage.office.draw("plain")
    for _ in range(2):
        era = stage.pool.era()
        await (await stage.open(era, ticket)).push(BlobClass.LOG, [blob(era)])
    return True


async def a_ticket_that_nobody_signed(stage: Stage) -> bool:
    stage.tickets()
    good = stage.office.draw("plain")
    era = stage.pool.era()
    await (await stage.open(era, good[:-1] + bytes((good[-1] ^ 1,)))).push(
        BlobClass.LOG, [blob(era)]
    )
    return True


async def a_ticket_that_has_expired(stage: Stage) -> bool:
    stage.tickets(life_s=-10)
    era = stage.pool.era()
    await (await stage.open(era, stage.office.draw("plain"))).push(BlobClass.LOG, [blob(era)])
    return True


def _forget_spent(patch: Patch) -> None:
    """What was spent is forgotten at once."""
    admit = TicketBook.admit

    def forgetful(self: TicketBook, tag: bytes, data: bytes) -> Any:
        terms = admit(self, tag, data)
        self._database.run("delete from spent")
        return terms

    patch.setattr(TicketBook, "admit", forgetful)


class _Stopped:
    """A clock that stands still at the beginning of time."""

    def wall(self) -> float:
        return 0.0


def _stop_clock(stage: Stage) -> None:
    stage.desk.tickets._clock = _Stopped()  # type: ignore[assignment]


# --- Connections that hang on --------------------------------------------------------------------
_HEAD = b"POST /v1/push HTTP/1.1\r\nhost: x\r\n"


async def a_silent_connection(stage: Stage) -> bool:
    return await stage.hangs(b"", tls=False)


async def a_quiet_reader(stage: Stage) -> bool:
    """TLS, and not a word after it."""
    return await stage.hangs(b"", tls=True)


async def a_header_without_end(stage: Stage) -> bool:
    return await stage.hangs(_HEAD + b"x-slow: ", tls=True)


async def a_body_that_does_not_come(stage: Stage) -> bool:
    return await stage.hangs(_HEAD + b"content-length: 100\r\n\r\nslow", tls=True)


async def a_body_announced_too_large(stage: Stage) -> bool:
    """Succeeds when the server waits for it."""
    return await stage.hangs(_HEAD + b"content-length: 999999999\r\n\r\nx", tls=True)


async def many_bodies_at_once(stage: Stage) -> bool:
    """Each within the limit, together more than the memory for them."""
    sent = _HEAD + b"content-length: 4000\r\n\r\nx"
    hung = await asyncio.gather(*(stage.hangs(sent, tls=True) for _ in range(4)))
    return all(hung)


def _wide_open(patch: Patch) -> None:
    row = VERBS["reconcile"]
    patch.setitem(VERBS, "reconcile", row._replace(callers=VERBS["get"].callers))


def _quick(patch: Patch) -> None:
    """Seconds that a test can wait for."""
    for name, put in (
        ("pool_server.TLS_HANDSHAKE_S", 0.2),
        ("pool_server.BODY_READ_S", 60.0),
        ("stalled.STALLED_PERIOD_S", 0.05),
    ):
        patch.setattr(f"holdfast.rim.{name}", put)


_ANY_LEAF = type("AnyLeaf", (), {"__contains__": lambda self, leaf: True})()
_FEW = RelayPolicy(sessions_max=3)
_SLOW = RelayPolicy(
    tag_requests_per_s=0.01,
    tag_requests_burst=5,
    peer_requests_per_s=0.01,
    peer_requests_burst=5,
)
_SMALL = RelayPolicy(store=StorePolicy(group_bytes_max=3_000, reserve_bytes=0))
_DAY = 86_400.0

ROWS = (
    Row(
        "the bucket of everybody",
        flood_of_strangers,
        off=_set(Rates, "admit", _nothing),
        policy=RelayPolicy(requests_per_s=20),
    ),
    Row("the bucket of a tag", flood_of_a_tag, off=_set(Rates, "charge", _nothing), policy=_SLOW),
    Row("the bucket of a peer", flood_of_a_peer, off=_set(Rates, "charge", _nothing), policy=_SLOW),
    Row(
        "the quota of a group",
        one_group_fills_the_disk,
        off_at=lambda stage: stage.desk.store.allow(1 << 40),
        policy=_SMALL,
    ),
    Row(
        "the quota of a ticket",
        a_small_ticket_fills_the_disk,
        off=lambda patch: (
            patch.setattr(Desk, "store_bytes_max", 0),
            patch.setattr(DiskStore, "allow", _nothing),
        ),
    ),
    Row(
        "the number of sessions",
        sessions_without_end,
        off_at=lambda stage: setattr(stage.desk.sessions, "_sessions_max", 1 << 20),
        policy=_FEW,
    ),
    Row(
        "eviction of idle sessions",
        strangers_take_all_places_and_leave,
        off=_set(Sessions, "_evict", lambda self: False),
        setup=_limit("relay.sessions.SESSION_EVICT_S", 0.05),
        policy=_FEW,
    ),
    Row(
        "places for servers alone",
        strangers_lock_the_neighbour_out,
        off=_limit("relay.sessions.NODE_SESSIONS_MAX", 0),
        policy=_FEW,
    ),
    Row(
        "a proof names the server",
        a_proof_made_for_another_server,
        off=_set(opening, "check_node", _nothing),
    ),
    Row(
        "a proof names the TLS leaf",
        a_proof_made_over_another_connection,
        off_at=lambda stage: setattr(stage.desk, "leaves", lambda: _ANY_LEAF),
    ),
    Row(
        "a challenge is our own",
        a_proof_over_a_foreign_challenge,
        off=_set(Challenges, "check", _nothing),
    ),
    Row(
        "a challenge expires",
        an_old_proof_again,
        off=_limit("relay.sessions.CHALLENGE_LIFE_S", _DAY),
        setup=_limit("relay.sessions.CHALLENGE_LIFE_S", 0.1),
    ),
    Row(
        "servers are those of the record",
        a_stranger_speaks_as_a_server,
        off=_set(SlotRecord, "seat_of", lambda record, node: record.relays[0]),
    ),
    Row(
        "excluded servers are turned away",
        an_excluded_server_speaks,
        off=_set(Desk, "is_revoked", lambda desk, node: False),
    ),
    Row("verbs have callers", a_group_reads_the_whole_slot, off=_wide_open),
    Row(
        "born days are near today",
        born_in_the_future,
        off=_set(verbs, "BORN_SKEW_DAYS_MAX", 10_000),
    ),
    Row(
        "born days are not long past",
        born_long_ago,
        off=_set(verbs, "BORN_SKEW_DAYS_MAX", 10_000),
    ),
    Row(
        "an id is its body's hash",
        a_neighbour_sends_another_body,
        off=_set(fabric_session, "_checked", lambda blob, body: bytes(body)),
    ),
    Row(
        "clients verify receipts",
        a_receipt_that_proves_nothing,
        off=_set(fabric_session, "verify_receipts", _nothing),
    ),
    Row(
        "reports need stored blobs",
        a_tag_without_blobs_reports,
        off_at=lambda stage: setattr(stage.desk.store, "first_at", lambda slot, tag: 0.0),
    ),
    Row(
        "reports need blobs of some age",
        a_young_tag_reports,
        off_at=lambda stage: setattr(stage.desk, "report_tag_age_s", 0.0),
        report_tag_age_s=_DAY,
    ),
    Row(
        "reports need a ticket",
        a_tag_without_a_ticket_reports,
        off=_set(TicketBook, "required", False),
    ),
    Row(
        "a tag reports once",
        one_tag_reports_many_times,
        off_at=_each_report_a_new_tag,
    ),
    Row(
        "a push spends a ticket",
        a_push_without_a_ticket,
        off=_set(TicketBook, "may_push", lambda *_: True),
    ),
    Row("a ticket is spent once", one_ticket_for_two_tags, off=_forget_spent),
    Row(
        "a ticket is signed",
        a_ticket_that_nobody_signed,
        off=_set(BlindPublicKey, "verify", lambda *_: True),
    ),
    Row("a ticket expires", a_ticket_that_has_expired, off_at=_stop_clock),
    Row(
        "who says nothing is ended",
        a_silent_connection,
        off=_set(StalledConnections, "look", _asleep),
        setup=_quick,
    ),
    Row(
        "who falls silent is ended",
        a_quiet_reader,
        off=_set(StalledConnections, "look", _asleep),
        setup=lambda patch: (_quick(patch), patch.setattr(pool_server, "QUIET_S", 0.2)),
    ),
    Row(
        "a header comes in time",
        a_header_without_end,
        off=_limit("rim.pool_server.HEAD_READ_S", 60.0),
        setup=_limit("rim.pool_server.HEAD_READ_S", 0.2),
    ),
    Row(
        "a body comes in time",
        a_body_that_does_not_come,
        off=_set(PoolServer, "_sweep", _asleep),
        setup=_limit("rim.pool_server.BODY_READ_S", 0.2),
    ),
    Row(
        "a body is of a size",
        a_body_announced_too_large,
        off=lambda patch: (
            patch.setattr(pool_server, "REQUEST_BYTES_MAX", 1 << 40),
            patch.setattr(pool_server, "BODIES_IN_FLIGHT_BYTES_MAX", 1 << 40),
        ),
    ),
    Row(
        "bodies together are of a size",
        many_bodies_at_once,
        off=_limit("rim.pool_server.BODIES_IN_FLIGHT_BYTES_MAX", 1 << 40),
        setup=_limit("rim.pool_server.BODIES_IN_FLIGHT_BYTES_MAX", 10_000),
    ),
)


async def _succeeds(home: Path, row: Row, *, off: bool) -> bool:
    """Whether the row's attack succeeds on a pool of its own."""
    age_s = row.report_tag_age_s
    async with Pool(home, policy=row.policy, background=False, report_tag_age_s=age_s) as pool:
        stage = Stage(pool, await pool.seat(2, 0))
        if off:
            row.off_at(stage)
        try:
            return bool(await row.attack(stage))
        except HoldfastError:
            return False


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.defence)
def test_the_attack_fails_and_without_the_defence_it_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: Row
) -> None:
    for off in (False, True):
        with monkeypatch.context() as patch:
            row.setup(patch)
            if off:
                row.off(patch)
            found = asyncio.run(_succeeds(tmp_path / str(off), row, off=off))
            assert found is off, "not stopped" if found else "something else stops it"


def test_rows_differ() -> None:
    assert len({row.defence for row in ROWS}) == len(ROWS) >= 30
