"""How many subscriptions one HQ process hands out, every device with a token of its own.

The server is a process of its own: the control store on disk, the book, the renderers and the plain
HTTP port that stands behind a front (TLS is the front's). This process is the clients, on the other
core. Every device fetches its whole subscription once, in one of five formats, which the store must
have before it is answered; some while later it asks again with the validator it got: half of the
answers are whole, half 304. Each whole answer must hold the device's own credential.
"""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from holdfast.crypto.pure import base32, hash_bytes
from holdfast.errors import OperationFault
from holdfast.hq.access import Access
from holdfast.hq.access_book import AccessBook
from holdfast.hq.audit import AuditLog
from holdfast.hq.subscriptions import SubscriptionApp, Subscriptions
from holdfast.limits.access import CELL_DEVICES_MAX, FETCHES_PER_TXN_MAX
from holdfast.logic.access.model import CellId, Device, Member, uuid4_of
from holdfast.logic.access.rows import DEVICES, MEMBERS, token_key
from holdfast.logic.access.subscription import Face
from holdfast.logic.fleet.model import Role
from holdfast.logic.fleet.rows import NodeRow, ServerRow
from holdfast.rim.clock import SystemClock
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.control.store import Operation, Put
from holdfast.rim.entropy import SeededEntropy
from holdfast.rim.loadgen import HttpLink, Link, dial
from holdfast.rim.loopback_server import LoopbackServer
from holdfast.rim.process import Child, Parent, cpu_s, holdfast_command, spawn
from holdfast.sim.bench_relay import resident_kib
from holdfast.wire.codec import Message

FORMATS: Final = ("v2ray", "links", "sing-box", "mihomo", "xray-json")
ENTRIES_PER_CELL: Final = 4
DEVICES_PER_MEMBER: Final = 3
LAG: Final = 1_000
"""So many devices later a device asks again."""
START_S: Final = 300.0


class Count(Message):
    """Asked: how many devices have a recorded fetch?"""


class Told(Message):
    """The server is up at `address`; later, what the store says: so many devices are recorded."""

    address: str
    recorded: int = 0


class Report(msgspec.Struct, frozen=True):
    """Times in milliseconds, of answers to `in_flight` clients that ask one after another."""

    devices: int
    formats: int
    fetches: int
    full: int
    not_modified: int
    fetches_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    server_cpu_us_per_fetch: float
    server_rss_mb: float
    recorded: int
    wrong: int
    in_flight: int
    held: bool


def token_of(index: int) -> str:
    """The token of a device: as long as real ones, known to both processes."""
    return base32(hash_bytes(b"token %d" % index)[:24])


def credential_of(index: int) -> str:
    """Its credential."""
    return uuid4_of(hash_bytes(b"credential %d" % index)[:16])


# --- The server ----------------------------------------------------------------------------------
async def serve(directory: Path, devices: int) -> None:
    """The server process: registry in `directory`, told over stdin and stdout."""
    parent: Parent[Count] = await Parent.attach(Count)
    clock = SystemClock()
    store = await SqliteStore.open(directory / "control.db", clock)
    book = AccessBook(store, clock, bytes(16), "example.net", Face("Bench"))
    book.peers = _peers
    access = Access(
        store, book, AuditLog(store, clock, "bench", lambda: 1), clock, SeededEntropy(1)
    )
    for cell in range(-(-devices // CELL_DEVICES_MAX)):
        await access.create_cell(f"c{cell}", f"c{cell}.example.net", f"c{cell}-core.example.net")
    await _register(store, devices)
    await book.start()
    server = LoopbackServer(SubscriptionApp(Subscriptions(access, clock)), connections_max=4_096)
    await server.start("127.0.0.1", 0)
    await parent.send(Told(server.address))
    while await parent.receive() is not None:
        await access.fetches.settle()
        rows = (await store.range(DEVICES)).items
        decode = msgspec.msgpack.Decoder(Device).decode
        recorded = sum(decode(kv.value).fetched_at > 0 for kv in rows)
        await parent.send(Told(server.address, recorded))
    await server.stop()
    await book.stop()
    await store.close()


def _peers(cell: CellId) -> Iterator[tuple[NodeRow, ServerRow | None]]:
    """The entries of a cell, made anew for each look, as the book of rows does."""
    for number in range(ENTRIES_PER_CELL):
        yield _node(cell, number), None


def _node(cell: CellId, number: int) -> NodeRow:
    key = (cell, number)
    if key not in _NODES:
        name = f"entry-{cell}-{number}"
        _NODES[key] = NodeRow(
            node=hash_bytes(name.encode()),
            identity=bytes(32),
            name=name,
            role=Role.ENTRY,
            region="eu",
            provider="",
            owner="ada",
            addresses=(f"192.0.2.{number + 1}:443",),
            serial="",
            cert_expires_at=0,
            joined_at=0.0,
            cell=cell,
        )
    return _NODES[key]


_NODES: dict[tuple[CellId, int], NodeRow] = {}


async def _register(store: SqliteStore, devices: int) -> None:
    """Write the rows that `add_member` and `add_device` would."""
    puts: list[Operation] = []
    for index in range(devices):
        id, token = f"{index:016x}", token_of(index)
        member = f"m{index // DEVICES_PER_MEMBER:015x}"
        device = Device(
            id=id,
            member=member,
            credential=credential_of(index),
            cell=f"c{index // CELL_DEVICES_MAX}",
            token_hash=hash_bytes(token.encode()),
        )
        if index % DEVICES_PER_MEMBER == 0:
            row: object = Member(member, quota_bytes=10**11, expires_at=2_000_000_000)
            puts.append(Put(MEMBERS + member, msgspec.msgpack.encode(row)))
        puts.append(Put(DEVICES + id, msgspec.msgpack.encode(device)))
        puts.append(Put(token_key(token), id.encode()))
        if len(puts) >= FETCHES_PER_TXN_MAX or index == devices - 1:
            await store.txn([], puts)
            puts = []


# --- The clients ---------------------------------------------------------------------------------
class AskLink(HttpLink):
    """Answers of which 304 has no body and no length."""

    def measure(self, data: bytes) -> int:
        if data[9:12] == b"304":
            return data.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in data else 0
        return super().measure(data)


class SubscriptionBench:
    """`await run(...)`; `home` is on the disk to measure."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._clock = SystemClock()
        self._tags: dict[int, bytes] = {}
        self._times: list[float] = []
        self._full = self._unchanged = self._wrong = 0

    async def run(self, devices: int, in_flight: int) -> Report:
        """Raises OperationFault."""
        words = (
            "bench",
            "subscription-server",
            "--dir",
            str(self._home),
            "--devices",
            str(devices),
        )
        server: Child[Told] = await spawn(
            holdfast_command(*words),
            log=self._home / "server.log",
            kind=Told,
        )
        try:
            async with self._clock.real_timeout(START_S):
                up = await server.receive()
            if up is None:
                said = (self._home / "server.log").read_text(errors="replace").strip()
                raise OperationFault(f"no server: {said[-300:]}", retryable=False)
            links = [await dial(AskLink, up.address, None) for _ in range(in_flight)]
            cpu, started = cpu_s(server.pid), self._clock.elapsed()
            asks = self._asks(devices)
            await asyncio.gather(*(self._work(link, asks, up.address) for link in links))
            took_s, cpu = self._clock.elapsed() - started, cpu_s(server.pid) - cpu
            rss_mb = resident_kib(server.pid) / 1024
            await server.send(Count())
            told = await server.receive()
            recorded = told.recorded if told is not None else 0
            return self._report(devices, in_flight, took_s, cpu, rss_mb, recorded)
        finally:
            await server.stop(self._clock, 10.0)

    def _asks(self, devices: int) -> Iterator[tuple[int, bool]]:
        """(device, whether it has a validator), as they come."""
        for index in range(devices + LAG):
            if index < devices:
                yield index, False
            if index >= LAG:
                yield index - LAG, True

    async def _work(self, link: Link, asks: Iterator[tuple[int, bool]], host: str) -> None:
        for index, again in asks:
            held = b"if-none-match: " + self._tags.pop(index, b'""') + b"\r\n" if again else b""
            path = f"/sub/{token_of(index)}/{FORMATS[index % len(FORMATS)]}"
            head = f"GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: v2rayNG/1.10\r\n".encode()
            sent = self._clock.elapsed()
            answer = await link.ask(head + held + b"\r\n")
            self._times.append(self._clock.elapsed() - sent)
            self._judge(index, again, answer)

    def _judge(self, index: int, again: bool, answer: bytes) -> None:
        start, _, body = answer.partition(b"\r\n\r\n")
        status = start[9:12]
        if again:
            self._unchanged += status == b"304"
            self._wrong += status != b"304"
            return
        at = start.index(b"\r\netag: ") + 8
        self._tags[index] = start[at : at + 34]
        plain = binascii.a2b_base64(body) if index % len(FORMATS) == 0 else body
        good = status == b"200" and credential_of(index).encode() in plain
        self._full += good
        self._wrong += not good

    def _report(
        self,
        devices: int,
        in_flight: int,
        took_s: float,
        cpu: float,
        rss_mb: float,
        recorded: int,
    ) -> Report:
        times = sorted(self._times)
        count = len(times)

        def at(fraction: float) -> float:
            return round(times[min(count - 1, int(count * fraction))] * 1000, 2)

        per_s, p99_ms = count / took_s, at(0.99)
        return Report(
            devices=devices,
            formats=len(FORMATS),
            fetches=count,
            full=self._full,
            not_modified=self._unchanged,
            fetches_per_s=round(per_s, 1),
            p50_ms=at(0.5),
            p99_ms=p99_ms,
            max_ms=at(1.0),
            server_cpu_us_per_fetch=round(cpu / count * 1e6, 1),
            server_rss_mb=round(rss_mb, 1),
            recorded=recorded,
            wrong=self._wrong,
            in_flight=in_flight,
            held=per_s >= 1000 and p99_ms < 50 and not self._wrong and recorded == devices,
        )
