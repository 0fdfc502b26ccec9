"""Connections that hang on and say nothing are ended; who speaks or waits is not (004 §11.3)."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from pathlib import Path

import pytest
from tests.relay.harness import Pool, Server
from tests.rim.test_pool import HELLO, Echo, client_of, serve

from holdfast.rim.clock import SystemClock
from holdfast.rim.pool_client import tls_context
from holdfast.rim.pool_server import PoolServer
from holdfast.rim.stalled import StalledConnections
from holdfast.wire.pool import HaveReply


def _hello(pool: Pool) -> bytes:
    """The first flight of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = tls_context(pool.roots).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


async def _ends(address: str, sent: bytes) -> bool:
    """Whether the server ends a connection on which only this was sent, within two seconds."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    try:
        async with asyncio.timeout(2.0):
            while await reader.read(4096):
                pass
        return True
    except TimeoutError:
        return False
    finally:
        writer.close()


@pytest.mark.parametrize("watched", [True, False])
def test_a_handshake_that_does_not_come_to_its_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    """Nothing sent, half a ClientHello, a whole one and then nothing. Unwatched, all stay."""
    monkeypatch.setattr("holdfast.rim.pool_server.TLS_HANDSHAKE_S", 0.2)
    monkeypatch.setattr("holdfast.rim.pool_server.QUIET_S", 0.6)
    monkeypatch.setattr("holdfast.rim.stalled.STALLED_PERIOD_S", 0.1 if watched else 60.0)

    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        hello = _hello(pool)
        before = len(os.listdir("/proc/self/fd"))
        kinds = (b"", hello[:100], hello)
        ended = await asyncio.gather(*(_ends(server.address, sent) for sent in kinds))
        assert ended == [watched] * 3
        assert server.stalled.ended == (3 if watched else 0)
        await asyncio.sleep(0.1)
        if watched:
            assert len(os.listdir("/proc/self/fd")) <= before
        assert (await client_of(server, pool).call("echo", HELLO, HaveReply))[0].present == b"yes"

    serve(tmp_path, case)


def test_who_speaks_or_waits_for_an_answer_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.rim.pool_server.TLS_HANDSHAKE_S", 0.2)
    monkeypatch.setattr("holdfast.rim.stalled.STALLED_PERIOD_S", 0.05)

    async def case(server: PoolServer, echo: Echo, pool: Pool, node: Server) -> None:
        client = client_of(server, pool)
        poll = asyncio.create_task(client.call("hang", HELLO, HaveReply))
        for _ in range(10):
            await client.call("echo", HELLO, HaveReply)
            await asyncio.sleep(0.1)
        echo.gate.set()
        await poll
        assert server.stalled.ended == 0
        await client.close()

    serve(tmp_path, case)


def test_no_other_port_is_touched() -> None:
    """Also of this process: only what was accepted at the watched port is ours to end."""

    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        other = socket.create_server(("127.0.0.1", 0))
        mine = socket.create_connection(listener.getsockname())
        theirs = socket.create_connection(other.getsockname())
        held = [listener.accept()[0], other.accept()[0]]
        port = listener.getsockname()[1]
        watch = StalledConnections(port, SystemClock(), handshake_s=0.0, quiet_s=60.0)
        await watch.look()
        await asyncio.sleep(0.01)
        await watch.look()
        assert watch.ended == 1
        assert mine.recv(1) == b""
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        for each in (*held, mine, theirs, listener, other):
            each.close()

    asyncio.run(main())


def test_a_number_that_was_given_to_another_connection_starts_anew() -> None:
    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        watch = StalledConnections(port, SystemClock(), handshake_s=0.3, quiet_s=60.0)
        first = socket.create_connection(listener.getsockname())
        held = listener.accept()[0]
        number = held.fileno()
        await watch.look()
        await asyncio.sleep(0.2)
        second = socket.create_connection(listener.getsockname())
        again = listener.accept()[0]
        os.dup2(again.fileno(), number)
        again.close()
        await asyncio.sleep(0.2)
        await watch.look()
        assert watch.ended == 0, "0.2 s old, though its number was seen 0.4 s ago"
        for each in (held, first, second, listener):
            each.close()

    asyncio.run(main())
