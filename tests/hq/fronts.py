"""Headquarters, agents' fronts behind TLS, an operator: what tests of carried calls stand on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount
from tests.hq.headquarters import ENTROPY, Operator, run

from holdfast.crypto.certinfo import fingerprint
from holdfast.errors import OperationFault
from holdfast.hq.access_admin import CellOrder
from holdfast.hq.main import Headquarters
from holdfast.hq.operators import OperatorMade, OperatorOrder
from holdfast.hq.verbs import OperatorRole
from holdfast.logic.access.model import Cell
from holdfast.logic.fleet.model import Role
from holdfast.node import membership
from holdfast.node.front import Front
from holdfast.node.home import Home
from holdfast.rim.clock import SystemClock
from holdfast.rim.front_client import FrontClient, Where, bearer
from holdfast.rim.https import HttpsServer
from holdfast.rim.tls import Credentials, ServerTls
from holdfast.wire.codec import pack_json
from holdfast.wire.front import CopyHead, front_path

CLOCK = SystemClock()
ADMIN = "/admin/v1"
DAY_S = 86_400
NONE = CopyHead(b"", 0, 0, 0, 0, b"")


class Carrier:
    """A node's front behind TLS, and all that went through it."""

    def __init__(self, front: Front, home: Home) -> None:
        self.front = front
        self.home = home
        self.server = HttpsServer()
        self.seen: list[bytes] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    async def start(self, path: str) -> None:
        await self.front.start()
        with contextlib.suppress(OperationFault):  # the first copy may be in the making
            await self.front.refresh()
        app = Starlette(routes=[Mount(path, app=self._watched(self.front._application()))])
        own = Credentials.from_files(self.home.chain_file, self.home.key_file)
        await self.server.start(app, "127.0.0.1", 0, ServerTls(self.home.roots(), own, CLOCK))

    def _watched(self, inner: Any) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            body = bytearray()

            async def hear() -> Any:
                message = await receive()
                body.extend(message.get("body", b""))
                if not message.get("more_body", False) and body:
                    self.seen.append(bytes(body))
                    body.clear()
                return message

            said = bytearray()

            async def tell(message: Any) -> None:
                said.extend(message.get("body", b""))
                if message["type"] == "http.response.body" and not message.get("more_body"):
                    self.seen.append(bytes(said))
                await send(message)

            await inner(scope, hear, tell)

        return app

    async def stop(self) -> None:
        await self.server.stop(0.1)
        await self.front.stop()


class Scene:
    """A headquarters, an owner with a key, nodes that carry."""

    def __init__(self, hq: Headquarters, local: Operator, directory: Path) -> None:
        self.hq = hq
        self.local = local
        self.directory = directory
        self.root = fingerprint(hq.parts.authority.roots[0])
        self.key = ""
        self.carriers: list[Carrier] = []

    async def start(self, cores: int = 2) -> None:
        order = OperatorOrder("olga", OperatorRole.OWNER)
        self.key = (await self.local.call("POST", "/operators", order, OperatorMade)).key
        cell = CellOrder("c1", "c1.hold.example", "c1-core.hold.example")
        await self.local.call("POST", "/access/cells", cell, Cell)
        for number in range(cores):
            token = await self.local.token(role=Role.CORE, cell="c1", provider="drill")
            home = Home(self.directory / f"core-{number}")
            listen = f"127.0.0.1:{17_000 + number}"
            member = await membership.join(
                home,
                token,
                listen=listen,
                addresses=(listen,),
                provider="drill",
                clock=CLOCK,
                entropy=ENTROPY,
            )
            carrier = Carrier(Front(home, member, CLOCK, ENTROPY), home)
            await carrier.start(front_path(self.root))
            self.carriers.append(carrier)

    def client(self, *carriers: Carrier, root: bytes = b"") -> FrontClient:
        chosen = carriers or tuple(self.carriers)
        where = Where(tuple(each.address for each in chosen), root or self.root)
        return FrontClient(where, CLOCK, ENTROPY)

    async def ask(
        self, client: FrontClient, method: str, path: str, body: object = None, **more: Any
    ) -> tuple[int, bytes]:
        data = b"" if body is None else pack_json(body)
        key = bearer(more.pop("key", self.key))
        return await client.exchange(method, ADMIN + path, data, key, **more)

    async def stop(self) -> None:
        for carrier in self.carriers:
            await carrier.stop()


@contextlib.asynccontextmanager
async def scene(hq: Headquarters, local: Operator, directory: Path) -> AsyncIterator[Scene]:
    made = Scene(hq, local, directory)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


def play(directory: Path, story: Any, **changes: Any) -> None:
    async def scenario(hq: Headquarters, local: Operator) -> None:
        async with scene(hq, local, directory) as made:
            await story(made)

    run(scenario, directory, **changes)


class Later(SystemClock):
    """A wall clock that is ahead."""

    def __init__(self, ahead_s: float) -> None:
        super().__init__()
        self.ahead_s = ahead_s

    def wall(self) -> float:
        return super().wall() + self.ahead_s
