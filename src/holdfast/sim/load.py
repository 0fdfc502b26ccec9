"""A client process of `bench relay`: holds its share of the connections and pushes over them.

The process that runs the bench speaks to it over stdin and stdout, in this order:

    Job -> Opened            the connections stand
    Go -> Outcome            pushed until time was up; answers were checked after the clock stopped
    ReadBack -> Found        (relay only) every receipted blob was asked for again

Pushes rotate over all the connections, a fixed number in flight. A blob is a sealed one with its
last bytes replaced by a number: to a relay every blob is ciphertext.
"""

from __future__ import annotations

import asyncio
import resource
from array import array
from collections import deque
from typing import Final, cast

import msgspec

from holdfast.crypto.blob import read_header, seal
from holdfast.crypto.era import Era
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import OperationFault, PeerFault
from holdfast.fabric.session import Session
from holdfast.limits import REPLY_BYTES_MAX
from holdfast.rim.clock import Clock, SystemClock
from holdfast.rim.entropy import SeededEntropy
from holdfast.rim.loadgen import HttpLink, Link, NatsLink, dial
from holdfast.rim.pool_client import PoolClient, tls_context
from holdfast.rim.process import Parent
from holdfast.wire.codec import pack
from holdfast.wire.frame import split
from holdfast.wire.pool import CONTENT_TYPE, BlobClass, PushReply, PushRequest
from holdfast.wire.receipts import verify_receipts

BLOB_BYTES: Final = 4_096
GROUPS: Final = 64
"""Groups of one client process; its sessions are spread over them."""
DIALS_AT_ONCE: Final = 32
GET_IDS: Final = 500
_PAYLOAD_BYTES: Final = 3_840
_NUMBER_BYTES: Final = 8
_GRACE_S: Final = 60.0
_DAY_S: Final = 86_400


class Job(msgspec.Struct, frozen=True, tag="job"):
    """Parent to client: whom to load and how. `links` and `in_flight` are this process's share."""

    contender: str
    address: str
    roots: tuple[bytes, ...]
    slot: bytes
    links: int
    in_flight: int
    seconds: float
    seed: int
    process: int
    streams: int = 1


class Go(msgspec.Struct, frozen=True, tag="go"):
    """Parent to client: the clock starts."""


class ReadBack(msgspec.Struct, frozen=True, tag="read-back"):
    """Parent to client: the server is up again."""


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """Client to parent: so many connections stand."""

    links: int


class Outcome(msgspec.Struct, frozen=True, tag="outcome"):
    """Client to parent: what came of it. `latencies` is an array of 32-bit floats, ms."""

    pushes: int
    seconds: float
    latencies: bytes
    valid: int
    refused: int
    links: int
    complaint: str
    cpu_s: float
    """Processor seconds of this process while it pushed."""


class Found(msgspec.Struct, frozen=True, tag="found"):
    """Client to parent: how many receipted blobs were read back, and how many were not."""

    found: int
    missing: int


ToClient = Job | Go | ReadBack
FromClient = Opened | Outcome | Found


class Load:
    """The driver of one contender."""

    kind: type[Link]

    def __init__(self, job: Job, clock: Clock) -> None:
        self.job = job
        self.clock = clock
        entropy = SeededEntropy(job.seed * 1_000 + job.process)
        network = entropy.bytes(16)
        born = int(clock.wall()) // _DAY_S
        self.eras = [Era(entropy.bytes(32), network) for _ in range(GROUPS)]
        self.stems = [
            seal(era, BlobClass.LOG, entropy.bytes(_PAYLOAD_BYTES), born)[:-_NUMBER_BYTES]
            for era in self.eras
        ]
        self.context = tls_context(job.roots)
        self.links: deque[Link] = deque()
        self.answers: list[tuple[int, int, bytes]] = []
        """(group, number, the server's answer) of every push."""
        self.latencies = array("f")
        self._sent = 0
        self._ends_at = 0.0
        self._busy = 0
        self._lost = 0
        self._over = asyncio.Event()

    def blob(self, group: int, number: int) -> bytes:
        """The blob of a push."""
        return self.stems[group] + number.to_bytes(_NUMBER_BYTES, "big")

    # --- Opening ---------------------------------------------------------------------------------
    async def open(self) -> int:
        """Open the connections, a few at a time; how many stand."""
        todo = deque(range(self.job.links))

        async def work() -> None:
            while todo:
                number = todo.popleft()
                link = await dial(self.kind, self.job.address, self.context)
                link.group = number % GROUPS
                await self.greet(link, number)
                self.links.append(link)

        await asyncio.gather(*(work() for _ in range(DIALS_AT_ONCE)))
        return self.standing()

    async def greet(self, link: Link, number: int) -> None:
        """Make a new connection ready for pushes."""
        raise NotImplementedError

    def standing(self) -> int:
        """Connections that are open."""
        return sum(not link.closed for link in self.links)

    # --- Pushing ---------------------------------------------------------------------------------
    async def run(self) -> float:
        """Push until time is up and every answer is in; the seconds it took."""
        for link in self.links:
            link.on_answer, link.on_lost = self._answered, self._dropped
        started = self.clock.elapsed()
        self._ends_at = started + self.job.seconds
        for _ in range(min(self.job.in_flight, len(self.links))):
            self._busy += 1
            self._push()
        try:
            async with self.clock.real_timeout(self.job.seconds + _GRACE_S):
                await self._over.wait()
        except TimeoutError as error:
            raise OperationFault(f"{self._busy} pushes were never answered") from error
        return self.clock.elapsed() - started

    def _push(self) -> None:
        while self.links and self.links[0].closed:
            self.links.popleft()
        if not self.links:
            self._end_one()
            return
        link = self.links.popleft()
        link.number, self._sent = self._sent, self._sent + 1
        link.sent_at = self.clock.elapsed()
        link.send(link.stem + link.number.to_bytes(_NUMBER_BYTES, "big") + link.tail)

    def _answered(self, link: Link, answer: bytes) -> None:
        now = self.clock.elapsed()
        self.latencies.append((now - link.sent_at) * 1_000)
        self.answers.append((link.group, link.number, answer))
        link.sent_at = 0.0
        self.links.append(link)
        if now < self._ends_at:
            self._push()
        else:
            self._end_one()

    def _dropped(self, link: Link) -> None:
        if link.sent_at:  # its push is lost: the next one takes its place
            self._lost += 1
            self._push()

    def _end_one(self) -> None:
        self._busy -= 1
        if not self._busy:
            self._over.set()

    def check(self) -> tuple[int, int, str]:
        """(answers that prove the push, refusals, the first complaint)."""
        valid = refused = 0
        complaint = ""
        for group, number, answer in self.answers:
            try:
                self.prove(group, number, answer)
                valid += 1
            except OperationFault as error:
                refused += 1
                complaint = complaint or str(error)
            except PeerFault as error:
                complaint = complaint or str(error)
        if self._lost:
            complaint = complaint or f"{self._lost} connections were lost with a push in flight"
        return valid, refused, complaint

    def prove(self, group: int, number: int, answer: bytes) -> None:
        """Check an answer. Raises OperationFault for a refusal, PeerFault for a bad receipt."""
        raise NotImplementedError

    async def outcome(self) -> Outcome:
        """Run, then check."""
        before = _cpu_s()
        seconds = await self.run()
        cpu_s = _cpu_s() - before
        links = self.standing()
        valid, refused, complaint = self.check()
        pushes = len(self.answers) - refused
        latencies = self.latencies.tobytes()
        return Outcome(pushes, seconds, latencies, valid, refused, links, complaint, cpu_s)

    async def read_back(self) -> Found:
        """Ask for every receipted blob."""
        raise NotImplementedError


class RelayLoad(Load):
    """Against our relay: a session for each connection."""

    kind = HttpLink

    def __init__(self, job: Job, clock: Clock) -> None:
        super().__init__(job, clock)
        self.client = PoolClient(
            job.address, roots=job.roots, clock=clock, connections_max=DIALS_AT_ONCE
        )
        self._receipted: list[tuple[int, int]] = []

    async def greet(self, link: Link, number: int) -> None:
        session = await Session.open(self.client, self.eras[link.group].access, self.job.slot)
        header = pack(PushRequest(session.token, BlobClass.LOG, (BLOB_BYTES,)))
        size = 4 + len(header) + BLOB_BYTES
        head = (
            f"POST /v1/push HTTP/1.1\r\nhost: {self.job.address}\r\n"
            f"content-type: {CONTENT_TYPE}\r\ncontent-length: {size}\r\n\r\n"
        ).encode()
        frame = len(header).to_bytes(4, "big") + header
        link.stem = head + frame + self.stems[link.group]

    def prove(self, group: int, number: int, answer: bytes) -> None:
        if not answer.startswith(b"HTTP/1.1 200"):
            raise OperationFault(answer[:12].decode() + ": " + repr(answer[-120:]))
        body = answer[answer.index(b"\r\n\r\n") + 4 :]
        reply, _ = split(PushReply, body, header_bytes_max=REPLY_BYTES_MAX)
        blob = self.blob(group, number)
        pushed = [(hash_bytes(blob), BLOB_BYTES, read_header(blob).born)]
        tag = hash_bytes(self.eras[group].access.public)
        verify_receipts(reply, node=self.client.peer.node, tag=tag, pushed=pushed)
        self._receipted.append((group, number))

    async def read_back(self) -> Found:
        for link in self.links:
            link.on_lost = lambda link: None
        by_group: dict[int, list[bytes]] = {}
        for group, number in self._receipted:
            by_group.setdefault(group, []).append(hash_bytes(self.blob(group, number)))
        found = 0
        for group, blobs in by_group.items():
            session = await Session.open(self.client, self.eras[group].access, self.job.slot)
            for start in range(0, len(blobs), GET_IDS):
                found += len(await session.get(blobs[start : start + GET_IDS]))
        await self.client.close()
        return Found(found, len(self._receipted) - found)


class NatsLoad(Load):
    """Against NATS JetStream: an inbox for each connection, a subject for each group."""

    kind = NatsLink

    async def greet(self, link: Link, number: int) -> None:
        inbox = f"_INBOX.{self.job.process}.{number}"
        await link.ask(f'CONNECT {{"verbose":false}}\r\nSUB {inbox} 1\r\nPING\r\n'.encode())
        stream = number % self.job.streams
        head = f"PUB bench.{stream}.{link.group} {inbox} {BLOB_BYTES}\r\n".encode()
        link.stem, link.tail = head + self.stems[link.group], b"\r\n"

    def prove(self, group: int, number: int, answer: bytes) -> None:
        if not answer.startswith(b"MSG ") or b'"seq":' not in answer or b'"error"' in answer:
            raise OperationFault(repr(answer[:120]))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def create_streams(address: str, roots: tuple[bytes, ...], count: int) -> None:
    """Make the JetStream streams, file storage, one replica. Raises OperationFault."""
    link = await dial(NatsLink, address, tls_context(roots))
    await link.ask(b'CONNECT {"verbose":false}\r\nSUB _INBOX.make 1\r\nPING\r\n')
    for number in range(count):
        name = f"BENCH{number}"
        config = {"name": name, "subjects": [f"bench.{number}.>"], "storage": "file"}
        body = msgspec.json.encode({**config, "retention": "limits", "num_replicas": 1})
        head = f"PUB $JS.API.STREAM.CREATE.{name} _INBOX.make {len(body)}\r\n".encode()
        answer = await link.ask(head + body + b"\r\n")
        if b'"error"' in answer or not answer.startswith(b"MSG "):
            raise OperationFault(f"NATS makes no stream: {answer[:200]!r}")
    link.close()


async def serve() -> None:
    """The process: do what the parent says, then end."""
    parent: Parent[ToClient] = await Parent.attach(cast("type[ToClient]", ToClient))
    load: Load | None = None
    while (message := await parent.receive()) is not None:
        if isinstance(message, Job):
            kind = RelayLoad if message.contender == "holdfast" else NatsLoad
            load = kind(message, SystemClock())
            await parent.send(Opened(await load.open()))
            continue
        assert load is not None, "the job comes first"
        if isinstance(message, Go):
            await parent.send(await load.outcome())
        else:
            await parent.send(await load.read_back())
