"""How copies of the store leave headquarters: in pieces, one a node and few at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.errors import OperationFault, PeerFault
from holdfast.hq.copies import Copies
from holdfast.limits.front import COPIES_AT_ONCE_MAX, COPY_BURST, COPY_PIECE_BYTES
from holdfast.rim.clock import SystemClock

DATA = bytes(range(256)) * 4_000


class Stopped(SystemClock):
    """Time stands."""

    def elapsed(self) -> float:
        return 0.0


def copies() -> Copies:
    made = Copies(None, Stopped())  # type: ignore[arg-type]  # signs nothing here
    made._digest, made._packed = b"d" * 32, DATA
    return made


def test_a_node_is_sent_one_at_a_time_and_a_few_nodes_at_once() -> None:
    made, sent, go = copies(), [], asyncio.Event()

    async def send(message: Any) -> None:
        await go.wait()
        sent.append(message)

    async def main() -> None:
        tasks = []
        for number in range(COPIES_AT_ONCE_MAX):
            transfer = made.give(bytes([number]), b"")
            assert transfer is not None
            tasks.append(asyncio.create_task(transfer({}, None, send)))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            with pytest.raises(OperationFault, match="being sent a copy"):
                made.give(bytes([number]), b"")
        with pytest.raises(OperationFault, match="others"):
            made.give(b"one more", b"")
        assert made.give(b"one more", b"d" * 32) is None, "who holds it needs no place"
        go.set()
        await asyncio.gather(*tasks)
        assert made.give(b"one more", b"") is not None

    asyncio.run(main())
    bodies = [m["body"] for m in sent if m["type"] == "http.response.body"]
    assert b"".join(bodies).count(DATA[:256]) == COPIES_AT_ONCE_MAX * 4_000
    assert max(map(len, bodies)) == COPY_PIECE_BYTES
    headers = dict(next(m for m in sent if m["type"] == "http.response.start")["headers"])
    assert headers[b"content-length"] == str(len(DATA)).encode()


def test_a_node_that_asks_too_often_is_told_so() -> None:
    made = copies()
    for _ in range(int(COPY_BURST)):
        assert made.give(b"n" * 32, b"") is not None
    with pytest.raises(PeerFault) as caught:
        made.give(b"n" * 32, b"")
    assert caught.value.code == "too-many"
    assert made.give(b"m" * 32, b"") is not None, "others are not held to it"
