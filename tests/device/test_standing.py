"""Devices that stand connected with nothing but each other (seed 003, "Node Discovery")."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from holdfast.crypto.devicecert import device_certificate, device_of
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.device.peering.exchange import Exchange
from holdfast.device.peering.standing import Standing
from holdfast.errors import OperationFault, PeerFault
from holdfast.logic.peers.windows import Terms, first_secret, held, knock
from holdfast.rim.clock import SystemClock
from holdfast.rim.device_tls import DeviceTls, dial
from holdfast.rim.entropy import SystemEntropy
from holdfast.wire.peers import GET, LETTER

TERMS = Terms(1.0, 0.5, 0.2, 500.0, 0.4, 0.05)
HERE = "127.0.0.1"
CLOCK = SystemClock()
TAG = b"t" * 32


def whole(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """A test that is a coroutine, in a loop of its own."""

    @functools.wraps(test)
    def run(**fixtures: object) -> None:
        asyncio.run(test(**fixtures))

    return run


class Device:
    """A device on loopback. `hosts`: where it says it is."""

    def __init__(self, path: Path, name: str, hosts: tuple[str, ...] = (HERE,)) -> None:
        self.key = SigningKey(hash_bytes(name.encode()))
        self.name = name
        self.at = Standing(
            *(self.key, path / name, CLOCK, SystemEntropy()), terms=TERMS, hosts=lambda: hosts
        )

    def knows(self, other: Device) -> bool:
        return other.key.public in self.at.connected()


def pair(one: Device, other: Device) -> None:
    secret = hash_bytes(b"".join(sorted((one.key.public, other.key.public))))
    one.at.pair(other.key.public, other.name, secret, (HERE,))
    other.at.pair(one.key.public, one.name, secret, (HERE,))


@asynccontextmanager
async def running(*devices: Device) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(device.at.run()) for device in devices]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(ready: Callable[[], bool], wait_s: float = 20.0) -> None:
    async with asyncio.timeout(wait_s):
        while not ready():
            await CLOCK.sleep_real(0.02)


class Shelf:
    def __init__(self, *bodies: bytes) -> None:
        self.blobs = {hash_bytes(body): (1, body) for body in bodies}

    def items(self, tag: bytes) -> list[tuple[int, bytes]]:
        return [(blob_class, blob) for blob, (blob_class, _) in self.blobs.items()]

    def read(self, tag: bytes, blob: bytes) -> bytes | None:
        found = self.blobs.get(blob)
        return found[1] if found else None

    def put(self, tag: bytes, blob_class: int, body: bytes) -> None:
        self.blobs[hash_bytes(body)] = (blob_class, body)


@whole
async def test_two_meet_exchange_blobs_and_find_each_other_after_a_restart(tmp_path: Path) -> None:
    ada, bo = Device(tmp_path, "ada"), Device(tmp_path, "bo")
    pair(ada, bo)
    theirs, mine = Shelf(b"x" * 5_000_000, b"y" * 3), Shelf()
    Exchange(ada.at, theirs, lambda device, tag: tag == TAG)
    fetching = Exchange(bo.at, mine, lambda device, tag: False)
    async with running(ada, bo):
        await until(lambda: ada.knows(bo) and bo.knows(ada))
        assert await fetching.pull(ada.key.public, TAG) == 2
        assert mine.blobs == theirs.blobs
        assert await fetching.pull(ada.key.public, TAG) == 0
        with pytest.raises(PeerFault, match="no blobs of that tag"):
            await fetching.pull(ada.key.public, b"o" * 32)
        entry = bo.at.book.get(ada.key.public)
        assert entry is not None
        await until(lambda: entry.contact_at > 0 and entry.presence is not None)
        assert abs(entry.skew_s) < 1
        assert entry.secret == ada.at.planner.own
    again = Device(tmp_path, "bo")
    kept = again.at.book.get(ada.key.public)
    assert kept is not None
    assert kept.hosts() == (HERE,)
    async with running(ada_again := Device(tmp_path, "ada"), again):
        await until(lambda: again.knows(ada_again))


@whole
async def test_a_letter_goes_through_a_friend_and_nothing_else_does(tmp_path: Path) -> None:
    """Seed 003, "Message relay": nodes act as relays for messages their owner can't read."""
    ada, bo, cy = (Device(tmp_path, name) for name in ("ada", "bo", "cy"))
    pair(ada, cy)
    pair(bo, cy)

    async def read(device: bytes, body: bytes) -> bytes:
        return device + body

    bo.at.register(LETTER, read)
    async with running(ada, bo, cy):
        await until(lambda: cy.knows(ada) and cy.knows(bo) and ada.knows(cy))
        answer = await ada.at.call(bo.key.public, LETTER, b" sealed")
        assert answer == ada.key.public + b" sealed"
        with pytest.raises(OperationFault, match="no way"):
            await ada.at.call(bo.key.public, GET, b"")
        with pytest.raises(OperationFault, match="no way"):
            await ada.at.call(b"n" * 32, LETTER, b"to nobody")


@whole
async def test_the_address_others_see_reaches_those_who_know_both(tmp_path: Path) -> None:
    """Seed 003: nodes establish the public IP of other nodes, and share it with friends."""
    ada = Device(tmp_path, "ada", hosts=("10.255.255.1",))
    bo, cy = Device(tmp_path, "bo"), Device(tmp_path, "cy")
    pair(ada, cy)
    pair(bo, cy)
    secret = hash_bytes(b"met long ago")
    bo.at.pair(ada.key.public, "ada", secret, ("10.255.255.2",))
    known = bo.at.book.get(ada.key.public)
    assert known is not None
    known.secret = ada.at.planner.own
    async with running(bo, cy):
        await until(lambda: cy.knows(bo))
        async with running(ada):
            cy.at.book.get(ada.key.public).met_host = ""  # type: ignore[union-attr]
            await until(lambda: bool(known.sightings))
    assert known.hosts()[:2] == (HERE, "10.255.255.1")
    assert HERE in ada.at.seen_as


@whole
async def test_a_stranger_gets_no_byte_and_a_forgotten_device_is_cut_off(tmp_path: Path) -> None:
    ada, bo = Device(tmp_path, "ada"), Device(tmp_path, "bo")
    secret = hash_bytes(b"".join(sorted((ada.key.public, bo.key.public))))
    pair(ada, bo)
    async with running(ada):
        await until(lambda: bool(ada.at.ports))
        reader, writer = await asyncio.open_connection(HERE, ada.at.ports[0])
        writer.write(b"\x16\x03\x01" + bytes(200))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
        thief = SigningKey(b"t" * 32)
        first = first_secret(secret, ada.key.public)
        tls = DeviceTls(thief, CLOCK, lambda device: True)

        def begun() -> bool:
            return any(w.port in ada.at.ports for w in held(first, CLOCK.wall() + 0.3, TERMS))

        await until(begun)
        (found,) = held(first, CLOCK.wall(), TERMS)
        stream = await dial(
            HERE, found.port, knock(first, found.period, b"n" * 16), tls, ada.key.public
        )
        with pytest.raises(PeerFault, match="refuses our certificate"):
            await stream.receive(5.0)
        async with running(bo):
            await until(lambda: ada.knows(bo))
            own = ada.at.planner.own
            ada.at.forget(bo.key.public)
            await until(lambda: not ada.knows(bo))
            assert ada.at.planner.own != own
            await CLOCK.sleep_real(1.5)
            assert not ada.knows(bo)


def test_a_device_certificate_is_its_key_and_nothing_else() -> None:
    key = SigningKey(b"k" * 32)
    der = device_certificate(key)
    assert der == device_certificate(key)
    assert device_of(der) == key.public
    broken = der[:-1] + bytes([der[-1] ^ 1])
    with pytest.raises(PeerFault):
        device_of(broken)
