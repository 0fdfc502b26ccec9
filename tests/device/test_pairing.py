"""Friends are made in person (seed 003, "Friends"; issue 5.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.device.world import Fleet
from tests.fabric.world import FAST
from tests.relay.harness import Pool

from holdfast.crypto.pake import Pake
from holdfast.device.friends import friend_named, friends, keep, unpair
from holdfast.device.peering.meeting import Waiting, guest, host
from holdfast.device.peering.pairing import (
    Offer,
    WrongCode,
    code_bytes,
    draw_code,
    fingerprint_words,
    spoken_words,
)
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.tend import tend
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.logic.group.friends import Friend
from holdfast.logic.pool.fanout import Stage
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SeededEntropy, SystemEntropy
from holdfast.wire.pairing import parse_meeting

LOOPBACK = ("127.0.0.1", 0)


class Host:
    """A host that waits, as a task."""

    def __init__(self, runtime: DeviceRuntime, told: Offer | None = None, **options: Any) -> None:
        self._there: asyncio.Future[Waiting] = asyncio.get_running_loop().create_future()
        options = {"listen": LOOPBACK, "relay": False} | options
        self.task = asyncio.create_task(
            host(
                runtime,
                told or Offer("alice", ("127.0.0.1:7",)),
                on_waiting=self._show,
                **options,
            )
        )

    def _show(self, waiting: Waiting) -> None:
        self._there.set_result(waiting)

    async def waiting(self) -> Waiting:
        await asyncio.wait({self.task, self._there}, return_when=asyncio.FIRST_COMPLETED)
        return self._there.result()


async def two(tmp_path: Path, story: Any) -> None:
    async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
        record = await pool.seat()
        async with Fleet(pool, record, tmp_path) as fleet:
            alice, _ = await fleet.device("alice")
            bob, words = await fleet.device("bob")
            await story(fleet, alice, bob, words)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def same(one: Friend, other: Friend, alice: DeviceRuntime, bob: DeviceRuntime) -> None:
    assert (one.person, other.person) == (bob.state.person, alice.state.person)
    assert one.words == other.words
    assert len(one.words.split()) == 5
    assert one.secret == other.secret
    assert one.devices[0].key == bob.state.key.public


def test_a_spoken_code_over_the_local_network(tmp_path: Path) -> None:
    async def story(fleet: Fleet, alice: DeviceRuntime, bob: DeviceRuntime, words: Any) -> None:
        hosting = Host(alice)
        waiting = await hosting.waiting()
        met = await guest(bob, Offer("bob"), waiting.code, waiting.addresses[0])
        at_alice = await hosting.task
        same(at_alice, met, alice, bob)
        assert met.devices[0].addresses == ("127.0.0.1:7",)
        await keep(bob, met)
        await keep(alice, at_alice)
        assert [f.name for f in friends(bob)] == ["alice"]
        await bob.reach(Stage.STORED, 20.0)
        other, _ = await fleet.device("bob's phone", words)
        assert [f.words for f in friends(other)] == [met.words], "all his devices know her"
        await unpair(other, friend_named(other, "alice"))
        await other.reach(Stage.STORED, 20.0)
        await tend(bob, everywhere=True)
        assert friends(bob) == ()

    run(two(tmp_path, story))


def test_a_line_through_a_relay_when_no_address_answers(tmp_path: Path) -> None:
    async def story(_: Fleet, alice: DeviceRuntime, bob: DeviceRuntime, words: Any) -> None:
        hosting = Host(alice, listen=None, relay=True)
        waiting = await hosting.waiting()
        assert waiting.code == "", "what is said aloud is too short for a mailbox"
        met = await guest(bob, Offer("bob"), waiting.line)
        same(await hosting.task, met, alice, bob)

    run(two(tmp_path, story))


def test_a_wrong_code_is_one_guess_and_the_host_hears_of_it(tmp_path: Path) -> None:
    async def story(_: Fleet, alice: DeviceRuntime, bob: DeviceRuntime, words: Any) -> None:
        hosting = Host(alice)
        waiting = await hosting.waiting()
        wrong = next(w for w in (f"{x}-{x}" for x in spoken_words()) if w != waiting.code)
        with pytest.raises((WrongCode, OperationFault)):
            await guest(bob, Offer("bob"), wrong, waiting.addresses[0])
        with pytest.raises(WrongCode, match="look who is near"):
            await hosting.task
        with pytest.raises(OperationFault):
            await guest(bob, Offer("bob"), waiting.code, waiting.addresses[0])

    run(two(tmp_path, story))


def test_one_does_not_befriend_oneself(tmp_path: Path) -> None:
    async def story(fleet: Fleet, _: DeviceRuntime, bob: DeviceRuntime, words: Any) -> None:
        phone, _phrase = await fleet.device("phone", words)
        hosting = Host(bob)
        waiting = await hosting.waiting()
        with pytest.raises(UsageError, match="your own"):
            await guest(phone, Offer("phone"), waiting.code, waiting.addresses[0])
        hosting.task.cancel()
        await asyncio.gather(hosting.task, return_exceptions=True)

    run(two(tmp_path, story))


def test_codes_are_two_words_of_sixteen_bits() -> None:
    assert len(set(spoken_words())) == 256
    code = draw_code(SystemEntropy())
    assert code_bytes(code.upper().replace("-", " ")) == code.encode()
    for bad in ("abandon", "abandon abandon abandon", "holdfast-abandon"):
        with pytest.raises(UsageError, match="two words"):
            code_bytes(bad)
    assert fingerprint_words(bytes(7)) == " ".join(["abandon"] * 5)
    assert fingerprint_words(b"\xff" * 7) == " ".join(["zoo"] * 5)


def test_another_code_gives_another_key_and_garbage_is_a_peer_fault() -> None:
    draw = SeededEntropy(1).bytes
    host_side, guest_side = Pake(b"a-b", draw, host=True), Pake(b"a-b", draw, host=False)
    message = host_side.message
    assert host_side.finish(guest_side.message) == guest_side.finish(message)
    one, other = Pake(b"a-b", draw, host=True), Pake(b"a-c", draw, host=False)
    message = one.message
    assert one.finish(other.message) != other.finish(message)
    for garbage in (b"", b"\x00" * 33, b"B" + b"\xff" * 32, message):
        with pytest.raises(PeerFault):
            Pake(b"a-b", draw, host=True).finish(garbage)


def test_a_line_that_is_over_is_refused(tmp_path: Path) -> None:
    async def story(_: Fleet, alice: DeviceRuntime, bob: DeviceRuntime, words: Any) -> None:
        hosting = Host(alice, relay=True)
        waiting = await hosting.waiting()
        hosting.task.cancel()
        assert parse_meeting(waiting.line, waiting.expires_at).addresses == waiting.addresses
        with pytest.raises(PeerFault, match="ended"):
            parse_meeting(waiting.line, waiting.expires_at + 1)
        await asyncio.gather(hosting.task, return_exceptions=True)

    run(two(tmp_path, story))
