"""The role as a process: control messages, ends of every kind, kill -9 under load."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from tests.relay.harness import Pool, Server, today

from holdfast.cli.main import run
from holdfast.crypto.blob import seal
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import HoldfastError
from holdfast.fabric.session import Session
from holdfast.logic.fleet.model import Role, SlotRecord
from holdfast.rim.clock import SystemClock
from holdfast.rim.process import Child, holdfast_command, spawn
from holdfast.wire.control import Apply, Certificates, FromRole, Raise, Ready, Status, Stop
from holdfast.wire.pool import BlobClass

pytestmark = pytest.mark.system
NAME = "relay-eu-001"
KIND = cast("type[FromRole]", FromRole)


def command(server: Server, *extra: str) -> tuple[str, ...]:
    """As the agent starts it."""
    home = server.home
    return holdfast_command(
        "relay",
        "serve",
        f"--dir={home / 'role'}",
        f"--role={server.role}",
        f"--name={server.name}",
        f"--region={server.region}",
        f"--network={server.pool.network.hex()}",
        f"--listen=127.0.0.1:{server.port}",
        f"--identity={home / 'identity.key'}",
        f"--chain={home / 'chain.pem'}",
        f"--key={home / 'key.pem'}",
        f"--roots={home / 'roots.pem'}",
        *extra,
    )


async def start(server: Server, *extra: str) -> Child[FromRole]:
    """A serving process; its log goes to `log` in the server's home."""
    child = await spawn(command(server, *extra), kind=KIND, log=server.home / "log")
    ready = await child.receive()
    assert isinstance(ready, Ready), (server.home / "log").read_text()
    assert ready.addresses == (f"127.0.0.1:{server.port}",)
    return child


Case = Callable[[Pool, Server, SlotRecord, Child[FromRole]], Awaitable[None]]


def with_process(home: Path, case: Case, *extra: str) -> None:
    """Run `case` against one relay process that serves one slot."""

    async def main() -> None:
        async with Pool(home) as pool:
            server = Server(pool, NAME, Role.RELAY, "alpha", "eu")
            pool.servers[NAME] = server
            server.port = free_port()
            record = pool.assign(os.urandom(16), [NAME])
            child = await start(server, *extra)
            try:
                await child.send(Apply(pool.desired(server)))
                await case(pool, server, record, child)
            finally:
                child.kill()
                await child.wait()

    asyncio.run(main())


def free_port() -> int:
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return int(holder.getsockname()[1])


async def opened(pool: Pool, server: Server, key: Any, slot: bytes) -> Session:
    """A session once the slot has been applied."""
    for _ in range(200):
        try:
            return await Session.open(pool.client(server.name), key, slot)
        except HoldfastError:
            await asyncio.sleep(0.02)
    raise AssertionError((server.home / "log").read_text())


async def status_after(child: Child[FromRole], wanted: Callable[[Status], bool]) -> Status:
    """The first Status that looks as wanted."""
    async with asyncio.timeout(20):
        while True:
            message = await child.receive()
            assert message is not None
            if isinstance(message, Status) and wanted(message):
                return message


def test_it_serves_reports_rotates_and_stops(tmp_path: Path) -> None:
    async def case(pool: Pool, server: Server, record: SlotRecord, child: Child[FromRole]) -> None:
        era = pool.era()
        session = await opened(pool, server, era.access, record.slot)
        blob = seal(era, 1, b"x", today())
        await session.push(BlobClass.LOG, [blob])
        status = await status_after(child, lambda s: s.load.blobs == 1 and s.filled)
        assert status.load.writable
        assert (status.load.sessions, status.load.groups) == (1, 1)
        old = session.client.leaf
        server.certify()
        await child.send(Certificates())
        for _ in range(200):
            await session.have([hash_bytes(blob)])
            if session.client.leaf != old:
                break
            await asyncio.sleep(0.05)
        assert session.client.leaf != old
        waiting = asyncio.create_task(session.watch(1, 60))
        await asyncio.sleep(0.1)
        await child.send(Stop())
        assert await child.wait() == 0
        assert (await waiting).heads == (1,), "a long poll is answered before the end"
        log = (server.home / "log").read_text()
        for secret in (era.tag.hex(), record.slot.hex(), hash_bytes(blob).hex()):
            assert secret not in log

    with_process(tmp_path, case, "--time-scale=20")


@pytest.mark.parametrize("how", ["eof", "sigterm"])
def test_it_ends_cleanly_with_its_agent_or_by_signal(tmp_path: Path, how: str) -> None:
    async def case(pool: Pool, server: Server, record: SlotRecord, child: Child[FromRole]) -> None:
        era = pool.era()
        session = await opened(pool, server, era.access, record.slot)
        blobs = [seal(era, 1, b"%d" % n, today()) for n in range(20)]
        await session.push(BlobClass.LOG, blobs)
        if how == "sigterm":
            os.kill(child.pid, signal.SIGTERM)
        else:
            assert child._process.stdin is not None
            child._process.stdin.close()
        assert await child.wait() == 0
        again = await start(server)
        await again.send(Apply(pool.desired(server)))
        session = await opened(pool, server, era.access, record.slot)
        assert await session.have([hash_bytes(blob) for blob in blobs]) == [True] * 20
        again.kill()
        await again.wait()

    with_process(tmp_path, case)


def test_garbage_on_stdin_ends_it(tmp_path: Path) -> None:
    async def case(pool: Pool, server: Server, record: SlotRecord, child: Child[FromRole]) -> None:
        assert child._process.stdin is not None
        child._process.stdin.write(b"\x00\x00\x00\x05hello")
        assert await child.wait() == 3  # PeerFault

    with_process(tmp_path, case)


def test_a_dead_neighbour_is_raised_to_the_agent(tmp_path: Path) -> None:
    async def case(pool: Pool, server: Server, record: SlotRecord, child: Child[FromRole]) -> None:
        dead = Server(pool, "relay-eu-002", Role.RELAY, "beta", "eu")
        pool.servers[dead.name] = dead
        dead.port = free_port()
        pool.assign(record.slot, [NAME, dead.name])
        await child.send(Apply(pool.desired(server)))
        async with asyncio.timeout(20):
            while not isinstance(message := await child.receive(), Raise):
                assert message is not None
        assert message.alert.name == dead.name

    with_process(tmp_path, case, "--time-scale=200")


def test_one_process_for_a_directory(tmp_path: Path) -> None:
    async def case(pool: Pool, server: Server, record: SlotRecord, child: Child[FromRole]) -> None:
        second = await spawn(command(server), kind=KIND, log=server.home / "second")
        assert await second.receive() is None
        assert await second.wait() == 2
        assert "already runs" in (server.home / "second").read_text()

    with_process(tmp_path, case)


def test_files_of_another_node_are_refused(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    one = Server(pool, NAME, Role.RELAY, "alpha", "eu")
    two = Server(pool, "relay-eu-002", Role.RELAY, "alpha", "eu")
    one.port = free_port()
    (one.home / "identity.key").write_bytes(two.identity.seed)

    async def main() -> int:
        child = await spawn(command(one), kind=KIND, log=one.home / "log")
        assert await child.receive() is None
        return await child.wait()

    assert asyncio.run(main()) == 2
    assert "not this relay's certificate" in (one.home / "log").read_text()


def test_the_command_line_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dir=x", "--role=relay", "--region=eu", "--identity=x", "--chain=x", "--key=x"]
    assert run(["relay", "serve", *words, "--roots=x", "--listen=nonsense"]) == 2
    assert "--listen" in capsys.readouterr().err


# --- kill -9 -------------------------------------------------------------------------------------
def test_kill_9_under_load_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """reliability.md A7: killed at random instants, restarted, everything that had a receipt is
    there, whole; sequences only rise; every third time the index is thrown away as well."""
    chance = random.Random(7)
    acknowledged: dict[bytes, tuple[int, bytes]] = {}

    async def load(session: Session, era: Any, stop: asyncio.Event) -> None:
        while not stop.is_set():
            blobs = [
                seal(era, 1, chance.randbytes(chance.choice([50, 3_000, 30_000])), today())
                for _ in range(chance.choice([1, 1, 5]))
            ]
            try:
                reply = await session.push(BlobClass.LOG, blobs)
            except HoldfastError:
                return
            for receipt, blob in zip(reply.receipts, blobs, strict=True):
                acknowledged[hash_bytes(blob)] = (receipt.sequence, blob)

    async def case(pool: Pool, server: Server, record: SlotRecord, child: Child[FromRole]) -> None:
        era = pool.era()
        clock = SystemClock()
        for trial in range(6):
            sessions = [await opened(pool, server, era.access, record.slot) for _ in range(4)]
            stop = asyncio.Event()
            loads = [asyncio.create_task(load(s, era, stop)) for s in sessions for _ in range(2)]
            before = len(acknowledged)
            await asyncio.sleep(chance.uniform(0.2, 0.6))
            child.kill()
            stop.set()
            await child.wait()
            await asyncio.gather(*loads)
            assert len(acknowledged) > before
            if trial % 3 == 2:
                for file in (server.home / "role" / "store").glob("index.sqlite*"):
                    file.unlink()
            started = clock.elapsed()
            child = await start(server)
            assert clock.elapsed() - started < 10
            await child.send(Apply(pool.desired(server)))
            session = await opened(pool, server, era.access, record.slot)
            ids = list(acknowledged)
            for start_at in range(0, len(ids), 500):
                asked = ids[start_at : start_at + 500]
                bodies = await session.get(asked)
                assert bodies == {blob: acknowledged[blob][1] for blob in asked}
            after = 0
            seen: dict[bytes, int] = {}
            while True:
                reply, _ = await session.pull(after, 1_000)
                seen |= {item.blob: item.sequence for item in reply.items}
                if not reply.more:
                    break
                after = reply.items[-1].sequence
            for blob, (sequence, _) in acknowledged.items():
                assert seen[blob] == sequence
        child.kill()
        await child.wait()
        assert len(acknowledged) > 100

    with_process(tmp_path, case)
