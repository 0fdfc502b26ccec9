"""A device that stays in step: news from relays, changes on the disk, invites, housekeeping.

One task per slot hears news, and one hears what connected devices tell; one per folder syncs when
news came or the disk may have changed; one answers invites; one tends. Trouble with a server or a
disk is logged and tried again; a bug ends them all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from holdfast.crypto.era import Era
from holdfast.device.direct import Direct
from holdfast.device.folders import FolderSync, Synced
from holdfast.device.group import Group
from holdfast.device.inviting import Inviter
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.tend import tend
from holdfast.device.witness import hand_in, show_receipts
from holdfast.errors import HoldfastError
from holdfast.fabric.slot import Slot
from holdfast.fabric.watcher import Watcher
from holdfast.rim.notify import TreeWatch

_log = logging.getLogger(__name__)
SCAN_S: Final = 2.0
"""Real seconds between looks at the whole disk where changes are not heard, or ten times what a
look takes."""
HEARD_SCAN_S: Final = 60.0
"""The same where they are heard: for what only a look can find, such as a file that stays open."""
SETTLE_S: Final = 0.02
"""Real seconds from the first sound of a change to the look: a file is made in several steps."""
TEND_S: Final = 60.0
"""Elapsed seconds between rounds of housekeeping."""
DEEP_S: Final = 86_400.0
"""Elapsed seconds between readings that include replicas: relays forget after days."""
OFFLINE_S: Final = 2.0
"""Real seconds between attempts to read when no server answered; each is left alone for longer."""
INVITE_S: Final = 1.0
"""Real seconds between looks into mailboxes while an invite is open."""
OnSynced = Callable[[FolderSync, Synced], None]


class Watch:
    """The tasks of one device. `run` until cancelled."""

    def __init__(
        self,
        runtime: DeviceRuntime,
        on_synced: OnSynced,
        inviter: Inviter | None = None,
        direct: Direct | None = None,
    ) -> None:
        """`direct`: the paths to other devices, if any are kept."""
        self._runtime = runtime
        self._direct = direct
        self._on_synced = on_synced
        self._inviter = inviter or Inviter(runtime)
        self._news: dict[bytes, asyncio.Event] = {}
        self._tend_now = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._watchers: dict[bytes, Watcher] = {}
        self._followed: set[bytes] = set()

    async def run(self) -> None:
        """Stay in step until cancelled. Raises nothing but bugs."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._staff()
            tasks.create_task(self._tend())
            tasks.create_task(self._answer())
            if self._direct is not None:
                self._direct.heard = self._told
                tasks.create_task(self._direct.run())

    def _staff(self) -> None:
        """A task for every slot and folder that has none: some could not be opened before."""
        assert self._tasks is not None
        for slot_id, slot in self._runtime.slots.items():
            if slot_id not in self._watchers:
                self._watchers[slot_id] = slot.watcher(self._heard)
                self._tasks.create_task(self._watchers[slot_id].run())
            self._watchers[slot_id].watch(self._eras(slot))
        for group, folder in self._runtime.folders.items():
            if group not in self._followed:
                self._followed.add(group)
                self._tasks.create_task(self._follow(folder))
                self._tasks.create_task(self._read_all(folder))

    # --- news ----------------------------------------------------------------------------------
    def _eras(self, slot: Slot) -> list[Era]:
        """What is watched on a slot: folders that are here, and the keyring."""
        groups = [folder.group for folder in self._runtime.folders.values()]
        watched = (*groups, self._runtime.keyring)
        return [era for group in watched if group.slot is slot for era in group.eras]

    async def _heard(self, era: Era, name: str) -> None:
        """`name` may have something new for `era`: read it there."""
        keyring = self._runtime.keyring
        if keyring.knows(era):
            reading = await keyring.read_one(name, era)
            if reading.taken:
                self._tend_now.set()
            return
        for folder in self._runtime.folders.values():
            if folder.group.knows(era):
                reading = await folder.group.read_one(name, era)
                folder.offline = ""
                if reading.taken:
                    self._staff()
                    self._event(folder).set()

    def _told(self, group: Group) -> None:
        """A device told something of a group."""
        if group is self._runtime.keyring:
            self._tend_now.set()
        self._staff()
        folder = self._runtime.folders.get(group.id)
        if folder is not None:
            self._event(folder).set()

    def _event(self, folder: FolderSync) -> asyncio.Event:
        return self._news.setdefault(folder.group.id, asyncio.Event())

    # --- folders -------------------------------------------------------------------------------
    async def _follow(self, folder: FolderSync) -> None:
        clock, news = self._runtime.clock, self._event(folder)
        ear = TreeWatch(news.set)
        ear.start()
        try:
            while True:
                news.clear()
                began_at = clock.elapsed()
                done = await self._sync(folder, ear)
                took_s = (clock.elapsed() - began_at) / clock.scale
                look_s = HEARD_SCAN_S if not ear.broken and _in_step(done) else SCAN_S
                if not await self._hear(news, max(look_s, 10.0 * took_s)):
                    ear.put_back(None)
                elif done is not None and done.quiet:
                    await clock.sleep_real(max(SETTLE_S, took_s))
        finally:
            ear.close()

    async def _read_all(self, folder: FolderSync) -> None:
        """Read every server at the start and now and then. Beside the cycles: a change here must
        not wait for servers that do not answer."""
        clock = self._runtime.clock
        while True:
            try:
                await folder.read(everywhere=True)
            except HoldfastError as error:
                _log.warning("%s: %s", folder.path, error)
            self._event(folder).set()
            if folder.offline:
                await clock.sleep_real(OFFLINE_S)
            else:
                await clock.sleep(DEEP_S)

    async def _hear(self, news: asyncio.Event, real_s: float) -> bool:
        """Whether there is news within `real_s`."""
        try:
            async with self._runtime.clock.real_timeout(real_s):
                await news.wait()
        except TimeoutError:
            return False
        return True

    async def _sync(self, folder: FolderSync, ear: TreeWatch) -> Synced | None:
        """One cycle; None when it came to nothing."""
        try:
            done = await folder.sync(read=False, ear=ear)
        except HoldfastError as error:
            _log.warning("%s: %s", folder.path, error)
            return None
        self._runtime.state.keep_figures(folder.group.id, msgspec.json.encode(folder.figures()))
        self._on_synced(folder, done)
        return done

    # --- the rest ------------------------------------------------------------------------------
    async def _tend(self) -> None:
        clock, deep_at = self._runtime.clock, float("-inf")
        while True:
            self._tend_now.clear()
            began_at = clock.elapsed()
            deep = began_at - deep_at >= DEEP_S
            try:
                await tend(self._runtime, everywhere=deep)
                await show_receipts(self._runtime)
                await hand_in(self._runtime)
                deep_at = began_at if deep else deep_at
                self._staff()
            except HoldfastError as error:
                _log.info("housekeeping waits: %s", error)
            try:
                async with clock.timeout(TEND_S):
                    await self._tend_now.wait()
            except TimeoutError:
                continue

    async def _answer(self) -> None:
        clock, host = self._runtime.clock, self._inviter.host
        while True:
            wall_s = clock.wall()
            is_open = any(
                invite.expires_at >= wall_s and not invite.taken_by_name
                for invite in host.waiting(wall_s)
            )
            try:
                await self._inviter.answer()
            except HoldfastError as error:
                _log.info("mailboxes wait: %s", error)
            await clock.sleep_real(INVITE_S if is_open else 3.0 * INVITE_S)


def _in_step(done: Synced | None) -> bool:
    """Whether a cycle left nothing to be tried again."""
    return done is not None and not (done.offline or done.problems or done.missing or done.busy)
