"""A headquarters on real ports for tests, and nodes that have only their keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from holdfast.crypto.certificates import (
    Authority,
    TlsKey,
    create_root,
    make_csr,
    sign_intermediate,
)
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import base32
from holdfast.hq.admin import RevokeOrder, TokenMade, TokenOrder
from holdfast.hq.config import HqConfig
from holdfast.hq.home import HqHome
from holdfast.hq.main import Headquarters, Mount
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import Clock, SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.https import JsonClient, fetch_pinned_roots
from holdfast.rim.loopback import LoopbackClient
from holdfast.rim.ports import free_port
from holdfast.rim.tls import Credentials
from holdfast.wire.ceremony import check_request, parse_request
from holdfast.wire.envelope import sign
from holdfast.wire.hq import Desired, JoinReply, JoinRequest, NodeIdentity, RenewRequest
from holdfast.wire.signed import Type
from holdfast.wire.token import JoinToken, parse_token

DOMAIN = "hold.example"
ENTROPY = SystemEntropy()
NETWORK = bytes(range(16))


def make_root(now: float | None = None) -> Authority:
    return create_root(b"r" * 32, NETWORK, DOMAIN, now or SystemClock().wall())


def make_home(directory: Path, root: Authority, **changes: Any) -> HqHome:
    """A directory with keys and a signed intermediate, as `hq init` and the ceremony leave it."""
    port, dns = free_port("127.0.0.1", ENTROPY), free_port("127.0.0.1", ENTROPY)
    config = HqConfig(
        domain=DOMAIN,
        listen=f"127.0.0.1:{port}",
        dns_listen=f"127.0.0.1:{dns}",
        regions=("eu",),
    )
    home = HqHome(directory)
    line = home.init(msgspec.structs.replace(config, **changes), [root.certificate], ENTROPY)
    sign_request(home, root, line)
    return home


def sign_request(home: HqHome, root: Authority, line: str) -> None:
    request = parse_request(line)
    now = SystemClock().wall()
    certificate = sign_intermediate(
        root,
        spki=check_request(request, NETWORK),
        network=NETWORK,
        identity_public=request.identity,
        now=now,
    )
    home.install(certificate, now)


class Node:
    """A node's keys and its ways to HQ; nothing of the agent."""

    def __init__(self, hq: Sequence[str], roots: Sequence[bytes]) -> None:
        self.identity = SigningKey(ENTROPY.bytes(32))
        self.key = TlsKey.from_bytes(ENTROPY.bytes(32))
        self.hq = tuple(hq)
        self.roots = tuple(roots)
        self.reply: JoinReply | None = None

    def proof(self, key: TlsKey, network: bytes = NETWORK) -> bytes:
        statement = NodeIdentity(network, key.spki())
        return sign(self.identity, Type.NODE_IDENTITY, statement).signature

    def request(self, token: JoinToken, **changes: Any) -> JoinRequest:
        request = JoinRequest(
            secret=token.secret,
            csr=make_csr(self.key),
            identity=self.identity.public,
            identity_signature=self.proof(self.key),
            addresses=("127.77.0.1:7443",),
            provider="claimed",
            network=NETWORK,
            role=token.role,
        )
        return msgspec.structs.replace(request, **changes)

    async def join(self, token: JoinToken, **changes: Any) -> JoinReply:
        """The whole of D8: root unverified, compared, reconnected, joined."""
        roots = await fetch_pinned_roots(token.hq, token.roots, SystemClock())
        client = JsonClient(token.hq, roots, None, SystemClock())
        try:
            reply = await client.call("POST", "/v1/join", self.request(token, **changes), JoinReply)
        finally:
            await client.close()
        self.reply = reply
        return reply

    def client(self) -> JsonClient:
        """A client with the certificate this node got."""
        assert self.reply is not None
        own = Credentials(self.reply.chain, self.key)
        return JsonClient(self.hq, self.roots, own, SystemClock())

    async def renew(self, client: JsonClient, key: TlsKey) -> JoinReply:
        request = RenewRequest(make_csr(key), self.proof(key))
        return await client.call("POST", "/v1/renew", request, JoinReply)

    async def desired(self, client: JsonClient, after: int = 0) -> Desired:
        path = f"/v1/desired?after={after}"
        return await client.call("GET", path, None, Desired, timeout_s=30)


class Operator:
    """Whoever holds admin.json."""

    def __init__(self, home: HqHome) -> None:
        admin = home.admin()
        self.client = LoopbackClient(admin.address, admin.key, SystemClock())

    async def call(self, method: str, path: str, body: object, reply: type[Any]) -> Any:
        return await self.client.call(method, "/admin/v1" + path, body, reply)

    async def token(self, **changes: Any) -> JoinToken:
        order = msgspec.structs.replace(TokenOrder(role=Role.RELAY, region="eu"), **changes)
        made: TokenMade = await self.call("POST", "/tokens", order, TokenMade)
        return parse_token(made.token)

    async def revoke(self, node: bytes) -> None:
        order = RevokeOrder(reason="stolen", node=base32(node))
        await self.call("POST", "/revoke", order, msgspec.Raw)


@asynccontextmanager
async def serving(home: HqHome, clock: Clock | None = None, mount: Mount | None = None) -> Any:
    """A started headquarters; its parts must not fail meanwhile."""
    hq = Headquarters(home, clock or SystemClock(), ENTROPY, mount=mount)
    await hq.start()
    running = asyncio.create_task(hq.run())
    try:
        yield hq
        assert not running.done(), running.result()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await hq.stop()


def run(
    scenario: Callable[[Headquarters, Operator], Awaitable[None]],
    directory: Path,
    *,
    wait_s: float = 60.0,
    **changes: Any,
) -> None:
    """One headquarters that leads, and its operator. `changes`: to its configuration."""

    async def main() -> None:
        home = make_home(directory / "hq", make_root(), **changes)
        clock = SystemClock(changes.get("time_scale", 1.0))
        async with asyncio.timeout(wait_s), serving(home, clock) as hq:
            await hq.leading()
            await scenario(hq, Operator(home))

    asyncio.run(main())
