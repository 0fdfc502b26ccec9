"""Plain HTTP on this machine: the client, the server, and HQ's client of a process provider."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from holdfast.errors import HoldfastError, OperationFault, PeerFault, UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.cloud.daemon import Daemon
from holdfast.rim.cloud.machines import Machines
from holdfast.rim.cloud.port import Cloud
from holdfast.rim.cloud.process import ProcessCloud
from holdfast.rim.loopback import LoopbackClient, loopback_address
from holdfast.rim.loopback_server import LoopbackServer
from holdfast.wire.cloud import CreateServer

CLOCK = SystemClock()
SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")


class Figures(msgspec.Struct):
    method: str
    key: str
    size: int


async def echo(request: Request) -> Response:
    body = await request.body()
    key = request.headers["authorization"].removeprefix("Bearer ")
    return JSONResponse({"method": request.method, "key": key, "size": len(body)})


async def problem(request: Request) -> Response:
    status = int(request.path_params["status"])
    return JSONResponse({"error": "word", "message": f"because {status}"}, status_code=status)


async def garbage(request: Request) -> Response:
    return Response(b"\xff{not json")


APPLICATION = Starlette(
    routes=[
        Route("/echo", echo, methods=["GET", "PUT"]),
        Route("/problem/{status}", problem),
        Route("/garbage", garbage),
    ]
)


def test_calls_and_refusals() -> None:
    async def main() -> None:
        server = LoopbackServer(APPLICATION)
        await server.start("127.0.0.1", 0)
        client = LoopbackClient("http://" + server.address, "secret", CLOCK)
        assert await client.call("GET", "/echo", None, Figures) == Figures("GET", "secret", 0)
        assert (await client.call("PUT", "/echo", {"a": 1}, Figures)).size == 7
        for status, family in [(404, UsageError), (409, UsageError), (429, OperationFault),
                               (500, OperationFault), (503, OperationFault)]:  # fmt: skip
            with pytest.raises(family, match=f"because {status}"):
                await client.call("GET", f"/problem/{status}", None, Figures)
        with pytest.raises(PeerFault):
            await client.call("GET", "/garbage", None, Figures)
        await server.stop()
        with pytest.raises(OperationFault, match="is it running"):
            await client.call("GET", "/echo", None, Figures)

    asyncio.run(main())


def test_only_loopback() -> None:
    assert loopback_address("http://127.1.2.3:80/") == ("127.1.2.3", 80)
    assert loopback_address("[::1]:80") == ("::1", 80)
    for text in ("10.0.0.1:80", "example.com:80", "0.0.0.0:80", "127.0.0.1", "", "[::]:1"):
        with pytest.raises(UsageError):
            loopback_address(text)

    async def main() -> None:
        with pytest.raises(UsageError):
            await LoopbackServer(APPLICATION).start("0.0.0.0", 0)

    asyncio.run(main())


async def answer_with(data: bytes, work: Callable[[str], Awaitable[None]]) -> None:
    """A server that says `data` to everybody and hangs up."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        await work(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.binary(max_size=60).map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail + b"\r\n\r\n"),
        st.sampled_from(
            [
                b"",
                b"HTTP/1.1 200 OK\r\n\r\n",
                b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
                b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
                b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab",
                b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
                b"x" * 100_000 + b"\r\n\r\n",
            ]
        ),
    )
)
def test_a_server_that_talks_nonsense(data: bytes) -> None:
    async def work(address: str) -> None:
        with pytest.raises(HoldfastError):
            await LoopbackClient(address, "k", CLOCK).call("GET", "/", None, Figures)

    asyncio.run(answer_with(data, work))


def test_process_cloud_against_the_real_daemon(tmp_path: Path) -> None:
    """D25, D31: order, list, delete; a name is taken for ever; deleting twice is no error."""

    async def main() -> None:
        machines = Machines(
            tmp_path,
            subnet="127.98.7",
            regions=("eu",),
            command=lambda _home, _address: SLEEPER,
            clock=CLOCK,
        )
        daemon = Daemon(tmp_path, "alder", "key", machines)
        await daemon.start("127.0.0.1", 0)
        cloud: Cloud = ProcessCloud(daemon.listen, "key", CLOCK)
        order = CreateServer("intent-1", "eu", "hfjoin1token")
        server = await cloud.create(order)
        assert (server.name, server.state) == ("intent-1", "running")
        with pytest.raises(UsageError, match="already"):
            await cloud.create(order)
        with pytest.raises(UsageError):
            await cloud.create(CreateServer("intent-2", "mars", ""))
        assert [s.name for s in await cloud.list()] == ["intent-1"]
        await cloud.delete("intent-1")
        await cloud.delete("intent-1")
        await cloud.delete("never/was")
        assert [s.state for s in await cloud.list()] == ["gone"]
        with pytest.raises(UsageError, match="key"):
            await ProcessCloud(daemon.listen, "wrong", CLOCK).list()
        events = (await ProcessCloud(daemon.listen, "key", CLOCK).log()).events
        assert [e.verb for e in events if e.name == "intent-1"] == ["create", "conflict", "delete"]
        await daemon.stop()
        with pytest.raises(OperationFault) as caught:
            await cloud.list()
        assert caught.value.retryable

    asyncio.run(main())


def test_nonsense_of_a_provider_is_its_failure() -> None:
    """A `Cloud` raises OperationFault and UsageError only: a broken provider is down."""

    async def work(address: str) -> None:
        cloud = ProcessCloud(address, "k", CLOCK)
        for call in (cloud.list, lambda: cloud.delete("x"), cloud.log):
            with pytest.raises(OperationFault):
                await call()
        with pytest.raises(OperationFault):
            await cloud.create(CreateServer("a", "b", "c"))

    asyncio.run(answer_with(b"HTTP/1.1 200 OK\r\ncontent-length: nonsense\r\n\r\n[]", work))
