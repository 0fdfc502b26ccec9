"""Real handshakes on loopback: who gets in, who does not, and who is thrown out (D6).

Seed 004 §11.1: the threat model has hostile relays, hostile clients and a hostile network.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import ClassVar

import pytest
from OpenSSL import SSL
from tests.rim.pki import DOMAIN, NETWORK, NOW, Pki

from holdfast.crypto.certificates import cert_info, create_root
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.limits import TLS_CLOSE_S
from holdfast.logic.fleet.model import Version
from holdfast.logic.trust.revocation import RevocationList, Revocations, Revoked
from holdfast.rim import tls as tls_module
from holdfast.rim import tls_transport
from holdfast.rim.clock import ManualClock
from holdfast.rim.tls import (
    ClientTls,
    Credentials,
    Expected,
    Listener,
    Peer,
    ServerTls,
    UnverifiedTls,
    connect,
    listen,
    self_test,
)
from holdfast.rim.tls_transport import Secured

DAY_S = 86_400
PKI = Pki()
AN_HQ = Expected(roles=("hq",))


class Echo(asyncio.Protocol):
    """Says who it thinks the client is, then echoes; notes how it ended."""

    seen: ClassVar[list[Echo]] = []

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended: list[str] = []
        self.fault: Exception | None = None
        self.keep_half_open = False
        Echo.seen.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        peer = transport.get_extra_info("holdfast.peer")
        name = "nobody" if peer is None else f"{peer.name.role} {peer.name.node.hex()[:4]}"
        transport.write(name.encode() + b"\n")

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.transport.write(data)

    def eof_received(self) -> bool:
        self.ended.append("eof")
        return self.keep_half_open

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.append("lost")
        self.fault = error


class Client(asyncio.Protocol):
    """Collects what comes and how it ends."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.changed = asyncio.Event()
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.eof = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        pass

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.changed.set()

    def eof_received(self) -> bool:
        self.eof = True
        self.changed.set()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(error)
        self.changed.set()

    async def until(self, size: int) -> bytes:
        return await self._until(lambda: len(self.received) >= size)

    async def until_says(self, text: bytes) -> None:
        await self._until(lambda: self.received.endswith(text))
        assert self.received.endswith(text)

    async def _until(self, enough: Callable[[], bool]) -> bytes:
        async with asyncio.timeout(10):
            while not enough() and not self.lost.done():
                self.changed.clear()
                await self.changed.wait()
        return bytes(self.received)


@contextlib.asynccontextmanager
async def serving(
    credentials: Credentials | None = None,
    *,
    roots: tuple[bytes, ...] = PKI.roots,
    **options: object,
) -> AsyncIterator[tuple[Listener, ServerTls, ManualClock]]:
    clock = ManualClock(wall_s=NOW)
    revocations = options.pop("revocations", None)
    assert revocations is None or isinstance(revocations, RevocationList)
    side = ServerTls(roots, credentials or PKI.server(), clock, revocations)
    listener = await listen(Echo, "127.0.0.1", 0, side, **options)  # type: ignore[arg-type]
    Echo.seen.clear()
    try:
        yield listener, side, clock
    finally:
        listener.abort()
        await settle()


async def drained(listener: Listener, count: int = 0) -> None:
    """Until no more than `count` connections are open."""
    async with asyncio.timeout(10):
        while len(listener) > count:  # noqa: ASYNC110 - the listener has no event for this
            await asyncio.sleep(0)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def dial(
    listener: Listener,
    credentials: Credentials | None = None,
    *,
    roots: tuple[bytes, ...] = PKI.roots,
    expected: Expected = AN_HQ,
    now: float = NOW,
    revocations: RevocationList | None = None,
) -> Secured:
    side = ClientTls(roots, credentials, ManualClock(wall_s=now), revocations)
    return await connect(Client, f"127.0.0.1:{listener.port}", side, expected=expected)


def client_of(layer: Secured) -> Client:
    assert isinstance(layer.inner, Client)
    return layer.inner


async def greeting(layer: Secured) -> str:
    return (await client_of(layer).until(1)).decode().strip()


async def ending(layer: Secured) -> Exception | None:
    async with asyncio.timeout(10):
        return await client_of(layer).lost


def revoking(*entries: Revoked) -> RevocationList:
    revocations = RevocationList(NETWORK)
    revocations.fold(Revocations(NETWORK, Version(0, 1), 1, entries))
    return revocations


def test_a_node_is_named_on_both_sides() -> None:
    async def main() -> None:
        async with serving() as (listener, _, _):
            layer = await dial(listener, PKI.leaf())
            assert await greeting(layer) == "relay 6e6e"
            assert layer.peer is not None
            assert (layer.peer.name.role, layer.peer.name.node) == ("hq", PKI.hq.node)
            assert layer.peer.dns == f"hq.{DOMAIN}"
            assert [peer.name.role for peer in listener.peers()] == ["relay"]

    asyncio.run(main())


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


def test_no_client_certificate_is_nobody_not_an_error() -> None:
    """Joining has no certificate yet (D8)."""

    async def main() -> None:
        async with serving() as (listener, _, _):
            layer = await dial(listener)
            assert await greeting(layer) == "nobody"
            assert listener.peers() == []
            assert len(listener) == 1

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


async def refused_by_server(listener: Listener, credentials: Credentials) -> None:
    """The client's handshake may end first; the service never hears of the connection."""
    fault: Exception | None
    try:
        layer = await dial(listener, credentials)
    except PeerFault as early:
        fault = early
    else:
        fault = await ending(layer)
        assert not client_of(layer).received
    assert isinstance(fault, PeerFault)
    assert fault.code == "refused"
    await settle()
    assert Echo.seen == []
    assert listener.peers() == []


def test_a_certificate_of_another_network_is_refused() -> None:
    async def main() -> None:
        other = Pki(b"o", network=b"o" * 16)
        foreign_root_same_network = Pki(b"x")
        async with serving() as (listener, _, _):
            await refused_by_server(listener, other.leaf())
            await refused_by_server(listener, foreign_root_same_network.leaf())

    asyncio.run(main())


def test_a_leaf_with_a_stranger_s_intermediate_is_refused() -> None:
    async def main() -> None:
        mine = PKI.leaf()
        swapped = Credentials((mine.chain[0], Pki(b"x").leaf().chain[1]), mine.key)
        alone = Credentials(mine.chain[:1], mine.key)
        async with serving() as (listener, _, _):
            await refused_by_server(listener, swapped)
            await refused_by_server(listener, alone)

    asyncio.run(main())


def test_expired_and_not_yet_valid_by_our_own_clock() -> None:
    """D30: the product's wall clock decides, not the system's (this test lives in 2027)."""

    async def main() -> None:
        async with serving() as (listener, _, clock):
            layer = await dial(listener, PKI.leaf())
            assert await greeting(layer) == "relay 6e6e"
            layer.abort()
            await settle()
            Echo.seen.clear()
            await refused_by_server(listener, PKI.leaf(now=NOW - 100 * DAY_S, days=99))
            await refused_by_server(listener, PKI.leaf(now=NOW + 2 * 3600))
            clock.step_wall(91 * DAY_S)
            await refused_by_server(listener, PKI.leaf())

    asyncio.run(main())


def test_a_client_whose_clock_is_wrong_refuses_the_server() -> None:
    async def main() -> None:
        async with serving() as (listener, _, _):
            for now in (NOW - 2 * 3600, NOW + 91 * DAY_S):
                with pytest.raises(PeerFault) as caught:
                    await dial(listener, now=now)
                assert caught.value.code == "certificate"
            assert await greeting(await dial(listener, now=NOW - 1800)) == "nobody"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("expected", "good"),
    [
        (Expected(), True),
        (Expected(roles=("hq",), node=PKI.hq.node, dns=f"hq.{DOMAIN}"), True),
        (Expected(roles=("relay", "replica")), False),
        (Expected(node=b"n" * 32), False),
        (Expected(dns=f"relay-eu-001.{DOMAIN}"), False),
    ],
)
def test_a_server_in_another_role_or_by_another_name_is_refused(
    expected: Expected, good: bool
) -> None:
    """A relay with a good certificate cannot stand in for HQ, nor one node for another (D1)."""

    async def main() -> None:
        async with serving() as (listener, _, _):
            if good:
                assert await greeting(await dial(listener, expected=expected)) == "nobody"
                return
            with pytest.raises(PeerFault) as caught:
                await dial(listener, PKI.leaf(), expected=expected)
            assert caught.value.code == "certificate"
            await settle()
            assert Echo.seen == [], "the server learns of the refusal by an alert"

    asyncio.run(main())


def test_a_server_of_another_network_is_refused_by_the_client() -> None:
    async def main() -> None:
        async with serving(Pki(b"x").server(), roots=Pki(b"x").roots) as (listener, _, _):
            with pytest.raises(PeerFault) as caught:
                await dial(listener)
            assert caught.value.code == "certificate"

    asyncio.run(main())


def test_unverified_believes_anyone_and_shows_no_peer() -> None:
    async def main() -> None:
        async with serving(Pki(b"x").server(), roots=Pki(b"x").roots) as (listener, _, _):
            side = UnverifiedTls(ManualClock(wall_s=NOW))
            layer = await connect(Client, f"127.0.0.1:{listener.port}", side)
            assert layer.peer is None
            assert await greeting(layer) == "nobody"

    asyncio.run(main())


@pytest.mark.parametrize("by", ["serial", "key", "node", "intermediate serial", "intermediate key"])
def test_a_revoked_certificate_is_refused(by: str) -> None:
    async def main() -> None:
        stolen = PKI.leaf()
        info, above = (cert_info(der) for der in stolen.chain)
        entry = {
            "serial": Revoked(b"", info.serial, b"", "stolen", 1),
            "key": Revoked(b"", "", info.key_hash, "stolen", 1),
            "node": Revoked(b"n" * 32, "", b"", "stolen", 1),
            "intermediate serial": Revoked(b"", above.serial, b"", "stolen", 1),
            "intermediate key": Revoked(b"", "", above.key_hash, "stolen", 1),
        }[by]
        async with serving(revocations=revoking(entry)) as (listener, _, _):
            await refused_by_server(listener, stolen)
            if not by.startswith("intermediate"):
                layer = await dial(listener, PKI.leaf(node=b"m" * 32))
                assert await greeting(layer) == "relay 6d6d", "others stay"

    asyncio.run(main())


def test_a_client_refuses_a_revoked_server() -> None:
    async def main() -> None:
        server = PKI.server()
        entry = Revoked(b"", cert_info(server.chain[0]).serial, b"", "stolen", 1)
        async with serving(server) as (listener, _, _):
            with pytest.raises(PeerFault) as caught:
                await dial(listener, revocations=revoking(entry))
            assert caught.value.code == "revoked"

    asyncio.run(main())


def test_a_fresh_revocation_cuts_the_live_connection() -> None:
    """ztunnel's CRL leaves pooled connections alive (its issue 1660); ours are cut at once."""

    async def main() -> None:
        revocations = RevocationList(NETWORK)
        async with serving(revocations=revocations) as (listener, _, _):
            stolen, honest = PKI.leaf(), PKI.leaf(node=b"m" * 32)
            first, second, third = [await dial(listener, item) for item in (stolen, honest, None)]
            for layer in (first, second, third):
                await greeting(layer)
            entry = Revoked(b"", cert_info(stolen.chain[0]).serial, b"", "stolen", 1)
            fresh = revocations.fold(Revocations(NETWORK, Version(0, 1), 1, (entry,)))
            assert listener.cut_revoked(fresh) == 1
            assert isinstance(await ending(first), OperationFault)
            for layer in (second, third):
                assert layer.transport is not None
                layer.transport.write(b"still here")
                await client_of(layer).until_says(b"still here")
            faults = [item.fault for item in Echo.seen if item.fault is not None]
            assert [fault.code for fault in faults if isinstance(fault, PeerFault)] == ["revoked"]
            Echo.seen.clear()
            assert listener.cut_revoked([]) == 0

    asyncio.run(main())


def test_a_compromised_intermediate_is_taken_out_and_replaced() -> None:
    """The procedure: the offline root signs a new intermediate, one entry names the old one's key,
    its leaves are cut and refused, nodes that renewed under the new one go on."""

    async def main() -> None:
        revocations = RevocationList(NETWORK)
        async with serving(revocations=revocations) as (listener, side, _):
            old = await dial(listener, PKI.leaf())
            await greeting(old)
            successor = PKI.new_intermediate(b"j")
            side.reload(PKI.leaf("hq", PKI.hq.node, ca=successor, dns=f"hq.{DOMAIN}"))
            renewed = await dial(listener, PKI.leaf(node=b"m" * 32, ca=successor))
            await greeting(renewed)
            key_hash = cert_info(PKI.intermediate.certificate).key_hash
            entry = Revoked(b"", "", key_hash, "intermediate stolen", 1)
            fresh = revocations.fold(Revocations(NETWORK, Version(0, 1), 1, (entry,)))
            assert listener.cut_revoked(fresh) == 1
            await ending(old)
            assert [peer.name.node for peer in listener.peers()] == [b"m" * 32]
            await settle()
            renewed.abort()
            await settle()
            Echo.seen.clear()
            await refused_by_server(listener, PKI.leaf())
            again = await dial(listener, PKI.leaf(ca=successor), revocations=revocations)
            assert await greeting(again) == "relay 6e6e"

    asyncio.run(main())


def test_a_revocation_between_certificate_and_last_flight_still_counts() -> None:
    async def main() -> None:
        revocations = RevocationList(NETWORK)
        stolen = PKI.leaf()
        entry = Revoked(b"", cert_info(stolen.chain[0]).serial, b"", "stolen", 1)

        class Late(ServerTls):
            judging = False

            def judge(self, chain: tuple[bytes, ...]) -> Peer:
                self.judging = True
                peer = super().judge(chain)
                self.judging = False
                return peer

            def admit(self, peer: Peer | None) -> None:
                if not self.judging:
                    revocations.fold(Revocations(NETWORK, Version(0, 1), 1, (entry,)))
                super().admit(peer)

        side = Late(PKI.roots, PKI.server(), ManualClock(wall_s=NOW), revocations)
        listener = await listen(Echo, "127.0.0.1", 0, side)
        Echo.seen.clear()
        layer = await dial(listener, stolen)
        assert isinstance(await ending(layer), OperationFault)
        assert Echo.seen == []
        listener.abort()
        await settle()

    asyncio.run(main())


def test_new_connections_get_the_new_certificate_while_old_ones_live_on() -> None:
    """Renewal with a new key while serving (D6)."""

    async def main() -> None:
        async with serving() as (listener, side, _):
            before = await dial(listener)
            await greeting(before)
            side.reload(PKI.server())
            after = await dial(listener)
            assert await greeting(after) == "nobody"
            assert before.peer is not None
            assert after.peer is not None
            assert before.peer.serial != after.peer.serial
            assert before.peer.certificates[0].key_hash != after.peer.certificates[0].key_hash
            assert before.transport is not None
            before.transport.write(b"still here")
            await client_of(before).until_says(b"still here")

    asyncio.run(main())


def test_root_rollover_with_a_set_of_two() -> None:
    """Old and new root are pinned together, nodes move over, then the old one is dropped."""

    async def main() -> None:
        second = Pki(b"2")
        both = PKI.roots + second.roots
        async with serving(roots=both) as (listener, side, _):
            for item in (PKI.leaf(), second.leaf()):
                layer = await dial(listener, item, roots=both)
                assert await greeting(layer) == "relay 6e6e"
                layer.abort()
            side.reload(second.server())
            layer = await dial(listener, PKI.leaf(), roots=both)
            assert await greeting(layer) == "relay 6e6e"
            with pytest.raises(PeerFault):
                await dial(listener, PKI.leaf())
            side.reload(second.server(), second.roots)
            await settle()
            layer.abort()
            await settle()
            Echo.seen.clear()
            layer = await dial(listener, PKI.leaf(), roots=both)
            assert isinstance(await ending(layer), PeerFault)
            assert Echo.seen == []
            layer = await dial(listener, second.leaf(), roots=second.roots)
            assert await greeting(layer) == "relay 6e6e"

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
