"""Joining over real TLS (D6, D8): the good way, every bad way, races, replays, renewals."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.hq.headquarters import (
    ENTROPY,
    NETWORK,
    Node,
    Operator,
    make_home,
    make_root,
    run,
    serving,
)

from holdfast.crypto.certificates import TlsKey, cert_info, make_csr, verify_chain
from holdfast.crypto.pure import base32
from holdfast.errors import HoldfastError, PeerFault, UsageError
from holdfast.hq.admin import AuditPage, CertificateItems, TokenItems
from holdfast.hq.audit import verify_audit
from holdfast.hq.main import Headquarters
from holdfast.logic.fleet.model import Role
from holdfast.logic.fleet.rows import NodeState, node_key
from holdfast.logic.trust.merkle import verify_path
from holdfast.wire.token import JoinToken


def node_of(hq: Headquarters) -> Node:
    return Node(hq.parts.api_addresses, hq.parts.authority.roots)


async def audit_lines(operator: Operator, verb: str) -> list[Any]:
    page: AuditPage = await operator.call("GET", "/audit", None, AuditPage)
    return [line for line in page.lines if line.verb == verb]


async def certificates(operator: Operator) -> CertificateItems:
    found: CertificateItems = await operator.call("GET", "/certificates", None, CertificateItems)
    return found


def test_a_node_joins(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        token = await operator.token(owner="ada")
        node = node_of(hq)
        reply = await node.join(token)
        assert (reply.name, reply.role, reply.owner) == ("relay-eu-001", Role.RELAY, "ada")
        assert reply.provider == "claimed", "the token says nothing of the provider"
        now = hq.clock.wall()
        name = verify_chain(node.roots, reply.chain, now)
        assert (name.network, name.role, name.node) == (NETWORK, "relay", node.identity.node)
        info = cert_info(reply.chain[0])
        assert info.dns == "relay-eu-001.hold.example"
        assert 89 < (info.not_after - now) / 86_400 <= 90
        client = node.client()
        desired = await node.desired(client)
        assert (desired.name, desired.retired) == ("relay-eu-001", False)
        await client.close()
        (row,) = (await certificates(operator)).items
        assert (row.serial, row.node) == (info.serial, base32(node.identity.node))
        tree = hq.parts.log.tree
        leaves = (await hq.parts.store.range("/log/")).items
        (index,) = [i for i, kv in enumerate(leaves) if reply.chain[0] in kv.value]
        path = tree.path(index)
        assert verify_path(tree.root(), len(tree), index, leaves[index].value, path)
        (line,) = await audit_lines(operator, "join.issued")
        assert line.detail["node"] == base32(node.identity.node)
        assert (await operator.token()).name == "relay-eu-002", "names are not given twice"

    run(scenario, tmp_path)


BAD_SPKI = make_csr(TlsKey.from_bytes(b"x" * 32))
REFUSALS: list[tuple[str, dict[str, Any]]] = [
    ("token", {"secret": b"z" * 32}),
    ("malformed", {"secret": b"short"}),
    ("malformed", {"csr": b"no request"}),
    ("malformed", {"csr": b""}),
    ("signature", {"csr": BAD_SPKI}),
    ("signature", {"identity": b"i" * 32}),
    ("signature", {"identity": b"short"}),
    ("signature", {"identity_signature": bytes(64)}),
    ("signature", {"identity_signature": b""}),
    ("network", {"network": b"n" * 16}),
    ("role", {"role": Role.REPLICA}),
    ("malformed", {"addresses": ("example.com:1",)}),
    ("malformed", {"addresses": ("0.0.0.0:7443",)}),
    ("malformed", {"addresses": ("127.0.0.1",)}),
    ("malformed", {"addresses": tuple(f"127.0.0.{n}:1" for n in range(9))}),
]


def test_every_refusal_leaves_the_token_good(tmp_path: Path) -> None:
    """Nothing before issue burns the token (Sigil Gate consumed it first, SPIRE #2454)."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        token = await operator.token()
        node = node_of(hq)
        for code, changes in REFUSALS:
            with pytest.raises(PeerFault) as caught:
                await node.join(token, **changes)
            assert caught.value.code == code, changes
        other = node_of(hq)
        with pytest.raises(PeerFault) as caught:  # signed for another network
            await other.join(token, identity_signature=other.proof(other.key, b"n" * 16))
        assert caught.value.code == "signature"
        assert (await certificates(operator)).items == ()
        assert (await node.join(token)).name == "relay-eu-001"
        assert len((await certificates(operator)).items) == 1

    run(scenario, tmp_path)


def test_expired_revoked_and_foreign_tokens(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        node = node_of(hq)
        expired = await operator.token(life_s=0.01)
        revoked = await operator.token()
        items: TokenItems = await operator.call("GET", "/tokens", None, TokenItems)
        (item,) = [item for item in items.items if item.name == revoked.name]
        await operator.call("DELETE", f"/tokens/{item.hash}", None, msgspec.Raw)
        for token, code in [(expired, "token-expired"), (revoked, "token")]:
            with pytest.raises(PeerFault) as caught:
                await node.join(token)
            assert caught.value.code == code
        with pytest.raises(UsageError):
            await operator.token(life_s=25 * 3600)
        with pytest.raises(UsageError):
            await operator.token(role=Role.HQ)
        stored = (await hq.parts.store.range("/")).items
        assert not any(token.secret in kv.value for token in (expired, revoked) for kv in stored)

    run(scenario, tmp_path)


def test_a_member_another_key_and_a_borrowed_key_are_refused(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        first, second = await operator.token(), await operator.token()
        node = node_of(hq)
        await node.join(first)
        node.key = TlsKey.from_bytes(ENTROPY.bytes(32))
        for token, code in [(first, "token-used"), (second, "member")]:
            with pytest.raises(PeerFault) as caught:
                await node.join(token)
            assert caught.value.code == code
        thief, victim = node_of(hq), node_of(hq)
        await victim.join(second)
        thief.key = victim.key
        third = await operator.token()
        with pytest.raises(PeerFault) as caught:
            await thief.join(third)
        assert caught.value.code == "key"

    run(scenario, tmp_path)


def test_fifty_race_for_one_token(tmp_path: Path) -> None:
    """Exactly one certificate; every loser is in the audit log by name (TS-2025-007)."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        token = await operator.token()
        nodes = [node_of(hq) for _ in range(50)]
        outcomes = await asyncio.gather(*(n.join(token) for n in nodes), return_exceptions=True)
        winners = [n for n, o in zip(nodes, outcomes, strict=True) if not isinstance(o, Exception)]
        codes = [o.code for o in outcomes if isinstance(o, PeerFault)]
        assert (len(winners), codes) == (1, ["token-used"] * 49)
        assert len((await certificates(operator)).items) == 1
        winner = base32(winners[0].identity.node)
        refused = await audit_lines(operator, "join.refused")
        assert {line.detail["used_by"] for line in refused} == {winner}
        losers = {base32(n.identity.node) for n in nodes} - {winner}
        assert sorted(line.detail["node"] for line in refused) == sorted(losers)
        head, breaks = await verify_audit(hq.parts.store)
        assert (head.sequence > 50, breaks) == (True, [])

    run(scenario, tmp_path)


def test_a_lost_reply_is_given_again(tmp_path: Path) -> None:
    """Same identity, same TLS key: the identical chain, no second certificate (D8)."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        token = await operator.token()
        node = node_of(hq)
        first = await node.join(token)
        again = await asyncio.gather(*(node.join(token) for _ in range(10)))
        assert all(reply == first for reply in again)
        assert len((await certificates(operator)).items) == 1
        assert len(await audit_lines(operator, "join.replayed")) == 10
        await operator.revoke(node.identity.node)
        with pytest.raises(PeerFault) as caught:
            await node.join(token)
        assert caught.value.code == "revoked"

    run(scenario, tmp_path)


def test_many_join_at_once(tmp_path: Path) -> None:
    """A hundred nodes, a hundred tokens: no double spend, no name twice, one log."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        tokens = [await operator.token(role=Role.REPLICA) for _ in range(100)]
        nodes = [node_of(hq) for _ in tokens]
        lanes = asyncio.Semaphore(25)

        async def join(node: Node, token: JoinToken) -> None:
            async with lanes:
                await node.join(token)

        await asyncio.gather(*(join(n, t) for n, t in zip(nodes, tokens, strict=True)))
        names = {n.reply.name for n in nodes if n.reply is not None}
        assert len(names) == 100
        assert len({item.serial for item in (await certificates(operator)).items}) == 100
        known = hq.parts.witnesses.current
        sets = known.version.n if known else 0
        leaves = len(hq.parts.log.tree)
        assert leaves == 102 + sets, "theirs, our own, the empty revocation list, witness sets"

    run(scenario, tmp_path)


def test_renewal_with_a_new_key_while_serving(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        node = node_of(hq)
        first = await node.join(await operator.token())
        client = node.client()
        before = await node.desired(client)
        waiting = asyncio.create_task(node.desired(client, before.version))
        key = TlsKey.from_bytes(ENTROPY.bytes(32))
        renewed = await node.renew(client, key)
        assert renewed.chain[0] != first.chain[0]
        assert cert_info(renewed.chain[0]).spki == key.spki()
        assert (renewed.node, renewed.name) == (first.node, first.name)
        assert await node.renew(client, key) == renewed, "a lost reply is given again"
        with pytest.raises(PeerFault) as caught:
            await node.renew(client, node.key)
        assert caught.value.code == "key", "an old key gets no second certificate"
        stranger = node_of(hq)
        with pytest.raises(PeerFault) as caught:
            await stranger.renew(client, TlsKey.from_bytes(ENTROPY.bytes(32)))
        assert caught.value.code == "signature", "the identity is another's"
        node.key, node.reply = key, renewed
        fresh = node.client()
        assert (await node.desired(fresh)).name == first.name
        assert len((await certificates(operator)).items) == 2
        kv = await hq.parts.store.get(node_key(first.node))
        assert kv is not None
        assert cert_info(renewed.chain[0]).serial.encode() in kv.value
        assert (await node.desired(client)).name == first.name, "the old connection lives on"
        waiting.cancel()
        (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
        assert not isinstance(outcome, HoldfastError)
        await client.close()
        await fresh.close()

    run(scenario, tmp_path)


def test_revocation_cuts_what_is_open(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        bad, good = node_of(hq), node_of(hq)
        await bad.join(await operator.token())
        await good.join(await operator.token())
        polls = []
        for node in (bad, good):
            client = node.client()
            version = (await node.desired(client)).version
            polls.append(asyncio.create_task(node.desired(client, version)))
        revoked_before = hq.parts.revocations.entries.version
        await operator.revoke(bad.identity.node)
        with pytest.raises(HoldfastError):
            await polls[0]
        told = await polls[1]
        assert told.revocations is not None
        assert hq.parts.revocations.entries.version > revoked_before
        with pytest.raises(HoldfastError):
            await bad.desired(bad.client())
        assert (await good.desired(good.client())).retired is False
        row = await hq.parts.desired.find(bad.identity.node)
        assert row is not None
        assert row.state is NodeState.REVOKED
        with pytest.raises(UsageError):
            await operator.revoke(b"u" * 32)

    run(scenario, tmp_path)


def test_restart_keeps_everything(tmp_path: Path) -> None:
    async def main() -> None:
        home = make_home(tmp_path / "hq", make_root())
        async with asyncio.timeout(60), serving(home) as hq:
            operator = Operator(home)
            node, unused = node_of(hq), await operator.token()
            used = await operator.token()
            await node.join(used)
            client = node.client()
            version = (await node.desired(client)).version
            await hq.leading()
            before = (await operator.call("GET", "/audit", None, AuditPage)).sequence
            size, root = len(hq.parts.log.tree), hq.parts.log.tree.root()
            term = hq.parts.desired.term
        async with asyncio.timeout(60), serving(home) as hq:
            await hq.leading()
            operator = Operator(home)
            assert hq.parts.desired.term == term + 1
            desired = await node.desired(client)
            assert node.reply is not None
            assert desired.name == node.reply.name
            assert desired.version >= version
            assert (await node.join(used)) == node.reply
            assert (await node_of(hq).join(unused)).name == unused.name
            assert hq.parts.log.tree.root(size) == root
            page: AuditPage = await operator.call("GET", "/audit", None, AuditPage)
            assert page.sequence > before
            assert (await verify_audit(hq.parts.store))[1] == []
            await client.close()

    asyncio.run(main())
