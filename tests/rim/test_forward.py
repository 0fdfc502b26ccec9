"""Forwarding under a meter: whole when it may, cut at the byte when it may not."""

from __future__ import annotations

import asyncio
from pathlib import Path

from holdfast.rim.forward import Forwarder


class Allowance:
    """So many bytes, both ways together."""

    def __init__(self, left: int) -> None:
        self.left = left

    def pass_up(self, count: int) -> int:
        allowed = min(count, self.left)
        self.left -= allowed
        return allowed

    pass_down = pass_up

    def wait_s(self) -> float:
        return 0.0


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def through(directory: Path, allowance: int, size: int) -> bytes:
    """What comes back of `size` bytes that an echo server gets through a forwarder."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()
    forwarder = Forwarder(directory / "l", target, Allowance(allowance))
    await forwarder.start()
    reader, writer = await asyncio.open_unix_connection(str(directory / "l"))
    sent = bytes(range(256)) * (size // 256)
    writer.write(sent)
    got = b""
    try:
        async with asyncio.timeout(10):
            while len(got) < size and (data := await reader.read(65_536)):
                got += data
    except ConnectionError:
        pass
    writer.close()
    assert sent.startswith(got)
    await forwarder.stop()
    server.close()
    return got


def test_everything_comes_back(tmp_path: Path) -> None:
    assert len(asyncio.run(through(tmp_path, 10**9, 5_120_000))) == 5_120_000


def test_not_one_byte_more_than_may_pass(tmp_path: Path) -> None:
    """The quota ends on the way up: what passed may still come back, and nothing else."""
    got = asyncio.run(through(tmp_path, 100_000, 512_000))
    assert len(got) < 100_000


def test_cut_ends_what_is_open(tmp_path: Path) -> None:
    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        target = server.sockets[0].getsockname()
        forwarder = Forwarder(tmp_path / "l", target, Allowance(10**9))
        await forwarder.start()
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "l"))
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert forwarder.cut() == 1
        try:
            assert await reader.read(1) == b""
        except ConnectionError:
            pass
        writer.close()
        await forwarder.stop()
        server.close()

    asyncio.run(main())


def test_what_passed_still_arrives_after_a_cut(tmp_path: Path) -> None:
    """A guest whose connection is cut has paid for what passed, also for what it has not read."""
    allowance = 300_000

    class Counting(Allowance):
        passed = 0
        enough = asyncio.Event()

        def pass_down(self, count: int) -> int:
            self.passed += count
            if self.passed >= allowance:
                self.enough.set()
            return count

    async def main() -> None:
        async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(bytes(10 * allowance))

        server = await asyncio.start_server(pour, "127.0.0.1", 0)
        meter = Counting(10**9)
        forwarder = Forwarder(tmp_path / "l", server.sockets[0].getsockname(), meter)
        await forwarder.start()
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "l"), limit=1024)
        async with asyncio.timeout(10):
            await meter.enough.wait()
            assert forwarder.cut() == 1
            got = len(await reader.read())
        assert got == meter.passed
        writer.close()
        await forwarder.stop()
        server.close()

    asyncio.run(main())
