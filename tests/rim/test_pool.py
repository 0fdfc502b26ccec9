"""Pool server and pool client against each other, on real sockets with real certificates."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.relay.harness import Pool, Server, until

from holdfast.errors import OperationFault, PeerFault
from holdfast.limits import BLOB_BYTES_MAX, REQUEST_BYTES_MAX
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import SystemClock
from holdfast.rim.pool_client import PoolClient, tls_context
from holdfast.rim.pool_server import PoolServer
from holdfast.wire.faults import Refusal, to_reply
from holdfast.wire.frame import join, split
from holdfast.wire.pool import Empty, ErrorReply, HaveReply, HelloRequest

CLOCK = SystemClock()


class Echo:
    """A handler whose verbs are easy to predict."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.seen = 0
        self.at_once = 0
        self.most_at_once = 0

    async def answer(self, verb: str, body: bytes) -> tuple[int, bytes]:
        self.seen += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._answer(verb, body)
        finally:
            self.at_once -= 1

    async def _answer(self, verb: str, body: bytes) -> tuple[int, bytes]:
        if verb == "hang":
            await self.gate.wait()
        elif verb == "quota":
            status, reply = to_reply(PeerFault("too much", code="quota"))
            return status, join(reply)
        elif verb == "rate":
            refusal = Refusal("slowly", code="rate", retry_after_s=2.5)
            status, reply = to_reply(refusal)
            return status, join(reply)
        elif verb == "bug":
            raise AssertionError("a bug in the handler")
        else:
            await asyncio.sleep(0)
        _, attachments = split(HelloRequest, body)
        return 200, join(HaveReply(b"yes"), [attachments])

    def page(self, path: str) -> tuple[int, str, bytes]:
        return (200, "text/plain", b"well") if path == "/health" else (404, "text/plain", b"")


Case = Callable[[PoolServer, Echo, Pool, Server], Awaitable[None]]


def serve(home: Path, case: Case, role: Role = Role.RELAY) -> None:
    """Run `case` against a server with the certificate of a node of that role."""

    async def main() -> None:
        pool = Pool(home)
        node = Server(pool, "relay-eu-001", role, "alpha", "eu")
        echo = Echo()
        server = PoolServer(echo, "127.0.0.1", 0, CLOCK)
        await server.start(node.home / "chain.pem", node.home / "key.pem")
        try:
            await case(server, echo, pool, node)
        finally:
            echo.gate.set()
            await server.stop()

    asyncio.run(main())


def client_of(server: PoolServer, pool: Pool, **options: Any) -> PoolClient:
    return PoolClient(server.address, roots=pool.roots, clock=CLOCK, **options)


HELLO = HelloRequest((1,))


def test_a_call_and_its_attachments_go_both_ways(tmp_path: Path) -> None:
    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        client = client_of(server, pool, node=node.node, server_name="relay-eu-001.kelp.test")
        for size in (0, 1, 16_384, BLOB_BYTES_MAX, 4 * BLOB_BYTES_MAX):
            data = bytes(size)
            reply, rest = await client.call("echo", HELLO, HaveReply, [data, b"end"])
            assert reply.present == b"yes"
            assert bytes(rest) == data + b"end"
        assert client.peer.node == node.node
        assert client.peer.role == Role.RELAY
        assert {client.leaf} == server.leaves
        await client.close()

    serve(tmp_path, case)


def test_refusals_become_our_errors(tmp_path: Path) -> None:
    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        client = client_of(server, pool)
        with pytest.raises(PeerFault) as quota:
            await client.call("quota", HELLO, Empty)
        assert quota.value.code == "quota"
        with pytest.raises(Refusal) as rate:
            await client.call("rate", HELLO, Empty)
        assert (rate.value.code, rate.value.retry_after_s) == ("rate", 2.5)
        assert rate.value.retryable
        with pytest.raises(OperationFault) as bug:
            await client.call("bug", HELLO, Empty)
        assert "500" in str(bug.value)
        with pytest.raises(PeerFault):
            await client.call("echo", HELLO, Empty)  # the reply is of another shape
        await client.call("echo", HELLO, HaveReply)
        await client.close()

    serve(tmp_path, case)


def test_calls_share_a_few_connections(tmp_path: Path) -> None:
    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        client = client_of(server, pool, connections_max=3)
        await asyncio.gather(*(client.call("echo", HELLO, HaveReply) for _ in range(60)))
        assert echo.seen == 60
        assert echo.most_at_once <= 3
        assert len(client._all) <= 3
        await client.close()

    serve(tmp_path, case)


def test_a_long_poll_does_not_hold_up_calls(tmp_path: Path) -> None:
    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        client = client_of(server, pool, connections_max=1)
        polls = [
            asyncio.create_task(client.call("watch", HELLO, HaveReply, timeout_s=30))
            for _ in range(3)
        ]
        await client.call("echo", HELLO, HaveReply, timeout_s=5)
        await asyncio.gather(*polls)
        await client.close()

    serve(tmp_path, case)


def test_a_call_that_takes_too_long_fails_and_the_next_one_works(tmp_path: Path) -> None:
    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        client = client_of(server, pool, connections_max=1)
        with pytest.raises(OperationFault) as late:
            await client.call("hang", HELLO, HaveReply, timeout_s=0.05)
        assert late.value.retryable
        await client.call("echo", HELLO, HaveReply)
        hanging = asyncio.create_task(client.call("hang", HELLO, HaveReply))
        await asyncio.sleep(0.05)
        with pytest.raises(OperationFault):  # no connection becomes free
            await client.call("echo", HELLO, HaveReply, timeout_s=0.05)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        await client.call("echo", HELLO, HaveReply)
        await client.close()

    serve(tmp_path, case)


def test_nobody_at_the_address_is_a_retryable_fault(tmp_path: Path) -> None:
    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        client = PoolClient("127.0.0.1:1", roots=pool.roots, clock=CLOCK)
        with pytest.raises(OperationFault) as fault:
            await client.call("echo", HELLO, HaveReply)
        assert fault.value.retryable

    serve(tmp_path, case)


# --- Who is it -----------------------------------------------------------------------------------
def test_a_server_of_another_network_is_refused(tmp_path: Path) -> None:
    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        client = client_of(server, Pool(tmp_path / "other"))
        with pytest.raises(PeerFault) as fault:
            await client.connect()
        assert fault.value.code == "certificate"

    serve(tmp_path, case)


def test_another_node_or_name_than_expected_is_refused(tmp_path: Path) -> None:
    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        for client in (
            client_of(server, pool, node=b"x" * 32),
            client_of(server, pool, server_name="relay-eu-002.kelp.test"),
        ):
            with pytest.raises(PeerFault) as fault:
                await client.call("echo", HELLO, HaveReply)
            assert fault.value.code == "certificate"

    serve(tmp_path, case)


def test_a_headquarters_is_no_pool_server(tmp_path: Path) -> None:
    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        with pytest.raises(PeerFault) as fault:
            await client_of(server, pool).connect()
        assert fault.value.code == "certificate"

    serve(tmp_path, case, role=Role.HQ)


def test_only_tls_1_3(tmp_path: Path) -> None:
    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        context = tls_context(pool.roots)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection("127.0.0.1", server.port, ssl=context)

    serve(tmp_path, case)


# --- Hostile bytes -------------------------------------------------------------------------------
async def _raw(server: PoolServer, pool: Pool, request: bytes) -> tuple[bytes, bytes]:
    """Send bytes as they are; the status line and everything after the headers."""
    context = tls_context(pool.roots)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    writer.write(request)
    await writer.drain()
    head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
    writer.close()
    return head.split(b"\r\n")[0], body


def test_an_oversized_request_is_refused_before_its_body(tmp_path: Path) -> None:
    """Seed 004 §9.1 and 0k-sync SR-001: the limit is tripped through the public door."""

    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        for length in (str(REQUEST_BYTES_MAX + 1), "9" * 30, "-1"):
            head = f"POST /v1/echo HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"
            status, body = await _raw(server, pool, head.encode())
            assert status.split()[1] in (b"413", b"400")
            if length == str(REQUEST_BYTES_MAX + 1):
                assert split(ErrorReply, body)[0].code == "too-large"
        assert echo.seen == 0
        with pytest.raises((PeerFault, OperationFault)):
            await client_of(server, pool).call("echo", HELLO, HaveReply, [bytes(REQUEST_BYTES_MAX)])
        assert echo.seen == 0

    serve(tmp_path, case)


def test_a_body_without_a_length_is_refused(tmp_path: Path) -> None:
    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        request = (
            b"POST /v1/echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello"
        )
        status, body = await _raw(server, pool, request)
        assert status.split()[1] == b"400"
        assert split(ErrorReply, body)[0].code == "malformed"
        assert echo.seen == 0

    serve(tmp_path, case)


def test_a_body_that_trickles_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slowloris (reference §2.5, A-RES)."""
    monkeypatch.setattr("holdfast.rim.pool_server.BODY_READ_S", 0.2)

    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        request = b"POST /v1/echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nslowly"
        status, _ = await _raw(server, pool, request)
        assert status.split()[1] == b"400"
        assert echo.seen == 0
        assert server._reading_bytes == 0

    serve(tmp_path, case)


def test_bodies_in_flight_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.rim.pool_server.BODIES_IN_FLIGHT_BYTES_MAX", 1_000)

    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        client = client_of(server, pool)
        with pytest.raises(Refusal) as refused:
            await client.call("echo", HELLO, HaveReply, [bytes(2_000)])
        assert refused.value.code == "busy"
        await client.call("echo", HELLO, HaveReply, [bytes(500)])
        await client.close()

    serve(tmp_path, case)


@pytest.mark.parametrize(
    "request_line",
    ["GET /metrics", "GET /", "PUT /v1/echo", "POST /v2/echo", "DELETE /health", "OPTIONS *"],
)
def test_nothing_else_is_served(tmp_path: Path, request_line: str) -> None:
    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        request = (
            f"{request_line} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
        status, _ = await _raw(server, pool, request.encode())
        assert status.split()[1] in (b"404", b"400", b"405")
        assert echo.seen == 0

    serve(tmp_path, case)


def test_health_is_a_plain_page(tmp_path: Path) -> None:
    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        request = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        status, body = await _raw(server, pool, request)
        assert status.split()[1] == b"200"
        assert body == b"well"

    serve(tmp_path, case)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
        b"HTTP/1.1 xx OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\x00\x00",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\x00\x00\x00\x00\x00\x00",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\x00\x00\xff\x00",
        b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
        b"x" * 20_000,
    ],
)
@pytest.mark.parametrize("piece", [1, 100_000])
def test_a_client_survives_any_answer(tmp_path: Path, answer: bytes, piece: int) -> None:
    """h11's contract: any garbage is parsed or becomes one of our errors, whole and in pieces."""

    async def main() -> None:
        pool = Pool(tmp_path)
        node = Server(pool, "relay-eu-001", Role.RELAY, "alpha", "eu")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(node.home / "chain.pem", node.home / "key.pem")

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            for start in range(0, min(len(answer), 200 * piece), piece):
                writer.write(answer[start : start + piece])
                await asyncio.sleep(0)
            writer.close()

        liar = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
        port = liar.sockets[0].getsockname()[1]
        client = PoolClient(f"127.0.0.1:{port}", roots=pool.roots, clock=CLOCK)
        with pytest.raises((PeerFault, OperationFault)):
            await client.call("echo", HELLO, HaveReply, timeout_s=5)
        await client.close()
        liar.close()
        await liar.wait_closed()

    asyncio.run(main())


# --- Rotation ------------------------------------------------------------------------------------
def test_a_certificate_rotates_under_load_without_a_failed_call(tmp_path: Path) -> None:
    """D6: renewed with a new key while serving; DESIGN §6: a second server on the same port."""

    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        clients = [client_of(server, pool, node=node.node, connections_max=2) for _ in range(3)]
        leaves: set[bytes] = set()
        stop = asyncio.Event()

        async def load(client: PoolClient) -> int:
            calls = 0
            while not stop.is_set():
                await client.call("echo", HELLO, HaveReply, [bytes(20_000)])
                leaves.add(client.leaf)
                calls += 1
            return calls

        loads = [asyncio.create_task(load(client)) for client in clients for _ in range(2)]
        seen = set(server.leaves)
        for _ in range(3):
            await asyncio.sleep(0.1)
            node.certify()
            await server.rotate(node.home / "chain.pem", node.home / "key.pem")
            assert len(server.leaves) == 1, "the old one has finished"
            seen |= server.leaves
        await asyncio.sleep(0.1)
        stop.set()
        calls = await asyncio.gather(*loads)
        assert min(calls) > 0
        assert leaves == seen
        assert len(seen) == 4
        for client in clients:
            await client.close()

    serve(tmp_path, case)


def test_a_call_in_flight_survives_the_rotation(tmp_path: Path) -> None:
    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        client = client_of(server, pool)
        hanging = asyncio.create_task(client.call("hang", HELLO, HaveReply))
        await asyncio.sleep(0.05)
        node.certify()
        rotating = asyncio.create_task(
            server.rotate(node.home / "chain.pem", node.home / "key.pem")
        )
        other = client_of(server, pool)
        await until(lambda: len(server.leaves) == 2)
        await other.call("echo", HELLO, HaveReply)
        echo.gate.set()
        assert (await hanging)[0].present == b"yes"
        await rotating
        await client.call("echo", HELLO, HaveReply)
        await client.close()
        await other.close()

    serve(tmp_path, case)


def test_a_broken_certificate_leaves_the_old_one_serving(tmp_path: Path) -> None:
    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        before = server.leaves
        (node.home / "chain.pem").write_bytes(b"nonsense")
        with pytest.raises(OperationFault):
            await server.rotate(node.home / "chain.pem", node.home / "key.pem")
        assert server.leaves == before
        await client_of(server, pool).call("echo", HELLO, HaveReply)

    serve(tmp_path, case)


def test_a_server_that_ends_by_itself_is_noticed(tmp_path: Path) -> None:
    """Its process then ends too, and the agent starts it again."""

    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        node.certify()
        await server.rotate(node.home / "chain.pem", node.home / "key.pem")
        assert not server.gone.is_set(), "a rotation is no end"
        ((granian, task, _),) = server._running
        granian.stop()
        await asyncio.wait({task}, timeout=10)
        await asyncio.wait_for(server.gone.wait(), 10)

    serve(tmp_path, case)


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        holder = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = holder.sockets[0].getsockname()[1]
        second = PoolServer(Echo(), "127.0.0.1", port, CLOCK)
        with pytest.raises(OperationFault):
            await second.start(node.home / "chain.pem", node.home / "key.pem")
        holder.close()
        await holder.wait_closed()

    serve(tmp_path, case)
