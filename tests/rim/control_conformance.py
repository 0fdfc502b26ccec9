"""What every control store must do (D26), whatever stands under it.

`CASES` are coroutines that take an `Opener`: call it for a store on the same data as often as
wanted, as several processes would. `test_control.py` runs them over every implementation.

Where time is on trial a case takes a `Timed` opener, whose clocks it turns: by hand where the store
counts on its clock, by waiting where the store counts for itself (etcd).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pytest

from holdfast.errors import UsageError
from holdfast.limits import TXN_OPERATIONS_MAX, VALUE_BYTES_MAX
from holdfast.rim.clock import Clock, ManualClock, SystemClock
from holdfast.rim.control.store import (
    Batch,
    Compacted,
    Compare,
    ControlStore,
    Delete,
    Field,
    Get,
    LeaseGone,
    Put,
    Relation,
    absent,
    present,
    unchanged,
    value_is,
)

Opener = Callable[[Clock], Awaitable[ControlStore]]


class Turned(Protocol):
    """A clock that a case lets run on."""

    def clock(self) -> Clock: ...

    async def advance(self, seconds: float) -> None: ...

    def step_wall(self, seconds: float) -> None: ...


class ByHand:
    """A `Turned` for stores that count on their clock."""

    def __init__(self, elapsed_s: float = 0.0) -> None:
        self._clock = ManualClock(elapsed_s)

    def clock(self) -> Clock:
        return self._clock

    async def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)

    def step_wall(self, seconds: float) -> None:
        self._clock.step_wall(seconds)


class ByWaiting:
    """A `Turned` for stores that count real seconds: eight elapsed ones in each."""

    SCALE = 8.0

    def __init__(self) -> None:
        self._clock = SystemClock(self.SCALE)

    def clock(self) -> Clock:
        return self._clock

    async def advance(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.SCALE)

    def step_wall(self, seconds: float) -> None:
        """Nothing of ours reaches that store's wall clock, which is what the case wants to know."""


def run_case(case: Callable[[Opener], Awaitable[None]], make: Opener) -> None:
    """Run one case over stores that `make` opens, and close those of this loop."""

    async def main() -> None:
        opened: list[tuple[asyncio.AbstractEventLoop, ControlStore]] = []

        async def opener(clock: Clock) -> ControlStore:
            store = await make(clock)
            opened.append((asyncio.get_running_loop(), store))
            return store

        try:
            await case(opener)
        finally:
            here = asyncio.get_running_loop()
            await asyncio.gather(*(store.close() for loop, store in opened if loop is here))

    asyncio.run(main())


async def take(batches: AsyncIterator[Batch], count: int) -> list[Batch]:
    """The next `count` batches; fails after ten real seconds."""
    found: list[Batch] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found.append(await anext(batches))
    return found


async def case_revisions_and_versions(opener: Opener) -> None:
    store = await opener(SystemClock())
    assert await store.revision() == 0
    assert await store.get("/a") is None
    first = await store.txn([], [Put("/a", b"1"), Put("/b", b"2")])
    second = await store.txn([], [Put("/a", b"3"), Get("/a")])
    assert (first.succeeded, first.revision, second.revision) == (True, 1, 2)
    kv = await store.get("/a")
    assert second.reads == (kv,)
    assert kv is not None
    assert (kv.value, kv.create_revision, kv.mod_revision, kv.version) == (b"3", 1, 2, 2)
    await store.txn([], [Delete("/a")])
    assert await store.get("/a") is None
    again = await store.txn([], [Put("/a", b"4"), Get("/a"), Get("/none")])
    assert again.reads[1] is None
    assert again.reads[0] is not None
    assert (again.reads[0].create_revision, again.reads[0].version) == (4, 1)


async def case_nothing_changed_is_no_revision(opener: Opener) -> None:
    store = await opener(SystemClock())
    reply = await store.txn([present("/a")], [Put("/a", b"1")], [Get("/a"), Delete("/a")])
    assert (reply.succeeded, reply.revision, reply.reads) == (False, 0, (None,))
    assert await store.revision() == 0


async def case_compares(opener: Opener) -> None:
    store = await opener(SystemClock())
    await store.txn([], [Put("/a", b"1")])
    kv = await store.get("/a")
    holds = [
        absent("/z"),
        present("/a"),
        unchanged("/a", kv),
        unchanged("/z", None),
        value_is("/a", b"1"),
        Compare("/a", Field.VALUE, b"0", Relation.GREATER),
        Compare("/a", Field.VALUE, b"2", Relation.NOT_EQUAL),
        Compare("/a", Field.MOD_REVISION, 2, Relation.LESS),
        Compare("/a", Field.CREATE_REVISION, 1),
        Compare("/a", Field.VERSION, 1),
    ]
    fails = [
        absent("/a"),
        present("/z"),
        unchanged("/a", None),
        value_is("/a", b"2"),
        value_is("/z", b""),
        Compare("/z", Field.VALUE, b"", Relation.NOT_EQUAL),
        Compare("/a", Field.MOD_REVISION, 1, Relation.LESS),
    ]
    assert (await store.txn(holds, [Get("/a")])).succeeded
    for compare in fails:
        assert not (await store.txn([compare], [])).succeeded, compare
        assert not (await store.txn([*holds, compare], [])).succeeded, compare


async def case_range(opener: Opener) -> None:
    store = await opener(SystemClock())
    names = ["/a", "/a/", "/a/1", "/a/2", "/a/3~", "/a0", "/b"]
    await store.txn([], [Put(name, name.encode()) for name in reversed(names)])
    reply = await store.range("/a/")
    assert [kv.key for kv in reply.items] == ["/a/", "/a/1", "/a/2", "/a/3~"]
    assert (reply.revision, reply.more) == (1, False)
    page = await store.range("/a/", limit=3)
    assert ([kv.key for kv in page.items], page.more) == (["/a/", "/a/1", "/a/2"], True)
    rest = await store.range("/a/", limit=3, after="/a/2")
    assert ([kv.key for kv in rest.items], rest.more) == (["/a/3~"], False)


async def case_limits(opener: Opener) -> None:
    """D26: etcd's own limits, on the side that is strict."""
    store = await opener(SystemClock())
    most = [Put(f"/k/{index:03}", b"x") for index in range(TXN_OPERATIONS_MAX)]
    assert (await store.txn([], most)).revision == 1
    await store.txn([], [Put("/large", bytes(VALUE_BYTES_MAX))])
    kv = await store.get("/large")
    assert kv is not None
    assert len(kv.value) == VALUE_BYTES_MAX
    over: list[tuple[list[Compare], list[Put | Delete | Get]]] = [
        ([], [*most, Put("/k/more", b"x")]),
        ([absent("/x")] * (TXN_OPERATIONS_MAX + 1), []),
        ([], [Put("/x", bytes(VALUE_BYTES_MAX + 1))]),
        ([], [Put("/x", b"1"), Put("/x", b"2")]),
        ([], [Put("/x", b"1"), Delete("/x")]),
        ([], [Put("", b"1")]),
        ([], [Put("/\u00e9", b"1")]),
        ([], [Put("/a\nb", b"1")]),
        ([Compare("/a", Field.VALUE, 1)], []),
        ([Compare("/a", Field.VERSION, b"1")], []),
    ]
    for compares, operations in over:
        with pytest.raises(UsageError):
            await store.txn(compares, operations)
    assert await store.revision() == 2


async def case_watch_replays_and_follows(opener: Opener) -> None:
    store = await opener(SystemClock())
    await store.txn([], [Put("/a/1", b"1"), Put("/b/1", b"1")])
    watch = store.watch("/a/", 1)
    assert [b.revision for b in await take(watch, 1)] == [1]
    other = await opener(SystemClock())
    await other.txn([], [Put("/b/2", b"2")])
    await other.txn([], [Put("/a/2", b"2"), Delete("/a/1"), Put("/a/3", b"3")])
    await store.txn([], [Put("/a/2", b"4")])
    third, fourth = await take(watch, 2)
    assert third.revision == 3
    assert [(e.kv.key, e.deleted, e.kv.value) for e in third.events] == [
        ("/a/2", False, b"2"),
        ("/a/1", True, b""),
        ("/a/3", False, b"3"),
    ]
    assert third.events[1].kv.version == 0
    assert (fourth.revision, fourth.events[0].kv.version) == (4, 2)


async def case_watch_sees_all_in_order(opener: Opener) -> None:
    """Writers on two stores, a watcher on each: every revision once, in order."""
    left, right = await opener(SystemClock()), await opener(SystemClock())
    count = 60

    async def write(store: ControlStore, name: str) -> None:
        for index in range(count):
            await store.txn([], [Put(f"/w/{name}/{index % 7}", str(index).encode())])

    async def follow(store: ControlStore) -> list[int]:
        return [batch.revision for batch in await take(store.watch("/w/", 1), 2 * count)]

    results = await asyncio.gather(follow(left), follow(right), write(left, "l"), write(right, "r"))
    assert results[0] == results[1] == list(range(1, 2 * count + 1))


async def case_compaction(opener: Opener) -> None:
    store = await opener(SystemClock())
    for index in range(10):
        await store.txn([], [Put("/a", str(index).encode()), Put(f"/k/{index}", b"x")])
    await store.compact(8)
    with pytest.raises(Compacted) as caught:
        await anext(store.watch("/a", 7))
    assert caught.value.revision == 8
    kv = await store.get("/a")
    assert kv is not None
    assert (kv.value, kv.version, kv.create_revision) == (b"9", 10, 1)
    assert len((await store.range("/k/")).items) == 10
    assert [b.revision for b in await take(store.watch("/a", 9), 2)] == [9, 10]
    with pytest.raises(UsageError):
        await store.compact(11)
    await store.compact(3)  # already forgotten: no change


async def timed_lease_expires_by_the_clock(opener: Opener, turn: Turned) -> None:
    store = await opener(turn.clock())
    lease = await store.grant(10.0)
    await store.txn([], [Put("/l/1", b"1", lease), Put("/l/2", b"2", lease), Put("/n", b"3")])
    watch = store.watch("/l/", 2)
    await turn.advance(9.0)
    await store.keep_alive(lease)
    await turn.advance(9.0)
    kv = await store.get("/l/1")
    assert kv is not None
    assert kv.lease == lease
    await turn.advance(1.1)
    (batch,) = await take(watch, 1)
    assert [(e.kv.key, e.deleted) for e in batch.events] == [("/l/1", True), ("/l/2", True)]
    assert await store.get("/n") is not None
    with pytest.raises(LeaseGone):
        await store.keep_alive(lease)
    with pytest.raises(LeaseGone):
        await store.txn([], [Put("/l/1", b"1", lease)])


async def timed_wall_clock_steps_end_no_lease(opener: Opener, turn: Turned) -> None:
    """D30: leases are timers."""
    store = await opener(turn.clock())
    lease = await store.grant(10.0)
    await store.txn([], [Put("/l", b"1", lease)])
    turn.step_wall(1e6)
    other = await opener(turn.clock())
    await other.txn([], [Put("/x", b"1")])
    await store.keep_alive(lease)
    assert await other.get("/l") is not None


async def case_put_moves_a_key_off_its_lease(opener: Opener) -> None:
    store = await opener(SystemClock())
    lease = await store.grant(1e6)
    await store.txn([], [Put("/l", b"1", lease), Put("/gone", b"1", lease)])
    await store.txn([], [Put("/l", b"2")])
    await store.revoke(lease)
    await store.revoke(lease)
    assert await store.get("/gone") is None
    kv = await store.get("/l")
    assert kv is not None
    assert kv.lease == 0


async def timed_lease_of_a_dead_holder_ends_for_others(opener: Opener, turn: Turned) -> None:
    """The holder's process stops renewing; a second one notices, whatever the first one's clock."""
    holder, other = await opener(SystemClock(turn.clock().scale)), await opener(turn.clock())
    lease = await holder.grant(10.0)
    await holder.txn([], [Put("/hq/leader", b"a", lease)])
    await take(other.watch("/hq/leader", 1), 1)
    for _ in range(5):
        await turn.advance(6.0)
        await holder.keep_alive(lease)
        # a batch on the other side proves that its poller ran since the renewal
        await holder.txn([], [Put("/tick", b"")])
        await take(other.watch("/tick", await holder.revision()), 1)
        assert await other.get("/hq/leader") is not None
    await holder.close()
    async with asyncio.timeout(10):
        while await other.get("/hq/leader") is not None:
            await turn.advance(1.0)
            await asyncio.sleep(0.01)


async def case_concurrent_compare_and_set(opener: Opener) -> None:
    """Threads with a store each count to the same number, no step lost."""
    threads, steps = 4, 25

    async def count() -> None:
        store = await opener(SystemClock())
        done = 0
        while done < steps:
            kv = await store.get("/counter")
            value = str(int(kv.value) + 1 if kv else 1).encode()
            reply = await store.txn([unchanged("/counter", kv)], [Put("/counter", value)])
            done += reply.succeeded
        await store.close()

    with ThreadPoolExecutor(threads) as pool:
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            *(loop.run_in_executor(pool, asyncio.run, count()) for _ in range(threads))
        )
    store = await opener(SystemClock())
    kv = await store.get("/counter")
    assert kv is not None
    assert (int(kv.value), kv.version) == (threads * steps, threads * steps)


async def case_one_winner(opener: Opener) -> None:
    """Fifty at once want to create one key: one does, all others see its value (D8's shape)."""
    stores = [await opener(SystemClock()) for _ in range(2)]
    replies = await asyncio.gather(
        *(
            stores[index % 2].txn(
                [absent("/token")], [Put("/token", str(index).encode())], [Get("/token")]
            )
            for index in range(50)
        )
    )
    winners = [index for index, reply in enumerate(replies) if reply.succeeded]
    assert len(winners) == 1
    for reply in replies:
        if not reply.succeeded:
            assert reply.reads[0] is not None
            assert int(reply.reads[0].value) == winners[0]


async def case_reopened_store_keeps_everything(opener: Opener) -> None:
    store = await opener(SystemClock())
    await store.txn([], [Put("/a", b"1")])
    await store.txn([], [Put("/a", b"2")])
    before = await store.get("/a")
    await store.close()
    store = await opener(SystemClock())
    assert await store.get("/a") == before
    assert [b.revision for b in await take(store.watch("/a", 1), 2)] == [1, 2]


async def case_close_ends_watches(opener: Opener) -> None:
    store = await opener(SystemClock())

    async def follow() -> list[Batch]:
        return [batch async for batch in store.watch("/a", 1)]

    following = asyncio.create_task(follow())
    await store.txn([], [Put("/b", b"1")])
    await asyncio.sleep(0)
    await store.close()
    async with asyncio.timeout(10):
        assert await following == []


CASES: list[Callable[[Opener], Awaitable[None]]] = [
    value for name, value in list(globals().items()) if name.startswith("case_")
]
TIMED: list[Callable[[Opener, Turned], Awaitable[None]]] = [
    value for name, value in list(globals().items()) if name.startswith("timed_")
]
