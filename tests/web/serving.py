"""Ways to reach the page in a test: in process, and on a real port of a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import msgspec
from starlette.applications import Starlette

from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.loopback_server import LoopbackServer
from holdfast.web.board import Board, PageSource
from holdfast.web.fleet import routes
from holdfast.web.login import Login


class Answer(msgspec.Struct, frozen=True):
    """What an ASGI app answered."""

    status: int
    headers: dict[str, str]
    body: str


async def ask(app: Starlette, method: str, target: str, **headers: str) -> Answer:
    """One request in process. Header names take `_` for `-`; Host is loopback unless given."""
    given = {"host": "127.0.0.1:8800"} | {k.replace("_", "-"): v for k, v in headers.items()}
    parts = urlsplit(target)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": [(k.encode(), v.encode()) for k, v in given.items()],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8800),
    }
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await app(scope, receive, send)  # type: ignore[arg-type]
    start = sent[0]
    names = {k.decode(): v.decode() for k, v in start["headers"]}  # type: ignore[attr-defined]
    body = b"".join(m.get("body", b"") for m in sent[1:])  # type: ignore[misc]
    return Answer(int(start["status"]), names, body.decode())  # type: ignore[call-overload]


class Served(msgspec.Struct):
    """A page on a real port, with what a test needs to turn it."""

    url: str
    login: Login
    board: Board


@asynccontextmanager
async def served(source: PageSource) -> AsyncIterator[Served]:
    """The page on an ephemeral loopback port, on the server that HQ's admin port uses."""
    clock = SystemClock()
    login = Login(clock, SystemEntropy(), command="holdfast login")
    board = Board(source, clock)
    server = LoopbackServer(Starlette(routes=routes(board, login)))
    await server.start("127.0.0.1", 0)
    following = asyncio.create_task(board.run())
    try:
        yield Served(f"http://{server.address}", login, board)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await server.stop()
