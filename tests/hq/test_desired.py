"""Desired state: whole, versioned by the store, told at once to those it concerns only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from holdfast.crypto.keys import SigningKey
from holdfast.errors import PeerFault
from holdfast.hq.desired import Constants, DesiredBook
from holdfast.hq.leader import TERM
from holdfast.logic.fleet.model import OPERATOR, Role, Seat, SlotRecord, Version
from holdfast.logic.fleet.rows import (
    SERVERS,
    MoveRow,
    NodeRow,
    NodeState,
    ServerRow,
    ServerState,
    SlotRow,
    key_of,
    node_key,
)
from holdfast.rim.clock import SystemClock
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.control.store import ControlStore, Delete, Put
from holdfast.wire.codec import pack
from holdfast.wire.envelope import sign
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type

KEY = SigningKey(b"h" * 32)
NETWORK = bytes(16)
NODES = [bytes([n]) * 32 for n in range(1, 9)]


def node_row(index: int, **changes: object) -> NodeRow:
    values: dict[str, object] = {
        "node": NODES[index], "identity": b"", "name": f"relay-eu-00{index}", "role": Role.RELAY,
        "region": "eu", "provider": "p", "owner": OPERATOR, "addresses": (), "serial": "1",
        "cert_expires_at": 0, "joined_at": 0.0,
    }  # fmt: skip
    return NodeRow(**(values | changes))  # type: ignore[arg-type]


def server_row(index: int, **changes: object) -> ServerRow:
    values: dict[str, object] = {
        "name": f"relay-eu-00{index}", "role": Role.RELAY, "region": "eu", "provider": "p",
        "owner": OPERATOR, "state": ServerState.ACTIVE, "node": NODES[index],
    }  # fmt: skip
    return ServerRow(**(values | changes))  # type: ignore[arg-type]


def slot_row(slot: int, nodes: list[int], version: int = 1, groups: int = 0) -> SlotRow:
    seats = tuple(
        Seat(f"relay-eu-00{index}", NODES[index], ("127.0.0.1:1",), "p", OPERATOR, "eu")
        for index in nodes
    )
    id = bytes([slot]) * 16
    record = SlotRecord(NETWORK, id, Version(0, version), 0, seats[:3], seats[3:])
    staple = Staple(sign(KEY, Type.SLOT_RECORD, record), b"proof")
    names = tuple(seat.name for seat in seats)
    return SlotRow(
        id, "eu", Version(0, version), names[:3], names[3:], 0.0, groups, pack(staple), seats
    )


async def put(store: ControlStore, *rows: NodeRow | ServerRow | SlotRow | MoveRow) -> int:
    reply = await store.txn([], [Put(key_of(row), pack(row)) for row in rows])
    return reply.revision


Scenario = Callable[[ControlStore, DesiredBook], Awaitable[None]]


def run(scenario: Scenario) -> None:
    """Eight nodes, two slots of six: 0-5 and 2-7."""

    async def main() -> None:
        store = await SqliteStore.open(None, SystemClock())
        await put(store, *(node_row(n) for n in range(8)), *(server_row(n) for n in range(8)))
        await put(store, slot_row(1, [0, 1, 2, 3, 4, 5]), slot_row(2, [2, 3, 4, 5, 6, 7]))
        book = DesiredBook(store, SystemClock(), Constants(60.0, ("127.0.0.1:53",)))
        await book.start()
        async with asyncio.timeout(20):
            await scenario(store, book)
        await book.stop()
        await store.close()

    asyncio.run(main())


async def seen(store: ControlStore, book: DesiredBook, revision: int) -> None:
    """Return once the book has followed the fleet up to `revision`."""
    await put(store, node_row(0, name=f"marker-{revision}"))
    mark = f"marker-{revision}"
    while (row := book.node(NODES[0])) is None or row.name != mark:  # noqa: ASYNC110
        await asyncio.sleep(0)


def test_what_a_node_is_told() -> None:
    async def scenario(store: ControlStore, book: DesiredBook) -> None:
        desired = book.desired(NODES[2])
        assert (desired.name, desired.role, len(desired.slots)) == ("relay-eu-002", Role.RELAY, 2)
        assert (desired.retired, desired.draining) == (False, False)
        assert (desired.report_tag_age_s, desired.resolvers) == (60.0, ("127.0.0.1:53",))
        assert len(book.desired(NODES[0]).slots) == len(book.desired(NODES[7]).slots) == 1
        with pytest.raises(PeerFault):
            book.desired(b"z" * 32)

    run(scenario)


def test_only_the_touched_are_woken_and_computed() -> None:
    async def scenario(store: ControlStore, book: DesiredBook) -> None:
        versions = [book.desired(node).version for node in NODES]
        computed = book.computed
        waits = [
            asyncio.create_task(book.wait(node, version, 30.0))
            for node, version in zip(NODES, versions, strict=True)
        ]
        await asyncio.sleep(0)
        revision = await put(store, slot_row(2, [2, 3, 4, 5, 6, 1], version=2))
        touched = {1, 2, 3, 4, 5, 6, 7}
        done, _ = await asyncio.wait([waits[index] for index in touched])
        assert {task.result().version for task in done} == {revision}
        assert not waits[0].done()
        assert book.computed == computed + len(touched)
        assert len(waits[1].result().slots) == 2
        assert waits[7].result().slots == (), "it lost its seat, and hears of it"
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        assert not book._waiters

    run(scenario)


def test_what_concerns_nobody_wakes_nobody() -> None:
    """A tier, a load, a group more on a slot: HQ's business."""

    async def scenario(store: ControlStore, book: DesiredBook) -> None:
        before = [book.version(node) for node in NODES[1:]]
        computed = book.computed
        revision = await put(
            store,
            server_row(3, first_failed_at=5.0, filled=True),
            node_row(4, serial="2", addresses=("127.0.0.9:1",)),
            slot_row(1, [0, 1, 2, 3, 4, 5], groups=9),
        )
        await seen(store, book, revision)
        assert [book.version(node) for node in NODES[1:]] == before
        assert book.computed == computed

    run(scenario)


def test_draining_retiring_and_terms() -> None:
    async def scenario(store: ControlStore, book: DesiredBook) -> None:
        version = book.version(NODES[3])
        await put(store, server_row(3, draining=True))
        desired = await book.wait(NODES[3], version, 30.0)
        assert (desired.draining, desired.version > version) == (True, True)
        await put(store, server_row(3, node=NODES[4], draining=True))
        desired = await book.wait(NODES[3], desired.version, 30.0)
        assert not desired.draining, "another node sits there now"
        await put(store, node_row(3, state=NodeState.RETIRED))
        desired = await book.wait(NODES[3], desired.version, 30.0)
        assert desired.retired
        await store.txn([], [Put(TERM, b"7")])
        while book.term != 7:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert book.desired(NODES[3]).term == 7

    run(scenario)


def test_whoever_lost_its_seat_hears_who_has_it_until_it_is_retired() -> None:
    """seed 004 §6.2: clients learn the way from the server they are at."""

    async def scenario(store: ControlStore, book: DesiredBook) -> None:
        version = book.version(NODES[6])
        assert book.desired(NODES[6]).left == ()
        await put(
            store,
            server_row(6, node=NODES[1], draining=True),
            slot_row(2, [2, 3, 4, 5, 1, 7], version=2),
        )
        desired = await book.wait(NODES[6], version, 30.0)
        assert desired.slots == ()
        assert desired.left == book.desired(NODES[1]).slots[-1:], "the slot it had, no other"
        await put(store, slot_row(2, [2, 3, 4, 5, 1, 0], version=3))
        desired = await book.wait(NODES[6], desired.version, 30.0)
        assert desired.left == book.desired(NODES[1]).slots[-1:], "and what became of it since"
        fresh = DesiredBook(store, SystemClock(), Constants(60.0, ()))
        await fresh.start()
        assert desired.left[0] in fresh.desired(NODES[6]).left, "also after a restart"
        await fresh.stop()
        await put(store, node_row(6, state=NodeState.RETIRED))
        assert (await book.wait(NODES[6], desired.version, 30.0)).left == ()

    run(scenario)


def test_versions_never_fall_and_a_restarted_book_answers() -> None:
    """A slot is gone: what is left of a node's inputs is older than what it was told."""

    async def scenario(store: ControlStore, book: DesiredBook) -> None:
        version = book.version(NODES[7])
        await store.txn([], [Delete(key_of(slot_row(2, [])))])
        told = await book.wait(NODES[7], version, 30.0)
        assert (told.slots, told.version > version) == ((), True)
        fresh = DesiredBook(store, SystemClock(), Constants(60.0, ()))
        await fresh.start()
        assert fresh.version(NODES[7]) >= told.version
        await fresh.stop()

    run(scenario)


def test_a_node_that_joined_a_moment_ago_is_found() -> None:
    async def scenario(store: ControlStore, book: DesiredBook) -> None:
        row = node_row(1, node=b"new".ljust(32), name="relay-eu-099")
        for task in book.tasks:
            task.cancel()
        await put(store, row)
        assert book.node(row.node) is None
        assert await book.find(row.node) == row
        assert book.desired(row.node).name == "relay-eu-099"
        assert await book.find(b"z" * 32) is None

    run(scenario)


def test_it_goes_on_after_compaction(tmp_path: Path) -> None:
    """History that is gone is read anew: nobody waits for ever (D26)."""

    async def main() -> None:
        path = tmp_path / "control.db"
        store = await SqliteStore.open(path, SystemClock(), history_revisions=20)
        await put(store, node_row(1), server_row(1))
        book = DesiredBook(store, SystemClock(), Constants(60.0, ()))
        await book.start()
        waiting = asyncio.create_task(book.wait(NODES[1], book.version(NODES[1]), 30.0))
        await asyncio.sleep(0)
        for count in range(60):
            await store.txn([], [Put(f"{SERVERS}x{count}", pack(server_row(2)))])
        await store.compact(await store.revision())
        await put(store, node_row(1, state=NodeState.RETIRED))
        async with asyncio.timeout(20):
            while not (await waiting).retired:
                waiting = asyncio.create_task(book.wait(NODES[1], book.version(NODES[1]), 1.0))
        assert await store.get(node_key(NODES[1])) is not None
        await book.stop()
        await store.close()

    asyncio.run(main())


def test_a_slot_that_moved_is_left_until_its_new_server_is_filled() -> None:
    """ADR 0017 for one slot: the node that gave it stays in all its others."""

    async def scenario(store: ControlStore, book: DesiredBook) -> None:
        version = book.version(NODES[2])
        move = MoveRow(
            b"\1" * 16, Role.RELAY, "relay-eu-002", NODES[2], "relay-eu-007", NODES[7], 1.0
        )
        await put(store, move, slot_row(1, [0, 1, 7, 3, 4, 5], version=2))
        desired = await book.wait(NODES[2], version, 30.0)
        assert (len(desired.slots), len(desired.left)) == (1, 1)
        assert len((await book.wait(NODES[7], version, 30.0)).slots) == 2
        again = DesiredBook(store, SystemClock(), Constants(60.0, ()))
        await again.start()
        assert len(again.desired(NODES[2]).left) == 1, "another headquarters knows it from the rows"
        await store.txn([], [Delete(key_of(move))])
        desired = await book.wait(NODES[2], desired.version, 30.0)
        assert (len(desired.slots), len(desired.left)) == (1, 0)
        await again.wait(NODES[2], again.version(NODES[2]), 0.5)
        assert again.desired(NODES[2]).left == ()
        await again.stop()

    run(scenario)
