"""Requests over real TLS on loopback: who is asking, what breaks, what a hostile client costs."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from tests.rim.https_service import OTHER, PKI, Note, Seen, running
from tests.rim.pki import NETWORK, NOW

from holdfast.crypto.certificates import cert_info, fingerprint
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.logic.fleet.model import Version
from holdfast.logic.trust.revocation import RevocationList, Revocations, Revoked
from holdfast.rim import https, https_client
from holdfast.rim.clock import ManualClock
from holdfast.rim.https import (
    HttpsServer,
    JsonClient,
    fetch_pinned_roots,
    fetch_unverified_root,
)
from holdfast.rim.tls import ServerTls


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
