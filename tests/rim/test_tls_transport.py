"""The shim itself: records, flow, ends and the limits of a TLS connection."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest
from OpenSSL import SSL
from tests.rim.pki import DOMAIN, NETWORK, NOW
from tests.rim.tls_echo import (
    PKI,
    Client,
    Echo,
    client_of,
    dial,
    drained,
    ending,
    greeting,
    serving,
    settle,
)

from holdfast.crypto.certificates import cert_info, create_root
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.limits import TLS_CLOSE_S
from holdfast.rim import tls as tls_module
from holdfast.rim import tls_transport
from holdfast.rim.clock import ManualClock
from holdfast.rim.tls import (
    ClientTls,
    Credentials,
    ServerTls,
    connect,
    listen,
    self_test,
)
from holdfast.rim.tls_transport import Secured


def test_the_exchange_is_post_quantum_and_tls_1_3() -> None:
    async def main() -> None:
        async with serving() as (listener, _, _):
            layer = await dial(listener)
            assert layer.transport is not None
            info = layer.transport.get_extra_info("ssl_object")
            assert info.version() == "TLSv1.3"
            assert info.group() == "X25519MLKEM768"
            assert info.cipher()[1] == "TLSv1.3"
            assert cert_info(info.getpeercert(True)).dns == f"hq.{DOMAIN}"
            await greeting(layer)
            server = Echo.seen[0].transport.get_extra_info("ssl_object")
            assert server.group() == "X25519MLKEM768"
            assert server.getpeercert(True) is None

    asyncio.run(main())


def test_the_system_s_own_openssl_can_talk_to_it() -> None:
    """Interoperation: the stdlib's ssl, another OpenSSL, with the classical group."""

    async def main() -> None:
        async with serving() as (listener, _, _):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = True
            context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(PKI.roots[0]))
            # The certificates of this test live in 2027; the stdlib knows no other clock than its
            # own, so it checks chain and name, and time is not its question here.
            context.verify_flags |= ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", listener.port, ssl=context, server_hostname=f"hq.{DOMAIN}"
            )
            assert await reader.readline() == b"nobody\n"
            writer.write(b"x" * 100_000)
            assert await reader.readexactly(100_000) == b"x" * 100_000
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2])
def test_an_older_tls_is_refused(version: ssl.TLSVersion) -> None:
    async def main() -> None:
        async with serving() as (listener, _, _):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.maximum_version = version
            with pytest.raises(ssl.SSLError):
                await asyncio.open_connection("127.0.0.1", listener.port, ssl=context)
            assert Echo.seen == []

    asyncio.run(main())


def test_large_transfers_keep_order_under_back_pressure() -> None:
    """8 MiB each way, with a reader that pauses: nothing is lost, nothing piles up unbounded."""

    async def main() -> None:
        async with serving() as (listener, _, _):
            layer = await dial(listener)
            await greeting(layer)
            transport = layer.transport
            assert transport is not None
            skip = len(client_of(layer).received)
            blob = bytes(range(256)) * 4096
            transport.pause_reading()
            assert not transport.is_reading()
            for _ in range(8):
                transport.write(blob)
            await asyncio.sleep(0.05)
            assert len(client_of(layer).received) == skip
            transport.resume_reading()
            received = await client_of(layer).until(skip + 8 * len(blob))
            assert received[skip:] == blob * 8
            assert bytes(Echo.seen[0].received) == blob * 8

    asyncio.run(main())


def test_writing_to_a_reader_that_stopped_pauses_the_writer() -> None:
    async def main() -> None:
        class Flood(asyncio.Protocol):
            paused = asyncio.Event()
            resumed = asyncio.Event()

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                assert isinstance(transport, asyncio.Transport)
                transport.set_write_buffer_limits(high=65_536)
                while not Flood.paused.is_set():
                    transport.write(bytes(65_536))
                assert transport.get_write_buffer_size() > 65_536

            def pause_writing(self) -> None:
                Flood.paused.set()

            def resume_writing(self) -> None:
                Flood.resumed.set()

        side = ServerTls(PKI.roots, PKI.server(), ManualClock(wall_s=NOW))
        listener = await listen(Flood, "127.0.0.1", 0, side)

        class Stopped(Client):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                assert isinstance(transport, asyncio.Transport)
                transport.pause_reading()

        client = ClientTls(PKI.roots, None, ManualClock(wall_s=NOW))
        layer = await connect(Stopped, f"127.0.0.1:{listener.port}", client)
        async with asyncio.timeout(10):
            await Flood.paused.wait()
            assert not client_of(layer).received
            assert layer.transport is not None
            layer.transport.resume_reading()
            await Flood.resumed.wait()
        layer.abort()
        listener.abort()
        await settle()

    asyncio.run(main())


def test_half_close_ends_one_direction() -> None:
    async def main() -> None:
        async with serving() as (listener, _, _):
            layer = await dial(listener)
            await greeting(layer)
            server = Echo.seen[0]
            server.keep_half_open = True
            assert layer.transport is not None
            assert layer.transport.can_write_eof()
            layer.transport.write(b"last words")
            layer.transport.write_eof()
            layer.transport.write(b"too late")
            await client_of(layer).until(17)
            assert bytes(server.received) == b"last words"
            assert server.ended == ["eof"]
            server.transport.write(b", answered")
            server.transport.close()
            assert await ending(layer) is None
            assert bytes(client_of(layer).received).endswith(b"last words, answered")
            assert client_of(layer).eof

    asyncio.run(main())


def test_a_cut_wire_is_a_fault_and_not_an_end() -> None:
    """Truncation: TCP's end without close_notify must not look like the end of a message."""

    async def main() -> None:
        async with serving() as (listener, _, _):
            layer = await dial(listener)
            await greeting(layer)
            assert layer.raw is not None
            layer.raw.close()
            await settle()
            await drained(listener)
            assert Echo.seen[0].ended == ["lost"]
            assert isinstance(Echo.seen[0].fault, OperationFault)

    asyncio.run(main())


def test_a_clean_close_is_clean_on_both_sides() -> None:
    async def main() -> None:
        async with serving() as (listener, _, _):
            layer = await dial(listener)
            await greeting(layer)
            assert layer.transport is not None
            layer.transport.close()
            assert layer.transport.is_closing()
            assert await ending(layer) is None
            await drained(listener)
            assert Echo.seen[0].ended == ["eof", "lost"]
            assert Echo.seen[0].fault is None

    asyncio.run(main())


def test_garbage_and_plain_http_are_refused_without_reaching_the_service() -> None:
    async def main() -> None:
        async with serving() as (listener, _, _):
            for junk in (
                b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                bytes(5000),
                b"\x16\x03\x01\xff\xff",
            ):
                reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
                writer.write(junk)
                writer.write_eof()
                await reader.read()
                writer.close()
            await drained(listener)
            assert Echo.seen == []

    asyncio.run(main())


def test_a_half_open_handshake_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slowloris before the first byte (limits: TLS_HANDSHAKE_S)."""
    monkeypatch.setattr(tls_transport, "TLS_HANDSHAKE_S", 0.05)

    async def main() -> None:
        async with serving() as (listener, _, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(b"\x16\x03\x01")
            async with asyncio.timeout(10):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
            assert len(listener) == 0
            writer.close()

    asyncio.run(main())


def test_a_peer_that_never_reads_its_last_bytes_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TLS_CLOSE_S > 0
    monkeypatch.setattr(tls_transport, "TLS_CLOSE_S", 0.05)

    async def main() -> None:
        async with serving() as (listener, _, _):
            layer = await dial(listener)
            await greeting(layer)
            assert layer.transport is not None
            layer.transport.pause_reading()
            server = Echo.seen[0].transport
            server.write(bytes(32 * 1024 * 1024))
            server.close()
            await drained(listener)
            layer.abort()

    asyncio.run(main())


def test_connections_over_the_limit_are_closed_before_their_handshake() -> None:
    async def main() -> None:
        async with serving(connections_max=2) as (listener, _, _):
            first, second = await dial(listener), await dial(listener)
            with pytest.raises(OperationFault):
                await dial(listener)
            first.abort()
            await drained(listener, 1)
            assert await greeting(await dial(listener)) == "nobody"
            second.abort()

    asyncio.run(main())


def test_a_session_is_never_resumed() -> None:
    """A resumed session would carry an identity past the judge and past a revocation."""

    async def main() -> None:
        async with serving() as (listener, _, _):
            layer = await dial(listener, PKI.leaf())
            await greeting(layer)
            session = layer._tls.get_session()
            assert session is not None
            side = ClientTls(PKI.roots, PKI.leaf(), ManualClock(wall_s=NOW))
            context = layer._context

            class Resuming(Secured):
                def connection_made(self, transport: asyncio.BaseTransport) -> None:
                    self._tls.set_session(session)
                    super().connection_made(transport)

            opened: asyncio.Future[Secured] = asyncio.get_running_loop().create_future()
            await asyncio.get_running_loop().create_connection(
                lambda: Resuming(context, side, Client, server=False, opened=opened),
                "127.0.0.1",
                listener.port,
            )
            again = await opened
            assert await greeting(again) == "relay 6e6e"
            assert not tls_module.pyopenssl.lib.SSL_session_reused(again._tls._ssl)
            again.abort()

    asyncio.run(main())


def test_unreachable_and_silent_addresses_are_operation_faults() -> None:
    async def main() -> None:
        async with serving() as (listener, _, _):
            port = listener.port
        side = ClientTls(PKI.roots, None, ManualClock(wall_s=NOW))
        with pytest.raises(OperationFault):
            await connect(Client, f"127.0.0.1:{port}", side)
        silent = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        with pytest.raises(OperationFault, match=r"within 0\.05 s"):
            await connect(Client, f"127.0.0.1:{port}", side, timeout_s=0.05)
        silent.close()
        with pytest.raises(PeerFault):
            await connect(Client, "no port", side)

    asyncio.run(main())


def test_a_taken_port_is_an_operation_fault() -> None:
    async def main() -> None:
        async with serving() as (listener, side, _):
            with pytest.raises(OperationFault):
                await listen(Echo, "127.0.0.1", listener.port, side)

    asyncio.run(main())


def test_credentials_must_belong_together(tmp_path: Path) -> None:
    mine = PKI.leaf()
    chain, key = mine.pem()
    assert Credentials.from_pem(chain, key).chain == mine.chain
    with pytest.raises(UsageError):
        Credentials.from_pem(chain, PKI.leaf().pem()[1])
    with pytest.raises(UsageError):
        Credentials.from_pem(b"", key)
    with pytest.raises(OperationFault):
        Credentials.from_files(tmp_path / "chain.pem", tmp_path / "key.pem")


def test_the_self_test_notices_a_library_that_ignores_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    self_test()
    for broken in (lambda *_: 1, lambda *_: 0):
        self_test.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(tls_module.pyopenssl, "lib", _Lib(broken))
            with pytest.raises(OperationFault):
                self_test()
    self_test.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(tls_module.pyopenssl, "lib", object())
        with pytest.raises(OperationFault):
            self_test()
    self_test.cache_clear()
    self_test()


class _Lib:
    def __init__(self, setter: object) -> None:
        self.SSL_CTX_set1_curves_list = setter

    def ERR_clear_error(self) -> None:
        pass


def test_two_roots_of_one_name_do_not_confuse_openssl() -> None:
    """Rollover roots share their subject; the right one is found by key identifier."""
    second = create_root(b"2" * 32, NETWORK, DOMAIN, NOW)
    context = ClientTls((*PKI.roots, second.certificate), None, ManualClock(wall_s=NOW)).context
    assert isinstance(context, SSL.Context)
