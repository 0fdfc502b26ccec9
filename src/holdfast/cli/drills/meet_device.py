"""One device of `holdfast drill meet`: a person and a device, no network, on a pipe."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from holdfast.cli.service import clock_of, start_log
from holdfast.crypto.blob import blob_id, seal
from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import derive_key
from holdfast.device.eras import person_wrap
from holdfast.device.keyring import state_device
from holdfast.device.peering.exchange import Exchange
from holdfast.device.peering.meeting import Waiting, guest, host
from holdfast.device.peering.pairing import Offer, Who
from holdfast.device.peering.standing import Standing
from holdfast.device.setup import draw_phrase
from holdfast.errors import OperationFault
from holdfast.logic.group.friends import Friend
from holdfast.logic.peers.windows import Terms
from holdfast.rim.addresses import interface_addresses
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.process import Parent
from holdfast.wire.address import split_address
from holdfast.wire.person import CARRIER, READER
from holdfast.wire.pool import BlobClass

TICK_S: Final = 0.004
SECRET: Final = derive_key("holdfast v1 drill meet", b"a group that all three are in")


class Order(msgspec.Struct):
    """What the drill asks."""

    verb: str
    text: str = ""
    peer: bytes = b""


class Told(msgspec.Struct):
    """What a device answers."""

    text: str = ""
    device: bytes = b""
    ports: tuple[int, ...] = ()
    blobs: tuple[bytes, ...] = ()
    links: dict[bytes, str] = {}
    """Own host of the newest connection, by peer."""
    fault: str = ""


class Blobs:
    """A shelf of the exchange: one file for each blob."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def items(self, tag: bytes) -> list[tuple[int, bytes]]:
        """(class, id) of everything."""
        names = sorted(path.name for path in self._directory.glob(f"{tag.hex()}-*"))
        return [(int(name.split("-")[1]), bytes.fromhex(name.split("-")[2])) for name in names]

    def read(self, tag: bytes, blob: bytes) -> bytes | None:
        """A body."""
        for path in self._directory.glob(f"{tag.hex()}-*-{blob.hex()}"):
            return path.read_bytes()
        return None

    def put(self, tag: bytes, blob_class: int, body: bytes) -> None:
        """Keep a body."""
        name = f"{tag.hex()}-{blob_class}-{blob_id(body).hex()}"
        (self._directory / name).write_bytes(body)


class Lone:
    """The device."""

    def __init__(self, home: Path, name: str, scale: float) -> None:
        self.clock = clock_of(1.0)
        self.entropy = SystemEntropy()
        self.name = name
        self.key = SigningKey(self.entropy.bytes(32))
        phrase = draw_phrase(self.entropy)
        root, now = phrase.root(), int(self.clock.wall())
        self.who = Who(
            key=self.key,
            person=root.public,
            statement=state_device(root, self.key.public, name, 1, now, (CARRIER, READER)),
            person_wrap=person_wrap(phrase.keyring_secret()).public,
            locator="",
            replaces=lambda person: (),
            clock=self.clock,
            entropy=self.entropy,
        )
        self.standing = Standing(
            *(self.key, home / "peers.book", self.clock, self.entropy),
            terms=Terms().faster(scale),
        )
        self.era = Era(SECRET, bytes(16), 0)
        self.blobs = Blobs(home / "blobs")
        self.exchange = Exchange(self.standing, self.blobs, lambda device, tag: True)

    async def do(self, order: Order, parent: Parent[Order]) -> Told:
        """One order."""
        match order.verb:
            case "host":
                waiting: asyncio.Queue[Waiting] = asyncio.Queue()
                work = asyncio.create_task(self._host(order.text, waiting))
                told = await waiting.get()
                await parent.send(Told(f"{told.code} {told.addresses[0]}"))
                return self._met(await work)
            case "guest":
                code, at = order.text.split()
                return self._met(await guest(self.who, Offer(self.name), code, at))
            case "put":
                blob = seal(self.era, BlobClass.LOG, order.text.encode(), 20_000)
                self.blobs.put(self.era.tag, BlobClass.LOG, blob)
                return self._told()
            case "pull":
                await self.exchange.pull(order.peer, self.era.tag)
                return self._told()
            case "open":
                while self.standing.ports:
                    await self.clock.sleep_real(TICK_S)
                while not self.standing.ports:
                    await self.clock.sleep_real(TICK_S)
            case "shut":
                while self.standing.ports or self.standing.opens_in() < float(order.text):
                    await self.clock.sleep_real(TICK_S)
        return self._told()

    async def _host(self, where: str, waiting: asyncio.Queue[Waiting]) -> Friend:
        offer = Offer(self.name, (where,))
        return await host(
            *(self.who, offer),
            listen=split_address(where),
            relay=False,
            on_waiting=waiting.put_nowait,
        )

    def _met(self, friend: Friend) -> Told:
        (device,) = friend.devices
        hosts = [split_address(address)[0] for address in device.addresses]
        self.standing.pair(device.key, friend.name, friend.secret, hosts)
        return Told(friend.words, device.key)

    def _told(self) -> Told:
        blobs = tuple(blob for _, blob in self.blobs.items(self.era.tag))
        links = self.standing.locals()
        where = " ".join(interface_addresses())
        return Told(where, self.key.public, self.standing.ports, blobs, links)


async def serve(home: Path, name: str, scale: float) -> None:
    """Answer orders until the drill is gone."""
    parent: Parent[Order] = await Parent.attach(Order)
    device = Lone(home, name, scale)
    running = asyncio.create_task(device.standing.run())
    await parent.send(device._told())
    try:
        while (order := await parent.receive()) is not None:
            try:
                told = await device.do(order, parent)
            except Exception as fault:  # noqa: BLE001 - the drill shows it
                told = Told(fault=f"{type(fault).__name__}: {fault}")
            await parent.send(told)
    except OperationFault:
        pass
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def meet_device(*, dir: Path, name: str, scale: float) -> None:
    """A device that the drill started."""
    start_log("info")
    asyncio.run(serve(dir, name, scale))
