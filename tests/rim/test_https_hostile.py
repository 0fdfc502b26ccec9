"""What a hostile client or server costs: bounded in size and time, and it reaches no route."""

from __future__ import annotations

import asyncio

import pytest
from tests.rim.https_service import PKI, Note, Running, Seen, running
from tests.rim.pki import NOW

from holdfast.errors import OperationFault, PeerFault
from holdfast.rim import https, https_client
from holdfast.rim.clock import ManualClock
from holdfast.rim.https import (
    JsonClient,
)
from holdfast.rim.tls import ClientTls, ServerTls, connect


# --- What a hostile client costs -----------------------------------------------------------------
class Raw(asyncio.Protocol):
    """Bytes in, bytes out, and a future for the end."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def attack(run: Running, *pieces: bytes) -> bytes:
    """Send raw bytes to the server and return what it says until it ends the connection."""
    layer = await connect(Raw, run.address, ClientTls(PKI.roots, None, run.clock))
    raw = layer.inner
    assert isinstance(raw, Raw)
    for piece in pieces:
        layer.write(piece)
    async with asyncio.timeout(10):
        await raw.ended
    return bytes(raw.received)


def head(*lines: str) -> bytes:
    return "\r\n".join(("POST /echo HTTP/1.1", "host: x", *lines, "", "")).encode()


def test_a_body_over_the_limit_is_refused_announced_or_not() -> None:
    async def main() -> None:
        async with running(body_bytes_max=1000) as run:
            with pytest.raises(PeerFault) as caught:
                await run.client().call("POST", "/echo", Note("x" * 1000), Seen)
            assert caught.value.code == "too-large"
            assert run.service.calls == []
            chunk = b"400\r\n" + b"x" * 0x400 + b"\r\n"
            said = await attack(run, head("transfer-encoding: chunked"), chunk)
            assert b" 413 " in said.splitlines()[0]
            assert b"connection: close" in said
            good = await run.client().call("POST", "/echo", Note("x" * 900), Seen)
            assert good.text == "x" * 900

    asyncio.run(main())


def test_slow_headers_and_slow_bodies_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slowloris: the time for a header does not start anew with every byte."""
    monkeypatch.setattr(https, "HTTP_HEADER_S", 0.05)
    monkeypatch.setattr(https, "HTTP_BODY_S", 0.05)

    async def main() -> None:
        async with running() as run:
            assert await attack(run) == b""
            assert await attack(run, b"POST /ec", b"ho HTTP/1.1\r\nho") == b""
            said = await attack(run, head("content-length: 100"), b"x")
            assert b" 408 " in said.splitlines()[0]
            ok = b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n"
            said = await attack(run, ok + b"GET /wh")
            assert said.startswith(b"HTTP/1.1 200")

    asyncio.run(main())


def test_a_long_poll_outlives_the_timers_of_header_and_body(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(https, "HTTP_HEADER_S", 0.02)
    monkeypatch.setattr(https, "HTTP_BODY_S", 0.02)

    async def main() -> None:
        async with running() as run:
            poll = asyncio.create_task(run.client().call("GET", "/poll", None, Seen, 30.0))
            await run.service.polling.wait()
            await asyncio.sleep(0.1)
            run.service.answer_polls.set()
            assert (await poll).name == "polled"

    asyncio.run(main())


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 20_000,
        b"\x00\x01\x02\r\n\r\n",
        head("content-length: -5"),
        head("content-length: 5", "content-length: 6"),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_junk_is_answered_400_and_reaches_no_route(junk: bytes) -> None:
    async def main() -> None:
        async with running() as run:
            said = await attack(run, junk)
            assert said.startswith(b"HTTP/1.1 4")
            assert run.service.calls == []
            assert (await run.client().call("GET", "/who", None, Seen)).name == "nobody"

    asyncio.run(main())


def test_a_hostile_server_s_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https_client, "API_REPLY_BYTES_MAX", 10_000)

    async def main() -> None:
        answers = [
            b"HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n" + bytes(20_000),
            b"HTTP/1.1 200 OK\r\nx: " + b"a" * 50_000,
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nshort",
            b"",
        ]

        class Hostile(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                assert isinstance(transport, asyncio.Transport)
                self.transport = transport

            def data_received(self, _data: bytes) -> None:
                self.transport.write(answers[0])
                self.transport.close()

        clock = ManualClock(wall_s=NOW)
        tls = ServerTls(PKI.roots, PKI.server(), clock)
        listener = await https.listen(Hostile, "127.0.0.1", 0, tls)
        while answers:
            client = JsonClient([f"127.0.0.1:{listener.port}"], PKI.roots, None, clock)
            with pytest.raises((PeerFault, OperationFault)):
                await client.call("GET", "/who", None, Seen)
            answers.pop(0)
        listener.abort()

    asyncio.run(main())
