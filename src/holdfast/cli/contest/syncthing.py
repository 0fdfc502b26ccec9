"""Syncthing between two local devices: addresses pinned, no discovery, no relays, full priority."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import msgspec

from holdfast.cli.contest.judge import Judge, finish, move_in
from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.ports import free_port
from holdfast.rim.process import Child, spawn
from holdfast.rim.rest import ask

HOST: Final = "127.0.0.1"
FOLDER: Final = "bench"
CONNECT_S: Final = 60.0
STOP_S: Final = 20.0
OPTIONS: Final = {
    "globalAnnounceEnabled": "false",
    "localAnnounceEnabled": "false",
    "relaysEnabled": "false",
    "natEnabled": "false",
    "startBrowser": "false",
    "autoUpgradeIntervalH": "0",
    "crashReportingEnabled": "false",
    "urAccepted": "-1",
    "setLowPriority": "false",
    "reconnectionIntervalS": "1",
}


class _Connection(msgspec.Struct):
    connected: bool


class _Connections(msgspec.Struct):
    connections: dict[str, _Connection]


class Syncthing:
    """One device."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy) -> None:
        self.home = home
        self.shared = home / "shared"
        self.address = f"{HOST}:{free_port(HOST, entropy)}"
        self._gui = f"{HOST}:{free_port(HOST, entropy)}"
        self._clock = clock
        self._child: Child[Any] | None = None
        self._key = ""
        self.id = ""

    async def prepare(self) -> None:
        """Make keys and a first configuration."""
        self.shared.mkdir(parents=True)
        where = f"--home={self.home / 'config'}"
        words = ("syncthing", "generate", where, "--no-default-folder", "--skip-port-probing")
        await finish(words, self.home / "generate.log", self._clock)
        device = ElementTree.parse(self._file).getroot().find("device")
        assert device is not None, "syncthing generate made no device"
        self.id = device.attrib["id"]

    @property
    def _file(self) -> Path:
        return self.home / "config" / "config.xml"

    def meet(self, other: Syncthing) -> None:
        """Write the configuration that names the other device and one shared folder."""
        document = ElementTree.parse(self._file)
        top = document.getroot()
        options = _child(top, "options")
        for name, value in OPTIONS.items():
            _child(options, name).text = value
        _child(options, "listenAddress").text = f"tcp://{self.address}"
        gui = _child(top, "gui")
        _child(gui, "address").text = self._gui
        self._key = _child(gui, "apikey").text or ""
        device = ElementTree.SubElement(top, "device", id=other.id, name="other")
        ElementTree.SubElement(device, "address").text = f"tcp://{other.address}"
        folder = ElementTree.SubElement(
            top, "folder", id=FOLDER, label=FOLDER, path=str(self.shared), type="sendreceive"
        )
        folder.set("rescanIntervalS", "3600")
        folder.set("fsWatcherEnabled", "true")
        for each in (self.id, other.id):
            ElementTree.SubElement(folder, "device", id=each)
        document.write(self._file)

    async def start(self) -> None:
        """Start it."""
        where = f"--home={self.home / 'config'}"
        words = ("syncthing", "serve", where, "--no-browser", "--no-restart", "--no-upgrade")
        self._child = await spawn(words, log=self.home / "serve.log")

    async def connected(self, other: Syncthing) -> None:
        """Return once it is connected to the other. Raises OperationFault."""
        try:
            async with self._clock.real_timeout(CONNECT_S):
                while not await self._sees(other):
                    await self._clock.sleep_real(0.2)
        except TimeoutError as error:
            raise OperationFault(f"Syncthing does not connect; see {self.home}") from error

    async def _sees(self, other: Syncthing) -> bool:
        try:
            body = await self._ask("GET", "/rest/system/connections")
        except OperationFault:
            return False
        about = msgspec.json.decode(body, type=_Connections).connections.get(other.id)
        return about is not None and about.connected

    async def scan(self) -> None:
        """Tell it to look at its folder now; returns when it has."""
        await self._ask("POST", f"/rest/db/scan?folder={FOLDER}")

    async def _ask(self, method: str, path: str) -> bytes:
        return await ask(method, self._gui, path, {"X-API-Key": self._key})

    def check(self) -> None:
        """Raises OperationFault when it has ended."""
        if self._child is not None and self._child.status is not None:
            raise OperationFault(f"Syncthing ended; see {self.home}", retryable=False)

    async def stop(self) -> None:
        """Stop it."""
        child, self._child = self._child, None
        if child is not None:
            await child.stop(self._clock, STOP_S)


def _child(parent: ElementTree.Element, name: str) -> ElementTree.Element:
    found = parent.find(name)
    return ElementTree.SubElement(parent, name) if found is None else found


async def contend(home: Path, tree: Path, judge: Judge, clock: Clock, entropy: Entropy) -> float:
    """Seconds for `tree` (consumed: it is moved) to reach the second device."""
    ends = [Syncthing(home / name, clock, entropy) for name in ("left", "right")]
    left, right = ends
    for end in ends:
        await end.prepare()
    left.meet(right)
    right.meet(left)

    def check() -> None:
        for end in ends:
            end.check()

    try:
        for end in ends:
            await end.start()
        await left.connected(right)
        await right.connected(left)
        started = clock.elapsed()
        move_in(tree, left.shared / "tree")
        scanning = asyncio.create_task(left.scan())
        try:
            ended = await judge.arrival(right.shared / "tree", check)
        finally:
            scanning.cancel()
            await asyncio.gather(scanning, return_exceptions=True)
        return ended - started
    finally:
        for end in ends:
            await end.stop()
