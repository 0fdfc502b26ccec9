"""Faults of the world on real processes: clocks stepped while they run, slow and failing disks, a
torn tail, peers that vanish without a word (seed 004 §9; reliability.md A9, A13, C4).

A disk is slow or fails because strace answers system calls in the kernel's place: a throttled
cgroup needs a block device of its own. A clock is stepped by libfaketime, for that process alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.system.small_network import SmallNetwork, holdfast, steered, until

from holdfast.crypto.blob import seal
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import HoldfastError
from holdfast.fabric.session import Session
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.drills.lone_server import LoneServer
from holdfast.wire.pool import BlobClass

pytestmark = pytest.mark.system
CLOCK = SystemClock()
DAY = int(time.time() // 86_400)


class Served(LoneServer):
    """A lone server, and one group on it."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, CLOCK, SystemEntropy())
        self.group = self.era()
        self.acked: dict[bytes, bytes] = {}

    @property
    def pid(self) -> int:
        assert self.child is not None
        return self.child.pid

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        client = self.client()
        try:
            yield await Session.open(client, self.group.access, self.slot)
        finally:
            await client.close()

    async def push(self, session: Session, text: str) -> bytes:
        """Push one blob; its id once it is acknowledged."""
        body = seal(self.group, 1, text.encode(), DAY)
        await session.push(BlobClass.LOG, [body])
        self.acked[hash_bytes(body)] = body
        return hash_bytes(body)

    async def lacks(self, session: Session) -> set[bytes]:
        """Acknowledged blobs that it does not give back."""
        missing = set()
        for blob, body in self.acked.items():
            found = await session.get([blob])
            if found.get(blob) != body:
                missing.add(blob)
        return missing


@contextlib.contextmanager
def tampered(pid: int, inject: str, log: Path) -> Iterator[None]:
    """Answer system calls of a running process otherwise, until the block ends."""
    call = inject.partition(":")[0]
    command = ["strace", "-f", "-qq", "-o", str(log), "-p", str(pid)]
    tracer = subprocess.Popen([*command, "-e", f"trace={call}", "-e", f"inject={inject}"])
    try:
        until(lambda: "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text())
        yield
    finally:
        tracer.terminate()
        tracer.wait(20)


def test_a_failing_sync_ends_writing_until_a_restart(tmp_path: Path) -> None:
    """The first EIO stops writes for good, also after the disk is well again; reads go on; nothing
    acknowledged is lost; a restart writes again."""

    async def main() -> None:
        server = Served(tmp_path)
        await server.start()
        try:
            async with server.session() as session:
                await server.push(session, "before")
                failing = tampered(server.pid, "fdatasync:error=EIO", tmp_path / "strace")
                with failing, pytest.raises(HoldfastError):
                    await server.push(session, "into the void")
                for text in ("well again", "really"):
                    with pytest.raises(HoldfastError) as refused:
                        await server.push(session, text)
                    assert getattr(refused.value, "code", "") == "read-only"
                assert not await server.lacks(session)
            await server.kill()
            await server.start()
            async with server.session() as session:
                assert not await server.lacks(session)
                await server.push(session, "after")
                assert not await server.lacks(session)
        finally:
            await server.kill()

    asyncio.run(main())


def test_a_slow_disk_slows_writers_and_nobody_else(tmp_path: Path) -> None:
    """Each sync takes 0.7 s: pushes wait for it and are acknowledged, reads and /health do not."""

    async def main() -> None:
        server = Served(tmp_path)
        await server.start()
        try:
            async with server.session() as writer, server.session() as reader:
                kept = await server.push(writer, "before")
                with tampered(server.pid, "fdatasync:delay_enter=700000", tmp_path / "strace"):
                    began = time.monotonic()
                    pushes = [
                        asyncio.create_task(server.push(writer, f"slow {n}")) for n in range(8)
                    ]
                    await asyncio.sleep(0.2)
                    asked = time.monotonic()
                    assert kept in await reader.get([kept])
                    read_s = time.monotonic() - asked
                    assert not all(push.done() for push in pushes)
                    await asyncio.gather(*pushes)
                    wrote_s = time.monotonic() - began
                assert read_s < 0.5 < wrote_s < 15
                assert not await server.lacks(reader)
        finally:
            await server.kill()

    asyncio.run(main())


def test_a_torn_tail_costs_what_was_never_acknowledged(tmp_path: Path) -> None:
    """Killed; the segment then ends in half a record, as after a power cut in a write. The server
    starts, gives back all that was acknowledged and goes on writing there."""

    async def main() -> None:
        server = Served(tmp_path)
        await server.start()
        try:
            async with server.session() as session:
                for number in range(20):
                    await server.push(session, f"blob {number}")
            await server.kill()
            segment = _newest_segment(server.state)
            whole = segment.read_bytes()
            segment.write_bytes(whole + whole[-900:-200] + os.urandom(133))
            await server.start()
            async with server.session() as session:
                assert not await server.lacks(session)
                await server.push(session, "after")
                assert not await server.lacks(session)
            await server.kill()
            # The control: a tail torn through what was acknowledged is noticed, not served wrong.
            segment = _newest_segment(server.state)
            os.truncate(segment, segment.stat().st_size - 300)
            await server.start()
            async with server.session() as session:
                assert len(await server.lacks(session)) == 1
        finally:
            await server.kill()

    asyncio.run(main())


def test_a_peer_that_vanished_in_its_handshake_is_let_go(tmp_path: Path) -> None:
    """Half-open connections: some bytes of a hello, then silence for ever. Their descriptors come
    back within the handshake's limit, and nobody else waits for it."""

    async def main() -> None:
        server = Served(tmp_path)
        await server.start()
        held = []
        try:
            async with server.session() as session:
                before = _descriptors(server.pid)
                for number in range(100):
                    peer = socket.create_connection(("127.0.0.1", server.port))
                    if number % 2:
                        peer.send(b"\x16\x03\x01\x02\x00\x01")
                    held.append(peer)
                until(lambda: _descriptors(server.pid) >= before + 90)
                await server.push(session, "meanwhile")
                await asyncio.to_thread(until, lambda: _descriptors(server.pid) <= before + 5, 25.0)
                assert not await server.lacks(session)
        finally:
            for peer in held:
                peer.close()
            await server.kill()

    asyncio.run(main())


def test_clocks_stepped_by_an_hour_while_everything_runs(tmp_path: Path) -> None:
    """D30: certificates use the wall clock, everything else elapsed time. A relay's clock goes an
    hour ahead, then an hour back; headquarters keeps it green, and it renews nothing early."""
    network = SmallNetwork(tmp_path, time_scale=20.0)
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    try:
        network.found()
        network.stop(network.relay)
        network.env = steered(clock)
        network.start(network.relay)
        until(lambda: network.serves(network.relay))
        assert _tiers(network) == {"green"}
        serial = (network.relay / "tls" / "current").readlink()
        for step in (3_600, -3_600, 0):
            clock.write_text(f"{step:+d}\n")
            until(lambda step=step: _is_off_by(network.relay, step))  # type: ignore[misc]
            before = _heard(network.relay)
            until(lambda at=before: abs(_heard(network.relay) - at) > 1)  # type: ignore[misc]
            assert _tiers(network) == {"green"}
            assert network.serves(network.relay)
            assert (network.relay / "tls" / "current").readlink() == serial
            assert all(process.poll() is None for process in network.processes.values())
        verdict = holdfast("hq", "audit", "verify", "--dir", str(network.hq))
        assert verdict["ok"] is True
    finally:
        network.stop_all()


def _tiers(network: SmallNetwork) -> set[str]:
    found = holdfast("hq", "servers", "--dir", str(network.hq))
    assert len(found["servers"]) == 2
    return {row["tier"] for row in found["servers"]}


def _heard(directory: Path) -> float:
    """When its agent last heard from headquarters, by its own clock."""
    return float(json.loads((directory / "status.json").read_bytes())["hq_heard_at"])


def _is_off_by(directory: Path, step: int) -> bool:
    """Whether the agent's clock has really been stepped."""
    written = json.loads((directory / "status.json").read_bytes())["written_at"]
    return abs(written - time.time() - step) < 60


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _newest_segment(state: Path) -> Path:
    segments = [p for p in state.rglob("*.seg") if "canary" not in p.name and p.stat().st_size]
    return max(segments, key=lambda path: path.stat().st_mtime_ns)
