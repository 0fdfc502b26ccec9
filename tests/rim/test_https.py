"""Requests over real TLS on loopback: who is asking, what breaks, what a hostile client costs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from tests.rim.pki import DOMAIN, NETWORK, NOW, Pki

from holdfast.crypto.certificates import cert_info, fingerprint
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.logic.fleet.model import Version
from holdfast.logic.trust.revocation import RevocationList, Revocations, Revoked
from holdfast.rim import https, https_client
from holdfast.rim.clock import ManualClock
from holdfast.rim.https import (
    EXCEPTION_HANDLERS,
    HttpsServer,
    JsonClient,
    fetch_pinned_roots,
    fetch_unverified_root,
    peer,
    peer_certificate,
)
from holdfast.rim.tls import ClientTls, Credentials, ServerTls, connect
from holdfast.wire.codec import Message, pack_json
from holdfast.wire.hq import RootReply

PKI = Pki()
OTHER = Pki(b"o", network=b"o" * 16)


class Note(Message):
    text: str


class Seen(Message):
    name: str
    text: str = ""
    serial: str = ""


class Service:
    """Routes that misbehave on request."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.polling = asyncio.Event()
        self.answer_polls = asyncio.Event()
        self.app = Starlette(
            routes=[
                Route("/who", self.who),
                Route("/echo", self.echo, methods=["POST"]),
                Route("/raise/{kind}", self.fail, methods=["GET", "POST"]),
                Route("/poll", self.poll),
                Route("/stream", self.stream),
                Route("/text", self.text),
                Route("/v1/root", self.root),
            ],
            exception_handlers=EXCEPTION_HANDLERS,
        )
        self.roots = PKI.roots

    async def who(self, request: Request) -> Response:
        self.calls.append("who")
        found = peer_certificate(request.scope)
        name = peer(request.scope)
        seen = Seen("nobody") if name is None else Seen(name.role)
        if found is not None:
            seen = msgspec.structs.replace(seen, serial=found.serial)
        return Response(pack_json(seen))

    async def echo(self, request: Request) -> Response:
        self.calls.append("echo")
        note = msgspec.json.decode(await request.body(), type=Note)
        return Response(pack_json(Seen("echo", note.text)))

    async def fail(self, request: Request) -> Response:
        self.calls.append("raise")
        kind = request.path_params["kind"]
        if kind == "usage":
            raise UsageError("ask for something else")
        if kind == "bug":
            raise AssertionError("a bug")
        if kind == "later":
            raise OperationFault("disk is full")
        if kind == "never":
            raise OperationFault("disk is gone", retryable=False)
        raise PeerFault("no, because of the rules", code=kind)

    async def poll(self, _request: Request) -> Response:
        self.polling.set()
        await self.answer_polls.wait()
        return Response(pack_json(Seen("polled")))

    async def stream(self, _request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for piece in (b'{"name":', b'"stream"', b"}"):
                yield piece

        return StreamingResponse(pieces())

    async def text(self, _request: Request) -> Response:
        return Response("not JSON")

    async def root(self, _request: Request) -> Response:
        return Response(pack_json(RootReply(NETWORK, DOMAIN, self.roots)))


class Running:
    def __init__(self, service: Service, server: HttpsServer, clock: ManualClock) -> None:
        self.service = service
        self.server = server
        self.clock = clock
        self.clients: list[JsonClient] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def client(self, credentials: Credentials | None = None, **options: object) -> JsonClient:
        addresses = options.pop("addresses", [self.address])
        client = JsonClient(addresses, PKI.roots, credentials, self.clock, **options)  # type: ignore[arg-type]
        self.clients.append(client)
        return client


@contextlib.asynccontextmanager
async def running(
    credentials: Credentials | None = None,
    revocations: RevocationList | None = None,
    **options: int,
) -> AsyncIterator[Running]:
    clock = ManualClock(wall_s=NOW)
    tls = ServerTls(PKI.roots, credentials or PKI.server(), clock, revocations)
    service = Service()
    server = await HttpsServer(**options).start(service.app, "127.0.0.1", 0, tls)
    run = Running(service, server, clock)
    try:
        yield run
    finally:
        for client in run.clients:
            await client.close()
        await server.stop(grace_s=0.1)
        for _ in range(20):
            await asyncio.sleep(0)


def test_a_request_knows_the_node_that_asks() -> None:
    async def main() -> None:
        async with running() as run:
            node = PKI.leaf("replica")
            seen = await run.client(node).call("GET", "/who", None, Seen)
            assert seen == Seen("replica", serial=cert_info(node.chain[0]).serial)
            assert await run.client().call("GET", "/who", None, Seen) == Seen("nobody")
            note = await run.client().call("POST", "/echo", Note("ü" * 100_000), Seen)
            assert note.text == "ü" * 100_000
            assert (await run.client().call("GET", "/stream", None, Seen)).name == "stream"

    asyncio.run(main())


def test_a_connection_is_used_again_and_calls_in_flight_have_their_own() -> None:
    async def main() -> None:
        async with running() as run:
            client = run.client()
            for _ in range(5):
                await client.call("GET", "/who", None, Seen)
            assert len(run.server.listener) == 1
            polls = asyncio.create_task(client.call("GET", "/poll", None, Seen, 30.0))
            await run.service.polling.wait()
            await client.call("GET", "/who", None, Seen)
            assert len(run.server.listener) == 2
            run.service.answer_polls.set()
            assert (await polls).name == "polled"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("kind", "family", "code"),
    [
        ("usage", UsageError, ""),
        ("later", OperationFault, ""),
        ("never", OperationFault, ""),
        ("bug", OperationFault, ""),
        ("token-used", PeerFault, "token-used"),
        ("not-found", PeerFault, "not-found"),
        ("conflict", PeerFault, "conflict"),
        ("forbidden", PeerFault, "forbidden"),
    ],
)
def test_errors_keep_their_family_and_code(
    kind: str, family: type[Exception], code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)

    async def main() -> None:
        async with running() as run:
            for method in ("GET", "POST"):
                with pytest.raises(family) as caught:
                    await run.client().call(method, f"/raise/{kind}", None, Seen)
                if isinstance(caught.value, PeerFault):
                    assert caught.value.code == code
                    assert str(caught.value) == "no, because of the rules"
                if isinstance(caught.value, OperationFault):
                    assert caught.value.retryable == (kind == "later")

    asyncio.run(main())


def test_an_answer_that_is_no_json_or_not_the_shape_is_a_peer_fault() -> None:
    async def main() -> None:
        async with running() as run:
            for path, shape in (("/text", Seen), ("/who", Note)):
                with pytest.raises(PeerFault):
                    await run.client().call("GET", path, None, shape)
            with pytest.raises(PeerFault) as caught:
                await run.client().call("GET", "/nowhere", None, Seen)
            assert caught.value.code == "malformed"

    asyncio.run(main())


def test_only_an_hq_of_this_network_is_believed() -> None:
    """A relay with a good certificate of the same network cannot answer for HQ (D1)."""

    async def main() -> None:
        for credentials in (PKI.leaf("relay"), OTHER.server()):
            async with running(credentials) as run:
                with pytest.raises(PeerFault) as caught:
                    await run.client(PKI.leaf()).call("GET", "/who", None, Seen)
                assert caught.value.code == "certificate"
                assert run.service.calls == []

    asyncio.run(main())


def test_a_foreign_or_revoked_client_is_refused_and_told_so() -> None:
    async def main() -> None:
        stolen = PKI.leaf()
        entry = Revoked(b"", cert_info(stolen.chain[0]).serial, b"", "stolen", 1)
        revocations = RevocationList(NETWORK)
        revocations.fold(Revocations(NETWORK, Version(0, 1), 1, (entry,)))
        async with running(revocations=revocations) as run:
            for credentials in (OTHER.leaf(), stolen):
                with pytest.raises(PeerFault) as caught:
                    await run.client(credentials).call("GET", "/who", None, Seen)
                assert caught.value.code == "refused"
            assert run.service.calls == []

    asyncio.run(main())


def test_a_fresh_revocation_cuts_keep_alive_and_long_poll() -> None:
    async def main() -> None:
        revocations = RevocationList(NETWORK)
        async with running(revocations=revocations) as run:
            stolen, honest = PKI.leaf(), PKI.leaf("replica", b"m" * 32)
            thief, friend = run.client(stolen), run.client(honest)
            await thief.call("GET", "/who", None, Seen)
            await friend.call("GET", "/who", None, Seen)
            poll = asyncio.create_task(thief.call("GET", "/poll", None, Seen, 30.0))
            await run.service.polling.wait()
            entry = Revoked(b"n" * 32, "", b"", "stolen", 1)
            fresh = revocations.fold(Revocations(NETWORK, Version(0, 1), 1, (entry,)))
            assert run.server.cut_revoked(fresh) == 1
            with pytest.raises((OperationFault, PeerFault)):
                await poll
            with pytest.raises(PeerFault) as caught:
                await thief.call("GET", "/who", None, Seen)
            assert caught.value.code == "refused"
            assert (await friend.call("GET", "/who", None, Seen)).name == "replica"
            assert run.server.cut(lambda item: item.name.role == "replica") == 1

    asyncio.run(main())


def test_reload_while_serving(tmp_path: Path) -> None:
    async def main() -> None:
        async with running() as run:
            client = run.client(PKI.leaf())
            poll = asyncio.create_task(client.call("GET", "/poll", None, Seen, 30.0))
            await run.service.polling.wait()
            renewed = PKI.server()
            run.server.reload(*renewed.pem())
            other = run.client()
            await other.call("GET", "/who", None, Seen)
            run.service.answer_polls.set()
            assert (await poll).name == "polled"
            chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
            own = PKI.leaf("replica")
            chain.write_bytes(own.pem()[0])
            key.write_bytes(own.pem()[1])
            client.reload((chain, key))
            seen = await client.call("GET", "/who", None, Seen)
            assert seen.serial == cert_info(own.chain[0]).serial
            with pytest.raises(UsageError):
                run.server.reload(renewed.pem()[0], own.pem()[1])
            assert (await other.call("GET", "/who", None, Seen)).name == "nobody"

    asyncio.run(main())


def test_addresses_are_tried_in_turn_and_the_last_good_one_first() -> None:
    async def main() -> None:
        async with running() as gone:
            dead = gone.address
        async with running() as run, running(PKI.leaf("relay")) as impostor:
            addresses = [dead, impostor.address, run.address]
            client = run.client(addresses=addresses)
            assert (await client.call("GET", "/who", None, Seen)).name == "nobody"
            assert client.addresses[0] == run.address
            client = run.client(addresses=addresses)
            assert (await client.call("POST", "/echo", Note("x"), Seen)).text == "x"
            client = run.client(addresses=[dead])
            with pytest.raises(OperationFault):
                await client.call("GET", "/who", None, Seen)

    asyncio.run(main())


def test_an_unavailable_server_is_passed_over() -> None:
    async def main() -> None:
        async with running() as first, running() as second:
            client = first.client(addresses=[first.address, second.address])
            with pytest.raises(OperationFault, match="disk is full"):
                await client.call("POST", "/raise/later", None, Seen)
            assert (first.service.calls, second.service.calls) == (["raise"], ["raise"])

    asyncio.run(main())


def test_a_call_that_breaks_off_is_repeated_only_where_that_is_harmless() -> None:
    async def main() -> None:
        async with running() as run:
            hits: list[str] = []

            class Breaking(asyncio.Protocol):
                def connection_made(self, transport: asyncio.BaseTransport) -> None:
                    self.transport = transport

                def data_received(self, data: bytes) -> None:
                    hits.append(data[:4].decode())
                    self.transport.close()

            tls = ServerTls(PKI.roots, PKI.server(), run.clock)
            breaking = await https.listen(Breaking, "127.0.0.1", 0, tls)
            addresses = [f"127.0.0.1:{breaking.port}", run.address]
            with pytest.raises(OperationFault):
                await run.client(addresses=addresses).call("POST", "/echo", Note("x"), Seen)
            assert run.service.calls == []
            client = run.client(addresses=addresses)
            assert (await client.call("GET", "/who", None, Seen)).name == "nobody"
            client = run.client(addresses=addresses)
            seen = await client.call("POST", "/echo", Note("y"), Seen, repeatable=True)
            assert seen.text == "y"
            assert hits == ["POST", "GET ", "POST"]
            breaking.abort()

    asyncio.run(main())


def test_a_connection_that_idled_too_long_is_not_used_again() -> None:
    async def main() -> None:
        async with running() as run:
            client = run.client()
            await client.call("GET", "/who", None, Seen)
            run.clock.advance(https_client.HTTP_IDLE_S + 1)
            await client.call("GET", "/who", None, Seen)
            async with asyncio.timeout(10):
                while len(run.server.listener) > 1:  # noqa: ASYNC110 - no event for this
                    await asyncio.sleep(0)
            idle = client._idle[run.address]
            assert len(idle) == 1

    asyncio.run(main())


def test_the_server_restarts_and_the_client_goes_on() -> None:
    async def main() -> None:
        async with running() as run:
            client = run.client()
            await client.call("GET", "/who", None, Seen)
            port = run.server.port
            await run.server.stop(grace_s=0.1)
            tls = ServerTls(PKI.roots, PKI.server(), run.clock)
            run.server = await HttpsServer().start(run.service.app, "127.0.0.1", port, tls)
            assert (await client.call("POST", "/echo", Note("again"), Seen)).text == "again"

    asyncio.run(main())


def test_no_answer_in_time_is_an_operation_fault() -> None:
    async def main() -> None:
        async with running() as run:
            with pytest.raises(OperationFault, match="no answer"):
                await run.client().call("GET", "/poll", None, Seen, 0.05)

    asyncio.run(main())


def test_stop_answers_a_long_poll_with_unavailable() -> None:
    async def main() -> None:
        async with running() as run:
            poll = asyncio.create_task(run.client().call("GET", "/poll", None, Seen, 30.0))
            await run.service.polling.wait()
            await run.server.stop(grace_s=0.05)
            with pytest.raises(OperationFault, match="stopping"):
                await poll

    asyncio.run(main())


def test_the_first_contact_believes_only_the_token_s_fingerprints() -> None:
    """D8: fetch the root unverified, compare the fingerprint, reconnect verified."""

    async def main() -> None:
        async with running() as run, running(OTHER.server()) as rogue:
            rogue.service.roots = OTHER.roots
            pins = {fingerprint(PKI.roots[0])}
            reply = await fetch_unverified_root([run.address], run.clock)
            assert (reply.network, reply.roots) == (NETWORK, PKI.roots)
            both = [rogue.address, run.address]
            assert await fetch_pinned_roots(both, pins, run.clock) == PKI.roots
            with pytest.raises(PeerFault) as caught:
                await fetch_pinned_roots([rogue.address], pins, run.clock)
            assert caught.value.code == "certificate"
            run.service.roots = PKI.roots + OTHER.roots
            assert await fetch_pinned_roots([run.address], pins, run.clock) == PKI.roots
            # The man in the middle who passes the true root on fails at the verified call.
            rogue.service.roots = PKI.roots
            assert await fetch_pinned_roots([rogue.address], pins, run.clock) == PKI.roots
            with pytest.raises(PeerFault):
                await run.client(addresses=[rogue.address]).call("GET", "/who", None, Seen)

    asyncio.run(main())


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


def test_an_app_without_handlers_still_answers_with_a_problem() -> None:
    async def main() -> None:
        async def app(scope: object, receive: object, send: object) -> None:
            raise PeerFault("not for you", code="forbidden")

        clock = ManualClock(wall_s=NOW)
        tls = ServerTls(PKI.roots, PKI.server(), clock)
        server = await HttpsServer().start(app, "127.0.0.1", 0, tls)
        client = JsonClient([f"127.0.0.1:{server.port}"], PKI.roots, None, clock)
        with pytest.raises(PeerFault) as caught:
            await client.call("GET", "/who", None, Seen)
        assert caught.value.code == "forbidden"
        await client.close()
        await server.stop()

    asyncio.run(main())
