"""Real handshakes on loopback: who gets in, who does not, and who is thrown out (D6).

Seed 004 §11.1: the threat model has hostile relays, hostile clients and a hostile network.
"""

from __future__ import annotations

import asyncio

import pytest
from tests.rim.pki import DOMAIN, NETWORK, NOW, Pki
from tests.rim.tls_echo import (
    DAY_S,
    PKI,
    Client,
    Echo,
    client_of,
    dial,
    ending,
    greeting,
    refused_by_server,
    revoking,
    serving,
    settle,
)

from holdfast.crypto.certificates import cert_info
from holdfast.errors import OperationFault, PeerFault
from holdfast.logic.fleet.model import Version
from holdfast.logic.trust.revocation import RevocationList, Revocations, Revoked
from holdfast.rim.clock import ManualClock
from holdfast.rim.tls import (
    Credentials,
    Expected,
    Peer,
    ServerTls,
    UnverifiedTls,
    connect,
    listen,
)


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


def test_no_client_certificate_is_nobody_not_an_error() -> None:
    """Joining has no certificate yet (D8)."""

    async def main() -> None:
        async with serving() as (listener, _, _):
            layer = await dial(listener)
            assert await greeting(layer) == "nobody"
            assert listener.peers() == []
            assert len(listener) == 1

    asyncio.run(main())


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
