"""Thousands of hostile connections that hang on, and honest clients beside them (seed 004 §11.3).

Four kinds of hostile connection, in equal numbers, each made again when the server ends it:

    silent    connected, and never a byte of TLS
    mute      a TLS handshake, and nothing after it
    header    a request's header, a byte at a time
    body      a whole header that promises a body, and the body a byte at a time

Honest clients push one small blob a second each, half of the time over a new connection, and every
receipt is verified. The control is the same relay with nobody hostile at it, measured first.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from pathlib import Path
from typing import Final

import msgspec

from holdfast.crypto.blob import seal
from holdfast.crypto.era import Era
from holdfast.errors import HoldfastError, OperationFault
from holdfast.fabric.session import Session
from holdfast.rim.bare_client import BareDialler
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Dice, Entropy
from holdfast.sim.drills.lone_server import LoneServer
from holdfast.wire.pool import BlobClass

KINDS: Final = ("silent", "mute", "header", "body")
TRICKLE_S: Final = 5.0
"""Real seconds between two bytes: soon enough that no idle limit between bytes helps."""
PUSH_PERIOD_S: Final = 1.0
PUSH_S: Final = 15.0
DIAL_S: Final = 60.0
RAMP_S: Final = 600.0
DIALLING_MAX: Final = 100
"""Hostile connections being made at once, so that honest ones are not held up by our own queue."""
PAYLOAD_BYTES: Final = 600
_HEAD: Final = b"POST /v1/push HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\n"
_DAY_S: Final = 86_400


class SlowlorisReport(msgspec.Struct):
    """What honest clients felt. Latencies are of one verified push, real milliseconds."""

    hostile: int
    honest: int
    seed: int
    hostile_held: int = 0
    """Hostile connections open at once, at the least, while honest ones were counted."""
    hostile_remade: int = 0
    honest_pushes: int = 0
    honest_failures: int = 0
    honest_p50_ms: float = 0.0
    honest_p99_ms: float = 0.0
    control_p99_ms: float = 0.0
    """The same without anybody hostile."""
    failures: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """No honest client was turned away, with most of the hostile ones there."""
        return not self.honest_failures and self.hostile_held >= self.hostile * 9 // 10


class _Hostile:
    """One hostile connection, made again whenever it ends."""

    def __init__(self, kind: str, drill: Slowloris) -> None:
        self._kind = kind
        self._drill = drill
        self.open = False

    async def run(self) -> None:
        first = True
        while True:
            self._drill.remade += 0 if first else 1
            first = False
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                await self._hang_on()
            self.open = False
            await self._drill.server.clock.sleep_real(0.5)

    async def _hang_on(self) -> None:
        """Connect and hold on until the server ends it."""
        async with self._drill.dialling:
            tls = self._kind != "silent"
            reader, writer = await self._drill.dialler.dial(tls=tls, timeout_s=DIAL_S)
        self.open = True
        trickle = asyncio.create_task(self._trickle(writer))
        try:
            while await reader.read(4096):
                pass
        finally:
            trickle.cancel()
            writer.transport.abort()

    async def _trickle(self, writer: asyncio.StreamWriter) -> None:
        if self._kind in ("silent", "mute"):
            return
        if self._kind == "body":
            writer.write(_HEAD + b"content-length: 2048\r\n\r\n")
        else:
            writer.write(_HEAD + b"x-slow: ")
        while True:
            await self._drill.server.clock.sleep_real(TRICKLE_S)
            writer.write(b"a")


class Slowloris:
    """The drill, in one empty directory."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy, seed: int) -> None:
        self.server = LoneServer(home / "server", clock, entropy)
        self.dialling = asyncio.Semaphore(DIALLING_MAX)
        self.remade = 0
        self.dialler = BareDialler(self.server.address, self.server.roots, clock)
        self._dice = Dice(seed)
        self._seed = seed
        self._clock = clock

    async def run(self, hostile: int, honest: int, measure_s: float) -> SlowlorisReport:
        """Measure without and with `hostile` connections, each for `measure_s` real seconds."""
        _allow_descriptors(hostile + 8 * honest)
        report = SlowlorisReport(hostile, honest, self._seed)
        began = self._clock.elapsed()
        await self.server.start()
        try:
            groups = [self.server.era() for _ in range(honest)]
            control = await self._measure(groups, measure_s, SlowlorisReport(0, honest, 0), [])
            report.control_p99_ms = _percentile_ms(control, 0.99)
            attackers = [_Hostile(KINDS[number % len(KINDS)], self) for number in range(hostile)]
            tasks = [asyncio.create_task(attacker.run()) for attacker in attackers]
            try:
                await self._ramp(attackers)
                times = await self._measure(groups, measure_s, report, attackers)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await self.server.kill()
        report.hostile_remade = self.remade
        report.honest_pushes = len(times)
        report.honest_p50_ms = _percentile_ms(times, 0.5)
        report.honest_p99_ms = _percentile_ms(times, 0.99)
        report.seconds = round(self._clock.elapsed() - began, 1)
        return report

    async def _ramp(self, attackers: list[_Hostile]) -> None:
        """Return when nearly all hostile connections are open at once."""
        try:
            async with self._clock.real_timeout(RAMP_S):
                while sum(attacker.open for attacker in attackers) < 0.95 * len(attackers):
                    await self._clock.sleep_real(0.25)
        except TimeoutError as error:
            count = sum(attacker.open for attacker in attackers)
            raise OperationFault(f"only {count} hostile connections stand") from error

    async def _measure(
        self,
        groups: list[Era],
        measure_s: float,
        report: SlowlorisReport,
        attackers: list[_Hostile],
    ) -> list[float]:
        """Seconds of every honest push."""
        times: list[float] = []
        counts: list[int] = []
        watching = asyncio.create_task(self._count(attackers, counts))
        until = self._clock.elapsed() + measure_s
        await asyncio.gather(*(self._honest(era, until, times, report) for era in groups))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        report.hostile_held = min(counts, default=0)
        return times

    async def _count(self, attackers: list[_Hostile], counts: list[int]) -> None:
        while True:
            counts.append(sum(attacker.open for attacker in attackers))
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


def _allow_descriptors(wanted: int) -> None:
    """Raises OperationFault when this process may not open so many sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + 256
    if hard < needed:
        raise OperationFault(f"{needed} file descriptors are needed, {hard} allowed")
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _percentile_ms(times: list[float], share: float) -> float:
    ordered = sorted(times)
    return round(1_000 * ordered[int(share * (len(ordered) - 1))], 1) if ordered else 0.0
