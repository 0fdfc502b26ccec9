"""The rounds of `bench folder`, and what comes out.

Every contender gets a fresh copy of the tree. For the two that sync, both ends stand, are connected
and share an empty folder before the clock starts and the tree is moved in with one rename;
Syncthing is told to scan at that moment, ours finds out by itself. restic backs up to a repository
on the same disk and restores from it. The order changes from round to round; medians are reported.
When the tree has arrived at ours, small changes follow it; with `large`, two large files in a sync
of their own.

With `direct` ours are two friends' devices whose pool has ended before the clock starts: what moves
goes from one to the other. Syncthing does the same; restic has no such way and is left out.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
from pathlib import Path
from typing import Final

import msgspec

from holdfast.cli.contest import syncthing
from holdfast.cli.contest.changes import small_changes
from holdfast.cli.contest.direct import WINDOWS_SCALE, befriend, only_each_other
from holdfast.cli.contest.judge import Judge, finish, installed, move_in
from holdfast.cli.contest.large import make_large
from holdfast.cli.local import LocalNetwork
from holdfast.cli.tour.hands import Device
from holdfast.cli.trees import copy_tree
from holdfast.errors import OperationFault
from holdfast.hq.brain_view import FleetView
from holdfast.limits import GIB
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.sim.bench_relay import cpu_name, peak_mb
from holdfast.wire.hq import Terms

REGION: Final = "eu"
READY_S: Final = 240.0
SETTLE_S: Final = 3.0
TERMS: Final = Terms(group_bytes_max=64 * GIB, requests_per_s=5_000.0, requests_burst=50_000.0)
CONTENDERS: Final = ("ours", "syncthing", "restic")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON of one contest. Seconds are medians over the rounds; ratios above 1: ours wins."""

    files: int
    bytes: int
    ours_s: float
    syncthing_s: float | None
    restic_backup_s: float | None
    restic_restore_s: float | None
    ratio_to_syncthing: float | None
    ratio_to_restic: float | None
    small_change_p50_ms: float
    """From a write of 1 KiB in the arrived tree to the same bytes on the other device."""
    small_change_max_ms: float
    rss_mb: float
    """Peak memory of the larger of the two device processes."""
    large_bytes: int | None
    """With `--large`: a file of noise and a sparse one, apparent size, in a sync of their own."""
    large_s: float | None
    large_rss_mb: float | None
    rounds: int
    time_scale: float
    """Of the servers' and devices' clocks; anything but 1 is for trying the bench out."""
    direct: bool
    devices_time_scale: float
    """With `direct` the devices' clocks run faster, so that a port window comes soon."""
    all_s: dict[str, list[float]]
    left_out: tuple[str, ...]
    cores: int
    cpu: str
    load_before: float


class Contest:
    """All rounds in one directory."""

    def __init__(
        self,
        home: Path,
        source: Path,
        clock: Clock,
        entropy: Entropy,
        *,
        large: bool = False,
        direct: bool = False,
        time_scale: float = 1.0,
    ) -> None:
        self._home = home
        self._direct = direct
        self._devices_scale = WINDOWS_SCALE if direct else time_scale
        self._time_scale = time_scale
        self._large = large
        self._clock = clock
        self._entropy = entropy
        self._logs = home / "logs"
        self._logs.mkdir(parents=True)
        self._stock = home / "stock"
        copy_tree(source, self._stock)
        self._judge = Judge(self._stock, self._logs, clock)
        self._seconds: dict[str, list[float]] = {}
        self._rss_mb = 0.0
        self._changes_ms: list[float] = []

    async def run(self, rounds: int) -> Report:
        """Run them. Raises OperationFault when a contender does not come to its end."""
        load_before = os.getloadavg()[0]
        asked = CONTENDERS[:2] if self._direct else CONTENDERS
        field = [name for name in asked if name == "ours" or installed(name)]
        for number in range(rounds):
            for name in field[number % len(field) :] + field[: number % len(field)]:
                where = self._home / f"{number}-{name}"
                where.mkdir()
                tree = where / "tree"
                copy_tree(self._stock, tree)
                await self._contend(name, where, tree)
                shutil.rmtree(where)
        large_s, large_mb, large_bytes = await self._ours_large() if self._large else (None,) * 3
        median = {name: round(statistics.median(all_s), 2) for name, all_s in self._seconds.items()}
        ours, theirs = median["ours"], median.get("syncthing")
        restic = median.get("restic_backup", 0.0) + median.get("restic_restore", 0.0)
        return Report(
            files=self._judge.tree.files,
            bytes=self._judge.tree.bytes,
            ours_s=ours,
            syncthing_s=theirs,
            restic_backup_s=median.get("restic_backup"),
            restic_restore_s=median.get("restic_restore"),
            ratio_to_syncthing=None if theirs is None else round(theirs / ours, 2),
            ratio_to_restic=round(restic / ours, 2) if restic else None,
            small_change_p50_ms=round(statistics.median(self._changes_ms), 1),
            small_change_max_ms=round(max(self._changes_ms), 1),
            rss_mb=round(self._rss_mb, 1),
            large_bytes=large_bytes,
            large_s=large_s,
            large_rss_mb=large_mb,
            rounds=rounds,
            time_scale=self._time_scale,
            direct=self._direct,
            devices_time_scale=self._devices_scale,
            all_s={name: [round(s, 2) for s in all_s] for name, all_s in self._seconds.items()},
            left_out=tuple(
                f"{name} is not installed: apt install {name}"
                for name in asked
                if name not in field
            ),
            cores=len(os.sched_getaffinity(0)),
            cpu=cpu_name(),
            load_before=round(load_before, 2),
        )

    async def _contend(self, name: str, where: Path, tree: Path) -> None:
        if name == "ours":
            self._note(name, await self._ours(where, tree))
        elif name == "restic":
            await self._restic(where, tree)
        else:
            self._note(
                name,
                await syncthing.contend(where, tree, self._judge, self._clock, self._entropy),
            )

    def _note(self, name: str, seconds: float) -> None:
        self._seconds.setdefault(name, []).append(seconds)

    # --- Ours ------------------------------------------------------------------------------------
    async def _ours_large(self) -> tuple[float, float, int]:
        """(seconds, peak MB, bytes) of the two large files."""
        where = self._home / "large"
        where.mkdir()
        stock, tree = where / "stock", where / "tree"
        await asyncio.to_thread(make_large, stock, self._entropy)
        await finish(("cp", "-a", str(stock), str(tree)), where / "cp.log", self._clock)
        before, self._rss_mb = self._rss_mb, 0.0
        judge = Judge(stock, self._logs, self._clock)
        seconds = await self._ours(where, tree, judge)
        peak, self._rss_mb = self._rss_mb, max(before, self._rss_mb)
        shutil.rmtree(where)
        return round(seconds, 2), round(peak, 1), judge.tree.bytes

    async def _ours(self, where: Path, tree: Path, judge: Judge | None = None) -> float:
        network = LocalNetwork(
            where / "network",
            clock=self._clock,
            entropy=self._entropy,
            regions=(REGION,),
            time_scale=self._time_scale,
            report_tag_age_s=0.0,
            terms=TERMS,
        )
        devices = [
            Device(name, where / name, where / "logs", self._clock, self._devices_scale)
            for name in ("ada", "ben")
        ]
        try:
            await network.start()
            await self._whole(network)
            await self._meet(network, devices, where)
            if self._direct:
                here, there = (where / "shared" / device.name for device in devices)
                await only_each_other(network, here, there, self._clock)
            return await self._move_in(devices, where, tree, judge)
        finally:
            for device in devices:
                await device.stop()
            await network.stop()

    async def _whole(self, network: LocalNetwork) -> None:
        """Return once the slot has its three relays and three filled replicas."""

        def full(view: FleetView) -> bool:
            return bool(view.slots) and all(
                min(slot.relays, slot.replicas) == 3 for slot in view.slots
            )

        try:
            async with self._clock.real_timeout(READY_S):
                while not full(await network.fleet()):
                    await self._clock.sleep_real(0.5)
        except TimeoutError as error:
            raise OperationFault("the network does not become whole") from error

    async def _meet(self, network: LocalNetwork, devices: list[Device], where: Path) -> None:
        """Two devices share an empty folder and stay in step."""
        ada, ben = devices
        locator = str(network.locator())
        for device in devices:
            (where / "shared" / device.name).mkdir(parents=True)
            await device.run("device", "init", "--locator", locator, "--region", REGION)
        if self._direct:
            await befriend(ada, ben)
        await ada.run("folder", "add", str(where / "shared" / "ada"), "--name", "bench")
        invite = (await ada.run("folder", "invite", "bench", "--no-wait"))["invite"]
        await ada.start("folder", "sync", "--watch")
        await ben.run("folder", "join", invite, str(where / "shared" / "ben"))
        await ben.start("folder", "sync", "--watch")
        await self._clock.sleep_real(SETTLE_S)

    async def _move_in(
        self, devices: list[Device], where: Path, tree: Path, judge: Judge | None
    ) -> float:
        def check() -> None:
            for device in devices:
                device.check()

        started = self._clock.elapsed()
        move_in(tree, where / "shared" / "ada" / "tree")
        there = where / "shared" / "ben" / "tree"
        ended = await (judge or self._judge).arrival(there, check)
        if judge is None:
            here = where / "shared" / "ada" / "tree"
            self._changes_ms += await small_changes(here, there, self._clock, self._entropy)
            check()
        for device in devices:
            self._rss_mb = max(self._rss_mb, peak_mb(device.pid))
        return ended - started

    # --- restic ----------------------------------------------------------------------------------
    async def _restic(self, where: Path, tree: Path) -> None:
        password = where / "password"
        password.write_text("bench\n")
        common = (
            "restic",
            f"--repo={where / 'repository'}",
            f"--cache-dir={where / 'cache'}",
            f"--password-file={password}",
        )
        target = where / "restored"
        await finish((*common, "init"), where / "init.log", self._clock)
        started = self._clock.elapsed()
        await finish((*common, "backup", str(tree)), where / "backup.log", self._clock)
        middle = self._clock.elapsed()
        words = (*common, "restore", "latest", f"--target={target}")
        await finish(words, where / "restore.log", self._clock)
        ended = self._clock.elapsed()
        if not await self._judge.equal(target / tree.relative_to("/")):
            raise OperationFault("restic restored something else", retryable=False)
        self._note("restic_backup", middle - started)
        self._note("restic_restore", ended - middle)
