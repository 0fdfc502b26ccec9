"""`holdfast drill stolen`: the whole disk of any one machine opens nothing (seed 003, "Operational
Security": "one's historical data must not be accessible if only a single node is compromised").

Ada has a laptop and a phone, Bob a phone; each splits its key with another person's device. Ada
shares a folder, archives a text, locks the folder. Everything is switched off, and an attacker gets
one disk at a time: a device's, or all that one provider hosts. What counts is made of random
tokens: each one that is readable anywhere counts with its bytes.

Controls: the same attacker gets everything from two of the right disks, from a laptop whose key was
not split, and while the folder is not locked.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Final

import msgspec

from holdfast.cli.drills.play import Keep, play
from holdfast.cli.local import LocalNetwork
from holdfast.crypto.phrase import Phrase
from holdfast.device.agent import Agent
from holdfast.device.friends import keep
from holdfast.device.locking import lock_folder
from holdfast.device.peering.meeting import Waiting, guest, host
from holdfast.device.peering.peers import offer, peer_named
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.setup import Setup, World, draw_phrase, set_up
from holdfast.device.sharing import share
from holdfast.device.tend import tend
from holdfast.device.vault.archive import Archives
from holdfast.device.vault.split import split
from holdfast.errors import OperationFault, UsageError
from holdfast.logic.pool.fanout import Stage
from holdfast.rim.clock import Clock, SystemClock
from holdfast.rim.entropy import Dice, Entropy, SystemEntropy
from holdfast.sim.attacker import Attacker, Loot
from holdfast.wire.locator import parse_locator

LOOPBACK: Final = ("127.0.0.1", 0)
STORED_S: Final = 120.0
TOKEN_BYTES: Final = 32


class Stolen(msgspec.Struct):
    """What each theft gave. Bytes are bytes of tokens."""

    seed: int
    secret_bytes: int = 0
    """What there was to find: in a folder, in names of files, in an archive, in its title."""
    bytes_recovered: int = 0
    """The most that any one disk gave."""
    disks: dict[str, int] = {}
    tried: dict[str, dict[str, int]] = {}
    """Blobs, seeds and eras that the attacker had to work with."""
    control: bool = False
    """Two of the right disks give everything."""
    control_bytes: dict[str, int] = {}

    @property
    def held(self) -> bool:
        """Nothing from one disk, and the attacker does work."""
        return self.bytes_recovered == 0 and len(self.disks) >= 4 and self.control


class Theft:
    """The drill, in one empty directory."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy, seed: int) -> None:
        self._home = home
        self._clock = clock
        self._entropy = entropy
        self._dice = Dice(seed)
        self._report = Stolen(seed)
        self.network = LocalNetwork(home / "network", clock=clock, entropy=entropy, regions=("eu",))
        self._folder_tokens = [self._token() for _ in range(400)]
        self._archive_tokens = [self._token() for _ in range(100)]

    def _token(self) -> bytes:
        return self._dice.randbytes(TOKEN_BYTES // 2).hex().encode()

    async def run(self) -> Stolen:
        """The story, then the thefts."""
        tokens = {*self._folder_tokens, *self._archive_tokens}
        self._report.secret_bytes = len(tokens) * TOKEN_BYTES
        await self.network.start()
        try:
            await self._story()
        finally:
            await self.network.stop()
        await asyncio.to_thread(self._steal, tokens)
        return self._report

    # --- the story -----------------------------------------------------------------------------
    async def _device(
        self, name: str, phrase: Phrase, *, is_new: bool, locator: str = ""
    ) -> DeviceRuntime:
        where = parse_locator(locator) if locator else self.network.locator()
        setup = Setup(self._home / name, name, where, phrase, is_new, "eu")
        return await set_up(setup, World(self._clock, self._entropy))

    async def _story(self) -> None:
        ada = draw_phrase(self._entropy)
        laptop = await self._device("ada-laptop", ada, is_new=True)
        home = str(laptop.keyring.slot.current_locator())
        await laptop.reach(Stage.STORED, STORED_S)
        phone = await self._device("ada-phone", ada, is_new=False, locator=home)
        bob = await self._device("bob-phone", draw_phrase(self._entropy), is_new=True)
        devices = (laptop, phone, bob)
        agents: list[Agent] = []
        try:
            agents = [Agent(device) for device in devices]
            for agent in agents:
                await agent.start(*LOOPBACK)
            await self._befriend(laptop, bob)
            await self._live(*devices, agents)
        finally:
            for agent in agents:
                await agent.stop()
            for device in devices:
                await device.close()
                device.state.close()

    async def _befriend(self, one: DeviceRuntime, other: DeviceRuntime) -> None:
        """Pair two people's devices."""
        there: asyncio.Future[Waiting] = asyncio.get_running_loop().create_future()
        hosting = asyncio.create_task(
            host(one, offer(one, "ada"), listen=LOOPBACK, relay=False, on_waiting=there.set_result)
        )
        waiting = await there
        met = await guest(other, offer(other, "bob"), waiting.code, waiting.addresses[0])
        await keep(other, met)
        await keep(one, await hosting)

    async def _live(
        self, laptop: DeviceRuntime, phone: DeviceRuntime, bob: DeviceRuntime, agents: list[Agent]
    ) -> None:
        folder = self._home / "ada-files"
        folder.mkdir()
        lines = self._folder_tokens
        (folder / "diary.txt").write_bytes(b"\n".join(lines[:-1]) * 3)
        (folder / lines[-1].decode()).write_bytes(b"a name tells something too")
        group = await share(laptop, folder, "diary")
        await laptop.folders[group.id].sync()
        if not await laptop.reach(Stage.REPLICATED, STORED_S):
            raise OperationFault("the folder was not replicated in time")
        at_laptop, at_phone, _ = agents
        for device in (laptop, phone, bob, laptop):
            await tend(device, everywhere=True)
            await device.reach(Stage.STORED, STORED_S)
        for agent in (at_laptop, at_phone, at_laptop):
            await agent.sweep()
        archives = Archives(laptop, at_laptop)
        title = self._archive_tokens[0].decode()
        text = b"\n".join(self._archive_tokens[1:])
        devices = [peer_named(laptop, "ada-phone"), peer_named(laptop, "bob")]
        archived = await archives.add(title, text, devices)
        if await archives.open(archived.name, devices) != text:
            raise OperationFault("the archive did not come back")
        await self._lock(laptop, phone, bob)

    async def _lock(self, laptop: DeviceRuntime, phone: DeviceRuntime, bob: DeviceRuntime) -> None:
        """Switch the defences on, one after the other, with a copy of the disk in between."""
        shutil.copytree(self._home / "ada-laptop", self._home / "control" / "open-folder")
        shutil.copytree(self._home / "ada-files", self._home / "control" / "open-folder" / "files")
        await lock_folder(laptop, laptop.key_named("diary"), STORED_S)
        shutil.copytree(self._home / "ada-laptop", self._home / "control" / "not-split")
        await split(laptop, [peer_named(laptop, "bob")])
        await split(phone, [peer_named(phone, "bob")])
        await split(bob, [peer_named(bob, "ada")])

    # --- the thefts ----------------------------------------------------------------------------
    def _steal(self, tokens: set[bytes]) -> None:
        report, home = self._report, self._home
        disks = {name: [home / name] for name in ("ada-laptop", "ada-phone", "bob-phone")}
        for provider in self.network.providers:
            disks[f"servers of {provider}"] = [self.network.provider_directory(provider)]
        for name, paths in disks.items():
            loot = Attacker(paths).run()
            report.disks[name] = len(loot.tokens(tokens)) * TOKEN_BYTES
            report.tried[name] = _worked_with(loot)
        report.bytes_recovered = max(report.disks.values())
        controls = {
            "ada-laptop and bob-phone": [home / "ada-laptop", home / "bob-phone"],
            "ada-laptop, not split": [home / "control" / "not-split"],
            "ada-laptop, folder open": [home / "control" / "open-folder"],
        }
        for name, paths in controls.items():
            found = Attacker(paths).run().tokens(tokens)
            report.control_bytes[name] = len(found) * TOKEN_BYTES
        report.control = report.control_bytes["ada-laptop and bob-phone"] == report.secret_bytes


def _worked_with(loot: Loot) -> dict[str, int]:
    return {"blobs": loot.blobs, "seeds": loot.seeds, "eras": loot.eras, "opened": loot.opened}


def stolen(*, seed: int = 1, keep: Keep = None, json: bool = False) -> int:
    """Attack the whole disk of any one powered-off device, relay or replica; nothing opens.

    Parameters
    ----------
    seed
        What is written.
    json
        One JSON object as the last line.
    """
    if seed < 0:
        raise UsageError("--seed is not negative")
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "stolen", lambda home: Theft(home, clock, entropy, seed).run(), keep=keep, json=json
    )
