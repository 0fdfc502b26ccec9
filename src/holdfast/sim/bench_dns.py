"""Every name of a fleet gets a new address at once: our own name server, and Knot by RFC 2136.

The same change goes to both. `seconds` is until the embedded server answers from it, which is when
the control store has it; `rfc2136_seconds` until Knot has taken the last update. Both are then
asked for every name, over UDP, and what they answer is compared (seed 004 §7.3, §7.4).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import dns.asyncquery
import dns.exception
import dns.message
import dns.rdatatype
import msgspec

from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.dns.primary import Primary, Publisher
from holdfast.rim.dns.records import Entry
from holdfast.rim.dns.server import DnsServer
from holdfast.rim.dns.zone import Change, Zone
from holdfast.rim.entropy import Entropy
from holdfast.sim.knot import HOST, INSTALL, Knot, knot_binary

DOMAIN: Final = "bench.example"
PORT: Final = 7443
ASKED_AT_ONCE: Final = 64
ANSWER_S: Final = 5.0
PUBLISH_S: Final = 120.0


class DnsReport(msgspec.Struct, frozen=True):
    """The JSON. `wrong` and `rfc2136_wrong` are names not answered with the new address."""

    names: int
    seconds: float
    wrong: int
    first_s: float | None
    """Publishing all names for the first time."""
    rfc2136_seconds: float | None
    rfc2136_wrong: int | None
    left_out: str

    @property
    def held(self) -> bool:
        """Every name is right everywhere."""
        return not self.wrong and not self.rfc2136_wrong


class DnsBench:
    """One run in one directory."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy) -> None:
        self._home = home
        self._clock = clock
        self._entropy = entropy

    async def run(self, names: int) -> DnsReport:
        """Raises OperationFault."""
        store = await SqliteStore.open(self._home / "control.db", self._clock)
        zone = Zone(store, self._clock, DOMAIN, [HOST])
        server = DnsServer(zone, self._clock)
        await zone.start()
        await server.start(HOST, 0)
        try:
            return await self._run(zone, server.port, names)
        finally:
            await server.stop()
            await zone.stop()
            await store.close()

    async def _run(self, zone: Zone, port: int, names: int) -> DnsReport:
        await zone.replace_all(_changes(names, 0))
        if knot_binary() is None:
            seconds = await self._change(zone, names)
            wrong = await _wrong(port, names)
            text = f"Knot is not installed: {INSTALL}"
            return DnsReport(names, round(seconds, 4), wrong, None, None, None, text)
        knot = Knot(self._home / "knot", DOMAIN, self._clock, self._entropy)
        await knot.start()
        primary = Primary(knot.access, knot.secret, DOMAIN)
        publisher = Publisher(zone, primary, self._clock, _unheard)
        started = self._clock.elapsed()
        running = asyncio.create_task(publisher.run())
        try:
            await self._level(publisher, zone)
            first_s = self._clock.elapsed() - started
            started = self._clock.elapsed()
            seconds = await self._change(zone, names)
            await self._level(publisher, zone)
            published_s = self._clock.elapsed() - started
            return DnsReport(
                names=names,
                seconds=round(seconds, 4),
                wrong=await _wrong(port, names),
                first_s=round(first_s, 2),
                rfc2136_seconds=round(published_s, 4),
                rfc2136_wrong=await _wrong(knot.port, names),
                left_out="",
            )
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await knot.stop()

    async def _change(self, zone: Zone, names: int) -> float:
        """Give every name its new address; the seconds until the store has all of them."""
        started = self._clock.elapsed()
        await zone.replace_all(_changes(names, 1))
        return self._clock.elapsed() - started

    async def _level(self, publisher: Publisher, zone: Zone) -> None:
        try:
            async with self._clock.real_timeout(PUBLISH_S):
                while publisher.current is not zone.view:
                    await self._clock.sleep_real(0.005)
        except TimeoutError as error:
            raise OperationFault("Knot was not brought level", retryable=False) from error


async def _unheard(trouble: str) -> None:
    """The bench waits, and gives up by itself."""


def _address(number: int, turn: int) -> str:
    return f"10.{turn}.{number >> 8 & 255}.{number & 255}"


def _changes(names: int, turn: int) -> list[Change]:
    return [
        Change(Entry(f"relay-eu-{n:04}", (_address(n, turn),), PORT, bytes([turn + 1]) * 32))
        for n in range(names)
    ]


async def _wrong(port: int, names: int) -> int:
    """How many names a server answers with anything but their new address."""
    gate = asyncio.Semaphore(ASKED_AT_ONCE)

    async def ask(number: int) -> bool:
        query = dns.message.make_query(f"relay-eu-{number:04}.{DOMAIN}.", dns.rdatatype.A)
        async with gate:
            try:
                reply = await dns.asyncquery.udp(query, HOST, timeout=ANSWER_S, port=port)
            except (dns.exception.DNSException, OSError):
                return False
        found = [str(record) for rows in reply.answer for record in rows]
        return found == [_address(number, 1)]

    return (await asyncio.gather(*(ask(number) for number in range(names)))).count(False)
