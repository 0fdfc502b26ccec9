"""What a person sees of a running device, and what they can do on its page: pair.

Everything shown is a snapshot made here; pages only set it in type. Copies are counted in rounds:
other devices are asked for them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec

from holdfast.device.agent import Agent, GroupCopies
from holdfast.device.friends import friends, keep
from holdfast.device.locking import locked
from holdfast.device.peering.meeting import Waiting, guest, host
from holdfast.device.peering.peers import offer, peers
from holdfast.device.persons import devices
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.tend import tend
from holdfast.errors import HoldfastError
from holdfast.fabric.outbox import count_stages

_log = logging.getLogger(__name__)
COUNT_S: Final = 10.0
"""Real seconds between rounds of counting copies while the page may be open."""
HEADS: Final = 3


class DeviceLine(msgspec.Struct, frozen=True):
    """One device of the person."""

    name: str
    roles: str
    is_in: bool
    is_this: bool


class FriendLine(msgspec.Struct, frozen=True):
    """One friend."""

    name: str
    words: str
    devices: str


class FolderLine(msgspec.Struct, frozen=True):
    """One group with files."""

    name: str
    path: str
    """Empty: not on this device."""
    locked: bool
    queued: int
    stored: int
    replicated: int


class CopyLine(msgspec.Struct, frozen=True):
    """Copies of one group's blobs."""

    name: str
    blobs: int
    least: int
    at_risk: int
    held: tuple[tuple[str, int], ...]
    unknown: tuple[str, ...]


class Meeting(msgspec.Struct, frozen=True):
    """A pairing under way, or the last one's end."""

    code: str = ""
    addresses: tuple[str, ...] = ()
    line: str = ""
    met: str = ""
    words: str = ""
    trouble: str = ""


class Face(msgspec.Struct, frozen=True):
    """The page's content."""

    name: str
    devices: tuple[DeviceLine, ...]
    friends: tuple[FriendLine, ...]
    folders: tuple[FolderLine, ...]
    copies: tuple[CopyLine, ...]
    counted: bool
    """Whether copies were counted since this process started."""
    split: bool
    """Whether the disk alone opens nothing."""
    meeting: Meeting

    @property
    def at_risk(self) -> int:
        """Blobs with fewer than two copies on devices that answer."""
        return sum(line.at_risk for line in self.copies)


class Front:
    """The desk between a device and its page."""

    def __init__(self, runtime: DeviceRuntime, agent: Agent) -> None:
        self._runtime = runtime
        self._agent = agent
        self._copies: list[GroupCopies] = []
        self._counted = False
        self._meeting = Meeting()
        self._pairing: asyncio.Task[None] | None = None
        self._again = asyncio.Event()
        self.listen: tuple[str, int] = ("0.0.0.0", 0)
        """Where a guest is waited for."""

    async def run(self) -> None:
        """Keep house, level and count, for ever."""
        while True:
            self._again.clear()
            try:
                await tend(self._runtime)
                await self._agent.sweep()
                self._copies = await self._agent.copies()
                self._counted = True
            except HoldfastError as error:
                _log.info("counting waits: %s", error)
            try:
                async with self._runtime.clock.real_timeout(COUNT_S):
                    await self._again.wait()
            except TimeoutError:
                continue

    def face(self) -> Face:
        """What there is to see now."""
        runtime = self._runtime
        known = peers(runtime)
        return Face(
            name=runtime.state.name,
            devices=tuple(
                DeviceLine(d.name, " and ".join(d.roles), d.is_in, d.is_this)
                for d in devices(runtime)
            ),
            friends=tuple(
                FriendLine(f.name, f.words, ", ".join(d.name for d in f.devices))
                for f in friends(runtime)
            ),
            folders=tuple(self._folders()),
            copies=tuple(
                CopyLine(
                    group.name,
                    group.copies.blobs,
                    group.copies.least,
                    group.copies.at_risk,
                    group.copies.held,
                    tuple(n for n in group.unknown if any(peer.name == n for peer in known)),
                )
                for group in self._copies
            ),
            counted=self._counted,
            split=runtime.state.get("half holders") is not None,
            meeting=self._meeting,
        )

    def _folders(self) -> list[FolderLine]:
        state, found = self._runtime.state, []
        places = state.folders()
        for key in state.groups():
            group = self._runtime.groups.get(key.id)
            tags = [era.tag for era in group.eras] if group else []
            stages = count_stages(state.database, tags)
            path = str(places.get(key.id, ""))
            is_locked = not path and locked(state, key.id) is not None
            found.append(
                FolderLine(
                    key.name, path, is_locked, stages.queued, stages.stored, stages.replicated
                )
            )
        return found

    # --- pairing -------------------------------------------------------------------------------
    async def wait_for_friend(self) -> None:
        """Begin to wait for a guest; the page shows the code as soon as there is one."""
        self._stop_pairing()
        told = asyncio.Event()

        def show(waiting: Waiting) -> None:
            self._meeting = Meeting(waiting.code, waiting.addresses, waiting.line)
            told.set()

        async def wait() -> None:
            try:
                friend = await host(
                    self._runtime, offer(self._runtime), listen=self.listen, on_waiting=show
                )
                await keep(self._runtime, friend)
                self._meeting = Meeting(met=friend.name, words=friend.words)
            except HoldfastError as error:
                self._meeting = Meeting(trouble=str(error))
            told.set()
            self._again.set()

        self._pairing = asyncio.create_task(wait())
        await told.wait()

    async def meet(self, code: str, at: str) -> None:
        """Meet a host by its code or line."""
        self._stop_pairing()
        try:
            friend = await guest(self._runtime, offer(self._runtime), code.strip(), at.strip())
            await keep(self._runtime, friend)
            self._meeting = Meeting(met=friend.name, words=friend.words)
        except HoldfastError as error:
            self._meeting = Meeting(trouble=str(error))
        self._again.set()

    def _stop_pairing(self) -> None:
        if self._pairing is not None:
            self._pairing.cancel()
            self._pairing = None
        self._meeting = Meeting()

    async def close(self) -> None:
        """Wait for nobody any more."""
        if self._pairing is not None:
            self._pairing.cancel()
            await asyncio.gather(self._pairing, return_exceptions=True)
