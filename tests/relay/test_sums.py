"""A server whose sums are not those of its items is named by its peers (D11, D23)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.relay.harness import Pool, today

from holdfast.crypto.blob import seal
from holdfast.fabric.session import Session
from holdfast.relay.door import Door
from holdfast.relay.sums import Sums
from holdfast.wire.frame import join, split
from holdfast.wire.hq import Accusation
from holdfast.wire.pool import BlobClass, ReconcileReply

ONE, TWO = "relay-eu-001", "relay-eu-002"


class _FalseSums:
    """A door that adds `extra` items to the sum of each day, and with "buckets" to the first bucket
    of the day as well, so that day and buckets agree."""

    def __init__(self, inner: Door, what: str, extra: int) -> None:
        self._inner = inner
        self._what = what
        self._extra = extra

    async def answer(self, verb: str, body: bytes) -> tuple[int, bytes]:
        status, frame = await self._inner.answer(verb, body)
        if verb != "reconcile" or status != 200:
            return status, frame
        reply, _ = split(ReconcileReply, frame, header_bytes_max=1 << 24)
        buckets = reply.buckets
        if buckets and self._what == "buckets":
            buckets = (self._more(buckets[0]), *buckets[1:])
        days = tuple(self._more(day) for day in reply.days)
        return 200, join(msgspec.structs.replace(reply, days=days, buckets=buckets))

    def _more(self, said: Any) -> Any:
        total = (int.from_bytes(said.total, "little") + 7) % (1 << 256)
        return msgspec.structs.replace(
            said, count=said.count + self._extra, total=total.to_bytes(32, "little")
        )


async def _pool(pool: Pool) -> tuple[Any, Any, Session, Any]:
    record = await pool.seat(2, 0)
    era = pool.era()
    session = await pool.session(TWO, era.access, record.slot)
    await session.push(BlobClass.LOG, [seal(era, 1, b"%d" % n, today()) for n in range(3)])
    return pool.servers[ONE].running, pool.servers[TWO].running, session, era


@pytest.mark.parametrize("what", ["days", "buckets"])
@pytest.mark.parametrize("extra", [-1, 0, 5])
def test_false_sums_are_named_in_the_second_round(tmp_path: Path, what: str, extra: int) -> None:
    async def main() -> None:
        async with Pool(tmp_path, background=False) as pool:
            honest, liar, _, _ = await _pool(pool)
            liar.server._handler = _FalseSums(Door(liar.desk), what, extra)
            await honest.reconciler.round()
            assert honest.reconciler.sums.liars == {}, "once may be a race"
            assert honest.store.figures().blobs == 3, "what it shows is taken all the same"
            await honest.reconciler.round()
            assert set(honest.reconciler.sums.liars) == {liar.desk.node}
            assert honest.desk.counts["reconcile_lies"] >= 1
            said = Accusation(TWO, liar.desk.node, "false-sums")
            assert said in pool.servers[ONE].told, "headquarters hears of it"

    asyncio.run(main())


def test_control_unchecked_sums_are_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sums, "_suspect", lambda *_: False)

    async def main() -> None:
        async with Pool(tmp_path, background=False) as pool:
            honest, liar, _, _ = await _pool(pool)
            liar.server._handler = _FalseSums(Door(liar.desk), "days", 5)
            for _ in range(4):
                await honest.reconciler.round()
            assert honest.reconciler.sums.liars == {}

    asyncio.run(main())


def test_an_honest_server_that_is_written_to_is_not_accused(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path, background=False) as pool:
            honest, other, session, era = await _pool(pool)

            async def write() -> None:
                for n in range(60):
                    await session.push(BlobClass.LOG, [seal(era, 1, b"w%d" % n, today())])

            writing = asyncio.create_task(write())
            while not writing.done():
                await honest.reconciler.round()
            await honest.reconciler.round()
            assert honest.reconciler.sums.liars == {}
            assert honest.store.figures().blobs == other.store.figures().blobs == 63

    asyncio.run(main())
