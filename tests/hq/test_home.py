"""Keys and ceremonies: the request to the root, the next intermediate, a stolen one, a second root
(D6)."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.hq.headquarters import (
    DOMAIN,
    ENTROPY,
    NETWORK,
    Node,
    Operator,
    make_home,
    make_root,
    serving,
    sign_request,
)

from holdfast.crypto.certificates import (
    Authority,
    cert_info,
    create_root,
    sign_intermediate,
    verify_chain,
)
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.rootset import link_roots
from holdfast.errors import HoldfastError, PeerFault, UsageError
from holdfast.hq.admin import RevokeOrder
from holdfast.hq.config import HqConfig, load_config, save_config
from holdfast.hq.home import HqHome
from holdfast.hq.main import Headquarters
from holdfast.logic.trust.revocation import RevocationList, Revocations
from holdfast.rim.clock import SystemClock
from holdfast.rim.cloud.account import Account
from holdfast.rim.control.store import Put
from holdfast.rim.https import JsonClient
from holdfast.wire.ceremony import check_request, make_request, parse_request
from holdfast.wire.hq import RootReply, StapleReply
from holdfast.wire.signed import Type
from holdfast.wire.staple import verify_staple

NOW = SystemClock().wall()


def config(**changes: Any) -> HqConfig:
    return msgspec.structs.replace(HqConfig(domain=DOMAIN, regions=("eu",)), **changes)


def test_secrets_stay_and_are_private(tmp_path: Path) -> None:
    """The network root's key is never on HQ's disk; what is there is readable by its owner."""
    root = make_root()
    home = make_home(tmp_path / "hq", root)
    files = [path for path in home.directory.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert root.key.pem() not in path.read_bytes()
        public = path.suffix == ".pem" or path.name == "request.txt"
        if not public:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    request = (home.directory / "request.txt").read_text()
    assert home.identity().seed.hex() not in parse_request(request.strip()).csr.hex()


def test_init_refuses(tmp_path: Path) -> None:
    root = make_root()
    other = create_root(b"o" * 32, b"o" * 16, DOMAIN, NOW)
    home = make_home(tmp_path / "hq", root)
    with pytest.raises(UsageError, match="already"):
        home.init(config(), [root.certificate], ENTROPY)
    for roots, domain in [
        ([], DOMAIN),
        ([b"no certificate"], DOMAIN),
        ([root.certificate, other.certificate], DOMAIN),
        ([root.certificate], "other.example"),
        ([home.keys(NOW).intermediate.certificate], DOMAIN),
    ]:
        with pytest.raises(UsageError):
            HqHome(tmp_path / "new").init(config(domain=domain), roots, ENTROPY)
    with pytest.raises(UsageError, match="hq init"):
        HqHome(tmp_path / "none").config()
    with pytest.raises(UsageError, match="hq init"):
        HqHome(tmp_path / "none").roots()
    with pytest.raises(UsageError, match="hq serve"):
        home.admin()


def test_only_our_own_certificate_is_installed(tmp_path: Path) -> None:
    root = make_root()
    home = HqHome(tmp_path / "hq")
    line = home.init(config(), [root.certificate], ENTROPY)
    with pytest.raises(UsageError, match="issue-intermediate"):
        home.keys(NOW)
    request = parse_request(line)
    spki = check_request(request, NETWORK)
    good = {"spki": spki, "network": NETWORK, "identity_public": request.identity, "now": NOW}
    evil = create_root(b"e" * 32, NETWORK, DOMAIN, NOW)
    stranger = SigningKey(b"s" * 32).public
    for signer, changes in [
        (evil, {}),
        (root, {"identity_public": stranger}),
        (root, {"spki": evil.key.spki()}),
        (root, {"now": NOW - 600 * 86_400}),
    ]:
        certificate = sign_intermediate(signer, **(good | changes))  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            home.install(certificate, NOW)
    home.install(sign_intermediate(root, **good), NOW)  # type: ignore[arg-type]
    assert home.keys(NOW).identity.public == request.identity
    with pytest.raises(UsageError, match="hq request"):
        home.install(sign_intermediate(root, **good), NOW)  # type: ignore[arg-type]


def test_requests_prove_both_keys(tmp_path: Path) -> None:
    home = HqHome(tmp_path / "hq")
    request = parse_request(home.init(config(), [make_root().certificate], ENTROPY))
    other = SigningKey(b"o" * 32)
    for changed, code in [
        (msgspec.structs.replace(request, identity=other.public), "signature"),
        (msgspec.structs.replace(request, identity_signature=bytes(64)), "signature"),
        (msgspec.structs.replace(request, network=bytes(16)), "network"),
        (msgspec.structs.replace(request, csr=b"x"), "malformed"),
    ]:
        with pytest.raises(PeerFault) as caught:
            check_request(parse_request(str(changed)), NETWORK)
        assert caught.value.code == code
    again = make_request(NETWORK, home.identity(), request.csr)
    assert check_request(again, NETWORK) == check_request(request, NETWORK)
    assert home.request(ENTROPY) == str(request), "asking again asks for the same key"


def test_the_next_intermediate_and_the_end_of_a_stolen_one(tmp_path: Path) -> None:
    """Rollover while serving; then the old intermediate is revoked: its leaves are out, statements
    of the same headquarters under the new one are believed, the node joins anew."""

    async def main() -> None:
        root = make_root()
        home = make_home(tmp_path / "hq", root)
        old = home.keys(NOW).intermediate.certificate
        async with asyncio.timeout(60), serving(home) as hq:
            await hq.leading()
            node = Node(hq.parts.api_addresses, hq.parts.authority.roots)
            await node.join(await Operator(home).token())
            sign_request(home, root, home.request(ENTROPY))
        async with asyncio.timeout(60), serving(home) as hq:
            await hq.leading()
            operator = Operator(home)
            new = hq.parts.authority.intermediate
            assert new != old
            client = node.client()
            assert (await node.desired(client)).name == "relay-eu-001", "the old leaf is good"
            await client.close()
            late = Node(node.hq, node.roots)
            assert (await late.join(await operator.token())).chain[1] == new
            serial = cert_info(old).serial
            order = RevokeOrder(reason="the disk was copied", serial=serial)
            await operator.call("POST", "/revoke", order, msgspec.Raw)
            while not len(hq.parts.revocations.entries):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            with pytest.raises(HoldfastError):
                await node.desired(node.client())
            open_client = JsonClient(node.hq, node.roots, None, SystemClock())
            reply = await open_client.call("GET", "/v1/revocations", None, StapleReply)
            await open_client.close()
            known = RevocationList(NETWORK)
            now = hq.clock.wall()
            checked = verify_staple(node.roots, reply.staple, Type.REVOCATIONS, Revocations, now)
            known.fold(checked)
            verify_staple(
                node.roots, reply.staple, Type.REVOCATIONS, Revocations, now, revocations=known
            )
            fresh = Node(node.hq, node.roots)
            await fresh.join(await operator.token())
            assert (await fresh.desired(fresh.client())).name == "relay-eu-003"
            order = RevokeOrder(reason="typo", serial="12345")
            with pytest.raises(UsageError):
                await operator.call("POST", "/revoke", order, msgspec.Raw)

    asyncio.run(main())


def test_a_second_root(tmp_path: Path) -> None:
    """HQ hands out both roots and the link; tokens pin both; an intermediate of either will do."""

    async def main() -> None:
        first = make_root()
        second = create_root(b"2" * 32, NETWORK, DOMAIN, NOW)
        home = make_home(tmp_path / "hq", first)
        link = link_roots(Authority(first.certificate, first.key), second.certificate, NOW)
        home.add_root(second.certificate)
        home.add_root(link)
        home.add_root(link)
        assert len(home.roots()) == 3
        sign_request(home, second, home.request(ENTROPY))
        async with asyncio.timeout(60), serving(home) as hq:
            await hq.leading()
            token = await Operator(home).token()
            assert len(token.roots) == 2, "roots, not links"
            node = Node(hq.parts.api_addresses, [first.certificate, second.certificate])
            reply = await node.join(token)
            assert verify_chain([second.certificate], reply.chain, hq.clock.wall())
            client = JsonClient(node.hq, node.roots, None, SystemClock())
            offered = await client.call("GET", "/v1/root", None, RootReply)
            assert set(offered.roots) == {first.certificate, second.certificate, link}
            await client.close()

    asyncio.run(main())


def test_our_own_certificate_is_renewed_while_serving(tmp_path: Path) -> None:
    async def main() -> None:
        home = make_home(tmp_path / "hq", make_root())
        async with asyncio.timeout(60), serving(home) as hq:
            await hq.leading()

            async def serial() -> str:
                client = JsonClient(
                    hq.parts.api_addresses, hq.parts.authority.roots, None, SystemClock()
                )
                await client.call("GET", "/v1/root", None, RootReply)
                (connections,) = client._idle.values()
                peer = connections[0].layer.peer
                assert peer is not None
                await client.close()
                return cert_info(peer.chain[0]).serial

            before = await serial()
            await hq.chores()
            assert await serial() == before
            hq._own_since -= 31 * 86_400
            hq.parts.revocations.entries.issued_at -= 2 * 86_400
            version = hq.parts.revocations.entries.version
            await hq.chores()
            assert await serial() != before
            while hq.parts.revocations.entries.version == version:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_a_failed_part_stops_headquarters(tmp_path: Path) -> None:
    """Half a headquarters is worse than none: it ends, and is started again whole."""

    async def main() -> None:
        home = make_home(tmp_path / "hq", make_root())
        hq = Headquarters(home, SystemClock(), ENTROPY)
        await hq.start()
        running = asyncio.create_task(hq.run())
        await hq.leading()
        await hq.parts.store.txn([], [Put("/fleet/nodes/damaged", b"\xc1")])
        with pytest.raises(msgspec.DecodeError):
            await asyncio.wait_for(running, 20)
        await hq.stop()

    asyncio.run(main())


def test_configurations_that_cannot_work(tmp_path: Path) -> None:
    provider = Account("alder", "127.0.0.1:1", "key", ("eu",))
    for changes in [
        {"dns_ttl_s": 61},
        {"dns_ttl_s": 0},
        {"time_scale": 0.0},
        {"listen": "127.0.0.1:0"},
        {"listen": "nonsense"},
        {"dns_listen": "127.0.0.1"},
        {"providers": (provider, provider)},
        {"providers": (provider,), "regions": ("eu", "ap")},
    ]:
        with pytest.raises(UsageError):
            config(**changes).check()
    save_config(tmp_path, config(providers=(provider,)))
    assert load_config(tmp_path) == config(providers=(provider,))
    path = tmp_path / "hq.json"
    path.write_text(path.read_text().replace("domain", "domian"))
    with pytest.raises(UsageError, match=r"hq\.json"):
        load_config(tmp_path)
