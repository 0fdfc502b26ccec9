"""A relay whose disk fills up, again and again, on a real small tmpfs (seed 004 §9).

Each trial: a neighbour's file takes all but a little more than what the relay keeps in reserve,
clients push until the relay refuses with `full`, blobs acknowledged before are read back meanwhile,
then the file goes and the relay must take pushes again by itself. In every other trial the
neighbour goes on to the last byte while clients push, and the relay is killed and started again
on a disk without any room. At the end everything ever acknowledged must be served and lie intact
on the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.crypto.blob import seal
from holdfast.crypto.era import Era
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import HoldfastError, OperationFault, UsageError
from holdfast.fabric.session import Session
from holdfast.limits import DISK_RESERVE_BYTES, KIB, MIB
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Dice, Entropy
from holdfast.rim.pool_client import PoolClient
from holdfast.rim.process import Child, spawn
from holdfast.sim.drills.lone_server import LoneServer
from holdfast.sim.witness import Held, held_on
from holdfast.wire.faults import Refusal
from holdfast.wire.pool import BlobClass

GROUPS: Final = 4
ROOM_BYTES: Final = (128 * KIB, 2 * MIB)
"""Left above the reserve: from next to nothing to a few hundred blobs."""
PAYLOADS: Final = (500, 3_000, 12_000, 60_000)
FILL_S: Final = 60.0
RECOVER_S: Final = 30.0
READ_BACK: Final = 20
"""Blobs read back while the disk is full."""
RETRY_S: Final = 0.05
IDS: Final = 200
_DAY_S: Final = 86_400
_BLOCK: Final = bytes(64 * KIB)


class DiskFullReport(msgspec.Struct):
    """What a full disk cost. Times are real seconds."""

    trials: int
    size_mib: int
    seed: int
    acked: int = 0
    acked_lost: int = 0
    refused_full: int = 0
    """Trials in which the relay said `full`."""
    refused_otherwise: int = 0
    """Pushes into a full disk that failed with anything else."""
    reads_failed: int = 0
    """Acknowledged blobs that were not served while the disk was full."""
    restarts: int = 0
    """Starts on a full disk, after SIGKILL."""
    recovered_s: float = 0.0
    """The longest time from the file's end to the next acknowledged push."""
    recovered_p50_s: float = 0.0
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Nothing lost, reads went on, every trial was full and got well."""
        failed = self.acked_lost or self.reads_failed or self.refused_otherwise
        return not failed and self.refused_full == self.trials


class DiskFull:
    """The drill, in one empty directory, as root."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy, seed: int) -> None:
        self._home = home
        self._disk = home / "disk"
        self._greed = self._disk / "neighbour"
        self._clock = clock
        self._dice = Dice(seed)
        self._seed = seed
        self._server = LoneServer(home / "server", clock, entropy, state=self._disk / "state")
        self._groups = [self._server.era() for _ in range(GROUPS)]
        self._acked: list[Held] = []
        self._sessions: list[Session] = []
        self._clients: list[PoolClient] = []

    async def run(self, trials: int, size_mib: int) -> DiskFullReport:
        """Raises UsageError when no tmpfs can be mounted, OperationFault when a trial hangs."""
        report = DiskFullReport(trials, size_mib, self._seed)
        await self._mount(size_mib)
        began = self._clock.elapsed()
        try:
            await self._start()
            times = [await self._trial(number, report) for number in range(trials)]
            report.acked = len(self._acked)
            missing = await self._not_served(self._acked)
            await self._stop()
            on_disk = await asyncio.to_thread(held_on, self._server.state)
            report.acked_lost = len(missing | (set(self._acked) - on_disk))
        finally:
            await self._stop()
            await self._command("umount", str(self._disk))
        report.recovered_s = round(max(times), 2)
        report.recovered_p50_s = round(sorted(times)[len(times) // 2], 2)
        report.seconds = round(self._clock.elapsed() - began, 1)
        return report

    # --- One trial -------------------------------------------------------------------------------
    async def _trial(self, number: int, report: DiskFullReport) -> float:
        """Fill, look, perhaps kill, make room; real seconds until the next acknowledgement."""
        room = DISK_RESERVE_BYTES + self._dice.randrange(*ROOM_BYTES)
        await asyncio.to_thread(self._take_room, room)
        if number % 2:
            await asyncio.gather(self._fill(report), asyncio.to_thread(self._take_room, 0))
        else:
            await self._fill(report)
        await self._look(report)
        if number % 2:
            await self._stop()
            await self._start()
            report.restarts += 1
            await self._look(report)
        os.unlink(self._greed)
        began = self._clock.elapsed()
        try:
            async with self._clock.real_timeout(RECOVER_S):
                while await self._push(self._dice.randrange(GROUPS), PAYLOADS[-1]):
                    await self._clock.sleep_real(RETRY_S)
        except TimeoutError as error:
            text = f"no push was taken {RECOVER_S:.0f} s after room returned"
            raise OperationFault(text, retryable=False) from error
        return self._clock.elapsed() - began

    def _take_room(self, room: int) -> None:
        """Write zeros until only `room` bytes are free."""
        with self._greed.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                stat = os.statvfs(self._disk)
                spare = stat.f_bavail * stat.f_frsize - room
                if spare <= 0:
                    return
                file.write(_BLOCK[:spare])

    async def _fill(self, report: DiskFullReport) -> None:
        """Every group pushes until the relay says `full` to it."""
        try:
            async with self._clock.real_timeout(FILL_S):
                codes = await asyncio.gather(*(self._fill_one(n) for n in range(GROUPS)))
        except TimeoutError as error:
            raise OperationFault("the disk does not fill up", retryable=False) from error
        report.refused_full += "full" in codes
        report.refused_otherwise += sum(code != "full" for code in codes)

    async def _fill_one(self, group: int) -> str:
        while True:
            code = await self._push(group, self._dice.choice(PAYLOADS))
            if code:
                return code

    async def _push(self, group: int, size: int) -> str:
        """Push one blob: "" when it was acknowledged, otherwise the code of the refusal."""
        era = self._groups[group]
        blob = seal(era, 1, self._dice.randbytes(size), int(self._clock.wall() // _DAY_S))
        try:
            await self._sessions[group].push(BlobClass.LOG, [blob])
        except Refusal as refusal:
            return refusal.code
        except HoldfastError as error:
            return str(error)
        self._acked.append(Held(era.tag, hash_bytes(blob)))
        return ""

    async def _look(self, report: DiskFullReport) -> None:
        """Read some of what was acknowledged while there is no room to write."""
        some = self._dice.sample(self._acked, min(READ_BACK, len(self._acked)))
        report.reads_failed += len(await self._not_served(some))

    async def _not_served(self, wanted: list[Held]) -> set[Held]:
        """Those of `wanted` that the relay does not give back whole."""
        missing = set(wanted)
        for session in self._sessions:
            mine = [held.blob for held in wanted if held.tag == session.tag]
            for start in range(0, len(mine), IDS):
                try:
                    found = await session.get(mine[start : start + IDS])
                except HoldfastError:
                    continue
                missing -= {Held(session.tag, blob) for blob in found}
        return missing

    # --- The ground ------------------------------------------------------------------------------
    async def _start(self) -> None:
        await self._server.start()
        self._clients = [self._server.client() for _ in self._groups]
        self._sessions = [
            await self._open(client, era)
            for client, era in zip(self._clients, self._groups, strict=True)
        ]

    async def _open(self, client: PoolClient, era: Era) -> Session:
        return await Session.open(client, era.access, self._server.slot)

    async def _stop(self) -> None:
        """SIGKILL the relay."""
        clients, self._clients = self._clients, []
        for client in clients:
            await client.close()
        await self._server.kill()

    async def _mount(self, size_mib: int) -> None:
        self._disk.mkdir(parents=True)
        options = f"size={size_mib}m,mode=700"
        status = await self._command(
            "mount", "-t", "tmpfs", "-o", options, "drill", str(self._disk)
        )
        if status:
            raise UsageError("a tmpfs cannot be mounted here; run this drill as root")

    async def _command(self, *words: str) -> int:
        child: Child[Any] = await spawn(words, log=self._home / "mount.log")
        return await child.wait()
