"""Headquarters destroyed, disk and keys, and made anew out of its sealed snapshot.

The fleet goes on serving meanwhile, and while nobody is there to see it a machine dies. Then the
commands that a person would type: `holdfast hq restore`, `holdfast hq serve`. `seconds_to_decide`
counts from the first of them until the new headquarters has ordered the machine that replaces the
dead one, the detection window it must only listen for included (at the network's time scale).

Judged from outside: every row that lay in the old store, read from its file before it was wiped,
must lie in the new one (`state_equal`; the lead, the term and the mark of the restore apart); the
order is read from the providers' own logs; the server must be green on a new machine.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from holdfast.cli.drills.play import Keep, play
from holdfast.cli.hq_snapshots import Lines
from holdfast.cli.local import LocalNetwork
from holdfast.cli.local_hq import HQ
from holdfast.cli.service import clock_of
from holdfast.cli.tour import ground
from holdfast.crypto.sealedfile import make_identity, recipient_of
from holdfast.errors import HoldfastError, OperationFault, UsageError
from holdfast.hq.admin import SnapshotsView, TokenMade, TokenOrder
from holdfast.hq.config import ContinuityConfig
from holdfast.hq.leader import LEADER, TERM
from holdfast.hq.restored import RESTORED
from holdfast.hq.snapshot import KEY_FILE
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import Clock
from holdfast.rim.cloud.machines import GONE
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.entropy import Dice, Entropy, SystemEntropy
from holdfast.rim.files import read_file, write_file
from holdfast.rim.process import Child, holdfast_command, spawn
from holdfast.wire.snapshot import key_line

REGION: Final = "eu"
WAYS: Final = ("pool", "directory")
SNAPSHOT_S: Final = 120.0
DECIDE_S: Final = 300.0
HEAL_S: Final = 300.0
POLL_S: Final = 0.2


class RestoreReport(msgspec.Struct):
    """What the new headquarters knew and did. Times are real seconds."""

    way: str
    time_scale: float
    seed: int
    snapshot_bytes: int = 0
    rows: int = 0
    rows_lost: int = 0
    rows_changed: int = 0
    state_equal: bool = False
    epoch: int = 0
    term_before: int = 0
    term: int = 0
    restore_s: float = 0.0
    seconds_to_decide: float = 0.0
    healed_a_dead_node: bool = False
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """The same headquarters, one life later, and it heals."""
        again = self.epoch == 1 and self.term > self.term_before
        return self.state_equal and self.healed_a_dead_node and again


class HqRestore:
    """The drill, in one empty directory. `clock` runs at the network's time scale."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy, seed: int, way: str) -> None:
        self._home = home
        self._clock = clock
        self._dice = Dice(seed)
        self._report = RestoreReport(way, clock.scale, seed)
        self._identity = make_identity()
        self._opener = home / "envelope" / "key.txt"
        self._kept = home / "elsewhere"
        self.network = LocalNetwork(
            home / "network",
            clock=clock,
            entropy=entropy,
            regions=(REGION,),
            time_scale=clock.scale,
            continuity=ContinuityConfig(
                (recipient_of(self._identity),), (str(self._kept),), REGION
            ),
        )

    async def run(self) -> RestoreReport:
        """Raises OperationFault."""
        report, began = self._report, self._clock.elapsed()
        self._opener.parent.mkdir(parents=True)
        write_file(self._opener, self._identity.encode() + b"\n")
        try:
            await self.network.start()
            await self._decide_something()
            lines = await self._snapshot_taken()
            before = await self._destroy()
            dead = await self._kill_machine()
            ordered = len(ground.machines_made(self.network))
            started = self._clock.elapsed()
            await self._restore(lines)
            report.restore_s = self._since(started)
            await self._compare(before)
            await self.network.start_hq()
            await self._until(
                DECIDE_S, "order", lambda: len(ground.machines_made(self.network)) > ordered
            )
            report.seconds_to_decide = self._since(started)
            report.term = (await self.network.status()).term
            await self._healed(dead)
        finally:
            await self.network.stop()
        report.seconds = self._since(began)
        return report

    def _since(self, began: float) -> float:
        return round((self._clock.elapsed() - began) / self._clock.scale, 2)

    # --- Before ----------------------------------------------------------------------------------
    async def _decide_something(self) -> None:
        """Rows of every kind: slots that clients were given, tokens, what revoking leaves."""
        for _ in range(3):
            await ground.client(self.network, REGION, self._clock, SystemEntropy())
            order = TokenOrder(role=Role.RELAY, region=REGION)
            await self.network.admin().call("POST", "/admin/v1/tokens", order, TokenMade)

    async def _snapshot_taken(self) -> Lines:
        """Wait until both shelves hold what the store holds now."""
        admin = self.network.admin()
        try:
            async with self._clock.real_timeout(SNAPSHOT_S):
                while True:
                    status = await self.network.status()
                    view = await admin.call("GET", "/admin/v1/snapshots", None, SnapshotsView)
                    fresh = [kept for kept in view.shelves if kept.revision == status.revision]
                    if len(fresh) == len(WAYS):
                        break
                    await self._clock.sleep_real(POLL_S)
        except TimeoutError:
            raise OperationFault(f"no snapshot within {SNAPSHOT_S:.0f} s") from None
        self._report.snapshot_bytes = fresh[0].file_bytes
        self._report.term_before = status.term
        secret = read_file(self.network.directory / HQ / KEY_FILE)
        assert secret is not None
        return Lines(view.locator, key_line(secret))

    async def _destroy(self) -> dict[str, bytes]:
        """Kill it, read what it knew, and wipe its disk; the root that signed for it as well."""
        self.network.kill_hq()
        await self._until(10.0, "death of headquarters", lambda: not self.network.running(HQ))
        directory = self.network.directory / HQ
        rows = await self._rows(directory)
        shutil.rmtree(directory)
        shutil.rmtree(self.network.directory / "root")
        return rows

    async def _rows(self, directory: Path) -> dict[str, bytes]:
        store = await SqliteStore.open(directory / "control.db", self._clock)
        try:
            return {kv.key: kv.value for kv in (await store.range("/")).items}
        finally:
            await store.close()

    async def _kill_machine(self) -> str:
        """A machine dies while nobody looks; the name of its server."""
        running = [
            (provider, server)
            for provider, _, server in ground.machines(self.network)
            if server.state != GONE
        ]
        provider, victim = self._dice.choice(running)
        await self.network.provider(provider).delete(victim.name)
        return victim.name.rpartition("-")[0]

    # --- After -----------------------------------------------------------------------------------
    async def _restore(self, lines: Lines) -> None:
        """`holdfast hq restore`, as a person would type it."""
        where: tuple[str, ...] = ("--from", str(self._kept))
        if self._report.way == "pool":
            where = ("--locator", lines.locator, "--key", lines.key)
        words = ("hq", "restore", "--dir", str(self.network.directory / HQ))
        command = holdfast_command(*words, "--identity", str(self._opener), *where)
        log = self._home / "restore.log"
        child: Child[None] = await spawn(command, log=log)
        if await child.wait():
            raise OperationFault(f"the restore failed; look into {log}", retryable=False)

    async def _compare(self, before: dict[str, bytes]) -> None:
        report = self._report
        after = await self._rows(self.network.directory / HQ)
        report.epoch = msgspec.msgpack.decode(after[RESTORED])["epoch"]
        apart = {LEADER, TERM, RESTORED}
        wanted = {key: value for key, value in before.items() if key not in apart}
        report.rows = len(wanted)
        report.rows_lost = len(wanted.keys() - after.keys())
        report.rows_changed = sum(after.get(key, value) != value for key, value in wanted.items())
        extra = after.keys() - before.keys() - apart
        report.state_equal = not (report.rows_lost or report.rows_changed or extra)

    async def _healed(self, dead: str) -> None:
        async def green() -> bool:
            fleet = await self.network.fleet()
            rows = [row for row in fleet.servers if row.name == dead]
            return bool(rows) and rows[0].tier.value == "green" and bool(rows[0].addresses)

        with contextlib.suppress(TimeoutError):
            async with self._clock.real_timeout(HEAL_S):
                while not self._report.healed_a_dead_node:
                    with contextlib.suppress(HoldfastError):
                        running = [
                            server.name
                            for _, _, server in ground.machines(self.network)
                            if server.state != GONE and server.name.rpartition("-")[0] == dead
                        ]
                        self._report.healed_a_dead_node = len(running) == 1 and await green()
                    await self._clock.sleep_real(POLL_S)

    async def _until(self, limit_s: float, what: str, ready: Callable[[], bool]) -> None:
        try:
            async with self._clock.real_timeout(limit_s):
                while not ready():
                    await self._clock.sleep_real(POLL_S)
        except TimeoutError:
            raise OperationFault(f"no {what} within {limit_s:.0f} s") from None


def hq_restore(
    *,
    way: str = "pool",
    time_scale: float = 60.0,
    seed: int = 1,
    keep: Keep = None,
    json: bool = False,
) -> int:
    """Destroy headquarters, disk and keys, and restore it from its sealed snapshot.

    Parameters
    ----------
    way
        Where the snapshot comes from: pool or directory.
    time_scale
        How many of the network's seconds pass in one of yours.
    seed
        Which machine dies meanwhile.
    json
        One JSON object as the last line.
    """
    if way not in WAYS:
        raise UsageError(f"--way is {' or '.join(WAYS)}")
    clock, entropy = clock_of(time_scale), SystemEntropy()
    return play(
        "hq-restore",
        lambda home: HqRestore(home, clock, entropy, seed, way).run(),
        keep=keep,
        json=json,
    )
