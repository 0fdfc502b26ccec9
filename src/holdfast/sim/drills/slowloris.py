"""Thousands of hostile connections that hang on, and honest clients beside them (seed 004 §11.3).

Four kinds of hostile connection, in equal numbers, each made again when the server ends it:

    silent    connected, and never a byte of TLS
    mute      a TLS handshake, and nothing after it
    header    a request's header, a byte at a time
    body      a whole header that promises a body, and the body a byte at a time

Honest clients push one small blob a second each, half of the time over a new connection, and every
receipt is verified. Beside it stands the same relay with nobody hostile at it, measured first.

The control is a pair of relays in the same run, each with the same hostile connections. One has the
defences with short limits; the process of the other has switched watcher and limits off (`patient`,
a command of this drill: no setting of a relay does that). It shows what the defences are for: the
first ends every connection again and again, the second not a single one, so each holds a descriptor
and a place for good. Silent ones are left out: the TLS listener below us ends those after ten
seconds by itself, which cannot be switched off.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.crypto.blob import seal
from holdfast.crypto.era import Era
from holdfast.errors import HoldfastError, OperationFault
from holdfast.fabric.session import Session
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Dice, Entropy
from holdfast.rim.files import read_file
from holdfast.rim.process import Child, holdfast_command, spawn
from holdfast.sim.drills.hostile import HOLDING, KINDS, Tally
from holdfast.sim.drills.lone_server import LoneServer
from holdfast.sim.percentile import percentile
from holdfast.wire.pool import BlobClass

PUSH_PERIOD_S: Final = 1.0
PUSH_S: Final = 15.0
RAMP_S: Final = 30.0
"""Real seconds without another one more: the server ends them as fast as they are made."""
PAYLOAD_BYTES: Final = 600
CONTROL_HOSTILE: Final = 60
"""Hostile connections at each relay of the control, twenty of each kind."""
CONTROL_LIMIT_S: Final = 1.0
CONTROL_S: Final = 4.0
_DAY_S: Final = 86_400


class SlowlorisReport(msgspec.Struct):
    """What honest clients felt. Latencies are of one verified push, real milliseconds."""

    hostile: int
    honest: int
    seed: int
    hostile_held: int = 0
    """Hostile connections open at once, at the least, while honest ones were counted."""
    hostile_held_p50: int = 0
    hostile_remade: int = 0
    """Ended by the server, or refused, and made again."""
    honest_pushes: int = 0
    honest_failures: int = 0
    honest_p50_ms: float = 0.0
    honest_p99_ms: float = 0.0
    control_p99_ms: float = 0.0
    """The same without anybody hostile."""
    control_hostile: int = CONTROL_HOSTILE
    control_ended: int = 0
    """Hostile connections that the control's relay with short limits ended, in four seconds."""
    control_off_ended: int = 0
    """And the one without defences."""
    control_off_held: int = 0
    """Open there at the end."""
    failures: tuple[str, ...] = ()
    seconds: float = 0.0

    control: bool = False
    """Whether hostile connections stayed for good where the defences are off, and were ended where
    they are on."""

    @property
    def held(self) -> bool:
        """No honest client was turned away, with at least half of the hostile ones there at any
        time: the server ends them all the while."""
        crowded = self.hostile_held >= self.hostile // 2
        return not self.honest_failures and crowded and self.control


class Slowloris:
    """The drill, in one empty directory."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy, seed: int) -> None:
        self.server = LoneServer(home / "server", clock, entropy)
        self._pair = [
            LoneServer(home / name, clock, entropy, program=("drill", "patient", *options))
            for name, options in (("short", (f"--limit-s={CONTROL_LIMIT_S}",)), ("patient", ()))
        ]
        self._dice = Dice(seed)
        self._seed = seed
        self._clock = clock

    async def run(self, hostile: int, honest: int, measure_s: float) -> SlowlorisReport:
        """Measure without and with `hostile` connections, each for `measure_s` real seconds."""
        allow_descriptors(8 * honest)
        report = SlowlorisReport(hostile, honest, self._seed)
        began = self._clock.elapsed()
        await self._control(report)
        await self.server.start()
        try:
            groups = [self.server.era() for _ in range(honest)]
            control = await self._measure(groups, measure_s, SlowlorisReport(0, honest, 0))
            report.control_p99_ms = _percentile_ms(control, 0.99)
            attack = await self._attack(self.server, hostile)
            try:
                await self._ramp(hostile)
                times = await self._measure(groups, measure_s, report)
                report.hostile_remade = self._seen(self.server).remade
            finally:
                attack.kill()
                await attack.wait()
        finally:
            await self.server.kill()
        report.honest_pushes = len(times)
        report.honest_p50_ms = _percentile_ms(times, 0.5)
        report.honest_p99_ms = _percentile_ms(times, 0.99)
        report.seconds = round(self._clock.elapsed() - began, 1)
        return report

    async def _control(self, report: SlowlorisReport) -> None:
        """The same attack on two relays, one without defences."""
        attacks = []
        try:
            for server in self._pair:
                await server.start()
                attacks.append(await self._attack(server, CONTROL_HOSTILE, HOLDING))
            short, patient = self._pair
            while not (self._seen(patient).open == CONTROL_HOSTILE and self._seen(short).remade):
                await self._clock.sleep_real(0.1)
            await self._clock.sleep_real(CONTROL_S)
            report.control_ended = self._seen(short).remade
            seen = self._seen(patient)
            report.control_off_held, report.control_off_ended = seen.open, seen.remade
        finally:
            for child in attacks:
                child.kill()
                await child.wait()
            for server in self._pair:
                await server.kill()
        stayed = report.control_off_held == CONTROL_HOSTILE and not report.control_off_ended
        report.control = stayed and report.control_ended >= CONTROL_HOSTILE

    async def _attack(
        self, server: LoneServer, hostile: int, kinds: Sequence[str] = KINDS
    ) -> Child[Any]:
        """The hostile process, told where and how many."""
        command = holdfast_command(
            "drill",
            "hostile",
            f"--address={server.address}",
            f"--roots={server.home / 'roots.pem'}",
            f"--count={hostile}",
            f"--kinds={','.join(kinds)}",
            f"--tally={_tally(server)}",
        )
        return await spawn(command, log=server.home / "hostile.log")

    def _seen(self, server: LoneServer) -> Tally:
        data = read_file(_tally(server))
        return msgspec.json.decode(data, type=Tally) if data else Tally()

    async def _ramp(self, hostile: int) -> None:
        """Return when nearly all hostile connections are open at once, or no more will be."""
        best, since = 0, self._clock.elapsed()
        while self._seen(self.server).open < 0.95 * hostile:
            await self._clock.sleep_real(0.25)
            if self._seen(self.server).open > best:
                best, since = self._seen(self.server).open, self._clock.elapsed()
            if self._clock.elapsed() - since > RAMP_S:
                return

    async def _measure(
        self, groups: list[Era], measure_s: float, report: SlowlorisReport
    ) -> list[float]:
        """Seconds of every honest push."""
        times: list[float] = []
        counts: list[int] = []
        watching = asyncio.create_task(self._count(counts))
        until = self._clock.elapsed() + measure_s
        await asyncio.gather(*(self._honest(era, until, times, report) for era in groups))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        report.hostile_held = min(counts, default=0)
        report.hostile_held_p50 = sorted(counts)[len(counts) // 2] if counts else 0
        return times

    async def _count(self, counts: list[int]) -> None:
        while True:
            counts.append(self._seen(self.server).open)
            await self._clock.sleep_real(0.5)

    async def _honest(
        self, era: Era, until: float, times: list[float], report: SlowlorisReport
    ) -> None:
        """Push until the time is up; on a connection of its own, often a new one."""
        await self._clock.sleep_real(self._dice.uniform(0.0, PUSH_PERIOD_S))
        client = self.server.client(1)
        session: Session | None = None
        while self._clock.elapsed() < until:
            born = int(self._clock.wall() // _DAY_S)
            blob = seal(era, 1, self._dice.randbytes(PAYLOAD_BYTES), born)
            began = self._clock.elapsed()
            try:
                async with self._clock.real_timeout(PUSH_S):
                    if session is None:
                        session = await Session.open(client, era.access, self.server.slot)
                    await session.push(BlobClass.LOG, [blob])
                times.append(self._clock.elapsed() - began)
            except (HoldfastError, TimeoutError) as error:
                report.honest_failures += 1
                report.failures = (*report.failures, str(error)[:100] or "time out")[:5]
            if self._dice.random() < 0.5:
                await client.close()
                client, session = self.server.client(1), None
            await self._clock.sleep_real(PUSH_PERIOD_S)
        await client.close()


def _tally(server: LoneServer) -> Path:
    """Where the hostile process at a server writes what stands."""
    return server.home / "hostile.json"


def allow_descriptors(wanted: int) -> None:
    """Raises OperationFault when this process may not open so many sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + 256
    if hard < needed:
        raise OperationFault(f"{needed} file descriptors are needed, {hard} allowed")
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _percentile_ms(times: list[float], share: float) -> float:
    return round(1_000 * percentile(times, share, 4), 1)
