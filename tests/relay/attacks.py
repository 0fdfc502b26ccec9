"""Attacks on a relay through its own socket, for the tests that switch its defences off.

Each returns true when it succeeded; it has failed when it returns false or is refused.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from typing import Any

import msgspec
from tests.relay.harness import Pool, today
from tests.relay.tickets import Office

from holdfast.crypto.blob import seal
from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import HoldfastError
from holdfast.fabric.session import Have, Session
from holdfast.logic.fleet.model import SlotRecord, Tier
from holdfast.relay.desk import Desk
from holdfast.rim.entropy import Dice
from holdfast.rim.pool_client import tls_context
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


def blob(era: Era, payload: bytes = b"x", born: int | None = None) -> bytes:
    return seal(era, 1, payload, today() if born is None else born)


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
    era = stage.pool.era()
    session = await Session.open(stage.pool.client(TWO), era.access, stage.slot)
    body = blob(era)
    await session.push(BlobClass.LOG, [body])
    liar = stage.lies(TWO, Corrupts, era.tag)
    server = stage.pool.servers[TWO].running.server
    server._handler = _ToEverybody(server._handler, liar)
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
